#!/usr/bin/python3
"""Machines that have ended are forgotten whole, and the file becomes smaller.

    test_forget.py ZONED ZONED_BINPB ZONECTL [unittest arguments]

What is held: those that live, forks of what is gone among them, have the digest that they
had, after a kill too; `zonectl history verify` finds nothing but the truth; no number is
used again.
"""
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "rpc"))
from zoned_client import Contract, DaemonCase  # noqa: E402

MIB = 1 << 20
GFP_HIGHUSER = 0x100cc2


class Forget(DaemonCase):
    def begin(self, *options):
        super().begin(PROGRAM, CONTRACT, *options)

    def ask(self, sql):
        """As another program reads the file, also while no daemon runs."""
        db = sqlite3.connect(self.daemon.history)
        rows = db.execute(sql).fetchall()
        db.close()
        return rows

    def number(self, sql):
        return self.ask(sql)[0][0]

    def work(self, machine, batches=1, owner="someone"):
        """Allocations, frees of half of them, and a file with bytes in it."""
        for _ in range(batches):
            allocs = [("AllocPages", {"gfp": GFP_HIGHUSER})] * 100
            kept = [r.alloc_pages.pfn for r in self.client.run(
                [self.client.batch(allocs, machine=machine, owner=owner)])]
            frees = [("FreePages", {"pfn": pfn}) for pfn in kept[::2]]
            list(self.client.run([self.client.batch(frees, machine=machine)]))
        file = self.client.op(machine, "FileCreate", {"size": 8192}).file
        self.client.op(machine, "FileWrite", {"file": file, "offset": 0, "data": b"bytes"})

    def wait_for(self, what, true):
        while not true():
            self.assertTrue(self.daemon.is_running(), f"the daemon died, no {what}")
            time.sleep(0.05)

    def history(self, command, code=0):
        r = subprocess.run([ZONECTL, "history", command, "--history", str(self.daemon.history)],
                           stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        self.assertEqual(r.returncode, code, r.stdout + r.stderr)
        return r.stdout + r.stderr

    def rows_of(self, *machines):
        """Rows that belong to these machines' ops, beside the machines' own."""
        ids = ", ".join(map(str, machines))
        return sum(self.number(f"SELECT count(*) FROM {table} WHERE {key} IN ({ids})")
                   for table, key in (("op_rows", "key >> 40"), ("op_more", "key >> 40"),
                                      ("payloads", "key >> 40"), ("completions", "key >> 40"),
                                      ("checkpoints", "key >> 40"), ("owners", "machine")))

    def test_by_age(self):
        self.begin("--checkpoint-ops", "300", "--retain-age", "1s")
        for name in ("lives", "ends"):
            self.client.create(name, ram=512 * MIB)
            self.work(name, owner=name + "'s")
        self.client.call("Machines/ForkAt", machine="ends", name="fork")
        self.client.call("Machines/ForkAt", machine="ends", name="fork-ends")
        # The latest number of all is one that ends: it must not come again.
        last = self.client.create("no-op", ram=64 * MIB).id
        for name in ("fork", "fork-ends", "ends"):
            self.work(name)
        self.assertEqual(self.rows_of(last), 1)
        ended = [self.client.machine(n).id for n in ("ends", "fork-ends", "no-op")]
        before = {n: self.client.digest(n) for n in ("lives", "fork")}
        for name in ("ends", "fork-ends", "no-op"):
            self.client.call("Machines/Destroy", machine=name)
        self.assertEqual(self.client.create("ends", ram=64 * MIB).id, last + 1)
        self.wait_for("forgetting", lambda: self.rows_of(*ended) == 0)
        self.assertEqual(self.number("SELECT count(*) FROM checkpoint_pieces"),
                         self.number("SELECT sum(nr_pieces) FROM checkpoints"))
        # What they were is still known, and nothing that they did.
        self.assertEqual(self.ask("SELECT machine FROM machine_config WHERE first_op > 1 AND NOT"
                                  " live ORDER BY 1"),
                         [("ends",), ("fork-ends",), ("no-op",)])
        with self.assertRaises(grpc.RpcError) as refused:
            self.client.call("Machines/Digest", machine=f"#{ended[0]}",
                             at=CONTRACT.type("Moment")(op=3))
        self.assertEqual(refused.exception.code(), grpc.StatusCode.OUT_OF_RANGE)
        self.assertIn("3 machines that have ended are forgotten", self.history("verify"))
        # The fork goes on from where it was, with its own labels.
        self.again(kill=True)
        self.assertEqual({n: self.client.digest(n) for n in before}, before)
        self.work("fork", owner="ends's")
        self.assertEqual(self.client.create("next", ram=64 * MIB).id, last + 2)
        self.assertEqual(self.rows_of(*ended), 0)
        self.history("verify")

    def test_a_fork_without_its_origin(self):
        """Ended without a checkpoint, and later than what it came from: nobody can play it
        again, which is no lie."""
        self.begin()
        self.client.create("origin", ram=64 * MIB)
        self.work("origin")
        self.client.call("Machines/ForkAt", machine="origin", name="fork")
        self.work("fork")
        for name in ("origin", "fork"):
            self.client.call("Machines/Destroy", machine=name)
        self.client.create("lives", ram=64 * MIB)
        self.work("lives")

        def age():
            db = sqlite3.connect(self.daemon.history)
            db.execute("UPDATE machines SET ended_ns = 1 WHERE name = 'origin'")
            db.commit()
            db.close()

        self.again(options=("--retain-age", "7d"), between=age)
        self.wait_for("forgetting", lambda: self.rows_of(1) == 0)
        self.assertGreater(self.rows_of(2), 0)
        out = self.history("verify")
        self.assertIn("1 machines that have ended are forgotten", out)
        self.assertIn("1 forks that have ended were not replayed", out)
        # Of one that lives it would be a lie.
        self.client.close()
        self.daemon.kill()
        db = sqlite3.connect(self.daemon.history)
        db.execute("UPDATE machines SET ended_ns = NULL WHERE name = 'fork'")
        db.commit()
        db.close()
        self.assertIn("(fork): it cannot be played again", self.history("verify", code=1))
        self.daemon.start()
        self.client = self.connect()

    def test_by_size_and_the_file_shrinks(self):
        limit = 2 * MIB
        self.begin("--retain-size", str(limit))
        self.client.create("lives", ram=64 * MIB)
        self.work("lives")
        before = self.client.digest("lives")
        names = ["giant", "m0", "m1", "m2"]
        for name in names:
            self.client.create(name, ram=512 * MIB)
            self.work(name, 300 if name == "giant" else 20)
            self.client.call("Machines/Destroy", machine=name)
        self.wait_for("forgetting", lambda: self.rows_of(2) == 0)
        self.wait_for("shrinking", lambda: self.daemon.history.stat().st_size < 1.4 * limit)
        # The oldest went first, and no more than had to go.
        self.assertEqual(self.ask("SELECT name FROM machines WHERE ended_ns IS NOT NULL AND"
                                  " first_op = 1 ORDER BY id"), [("m0",), ("m1",), ("m2",)])
        self.history("verify")
        self.again(kill=True)
        self.assertEqual(self.client.digest("lives"), before)

    def test_compact(self):
        self.begin()
        self.client.create("lives", ram=64 * MIB)
        self.work("lives")
        self.client.create("ends", ram=512 * MIB)
        self.work("ends", 200)
        self.client.call("Machines/Destroy", machine="ends")
        before = self.client.digest("lives")
        # A file that was made without a thought of forgetting keeps its size.
        self.again(options=("--retain-age", "1s"))
        self.wait_for("forgetting", lambda: self.rows_of(2) <= 3)  # of the newest op
        self.assertIn("zonectl history compact", (self.daemon.folder / "log").read_text())
        self.assertIn("another daemon", self.history("compact", code=3))
        self.assertEqual(self.number("PRAGMA auto_vacuum"), 0)
        self.client.close()
        self.assertEqual(self.daemon.stop(), 0)
        size = self.daemon.history.stat().st_size
        free = self.number("PRAGMA freelist_count")
        self.assertGreater(free, 256)
        self.assertIn(f"were {size}", self.history("compact"))
        self.assertEqual(self.number("PRAGMA auto_vacuum"), 2)
        self.assertLess(self.daemon.history.stat().st_size, size - (free - 64) * 4096)
        self.history("verify")
        self.daemon.start()
        self.client = self.connect()
        self.assertEqual(self.client.digest("lives"), before)
        # And from now on it gives back by itself.
        self.client.create("ends", ram=512 * MIB)
        self.work("ends", 200)
        self.client.call("Machines/Destroy", machine="ends")
        self.wait_for("shrinking", lambda: self.daemon.history.stat().st_size < 0.7 * size)
        self.history("verify")

    def test_nothing_to_compact(self):
        with tempfile.TemporaryDirectory() as folder:
            for path, text in ((Path(folder) / "none", "no such file"),
                               (Path(folder) / "other", "not an SQLite file")):
                if path.name == "other":
                    path.write_text("something else, longer than SQLite's header " * 20)
                r = subprocess.run([ZONECTL, "history", "compact", "--history", str(path)],
                                   stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                   check=False)
                self.assertEqual(r.returncode, 3)
                self.assertIn(text, r.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    PROGRAM, CONTRACT, ZONECTL = sys.argv[1], Contract(sys.argv[2]), sys.argv[3]
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
