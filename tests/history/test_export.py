#!/usr/bin/python3
"""`zonectl history export`: ftrace's text, which `zonectl import` plays again on a machine
that then gives the same frames, and CSV, which any reader of RFC 4180 reads back.

    test_export.py ZONED ZONED_BINPB ZONECTL [unittest arguments]

SEED=N repeats a run.
"""
import csv
import os
import random
import re
import sqlite3
import subprocess
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "rpc"))
from zoned_client import Contract, DaemonCase  # noqa: E402

MIB = 1 << 20
GFPS = (0xcc0, 0x100cc2, 0x100cca, 0xa20, 0x400dc0, 0x1)
OWNER = 'it, "quoted"\nand on a second line'
LINE = re.compile(r" *(task|kernel)-(\d+) \[(\d{3})\] \.{5} +(\d+)\.(\d{6}): (mm_page_\w+): (.*)")


class Export(DaemonCase):
    def setUp(self):
        self.begin(PROGRAM, CONTRACT)
        self.client.create("m0", ram=64 * MIB, cpus=2)
        self.live(random.Random(SEED))

    def live(self, rng):
        """Blocks that come and go on both CPUs, until one is not to be had."""
        blocks = []
        for _ in range(400):
            cpu = rng.randrange(2)
            if blocks and rng.random() < 0.45:
                pfn, order = blocks.pop(rng.randrange(len(blocks)))
                self.client.op("m0", "FreePages", {"pfn": pfn, "order": order}, cpu=cpu)
                continue
            order = rng.choice((0, 0, 0, 1, 2, 5))
            r = self.client.op("m0", "AllocPages", {"gfp": rng.choice(GFPS), "order": order},
                               cpu=cpu, owner=OWNER)
            if r.outcome.status == 0:
                blocks.append((r.pfn, order))
        while self.client.op("m0", "AllocPages", {"gfp": 0xcc0, "order": 10}).outcome.status == 0:
            pass

    def export(self, *flags, code=0):
        r = subprocess.run([ZONECTL, "history", "export", "--history", str(self.daemon.history),
                            *flags], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        self.assertEqual(r.returncode, code, r.stderr.decode())
        return r.stdout.decode(), r.stderr.decode()

    def blocks_of(self, machine):
        """What the allocator did, in order; a failure has no frame."""
        kinds = {"alloc": "mm_page_alloc", "free": "mm_page_free", "alloc_failed": "mm_page_alloc"}
        rows = []
        for kind in kinds:
            pfn = "0" if kind == "alloc_failed" else "pfn"
            rows += [(op, idx, kinds[kind], cpu, pfn, order) for op, idx, cpu, pfn, order in
                     self.client.query(f'SELECT e.op, e.idx, l.cpu, {pfn}, "order" FROM'
                                       f" event_{kind} e JOIN op_log l ON l.key = e.key"
                                       f" WHERE e.machine = '{machine}'")]
        return [row[2:] for row in sorted(rows)]

    def test_ftrace_there_and_back(self):
        text, _ = self.export("--format", "ftrace", "-m", "m0")
        self.assertTrue(text.startswith("# tracer: nop\n"))
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        told, steals, last = [], [], -1
        for line in lines:
            m = LINE.fullmatch(line)
            self.assertTrue(m, line)
            fields = dict(f.split("=", 1) for f in m[7].split())
            if m[6] == "mm_page_alloc_extfrag":
                steals.append({k: int(v, 0) for k, v in fields.items() if k != "page"})
            else:
                told.append((m[6], int(m[3]), int(fields["pfn"], 0), int(fields["order"])))
            self.assertGreater(int(m[4]) * 10**6 + int(m[5]), last, line)
            last = int(m[4]) * 10**6 + int(m[5])
        recorded = self.blocks_of("m0")
        self.assertEqual(told, recorded, f"SEED={SEED}")
        self.assertEqual(steals, self.steals_of("m0"), f"SEED={SEED}")
        self.assertGreater(len(steals), 3)
        self.assertIn("page=NULL pfn=0x0", text)
        self.assertIn("gfp_flags=GFP_HIGHUSER_MOVABLE\n", text)
        # And played on a machine of the same kind.
        path = self.daemon.folder / "trace.txt"
        self.export("--format", "ftrace", "-m", "m0", "--output", str(path))
        self.assertEqual(path.read_text(), text)
        self.client.create("m1", ram=64 * MIB, cpus=2)
        r = subprocess.run([ZONECTL, "--address", self.daemon.address, "import", str(path), "-m",
                            "m1"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           check=False)
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        self.assertEqual(self.blocks_of("m1"), recorded, f"SEED={SEED}")
        # Nobody took a boost back, neither there nor here.
        self.assertEqual(self.client.query("SELECT count(*) FROM op_unboost_zone"), [[0]])
        # In a trace of Linux's own kswapd would have.
        path.write_text("".join(line for line in text.splitlines(True) if "kswapd" not in line))
        self.client.create("m2", ram=64 * MIB, cpus=2)
        subprocess.run([ZONECTL, "--address", self.daemon.address, "import", str(path), "-m",
                        "m2"], stdin=subprocess.DEVNULL, capture_output=True, check=True)
        self.assertNotEqual(self.client.query("SELECT count(*) FROM op_unboost_zone"), [[0]])

    def steals_of(self, machine):
        """What mm_page_alloc_extfrag says, from the events around each steal."""
        fields = {name: self.client.query(f"SELECT e.op, e.idx, {columns} FROM event_{name} e"
                                          f" WHERE e.machine = '{machine}'")
                  for name, columns in (
                      ("alloc", '"order"'), ("pcp_refill", "list"),
                      ("steal", 'pfn, "order", from_type, to_type'),
                      ("pageblock_retyped", "pfn, to_type"))}
        events = sorted((op, idx, name, *rest) for name, rows in fields.items()
                        for op, idx, *rest in rows)
        types, steals = {}, []
        number = {name: v.number for name, v in CONTRACT.enum("Migratetype").items()}
        block = 1 << 10  # the machine has no PAE
        orders = {"alloc": lambda order: order,
                  "pcp_refill": lambda list_: 10 if list_ >= 12 else list_ // 3}
        for i, (op, idx, name, *rest) in enumerate(events):
            if name == "pageblock_retyped":
                types[rest[0] // block] = number[rest[1]]
            if name != "steal":
                continue
            pfn, order, from_type, to_type = rest
            nearest = next(e for e in events[i:] if e[2] in ("alloc", "pcp_refill"))
            self.assertEqual(nearest[0], op)
            behind = [e for e in events[i + 1:i + 2] if e[:3] == (op, idx + 1,
                                                                  "pageblock_retyped")]
            after = number[behind[0][4]] if behind else types.get(pfn // block, 1)
            steals.append({
                "pfn": pfn, "alloc_order": orders[nearest[2]](nearest[3]),
                "fallback_order": order, "pageblock_order": 10,
                "alloc_migratetype": number[to_type], "fallback_migratetype": number[from_type],
                "fragmenting": int(order < 10), "change_ownership": int(after == number[to_type])})
        return steals

    def test_counters(self):
        """Lines as perfetto's importer of ftrace's text takes them, and what they count."""
        plain, _ = self.export("--format", "ftrace", "-m", "m0")
        text, _ = self.export("--format", "ftrace", "-m", "m0", "--counters")
        # Its tokenizer's grammar, as of 2023: up to five flags.
        line_of = re.compile(r"-(\d+)\s+\(?\s*(\d+|-+)?\)?\s?\[(\d+)\]\s*"
                             r"[a-zA-Z0-9.]{0,5}\s+(\d+\.\d+):\s+(\S+):")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        self.assertTrue(all(line_of.search(line) for line in lines))
        counted = {}
        for line in lines:
            if ": tracing_mark_write: " in line:
                kind, pid, name, value = line.split(": tracing_mark_write: ")[1].split("|")
                self.assertEqual((kind, int(pid)), ("C", 1))
                counted.setdefault(name, []).append(int(value))
        rows = self.client.query("SELECT zone, free FROM free_pages WHERE machine = 'm0'"
                                 " ORDER BY op, zone")
        for zone in ("DMA", "NORMAL"):
            self.assertEqual(counted[f"free {zone}"],
                             [free for z, free in rows if z == f"ZONE_{zone}"])
        rest = [line.split(": ", 1)[1] for line in lines if "tracing_mark_write" not in line]
        self.assertEqual(rest, [line.split(": ", 1)[1] for line in plain.splitlines()
                                if not line.startswith("#")])

    def test_until(self):
        text, _ = self.export("--format", "ftrace", "-m", "m0", "--until", "1")
        self.assertEqual(text.count("mm_page_alloc: "), 1)

    def test_csv(self):
        out = self.daemon.folder / "csv"
        self.export("--format", "csv", "--output", str(out))
        db = sqlite3.connect(self.daemon.history)
        names = [n for n, in db.execute("SELECT name FROM sqlite_schema WHERE type IN"
                                        " ('table', 'view') AND name NOT LIKE 'sqlite!_%' ESCAPE"
                                        " '!'")]
        self.assertEqual(sorted(p.stem for p in out.iterdir()), sorted(names))
        for name in names:
            with open(out / f"{name}.csv", newline="") as f:
                rows = list(csv.reader(f))
            cursor = db.execute(f'SELECT * FROM "{name}"')
            self.assertEqual(rows[0], [c[0] for c in cursor.description])
            self.assertEqual(rows[1:], [[self.as_text(v) for v in row] for row in cursor], name)
        db.close()
        one, _ = self.export("--format", "csv", "--table", "owners")
        self.assertEqual(one, (out / "owners.csv").read_bytes().decode())
        self.assertIn('"it, ""quoted""\nand on a second line"\r\n', one)
        machines, _ = self.export("--format", "csv", "--table", "machines")
        self.assertIn(",,", machines)  # ended_ns is NULL

    @staticmethod
    def as_text(value):
        if value is None:
            return ""
        return f"x'{value.hex()}'" if isinstance(value, bytes) else str(value)

    def test_refused(self):
        self.assertIn("which format", self.export(code=2)[1])
        self.assertIn("no machine x", self.export("--format", "ftrace", "-m", "x", code=3)[1])
        self.assertIn("no such table", self.export("--format", "csv", "--table", "x", code=3)[1])
        self.assertIn("where to", self.export("--format", "csv", code=2)[1])
        self.export("--format", "ftrace", "-m", "m0", "--output", "/nowhere/x", code=4)
        self.export("--format", "ftrace", "-m", "m0", "--output", "/dev/full", code=4)


if __name__ == "__main__":
    PROGRAM, BINPB, ZONECTL = sys.argv[1:4]
    CONTRACT = Contract(BINPB)
    SEED = os.environ.get("SEED", str(time.time_ns()))
    print(f"SEED={SEED}")
    unittest.main(argv=[sys.argv[0]] + sys.argv[4:])
