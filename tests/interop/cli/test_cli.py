"""zonectl against a fake daemon: the command line, pipe, output, exit codes.

    test_cli.py ZONECTL CONTRACT.binpb EXPERIMENTS_DIR [unittest arguments]

Table driven over the contract: a new op, flag or inspection is covered by being there.
"""
import csv
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

import grpc

from fake_daemon import Contract, FakeDaemon, made_up

ZONECTL, CONTRACT, EXPERIMENTS = sys.argv[1], Contract(sys.argv[2]), Path(sys.argv[3])
NOT_OK, USAGE, UNREACHABLE, REFUSED, LIE, FILE = 1, 2, 3, 4, 5, 6


def kebab(name):
    return name.replace("_", "-")


def op_fields(message):
    return [f for f in message.fields if f.name != "context"]


def enums_of(info):
    return [CONTRACT.pool.FindEnumTypeByName("zoned.v1." + n) for n in info.flags.split()]


def in_range(field, info):
    """(text for the command line, value that must arrive)"""
    if field.type == field.TYPE_ENUM:
        v = field.enum_type.values[-1]
        return v.name, v.number
    if field.label == field.LABEL_REPEATED:
        return "7,0x8", [7, 8]
    if field.type == field.TYPE_BYTES:
        return "some text", b"some text"
    if field.type == field.TYPE_BOOL:
        return None, True
    if info.flags:
        values = [v for e in enums_of(info) for v in e.values if v.number][:3]
        return "|".join(v.name for v in values), values[0].number | values[1].number | values[-1].number
    value = info.max or (1 << 32) - 1
    return hex(value), value


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="zonectl")
        self.address = f"unix:{self.dir}/socket"
        self.daemon = FakeDaemon(CONTRACT, self.address)

    def tearDown(self):
        self.daemon.stop()
        shutil.rmtree(self.dir)

    def environment(self, **extra):
        env = {k: v for k, v in os.environ.items() if not k.startswith("ZONED_")}
        return dict(env, ZONED_ADDRESS=self.address, COLUMNS="100", TZ="UTC", LC_ALL="C.UTF-8", **extra)

    def ctl(self, *args, code=0, stdin=None, **env):
        done = subprocess.run([ZONECTL, *args], input=stdin, capture_output=True, text=True,
                              env=self.environment(**env), check=False)
        self.assertEqual(done.returncode, code, f"{args}\nout: {done.stdout}\nerr: {done.stderr}")
        return done

    def last(self, name):
        return [r for n, r in self.daemon.calls if n == name][-1]


class EveryOp(Case):
    def arguments(self, message):
        args, want = [], CONTRACT.cls(message.full_name)()
        for f in op_fields(message):
            text, value = in_range(f, CONTRACT.arg(f))
            args += [f"--{kebab(f.name)}"] + ([text] if text is not None else [])
            if f.label == f.LABEL_REPEATED:
                getattr(want, f.name).extend(value)
            else:
                setattr(want, f.name, value)
        return args, want

    def test_help_names_every_argument(self):
        for word, message in CONTRACT.ops.items():
            with self.subTest(word):
                out = self.ctl(word, "--help").stdout
                for f in op_fields(message):
                    self.assertIn(f"--{kebab(f.name)}", out)
                for f in CONTRACT.cls(message.full_name + "Result").DESCRIPTOR.fields:
                    if f.name != "outcome":
                        self.assertIn(f.name, out)
                self.assertEqual(out, self.ctl("help", word).stdout)
        self.assertEqual(self.daemon.calls, [])

    def test_every_flag_arrives(self):
        for word, message in CONTRACT.ops.items():
            with self.subTest(word):
                args, want = self.arguments(message)
                want.context.machine, want.context.owner = "m0", "me"
                want.context.cpu, want.context.task = 3, 5
                self.ctl(word, *args, "-m", "m0", "--cpu", "3", "--task=5", "--owner", "me")
                got = self.last(message.name)
                # A name of zonectl's own making, for its question after a lost connection.
                self.assertEqual((got.context.token != 0, got.context.sequence), (True, 1))
                got.context.ClearField("token")
                got.context.ClearField("sequence")
                self.assertEqual(got, want)

    def test_every_value_is_printed(self):
        for word, message in CONTRACT.ops.items():
            with self.subTest(word):
                args, _ = self.arguments(message)
                out = json.loads(self.ctl(word, *args, "-m", "m0", "--json").stdout)
                self.assertEqual((out["op"], out["status"]), (word, "OK"))
                self.assertEqual(out["number"], self.daemon.number)
                for f in CONTRACT.cls(message.full_name + "Result").DESCRIPTOR.fields:
                    if f.name == "outcome":
                        continue
                    value = made_up(f)
                    if f.type == f.TYPE_BYTES:
                        self.assertEqual(bytes.fromhex(out[f.name + "_hex"]), value)
                    elif f.type == f.TYPE_ENUM:
                        self.assertEqual(out[f.name], f.enum_type.values_by_number[value].name)
                    elif not CONTRACT.arg(f).flags:
                        self.assertEqual(out[f.name], value)
                text = self.ctl(word, *args, "-m", "m0").stdout
                self.assertTrue(text.startswith(f"{word} #{self.daemon.number} OK"), text)

    def test_out_of_range_is_refused_here(self):
        for word, message in CONTRACT.ops.items():
            args, _ = self.arguments(message)
            for f in op_fields(message):
                info = CONTRACT.arg(f)
                if not info.max or f.type == f.TYPE_BYTES:
                    continue
                with self.subTest(f"{word} {f.name}"):
                    err = self.ctl(word, *args, f"--{kebab(f.name)}", str(info.max + 1), "-m", "m0",
                                   code=USAGE).stderr
                    self.assertIn(f"--{kebab(f.name)}", err)
                    self.assertIn(" to ", err)
        self.assertEqual(self.daemon.calls, [])

    def test_required_is_required(self):
        for word, message in CONTRACT.ops.items():
            required = [f for f in op_fields(message) if CONTRACT.arg(f).required]
            if required:
                with self.subTest(word):
                    err = self.ctl(word, "-m", "m0", code=USAGE).stderr
                    self.assertIn(f"--{kebab(required[0].name)}", err)
        self.assertEqual(self.daemon.calls, [])

    def test_words_are_unique_and_listed(self):
        words = list(CONTRACT.ops) + list(CONTRACT.inspections)
        own = ["machine", "pipe", "sql", "tail", "top", "map", "explain", "ping", "health", "help", "version"]
        self.assertEqual(len(set(words + own)), len(words + own))
        listed = self.ctl("help").stdout
        for word in words + own:
            self.assertIn(f"\n  {word} ", listed)

    def test_explain_knows_every_op_event_and_value(self):
        names = list(CONTRACT.ops) + ["NOT_LIFO", "ZONE_HIGHMEM", "zone_fallback", "EVENT_SPLIT",
                                      "MachineConfig.ram", "Zone", "gfp", "frame-map"]
        out = self.ctl("explain", *names).stdout
        for word in CONTRACT.ops:
            self.assertIn(f"zonectl {word})", out)
        self.assertIn("Unmapped out of order.", out)
        # Nothing without words; and what Linux has, with the place where it has it.
        enums = {n: CONTRACT.pool.FindEnumTypeByName("zoned.v1." + n) for n in ("EventKind", "Status")}
        events = [v.name for v in enums["EventKind"].values if v.number]
        out = self.ctl("explain", *events, *CONTRACT.ops, *CONTRACT.inspections).stdout
        for line in out.splitlines():
            self.assertRegex(line, r"^$|^\w+ is an? .*\. \S|^  \S.*(:|_\w+|\w+)$|^  +\S+ +\S", "a name without words")
            self.assertNotRegex(line, r"; $|^    \S+ *$")
        explained = sorted({l for l in out.splitlines() if re.match(r"\w+ is an event", l)})
        self.assertEqual(len(explained), len(events))
        sources = [l for l in explained if "Linux" in l or "a bug in the engine" in l]
        self.assertEqual(sources, explained)
        out = self.ctl("explain", *[v.name for v in enums["Status"].values]).stdout
        for value in enums["Status"].values:
            self.assertRegex(out, rf"(?m)^{value.name} is a Status \([^)]*\)\. \S")
        self.assertIn("WRONG_ORDER is a Status (13, 0xd). The frame was allocated with another order", out)
        # A column: what it is, and where it is something more.
        out = self.ctl("explain", "pfn", "order", "latency-ns").stdout
        self.assertIn("pfn is a column. Number of a frame", out)
        self.assertIn("First frame of the block.", out)
        self.assertIn("latency_ns is a column.", out)
        self.assertIn("--pfn PFN                Number of a frame", self.ctl("free", "--help").stdout)
        err = self.ctl("explain", "latency_n", code=USAGE).stderr
        self.assertIn("did you mean latency_ns?", err)
        err = self.ctl("explain", "ZONE_HIHGMEM", code=USAGE).stderr
        self.assertIn("did you mean ZONE_HIGHMEM?", err)


class CommandLine(Case):
    def test_forms_of_a_value(self):
        for text, value in (("2M", 2 << 20), ("0x1000", 4096), ("64K", 65536), ("1GiB", 1 << 30),
                            ("12345", 12345)):
            self.ctl("vmalloc", "--size", text, "-m", "m0")
            self.assertEqual(self.last("Vmalloc").size, value)
        for text in ("-1", "1Q", "", "0x", "1e3", "2000000000000000000000", "4KK"):
            self.ctl("vmalloc", f"--size={text}", "-m", "m0", code=USAGE)

    def test_forms_of_a_name(self):
        for text in ("ZONE_HIGHMEM", "highmem", "zone-highmem", "2"):
            self.ctl("unboost", "--zone", text, "-m", "m0")
            self.assertEqual(self.last("UnboostZone").zone, 2)
        for text in ("GFP_HIGHUSER|__GFP_ZERO", "highuser,__GFP_ZERO", "0x100cc2|__gfp_zero"):
            self.ctl("alloc", text, "-m", "m0")
            self.assertEqual(self.last("AllocPages").gfp, 0x100dc2)
        err = self.ctl("alloc", "GFP_HIGHUSR", "-m", "m0", code=USAGE).stderr
        self.assertIn("did you mean GFP_HIGHUSER?", err)

    def test_words_stand_for_required_arguments(self):
        self.ctl("free", "0x123", "--order", "3", "-m", "m0")
        self.assertEqual((self.last("FreePages").pfn, self.last("FreePages").order), (0x123, 3))
        self.ctl("free", "0x123", "7", "-m", "m0", code=USAGE)

    def test_flags_anywhere(self):
        self.ctl("-m", "m0", "--cpu", "2", "alloc", "GFP_KERNEL", "--order=4")
        self.assertEqual(self.last("AllocPages").context.cpu, 2)
        self.ctl("alloc", "--", "GFP_KERNEL", ZONED_MACHINE="m7")
        self.assertEqual(self.last("AllocPages").context.machine, "m7")

    def test_mistakes_say_what_to_do(self):
        for args, says in ((("aloc",), "did you mean alloc?"),
                           (("buddy",), "did you mean buddyinfo?"),
                           (("alloc", "GFP_KERNEL"), "which machine?"),
                           (("alloc", "--gpf", "1", "-m", "x"), "did you mean --gfp?"),
                           (("alloc", "--gfp"), "wants a value"),
                           (("machine", "creat", "x"), "did you mean create?"),
                           (("machine", "create", "--ram", "1G"), "which machine?"),
                           (("--timeout", "soon", "ping"), "is not a time"),
                           (("--cpu", "32", "ping"), "0 to 31"),
                           ((), "what shall it do?"),
                           (("sql",), "ask what?"),
                           (("tail", "--op", "alocc"), "did you mean alloc?"),
                           (("tail", "--event", "splti"), "did you mean split?"),
                           (("tail", "--zone", "low"), "no zone low"),
                           (("--address", "udp:1", "ping"), "is not an address")):
            with self.subTest(args):
                self.assertIn(says, self.ctl(*args, code=USAGE).stderr)
        self.assertEqual(self.daemon.calls, [])

    def test_payloads(self):
        path = Path(self.dir, "payload")
        path.write_bytes(bytes(range(256)) * 256)
        base = ("file-write", "-m", "m0", "--file", "1")
        self.ctl(*base, "--data-hex", "00 ff7f")
        self.assertEqual(self.last("FileWrite").data, b"\x00\xff\x7f")
        self.ctl(*base, "--data-file", str(path))
        self.assertEqual(self.last("FileWrite").data, path.read_bytes())
        self.ctl(*base, "--data-file", "-", stdin="from stdin")
        self.assertEqual(self.last("FileWrite").data, b"from stdin")
        self.ctl(*base, "--data-hex", "0", code=USAGE)
        self.ctl(*base, "--data-file", self.dir + "/none", code=FILE)
        path.write_bytes(b"x" * 65537)
        self.ctl(*base, "--data-file", str(path), code=FILE)
        self.ctl("file-write", "-m", "m0", "--file", "1", "--data", "x" * 65537, code=USAGE)
        out = subprocess.run([ZONECTL, "file-read", "1", "4", "-m", "m0", "--raw"], check=True,
                             capture_output=True, env=self.environment()).stdout
        self.assertEqual(out, b"\x00\xffdata")

    def test_exit_codes(self):
        self.daemon.statuses["AllocPages"] = [1]
        done = self.ctl("alloc", "GFP_KERNEL", "-m", "m0", code=NOT_OK)
        self.assertIn("NO_MEMORY: because the test says so", done.stderr)
        self.assertTrue(done.stdout.startswith("alloc #1 NO_MEMORY"))
        self.daemon.errors["AllocPages"] = (grpc.StatusCode.NOT_FOUND, "no machine m0, 100 %\n of them")
        done = self.ctl("alloc", "GFP_KERNEL", "-m", "m0", code=REFUSED)
        self.assertIn("NOT_FOUND: no machine m0, 100 %\n of them", done.stderr)
        self.ctl("ping", "-n", "2")
        self.ctl("ping", "--address", f"unix:{self.dir}/nobody", code=UNREACHABLE)
        self.ctl("ping", "--address", "tcp:127.0.0.1:1", code=UNREACHABLE)
        self.assertEqual(self.ctl("health").stdout, "serving\n")
        self.daemon.answers["Check"] = CONTRACT.new("grpc.health.v1.HealthCheckResponse", status=2)
        self.ctl("health", code=REFUSED)

    def test_full_disk_is_an_error(self):
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run([ZONECTL, "help"], stdout=full, stderr=subprocess.PIPE,
                                  env=self.environment(), check=False)
        self.assertEqual(done.returncode, FILE)

    def test_a_deadline_is_kept(self):
        def hang(_request, context):
            self.hung_for = context.time_remaining()
            self.daemon.hang.wait()
            return CONTRACT.new("KmapResult")
        self.daemon.answers["Kmap"] = hang
        done = self.ctl("kmap", "5", "-m", "m0", "--timeout", "300ms", code=REFUSED)
        self.assertIn("DEADLINE_EXCEEDED", done.stderr)
        self.assertLess(self.hung_for, 0.31)

    def test_token(self):
        token = Path(self.dir, "token")
        seen = []
        self.daemon.answers["Check"] = lambda r, c: seen.append(dict(c.invocation_metadata())) or \
            CONTRACT.new("grpc.health.v1.HealthCheckResponse", status=1)
        token.write_text("secret\nnot this\n")
        self.ctl("health", "--token-file", str(token))
        self.assertEqual(seen[-1]["authorization"], "Bearer secret")
        token.write_text("bare")
        self.ctl("health", ZONED_TOKEN_FILE=str(token))
        self.assertEqual(seen[-1]["authorization"], "Bearer bare")
        self.ctl("health")
        self.assertNotIn("authorization", seen[-1])
        token.write_text("")
        self.ctl("health", "--token-file", str(token), code=USAGE)


class Connection(Case):
    def cutting_proxy(self, cut):
        """Forwards to the daemon. On the first connection it drops the answers, and ends it
        when cut() says so."""
        path = f"{self.dir}/proxy"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()

        def pump(source, to, swallow):
            try:
                while data := source.recv(65536):
                    if not swallow:
                        to.sendall(data)
                    elif cut():
                        break
            except OSError:
                pass
            for s in (source, to):
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

        def serve():
            left = 1
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                upstream = socket.socket(socket.AF_UNIX)
                upstream.connect(f"{self.dir}/socket")
                threading.Thread(target=pump, args=(client, upstream, False), daemon=True).start()
                threading.Thread(target=pump, args=(upstream, client, left > 0), daemon=True).start()
                left -= 1
        threading.Thread(target=serve, daemon=True).start()
        self.addCleanup(listener.close)
        return f"unix:{path}"

    def test_an_op_whose_answer_is_lost_is_done_once(self):
        proxy = self.cutting_proxy(lambda: self.daemon.taken)
        out = json.loads(self.ctl("alloc", "GFP_KERNEL", "-m", "m0", "--json",
                                  "--address", proxy).stdout)
        names = [n for n, _ in self.daemon.calls]
        self.assertEqual(names.count("AllocPages"), 1)
        self.assertEqual(names.count("Status"), 1)
        self.assertEqual((out["number"], out["status"]), (1, "OK"))

    def raw_server(self, reply):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{self.dir}/raw")
        listener.listen()

        def serve():
            # zonectl looks before it calls, and tries once more when it sees the end.
            while True:
                try:
                    client, _ = listener.accept()
                    got = 0
                    while got < 100:  # the preface and the settings are 58 bytes, then the call
                        got += len(client.recv(65536))
                    client.sendall(reply)
                    client.close()
                except OSError:
                    return
        threading.Thread(target=serve, daemon=True).start()
        self.addCleanup(listener.close)
        return f"unix:{self.dir}/raw"

    def test_strangers_are_recognised(self):
        settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
        goaway = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + b"\x00" * 8
        reset = b"\x00\x00\x04\x03\x00\x00\x00\x00\x01" + b"\x00\x00\x00\x07"
        # HEADERS for stream 1: indexed :status 404, END_STREAM | END_HEADERS.
        not_found = b"\x00\x00\x01\x01\x05\x00\x00\x00\x01\x8d"
        for name, reply, code, says in (
                ("nothing", b"", UNREACHABLE, "lost"),
                ("http1", b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 64, UNREACHABLE, "lost"),
                ("goaway", settings + goaway, REFUSED, "UNAVAILABLE"),
                ("reset", settings + reset, REFUSED, "UNAVAILABLE"),
                ("404", settings + not_found, REFUSED, "UNIMPLEMENTED")):
            with self.subTest(name):
                address = self.raw_server(reply)
                self.assertIn(says, self.ctl("health", "--address", address, code=code).stderr)
                os.unlink(f"{self.dir}/raw")


class Pipe(Case):
    def pipe(self, lines, *args, code=0, **env):
        text = "".join((l if isinstance(l, str) else json.dumps(l)) + "\n" for l in lines)
        done = self.ctl("pipe", "-m", "m0", *args, stdin=text, code=code, **env)
        return [json.loads(l) for l in done.stdout.splitlines()], done.stderr

    def ops(self):
        out = []
        for n, batch in self.daemon.calls:
            if n == "Run":
                out += [getattr(o, o.WhichOneof("op")) for o in batch.ops]
        return out

    def test_names_for_earlier_results(self):
        out, _ = self.pipe([{"op": "alloc", "gfp": "GFP_HIGHUSER", "as": "p"},
                            {"op": "kmap", "pfn": "$p.pfn"},
                            {"op": "mmap", "length": "1M", "prot": 3, "as": "a", "task": 4},
                            {"op": "access", "va": "$a.addr+4K", "mode": "write", "data": "$x"},
                            {"op": "vmap", "pfns": ["$p.pfn", 7, "0x9"]},
                            {"op": "unboost", "zone": "$p.zone"}])
        ops = self.ops()
        pfn, addr = 0x22, 0x22
        self.assertEqual(ops[1].pfn, pfn)
        self.assertEqual(ops[2].context.task, 4)
        self.assertEqual((ops[3].va, ops[3].data), (addr + 4096, b"$x"))
        self.assertEqual(list(ops[4].pfns), [pfn, 7, 9])
        self.assertEqual(ops[5].zone, 3)
        self.assertEqual([o["line"] for o in out], [1, 2, 3, 4, 5, 6])
        self.assertEqual((out[0]["as"], out[0]["pfn"], out[0]["number"]), ("p", pfn, 1))
        first = next(b for n, b in self.daemon.calls if n == "Run")
        self.assertEqual(first.context.machine, "m0")

    def test_every_op_by_name(self):
        lines, want = [], []
        for word, message in CONTRACT.ops.items():
            line, m = {"op": word}, CONTRACT.cls(message.full_name)()
            for f in op_fields(message):
                text, value = in_range(f, CONTRACT.arg(f))
                key = "arg_op" if f.name == "op" else f.name
                line[key] = True if text is None else text
                if f.label == f.LABEL_REPEATED:
                    getattr(m, f.name).extend(value)
                else:
                    setattr(m, f.name, value)
            lines.append(line)
            want.append(m)
        out, _ = self.pipe(lines)
        self.assertEqual(self.ops(), want)
        self.assertEqual([o["op"] for o in out], [l["op"] for l in lines])

    def test_batches_are_pipelined(self):
        n = 5000
        out, _ = self.pipe([{"op": "alloc", "gfp": 0xcc0}] * n)
        self.assertEqual([o["line"] for o in out], list(range(1, n + 1)))
        self.assertEqual(sum(self.daemon.batches), n)
        self.assertLess(len(self.daemon.batches), n / 16)
        self.daemon.batches.clear()
        # A result that is there already costs no flush.
        self.pipe([{"op": "alloc", "gfp": 1, "as": "p"}] + [{"op": "kmap", "pfn": "$p.pfn"}] * n)
        self.assertLess(len(self.daemon.batches), n / 16)
        self.daemon.batches.clear()
        self.pipe([{"op": "alloc", "gfp": 0xcc0}] * 10, "--batch", "1", "--window", "1")
        self.assertEqual(self.daemon.batches, [1] * 10)

    def test_a_failing_line_is_named_and_ends_it(self):
        self.daemon.statuses["Kmap"] = [0, 6, 0]
        out, err = self.pipe([{"op": "kmap", "pfn": 1}] * 5, "--batch", "1", "--window", "1", code=NOT_OK)
        self.assertIn("line 2: kmap: NO_SPACE: because the test says so", err)
        self.assertEqual([o["status"] for o in out], ["OK", "NO_SPACE"])
        self.daemon.statuses["Kmap"] = [0, 6, 0]
        out, err = self.pipe([{"op": "kmap", "pfn": 1}] * 5, "-k", code=NOT_OK)
        self.assertEqual([o["status"] for o in out], ["OK", "NO_SPACE", "OK", "OK", "OK"])

    def test_bad_lines(self):
        good = {"op": "alloc", "gfp": 1}
        for line, says in (("{", "not JSON"), ("[]", "not a JSON object"), ({"op": "aloc"}, "did you mean alloc?"),
                           ({}, "no \"op\""), ({"op": "alloc"}, "gfp is needed"),
                           ({"op": "alloc", "gfp": 1, "order": 11}, "order: 11 is not in 0 to 10"),
                           ({"op": "alloc", "gfp": 1, "ordr": 1}, "did you mean order?"),
                           ({"op": "alloc", "gfp": {}}, "gfp: is neither"),
                           ({"op": "kmap", "pfn": "$q.pfn"}, "no line before this one is called q"),
                           ({"op": "kmap", "pfn": "$g.nothing"}, "no field nothing"),
                           ({"op": "kmap", "pfn": "$g"}, "is not $NAME.FIELD"),
                           ({"op": "kmap", "pfn": -1}, "pfn: -1 is not a number"),
                           ({"op": "alloc", "gfp": 1, "cpu": 99}, "cpu is 0 to 31"),
                           ({"op": "alloc", "gfp": 1, "expect": "FINE"}, "expect"),
                           ({"op": "access", "va": 1, "data_hex": "0"}, "data_hex: is not an even number"),
                           ('{"op":"alloc","op":"free"}', "not JSON: duplicate")):
            with self.subTest(line):
                out, err = self.pipe([dict(good, **{"as": "g"}), "", "# comment", line, good], code=USAGE)
                self.assertIn("line 4: ", err)
                self.assertIn(says, err)
                self.assertEqual(len(out), 1)
                out, err = self.pipe([good, line, good], "-k", code=USAGE)
                self.assertEqual([o["line"] for o in out], [1, 3])

    def test_what_depends_on_a_failure(self):
        self.daemon.statuses["AllocPages"] = [1]
        lines = [{"op": "alloc", "gfp": 1, "as": "p", "expect": ["OK", "NO_MEMORY"]},
                 {"op": "kmap", "pfn": "$p.pfn"}, {"op": "flush-tlb"}]
        out, err = self.pipe(lines, "-k", code=USAGE)
        self.assertIn("line 2: kmap: p answered NO_MEMORY and has no pfn", err)
        self.assertEqual([o["op"] for o in out], ["alloc", "flush-tlb"])

    def test_expectations(self):
        self.daemon.statuses["Kmap"] = [6]
        self.pipe([{"op": "kmap", "pfn": 1, "expect": "NO_SPACE"}])
        self.pipe([{"op": "kmap", "pfn": 1, "expect": "any"}])
        _, err = self.pipe([{"op": "alloc", "gfp": 1, "expect": "NO_MEMORY"}], code=NOT_OK)
        self.assertIn("not what was expected", err)

    def test_refused_ops(self):
        self.daemon.errors["Kmap"] = (grpc.StatusCode.INVALID_ARGUMENT, "pfn 9 is out of range")
        out, err = self.pipe([{"op": "kmap", "pfn": 1}, {"op": "alloc", "gfp": 1}], "-k", code=REFUSED)
        self.assertIn("line 1: kmap: INVALID_ARGUMENT: pfn 9 is out of range", err)
        self.assertEqual(out[0]["error"], "INVALID_ARGUMENT")
        self.daemon.errors["Run"] = (grpc.StatusCode.NOT_FOUND, "no machine m0")
        _, err = self.pipe([{"op": "alloc", "gfp": 1}], code=REFUSED)
        self.assertIn("no machine m0", err)

    def test_parked_results_come_late(self):
        self.daemon.parked = {"Kmap"}
        lines = [{"op": "kmap", "pfn": 1, "as": "k"}] + [{"op": "alloc", "gfp": 1}] * 3000
        out, _ = self.pipe(lines + [{"op": "flush-tlb"}, {"op": "kunmap", "pfn": "$k.slot"}],
                           "--window", "4096")
        self.assertEqual([o["line"] for o in out], list(range(2, 3003)) + [1, 3003])

    def test_parked_for_ever(self):
        self.daemon.parked = {"Kmap"}
        out, err = self.pipe([{"op": "alloc", "gfp": 1}, {"op": "kmap", "pfn": 1}], "--timeout", "2s", code=NOT_OK)
        self.assertIn("line 2: kmap: still no answer (parked?); withdrawn", err)
        self.assertEqual([o["line"] for o in out], [1])

    def test_conversation(self):
        p = subprocess.Popen([ZONECTL, "pipe", "-m", "m0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             text=True, env=self.environment())
        for i in range(3):
            p.stdin.write('{"op":"alloc","gfp":1}\n')
            p.stdin.flush()
            self.assertEqual(json.loads(p.stdout.readline())["line"], i + 1)
        p.stdin.close()
        self.assertEqual(p.wait(), 0)
        p.stdout.close()

    def test_no_newline_at_the_end_and_long_lines(self):
        done = self.ctl("pipe", "-m", "m0", stdin='{"op":"alloc","gfp":1}')
        self.assertEqual(json.loads(done.stdout)["line"], 1)
        data = "ab" * 65536
        self.pipe([{"op": "access", "va": 1, "data_hex": data}])
        self.assertEqual(self.ops()[-1].data.hex(), data)
        _, err = self.pipe(['{"op":"' + "x" * (1 << 20) + '"}'], code=USAGE)
        self.assertIn("longer than a line may be", err)

    def test_quiet(self):
        out, _ = self.pipe([{"op": "alloc", "gfp": 1}] * 3, "-q")
        self.assertEqual(out, [])


class Inspections(Case):
    def test_every_inspection(self):
        for word, message in CONTRACT.inspections.items():
            with self.subTest(word):
                request = CONTRACT.new("InspectRequest", machine="m0")
                field = next(f for f in request.DESCRIPTOR.fields if f.message_type is message)
                question = getattr(request, field.name)
                question.SetInParent()
                args = []
                for f in message.fields:
                    text, value = in_range(f, CONTRACT.arg(f))
                    args += [f"--{kebab(f.name)}"] + ([text] if text is not None else [])
                    setattr(question, f.name, value)
                answer = CONTRACT.new("InspectResponse", op=77, text=f"{word} as text")
                report = getattr(answer, field.name)
                report.SetInParent()
                for rows in report.DESCRIPTOR.fields:
                    row = getattr(report, rows.name).add()
                    for f in rows.message_type.fields:
                        setattr(row, f.name, made_up(f))
                self.daemon.answers["Inspect"] = answer
                self.assertEqual(self.ctl(word, *args, "-m", "m0").stdout, f"{word} as text\n")
                self.assertEqual(self.last("Inspect"), request)
                out = json.loads(self.ctl(word, *args, "-m", "m0", "--json").stdout)
                self.assertEqual(out["op"], 77)
                for rows in report.DESCRIPTOR.fields:
                    for f in rows.message_type.fields:
                        got, value = out[rows.name][0][f.name], made_up(f)
                        if f.type == f.TYPE_ENUM:
                            value = f.enum_type.values_by_number[value].name
                        if not CONTRACT.arg(f).flags:
                            self.assertEqual(got, value, f.name)
                self.assertIn(word, self.ctl(word, "--help").stdout)


def value(x):
    kind = {int: "integer", float: "real", str: "text", bytes: "blob"}.get(type(x))
    return CONTRACT.new("Value", **({kind: x} if kind else {"null": True}))


def page(rows, columns=None, **more):
    return CONTRACT.new("QueryResponse", columns=[CONTRACT.new("Column", name=c) for c in columns or []],
                        rows=[CONTRACT.new("Row", values=[value(v) for v in r]) for r in rows], **more)


class History(Case):
    def test_table(self):
        self.daemon.answers["Query"] = [
            page([["AllocPages", 10, 0x37ffe, 0x100dc2, None]], ["name", "n", "pfn", "gfp", "nothing"]),
            page([["Kmap", 7, 1, 0, None]])]
        out = self.ctl("sql", "select 1", "--param", "x", "-p", "12").stdout.splitlines()
        self.assertEqual(out[0].split(), ["name", "n", "pfn", "gfp", "nothing"])
        self.assertEqual(out[2].split(), ["AllocPages", "10", "0x37ffe", "GFP_HIGHUSER|__GFP_ZERO"])
        self.assertEqual(out[3].split(), ["Kmap", "7", "0x1", "GFP_NONE"])
        request = self.last("Query")
        self.assertEqual(request.sql, "select 1")
        self.assertEqual([p.text or p.integer for p in request.parameters], ["x", 12])
        raw = self.ctl("sql", "select 1", "--raw").stdout
        self.assertIn(str(0x37ffe), raw)

    def test_csv_and_json(self):
        rows = [['plain', 'with, comma', 'a "quote"\nand more', 1.5, None, b"\x00\x01", -3]]
        self.daemon.answers["Query"] = [page(rows, list("abcdefg"), truncated=True)]
        done = self.ctl("sql", "-", "--csv", stdin="select 2")
        self.assertEqual(self.last("Query").sql, "select 2")
        got = list(csv.reader(io.StringIO(done.stdout, newline="")))
        self.assertEqual(got, [list("abcdefg"), ['plain', 'with, comma', 'a "quote"\nand more', '1.5', '', "x'0001'", '-3']])
        self.assertIn("more rows", done.stderr)
        # NULL has no quotes and an empty text has; a number keeps all its digits.
        self.daemon.answers["Query"] = [page([[None, "", 1 / 3, 0.1]], list("abcd"))]
        self.assertEqual(self.ctl("sql", "select 2", "--csv").stdout.splitlines()[1], ',"",0.3333333333333333,0.1')
        self.daemon.answers["Query"] = [page(rows, list("abcdefg"), truncated=True)]
        got = json.loads(self.ctl("sql", "select 2", "--json").stdout)
        self.assertEqual(got, [dict(zip("abcdefg", rows[0][:5] + ["x'0001'", -3]))])
        self.daemon.answers["Query"] = []
        self.assertEqual(json.loads(self.ctl("sql", "select 2", "--json").stdout), [])

    def test_large_pages_cross_the_window(self):
        text = "x" * 3_000_000
        self.daemon.answers["Query"] = [page([[text]], ["t"])] + [page([[text]]) for _ in range(5)]
        got = json.loads(self.ctl("sql", "select 3", "--json").stdout)
        self.assertEqual([len(r["t"]) for r in got], [3_000_000] * 6)

    def test_an_error_in_the_middle(self):
        def half(_request, context):
            yield page([[1]], ["n"])
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the query took longer than 10 s")
        self.daemon.answers["Query"] = half
        done = self.ctl("sql", "select 4", code=REFUSED)
        self.assertIn("the query took longer than 10 s", done.stderr)

    def test_tail(self):
        record = CONTRACT.new("Record", machine="m0", op=5, name="AllocPages", time_ns=1_000_000_000, cpu=1, task=2,
                              owner="me", status="OK", args=[0xcc0, 3], values=[0x123, 2, 1])
        record.events.add(index=0, kind=7, values=[2, 1, 0, 0x123, 3])
        record.events.add(index=1, kind=999, values=[])
        self.daemon.answers["Tail"] = [CONTRACT.new("TailResponse", records=[record], behind=4)]
        done = self.ctl("tail", "-m", "m0", "--op", "alloc", "--op", "Kmap", "--event", "zone-fallback", "--after", "4",
                        "--zone", "highmem", "--zone", "ZONE_DMA", "--no-follow")
        self.assertEqual(done.stdout.splitlines(), [
            "00:00:01.000 m0 #5 cpu1 task2 me alloc gfp=GFP_KERNEL order=3 -> OK pfn=0x123 zone=ZONE_HIGHMEM "
            "migratetype=MIGRATE_MOVABLE",
            "    zone_fallback wanted=ZONE_HIGHMEM got=ZONE_NORMAL why=FALLBACK_MARK pfn=0x123 order=3",
            "    ?"])
        self.assertIn("4 ops behind", done.stderr)
        request = self.last("Tail")
        self.assertEqual((list(request.ops), list(request.kinds), list(request.zones)),
                         (["AllocPages", "Kmap"], [7], [2, 0]))
        self.assertEqual((request.after_op, request.no_follow, request.machine), (4, True, "m0"))
        out = json.loads(self.ctl("tail", "--json", "--no-follow").stdout)
        self.assertEqual((out["number"], out["op"], out["values"]["pfn"]), (5, "alloc", 0x123))
        self.assertEqual(out["events"][0]["event"], "zone_fallback")

    def test_tail_says_how_to_go_on(self):
        record = CONTRACT.new("Record", machine="m0", op=5, name="AllocPages", status="OK")
        def then_lost(_request, context):
            yield CONTRACT.new("TailResponse", records=[record])
            context.abort(grpc.StatusCode.UNAVAILABLE, "shutting down")
        self.daemon.answers["Tail"] = then_lost
        self.assertIn("--after 5", self.ctl("tail", "-m", "m0", "--once", code=REFUSED).stderr)
        # Without a machine there is no number to go on from.
        self.ctl("tail", code=REFUSED)


class Machines(Case):
    def create(self, *args, code=0):
        self.daemon.answers["Create"] = CONTRACT.new("Machine", name="m0", id=1, state=2)
        self.ctl("machine", "create", "m0", *args, code=code)
        return self.last("Create").config if not code else None

    def test_every_field_has_a_flag(self):
        for f in CONTRACT.cls("MachineConfig").DESCRIPTOR.fields:
            if f.label == f.LABEL_REPEATED:
                continue
            with self.subTest(f.name):
                text, want = in_range(f, CONTRACT.arg(f))
                config = self.create(f"--{kebab(f.name)}", *([text] if text is not None else []))
                self.assertEqual(getattr(config, f.name), want)

    def test_splits_ranges_and_off(self):
        for text, want in (("3G", 0xc0000000), ("3g_opt", 0xb0000000), ("2G", 0x80000000), ("2G_OPT", 0x78000000),
                           ("1G", 0x40000000), ("0x60000000", 0x60000000)):
            self.assertEqual(self.create("--split", text).page_offset, want)
        self.create("--split", "5G", code=USAGE)
        config = self.create("--ram", "2G", "--highmem", "off", "--reserve", "16M+4K", "--reserve", "0x2000000+1M",
                             "--detail", "notable", "--preset", "linux-6.1")
        self.assertEqual((config.ram, config.highmem_off, config.events, config.preset), (2 << 30, True, 2, 1))
        self.assertEqual([(r.start, r.size) for r in config.reserved], [(16 << 20, 4096), (0x2000000, 1 << 20)])
        self.create("--reserve", "16M", code=USAGE)
        self.create("--ram", "65G", code=USAGE)

    def test_from_a_real_boot(self):
        dmesg = EXPERIMENTS / "686-pae-2G.dmesg"
        config = self.create("--from-dmesg", str(dmesg), "--cmdline", "quiet mem=1G vmalloc=256M", "--cpus", "2")
        self.assertEqual([(e.start, e.start + e.size, e.type) for e in config.e820], [
            (0, 0x9fc00, 1), (0x9fc00, 0xa0000, 2), (0xf0000, 0x100000, 2), (0x100000, 0x7ffe0000, 1),
            (0x7ffe0000, 0x80000000, 2), (0xfffc0000, 0x100000000, 2)])
        self.assertEqual((config.preset, config.pae, config.cpus), (1, True, 2))
        self.assertEqual((config.mem, config.vmalloc, config.late_pages), (1 << 30, 256 << 20, (1040 + 928) // 4))
        bare = Path(self.dir, "map")
        bare.write_text("[mem 0x0000000000000000-0x000000003fffffff] usable\nx\n[mem 0x40000000-0x4fffffff] ACPI NVS\n")
        config = self.create("--e820", str(bare))
        self.assertEqual([(e.start, e.size, e.type) for e in config.e820], [(0, 1 << 30, 1), (1 << 30, 1 << 28, 4)])
        bare.write_text("nothing\n")
        self.create("--e820", str(bare), code=USAGE)
        self.create("--e820", self.dir + "/none", code=FILE)

    def test_percentages(self):
        """Of whole frames of usable RAM below mem=, as Linux counts them, in its 32 bits."""
        frames = 0x9f - 1 + 0x3ffe0 - 0x100
        bare = Path(self.dir, "percent")
        bare.write_text("[mem 0x0-0x9fbff] usable\n[mem 0x100000-0x3ffe07ff] usable\n"
                        "[mem 0x100000000-0x13fffffff] usable\n")
        config = self.create("--e820", str(bare), "--kernelcore", "50%", "--cmdline", "movablecore=25%")
        self.assertEqual((config.kernelcore, config.movablecore),
                         (frames * 50 // 100 * 4096, frames * 25 // 100 * 4096))
        config = self.create("--e820", str(bare), "--pae", "--kernelcore", "30%")
        self.assertEqual(config.kernelcore, (frames + 0x40000) * 30 // 100 * 4096)
        config = self.create("--e820", str(bare), "--cmdline", "kernelcore=1G kernelcore=10% mem=512M")
        self.assertEqual(config.kernelcore, (0x9f - 1 + 0x20000 - 0x100) * 10 // 100 * 4096)
        config = self.create("--e820", str(bare), "--cmdline", "kernelcore=10% kernelcore=1G")
        self.assertEqual(config.kernelcore, 1 << 30)
        config = self.create("--ram", "5G", "--pae", "--kernelcore", "50%")
        frames = 0x9f - 1 + 0xc0000 - 0x100 + 0x80000
        self.assertEqual(config.kernelcore, (frames * 5000 % (1 << 32)) // 10000 * 4096)
        config = self.create("--ram", "1G", "--cmdline", "kernelcore=mirror movablecore=256M")
        self.assertEqual((config.kernelcore, config.movablecore), (0, 0))
        self.create("--kernelcore", "50%", "--ram", "1G", code=USAGE)
        for wrong in ("101%", "%", "5%%", "-5%"):
            self.create("--ram", "1G", "--kernelcore", wrong, code=USAGE)
        self.create("--ram", "1G", "--cmdline", "mem=50%", code=USAGE)

    def test_the_others(self):
        config = CONTRACT.new("MachineConfig", ram=2 << 30, preset=1, pae=True)
        machine = CONTRACT.new("Machine", name="m0", id=9, state=2, config=config, ops=12, resident_bytes=5 << 20,
                               created_ns=1_700_000_000_000_000_000)
        self.daemon.answers["Get"] = machine
        self.daemon.answers["List"] = CONTRACT.new("ListResponse", machines=[machine, machine])
        self.daemon.answers["Digest"] = CONTRACT.new("DigestResponse", digest="ab" * 16, op=12)
        out = self.ctl("machine", "get", "m0").stdout
        self.assertIn("m0: RUNNING, machine 9, 12 ops, 5M of the host's memory", out)
        self.assertIn("2147483648 (2G)", out)
        out = self.ctl("machine", "list").stdout.splitlines()
        self.assertEqual(len(out), 4)
        self.assertEqual(out[2].split()[:10], ["m0", "9", "RUNNING", "LINUX_6_1", "2G", "1", "12", "0", "0", "5M"])
        self.assertEqual(json.loads(self.ctl("machine", "list", "--json").stdout)[1]["config"]["preset"], "LINUX_6_1")
        self.assertEqual(self.ctl("machine", "digest", "-m", "m0").stdout, "ab" * 16 + " 12\n")
        self.ctl("machine", "destroy", "m0")
        self.assertEqual(self.last("Destroy").machine, "m0")
        self.daemon.answers["Check"] = CONTRACT.new("CheckResponse", ok=True, op=12)
        self.ctl("machine", "check", "m0")
        self.daemon.answers["Check"] = CONTRACT.new("CheckResponse", lie="free pages of NORMAL", op=12)
        self.assertIn("free pages of NORMAL", self.ctl("machine", "check", "m0", code=LIE).stdout)


class Map(Case):
    def setUp(self):
        super().setUp()
        self.daemon.answers["Inspect"] = self.inspect
        self.daemon.answers["Query"] = [page([["the page cache"]], ["label"])]

    @staticmethod
    def inspect(request, _context):
        r = CONTRACT.new("InspectResponse", op=42)
        question = request.WhichOneof("question")
        getattr(r, question).SetInParent()
        if question == "zoneinfo":
            r.zoneinfo.zones.add(zone=0, start=0, spanned=4096, managed=4000, free=2048, min=1, low=2, high=3)
            r.zoneinfo.zones.add(zone=1, start=4096, spanned=61440, managed=60000, free=61440)
        elif question == "frame_map" and request.frame_map.grain == 0:
            r.frame_map.runs.add(first=0, count=2048, zone=0, state=0)
            r.frame_map.runs.add(first=2048, count=2048, zone=0, state=9, owner=1)
            r.frame_map.runs.add(first=4096, count=61440, zone=1, state=0)
        elif question == "layout":
            r.layout.parts.add(part=0, start=0, end=0xc0000000)
            r.layout.parts.add(part=1, start=0xc0000000, end=0xf0000000)
            r.layout.parts.add(part=5, start=0xff000000, end=0)
            r.layout.parts.add(part=6, start=0xff800000, end=0xffc00000)
        elif question == "kmap_window":
            r.kmap_window.summary.add(slots=1024, used=3, stale=2)
        return r

    @staticmethod
    def cells(text):
        return [l for l in text.splitlines() if re.match("  0x[0-9a-f]{6} ", l)]

    def test_ascii(self):
        out = self.ctl("map", "-m", "m0", "--ascii").stdout
        self.assertTrue(out.isascii())
        self.assertIn("m0 after op 42", out)
        self.assertIn("a cell is 64 frames", out)
        self.assertEqual(out.count("F"), 32 + out.count("Fr"))
        self.assertEqual(sum(line.count(".") for line in self.cells(out)), 32 + 960)
        self.assertIn("2048 pages  the page cache", out)
        self.assertIn("63488 pages  free", out)
        self.assertIn("direct map", out)
        self.assertIn("    kmap local", out.replace("  kmap local", "    kmap local"))
        for line in out.splitlines():
            self.assertLessEqual(len(line), 110)

    def test_unicode_and_width(self):
        out = self.ctl("map", "-m", "m0").stdout
        self.assertNotIn("\033", out)
        for width in ("20", "40", "300"):
            env = dict(self.environment(), COLUMNS=width)
            done = subprocess.run([ZONECTL, "map", "-m", "m0"], env=env, check=True, capture_output=True, text=True)
            self.assertLessEqual(max(len(c) for c in self.cells(done.stdout)), max(int(width), 40))


class Top(Case):
    def machine(self, *ops):
        ops = iter(ops)
        self.daemon.answers["List"] = CONTRACT.new("ListResponse", machines=[CONTRACT.new("Machine", name="m0", id=3)])
        self.daemon.answers["Get"] = lambda request, _context: CONTRACT.new(
            "Machine", name="m0", id=3, state=2, ops=next(ops), config={"cpus": 1})
        self.daemon.answers["Inspect"] = Map.inspect

    def test_an_idle_machine_is_not_asked(self):
        self.machine(5, 5, 5, 6, 6)
        self.ctl("top", "-m", "m0", "--batch", "-n", "5", "-i", "100ms")
        calls = [n for n, _ in self.daemon.calls]
        self.assertEqual((calls.count("List"), calls.count("Get"), calls.count("Tail")), (1, 5, 2))
        questions = [r.WhichOneof("question") for n, r in self.daemon.calls if n == "Inspect"]
        self.assertEqual(sorted(questions), sorted(2 * list(set(questions))))
        # The fake's tails have no records: the second has to begin where the first did.
        tails = [r for n, r in self.daemon.calls if n == "Tail"]
        self.assertTrue(all(t.no_follow and t.kinds and t.every_op for t in tails))
        self.assertEqual([(t.after_op, t.from_start) for t in tails], [(0, True), (0, True)])

    def test_a_fast_machine_is_asked_for_its_last_ops(self):
        self.machine(1000000)
        self.ctl("top", "--once")
        self.assertEqual(self.last("Tail").after_op, 1000000 - 64)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]] + sys.argv[4:])
