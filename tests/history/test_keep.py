#!/usr/bin/python3
"""Machines kept as they are, by a daemon that runs: checkpoints at its end and beside its
work, and the record before them forgotten.

    test_keep.py ZONED ZONED_BINPB [unittest arguments]

The measure is always the digest: of the machine before, of the machine that came back from
a checkpoint, and of the one that came back without any.
"""
import sqlite3
import sys
import time
import unittest
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "rpc"))
from zoned_client import Contract, DaemonCase  # noqa: E402

GFP_KERNEL, GFP_HIGHUSER = 0xcc0, 0x100cc2
MIB = 1 << 20


class KeepTest(DaemonCase):
    def begin(self, *options):
        super().begin(PROGRAM, CONTRACT, *options)

    def again(self, kill, between=""):
        super().again(kill, between=lambda: self.change(between))

    def change(self, sql):
        """As nobody does to a history that he wants to keep."""
        db = sqlite3.connect(self.daemon.history)
        db.executescript(sql)
        db.close()

    def ask(self, sql):
        return [tuple(row) for row in self.client.query(sql)]

    def work(self, machine, batches=10):
        """Allocations, and frees of half of them."""
        for _ in range(batches):
            kept = []
            allocs = [("AllocPages", {"gfp": GFP_HIGHUSER})] * 100
            for r in self.client.run([self.client.batch(allocs, machine=machine)]):
                kept.append(r.alloc_pages.pfn)
            frees = [("FreePages", {"pfn": pfn}) for pfn in kept[::2]]
            list(self.client.run([self.client.batch(frees, machine=machine)]))

    def wait_for(self, what, true):
        while not true():
            self.assertTrue(self.daemon.is_running(), f"the daemon died, no {what}")
            time.sleep(0.05)

    def digests(self, *names):
        return {n: self.client.digest(n) for n in names}

    def test_the_end_keeps_every_machine(self):
        self.begin()
        for name in ("a", "b"):
            self.client.create(name, ram=512 * MIB)
            self.work(name)
        self.client.op("a", "Fork", {"name": b"f"})
        self.client.op("a", "Snapshot", {"name": b"s"})
        self.work("f")
        before = self.digests("a", "b", "f", "s")
        ops = {m: self.client.machine(m).ops for m in before}
        self.again(kill=False)
        self.assertEqual(self.digests(*before), before)
        rows = dict(self.ask("SELECT m.name, c.key & 0xffffffffff FROM checkpoints c"
                             " JOIN machines m ON m.id = c.key >> 40"))
        self.assertEqual(rows, ops)
        # A second end, with nothing new, keeps nothing new.
        self.again(kill=False)
        self.assertEqual(len(self.ask("SELECT key FROM checkpoints")), len(rows))
        # And they are as good as the ops themselves.
        self.again(kill=True, between="DELETE FROM op_rows")
        self.assertEqual(self.digests(*before), before)

    def test_beside_the_work(self):
        self.begin("--checkpoint-ops", "300")
        self.client.create("m", ram=512 * MIB)
        self.wait_for("checkpoints", lambda: self.work("m", 5) or len(
            self.ask("SELECT key FROM checkpoints")) >= 3)
        self.work("m", 1)
        before = self.digests("m")
        self.again(kill=True)
        self.assertEqual(self.digests("m"), before)
        self.again(kill=True, between="UPDATE checkpoint_pieces SET data = zeroblob(100)")
        self.assertEqual(self.digests("m"), before)
        self.assertIn("a checkpoint is no good", (self.daemon.folder / "log").read_text())
        self.work("m", 1)

    def kept_from(self, machine):
        return self.client.machine(machine).first_op

    def taken(self, token, sequence):
        return self.client.call("Memory/Status", machine="m", token=token, sequence=sequence).taken

    def test_what_is_old_is_forgotten(self):
        self.begin("--checkpoint-ops", "300", "--retain-age", "1s")
        self.client.create("m", ram=512 * MIB)
        self.client.op("m", "AllocPages", {"gfp": GFP_KERNEL}, token=7, sequence=1)
        self.assertTrue(self.taken(7, 1))
        self.work("m", 10)
        self.assertEqual(self.kept_from("m"), 1)
        self.assertFalse(self.taken(8, 1))
        self.wait_for("pruning", lambda: self.work("m", 1) or self.kept_from("m") > 1)
        self.client.op("m", "Fork", {"name": b"f"})
        first = self.kept_from("m")
        self.wait_for("sweeping", lambda: self.ask(
            f"SELECT count(*) FROM op_rows WHERE key >> 40 = 1 AND key & 0xffffffffff"
            f" BETWEEN 1 AND {first - 1}") == [(0,)])
        self.assertEqual(self.ask("SELECT DISTINCT complete FROM event_alloc"
                                  " WHERE machine = 'm'"), [(0,)])
        # Of what may be forgotten nobody says that it never was.
        with self.assertRaises(grpc.RpcError) as refused:
            self.taken(7, 1)
        self.assertEqual(refused.exception.code(), grpc.StatusCode.OUT_OF_RANGE)
        self.client.op("m", "AllocPages", {"gfp": GFP_KERNEL}, token=7, sequence=2)
        self.assertTrue(self.taken(7, 2))
        self.assertFalse(self.taken(7, 3))
        self.work("f", 1)
        before = self.digests("m", "f")
        self.again(kill=True)
        self.assertEqual(self.digests("m", "f"), before)
        self.assertGreater(self.kept_from("m"), 1)

    def test_no_fork_of_what_is_forgotten(self):
        """A machine that was looked at as it was is still in memory when the record of how it
        came to be is gone. Made of it a fork could never be brought back."""
        self.begin("--checkpoint-ops", "300", "--retain-age", "1s")
        self.client.create("m", ram=512 * MIB)
        self.work("m", 1)
        moment = CONTRACT.type("Moment")(op=5)
        self.client.call("Machines/ForkAt", machine="m", name="early", at=moment)
        self.work("m", 5)
        self.client.call("Machines/Digest", machine="m", at=moment)
        self.wait_for("pruning", lambda: self.work("m", 1) or self.kept_from("m") > 6)
        with self.assertRaises(grpc.RpcError) as refused:
            self.client.call("Machines/ForkAt", machine="m", name="late", at=moment)
        self.assertEqual(refused.exception.code(), grpc.StatusCode.OUT_OF_RANGE)
        before = self.digests("m", "early")
        self.again(kill=True)
        self.assertEqual(self.digests("m", "early"), before)

    def test_what_is_too_much_is_forgotten(self):
        self.begin("--checkpoint-ops", "2000", "--retain-size", "2M")
        self.client.create("m", ram=512 * MIB)
        for _ in range(12):
            self.work("m", 25)
        self.wait_for("pruning", lambda: self.kept_from("m") > 1)
        before = self.digests("m")
        self.again(kill=True)
        self.assertEqual(self.digests("m"), before)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    PROGRAM, CONTRACT = sys.argv[1], Contract(sys.argv[2])
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
