#!/usr/bin/python3
"""`zonectl history verify` on a history that is whole, and on copies of it that are damaged,
each in one way: every lie is named and the exit code is 1.

    test_verify.py ZONED ZONED_BINPB ZONECTL [unittest arguments]

SEED=N repeats a run.
"""
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "rpc"))
from zoned_client import Contract, Daemon  # noqa: E402

MIB = 1 << 20
GFP_HIGHUSER = 0x100cc2
KEY = 1 << 40


def verify(path):
    # The folder has no terminal: nothing but the verdict is printed.
    r = subprocess.run([ZONECTL, "history", "verify", "--history", str(path)],
                       stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return r.returncode, r.stdout, r.stderr


class Verify(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        rng = random.Random(SEED)
        # A checkpoint every 100 ops, and one at the end.
        daemon = Daemon(PROGRAM, CONTRACT, cls.folder.name, "--checkpoint-ops", "100").start()
        client = daemon.client()
        client.create("m0", ram=64 * MIB)
        cls.live(client, "m0", rng, 250)
        client.op("m0", "Fork", {"name": b"m1"})
        cls.live(client, "m1", rng, 20)
        if daemon.stop() != 0:
            raise RuntimeError("the daemon did not stop in order")
        cls.history = daemon.history

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    @staticmethod
    def live(client, machine, rng, ops):
        pages = []
        for _ in range(ops):
            if pages and rng.random() < 0.4:
                pfn, order = pages.pop(rng.randrange(len(pages)))
                client.op(machine, "FreePages", {"pfn": pfn, "order": order})
                continue
            order = rng.choice((0, 0, 1, 3))
            r = client.op(machine, "AllocPages", {"gfp": GFP_HIGHUSER, "order": order})
            pages.append((r.pfn, order))
        file = client.op(machine, "FileCreate", {"size": 8192}).file
        client.op(machine, "FileWrite", {"file": file, "offset": 0, "data": b"what it was"})
        client.op(machine, "FileRead", {"file": file, "offset": 0, "length": 11})

    def damaged(self, *statements):
        """What verify says of a copy to which this was done."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy.db"
            shutil.copy(self.history, copy)
            db = sqlite3.connect(copy)
            changed = 0
            for sql in statements:
                changed += db.execute(sql).rowcount
            db.commit()
            db.close()
            self.assertNotEqual(changed, 0, "nothing was damaged")
            code, out, err = verify(copy)
        self.assertEqual(code, 1, f"SEED={SEED} {out}{err}")
        return out

    def value(self, sql):
        db = sqlite3.connect(self.history)
        value = db.execute(sql).fetchone()[0]
        db.close()
        return value

    def test_whole(self):
        code, out, err = verify(self.history)
        self.assertEqual((code, err), (0, ""), out)
        self.assertIn("whole: 2 machines", out)
        self.assertGreater(self.value("SELECT count(*) FROM checkpoints"), 1)
        self.assertNotIn(" 0 checkpoints", out)

    def test_op_missing(self):
        self.assertIn("op 70 of machine 1 is missing",
                      self.damaged(f"DELETE FROM op_rows WHERE key = {KEY} + 70"))

    def test_last_op_missing(self):
        last = self.value(f"SELECT max(key) & {KEY - 1} FROM op_rows WHERE key < 2 * {KEY}")
        self.assertIn(f"op {last} of machine 1 is missing: there is a checkpoint",
                      self.damaged(f"DELETE FROM op_rows WHERE key = {KEY} + {last}",
                                   f"DELETE FROM op_more WHERE key = {KEY} + {last}"))

    def test_op_twice(self):
        columns = "time_ns, what, caller, latency_ns, a01, v0, v12, events, kinds"
        last = self.value(f"SELECT max(key) FROM op_rows")
        event = self.value("SELECT max(key) FROM op_rows WHERE events > 0")
        out = self.damaged(f"INSERT INTO op_rows(key, {columns}) SELECT {last} + 1, {columns}"
                           f" FROM op_rows WHERE key = {event}")
        self.assertIn("is missing, or another op's too", out)

    def test_op_changed(self):
        out = self.damaged(f"UPDATE op_rows SET v0 = v0 + 1 WHERE key = (SELECT key FROM op_rows"
                           f" WHERE key > {KEY} + 50 AND what & 0xffff = (SELECT code FROM"
                           " op_names WHERE name = 'AllocPages') LIMIT 1)")
        self.assertIn("it cannot be played again", out)

    def test_lineage(self):
        for parent in ("id", "id + 1"):
            self.assertIn("cannot be a fork of machine",
                          self.damaged(f"UPDATE machines SET forked_from = {parent} WHERE name ="
                                       " 'm1'", "DELETE FROM checkpoints WHERE key >> 40 = 2"))

    def test_payload_byte(self):
        out = self.damaged("UPDATE payloads SET data = CAST(X'57' || substr(data, 2) AS BLOB)"
                           " WHERE key ="
                           " (SELECT key FROM op_file_write WHERE machine_id = 1)")
        # Whichever comes first behind it: an op that reads the byte, or a checkpoint.
        self.assertRegex(out, r"machine 1 \(m0\): (it cannot be played again|the checkpoint at op \d+ is not)")

    def test_payload_missing(self):
        out = self.damaged("DELETE FROM payloads WHERE key ="
                           " (SELECT key FROM op_file_write WHERE machine_id = 1)")
        self.assertIn("has no payload of the length", out)

    def test_events(self):
        middle = self.value("SELECT max(id) / 2 FROM events")
        self.assertIn(f"event {middle} of op", self.damaged(f"DELETE FROM event_rows WHERE id = {middle}"))
        last = self.value("SELECT max(id) FROM events")
        self.assertIn(f"event {last + 1} belongs to no op", self.damaged(
            f"INSERT INTO event_rows SELECT kind, w01, w23, w45, {last} + 1 FROM event_rows"
            f" WHERE id = {last}"))
        self.assertIn("are not of the kinds", self.damaged(
            f"UPDATE event_rows SET kind = CASE kind WHEN 1 THEN 2 ELSE 1 END WHERE id = {middle}"))

    def test_checkpoint(self):
        first = self.value("SELECT min(key) FROM checkpoints")
        op = first % KEY
        out = self.damaged("UPDATE checkpoint_pieces SET data = CAST("
                           "substr(data, 1, length(data) - 9) || zeroblob(9) AS BLOB)"
                           f" WHERE id = (SELECT first_piece FROM checkpoints"
                           f" WHERE key = {first})")
        self.assertIn(f"machine 1 (m0): the checkpoint at op {op}", out)
        out = self.damaged(f"DELETE FROM checkpoint_pieces WHERE id = (SELECT first_piece FROM"
                           f" checkpoints WHERE key = {first})")
        self.assertIn(f"the checkpoint at op {op}", out)
        out = self.damaged("UPDATE checkpoints SET digest = '0123456789abcdef' ||"
                           f" substr(digest, 17) WHERE key = {first}")
        self.assertIn(f"the checkpoint at op {op}: its digest is another", out)

    def test_page(self):
        """Garbage over a page of the file."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy.db"
            shutil.copy(self.history, copy)
            db = sqlite3.connect(copy)
            root = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'event_rows'").fetchone()[0]
            size = db.execute("PRAGMA page_size").fetchone()[0]
            db.close()
            with open(copy, "r+b") as f:
                f.seek((root - 1) * size)
                f.write(random.Random(SEED).randbytes(size))
            code, out, err = verify(copy)
        self.assertEqual(code, 1, f"SEED={SEED} {out}{err}")
        self.assertIn("damaged", out + err)

    def test_not_a_history(self):
        with tempfile.TemporaryDirectory() as folder:
            other = Path(folder) / "other.db"
            other.write_text("something else, longer than the header of an SQLite file " * 20)
            self.assertEqual(verify(other)[0], 3)
            self.assertEqual(verify(Path(folder) / "none.db")[0], 3)


class Forgotten(unittest.TestCase):
    def test_while_it_is_written(self):
        """The beginning is pruned, a fork stands on it, and a daemon goes on writing."""
        with tempfile.TemporaryDirectory() as folder:
            daemon = Daemon(PROGRAM, CONTRACT, folder, "--checkpoint-ops", "50", "--retain-age",
                            "1s").start()
            self.addCleanup(daemon.kill)
            client = daemon.client()
            self.addCleanup(client.close)
            client.create("m0", ram=64 * MIB)
            while client.machine("m0").first_op <= 1:
                pfn = client.op("m0", "AllocPages", {"gfp": GFP_HIGHUSER}).pfn
                client.op("m0", "FreePages", {"pfn": pfn})
            client.op("m0", "Fork", {"name": b"m1"})
            client.op("m1", "AllocPages", {"gfp": GFP_HIGHUSER})
            code, out, err = verify(daemon.history)
            self.assertEqual((code, err), (0, ""), out)
            self.assertIn("whole: 2 machines", out)


if __name__ == "__main__":
    PROGRAM, BINPB, ZONECTL = sys.argv[1:4]
    CONTRACT = Contract(BINPB)
    SEED = os.environ.get("SEED", str(time.time_ns()))
    print(f"SEED={SEED}")
    unittest.main(argv=[sys.argv[0]] + sys.argv[4:])
