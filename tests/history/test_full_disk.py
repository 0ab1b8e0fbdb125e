#!/usr/bin/python3
"""The daemon on a small disk of its own that fills up.

    test_full_disk.py ZONED ZONED_BINPB [unittest arguments]

The disk is a tmpfs in a mount namespace of this test. Where neither root nor user
namespaces allow that, the test says so and is skipped (exit code 77).
"""
import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "rpc"))
from zoned_client import Contract, Daemon  # noqa: E402

INSIDE = "ZONED_TEST_FULL_DISK"
GFP_KERNEL = 0xcc0
MIB = 1 << 20
RESERVE = 64 * MIB  # history_options.disk_reserve_bytes


def private_namespace():
    """Runs this program again where it may mount, or ends it."""
    if os.environ.get(INSIDE):
        return
    for flags in (["-m"], ["-rm"]):
        probe = ["unshare", *flags, "sh", "-c", "mount -t tmpfs none /mnt"]
        if subprocess.run(probe, stderr=subprocess.DEVNULL, check=False).returncode == 0:
            os.environ[INSIDE] = "1"
            os.execvp("unshare", ["unshare", *flags, sys.executable, *sys.argv])
    print("SKIPPED: no tmpfs may be mounted here, so the full disk was NOT tested")
    sys.exit(77)


private_namespace()
PROGRAM, CONTRACT = sys.argv[1], Contract(sys.argv[2])


class FullDisk(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.disk = Path(folder.name)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={RESERVE + 24 * MIB}", "none",
                        folder.name], check=True)
        self.addCleanup(subprocess.run, ["umount", folder.name], check=True)
        self.daemon = Daemon(PROGRAM, CONTRACT, folder.name).start()
        self.addCleanup(self.end)
        self.client = self.daemon.client()
        self.addCleanup(lambda: self.client.close())
        self.client.create("m", ram=256 * MIB)
        self.acknowledged = []
        self.refusals = set()

    def end(self):
        self.assertTrue(self.daemon.is_running())
        self.assertEqual(self.daemon.stop(), 0)

    def free(self):
        fs = os.statvfs(self.disk)
        return fs.f_bavail * fs.f_frsize

    def work(self, client):
        """A batch; notes what was acknowledged and says whether all of it was."""
        ops = [("AllocPages", {"gfp": GFP_KERNEL}), ("DrainPcp", {})] * 250
        results = list(client.run([client.batch(ops, machine="m")]))
        self.assertEqual(len(results), len(ops))
        for r in results:
            if r.code:
                self.refusals.add((r.code, r.message))
            else:
                self.acknowledged.append(getattr(r, r.WhichOneof("result")).outcome.op)
        return not any(r.code for r in results)

    def wait_for(self, condition):
        while not condition():
            time.sleep(0.01)

    def verify(self):
        """Every acknowledged op is there, once, and a restart brings the same back."""
        c = self.client
        self.wait_for(lambda: c.machine("m").state == 2)
        self.assertEqual(len(set(self.acknowledged)), len(self.acknowledged))
        recorded = [row[0] for row in c.query(
            "select key & ((1 << 40) - 1) from op_rows where key & ((1 << 40) - 1) > 0 order by key")]
        self.assertEqual(recorded, list(range(1, len(recorded) + 1)))
        self.assertEqual(sorted(self.acknowledged), recorded)
        before = c.digest("m")
        c.close()
        self.daemon.kill()
        with contextlib.closing(sqlite3.connect(self.daemon.history)) as db:
            self.assertEqual(db.execute("pragma integrity_check").fetchall(), [("ok",)])
        self.daemon.start()
        self.client = c = self.daemon.client()
        self.assertEqual((c.machine("m").ops, c.digest("m")), (len(recorded), before))
        self.assertTrue(c.call("Machines/Check", machine="m").ok)

    def test_the_reserve_is_left_alone(self):
        while self.work(self.client):
            pass
        # Between two looks at the disk a few commits go through.
        self.assertGreater(self.free(), RESERVE - 8 * MIB)
        for code, message in self.refusals:
            self.assertEqual(code, grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
            self.assertIn("the reserve is", message)
        # What asks for no room goes on.
        self.assertEqual(self.client.machine("m").ops, len(self.acknowledged))
        self.assertTrue(self.resize(RESERVE + 96 * MIB))
        self.wait_for(lambda: self.work(self.client))
        self.verify()

    def resize(self, size):
        return subprocess.run(["mount", "-o", f"remount,size={size}", "none", self.disk],
                              stderr=subprocess.DEVNULL, check=False).returncode == 0

    def used(self):
        fs = os.statvfs(self.disk)
        return (fs.f_blocks - fs.f_bfree) * fs.f_frsize

    def fill(self):
        """At once: the disk is no larger than what is on it, and a little."""
        while not self.resize(self.used() + 64 * 1024):
            pass

    def test_full_at_once_in_mid_load(self):
        stop = threading.Event()
        client = self.daemon.client()

        def load():
            while not stop.is_set():
                self.work(client)

        thread = threading.Thread(target=load)
        thread.start()
        for _ in range(8):
            time.sleep(0.1)
            self.refusals.clear()
            self.fill()
            self.wait_for(lambda: self.refusals)
            self.resize(self.used() + RESERVE + 16 * MIB)
            known = len(self.acknowledged)
            self.wait_for(lambda: len(self.acknowledged) > known)
        stop.set()
        thread.join()
        failed = (self.daemon.folder / "log").read_text().count("a commit failed")
        print(f"{failed} commits met the full disk; {len(self.acknowledged)} ops acknowledged")
        client.close()
        for code, message in self.refusals:
            self.assertIn(code, (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0],
                                 grpc.StatusCode.UNAVAILABLE.value[0]), message)
        self.assertGreater(failed, 0)
        self.assertTrue(self.resize(RESERVE + 400 * MIB))
        self.wait_for(lambda: self.work(self.client))
        self.verify()


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
