#!/usr/bin/python3
"""`zonectl tail` while the daemon under it is killed and started again: every op once, in
order. With --keep it is there before the daemon.

    test_tail_keep.py ZONED ZONED_BINPB ZONECTL [unittest arguments]
"""
import json
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "rpc"))
from zoned_client import Contract, Daemon  # noqa: E402

MIB = 1 << 20


class TailKeep(unittest.TestCase):
    def work(self, ops):
        client = self.daemon.client()
        for _ in range(ops):
            client.op("m0", "AllocPages", {"gfp": 0xcc0})
        client.close()

    def follow(self, *flags):
        tail = subprocess.Popen([ZONECTL, "--address", self.daemon.address, "tail", "-m", "m0",
                                 "--json", "--ops-only", *flags],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)
        self.addCleanup(tail.stdout.close)
        self.addCleanup(tail.stderr.close)
        self.addCleanup(tail.wait)
        self.addCleanup(tail.kill)
        return tail

    def numbers(self, tail, nr):
        return [json.loads(tail.stdout.readline())["number"] for _ in range(nr)]

    def test_restarts(self):
        with tempfile.TemporaryDirectory() as folder:
            self.daemon = Daemon(PROGRAM, CONTRACT, folder)
            # Without a daemon to begin with the usual tail gives up.
            self.assertEqual(self.follow().wait(), 3)
            self.daemon.start()
            self.addCleanup(self.daemon.kill)
            client = self.daemon.client()
            client.create("m0", ram=64 * MIB)
            client.close()
            self.daemon.stop()
            all_of_it = self.follow("--from-start", "--keep")
            self.daemon.start()
            self.assertEqual(self.numbers(all_of_it, 1), [0])  # the machine's making
            self.work(10)
            later = self.follow("--after", "5")
            filtered = self.follow("--after", "5", "--op", "free")
            once = self.follow("--after", "5", "--once")
            self.assertEqual(self.numbers(once, 5), list(range(6, 11)))
            unread = self.follow("--from-start")
            self.numbers(unread, 11)
            unread.stdout.close()  # nobody waits for it to come back
            for kill in (True, False, True):
                if kill:
                    self.daemon.kill()
                else:
                    self.assertEqual(self.daemon.stop(), 0)
                self.daemon.start()
                self.work(10)
            self.assertEqual(once.wait(), 3)
            self.assertEqual(unread.wait(), 0)
            self.assertEqual(self.numbers(all_of_it, 40), list(range(1, 41)))
            self.assertEqual(self.numbers(later, 35), list(range(6, 41)))
            client = self.daemon.client()
            pfn = client.op("m0", "AllocPages", {"gfp": 0xcc0}).pfn
            client.op("m0", "FreePages", {"pfn": pfn})
            client.close()
            self.assertEqual(self.numbers(filtered, 1), [42])
            # A machine that has only the name is not gone on with.
            later.send_signal(signal.SIGSTOP)
            self.daemon.kill()
            self.daemon.start()
            client = self.daemon.client()
            client.call("Machines/Destroy", machine="m0")
            client.create("m0", ram=64 * MIB)
            client.close()
            later.send_signal(signal.SIGCONT)
            self.assertEqual(later.wait(), 0)
            self.assertIn("another machine's now", later.stderr.read())
            self.daemon.stop()


if __name__ == "__main__":
    PROGRAM, BINPB, ZONECTL = sys.argv[1:4]
    CONTRACT = Contract(BINPB)
    unittest.main(argv=[sys.argv[0]] + sys.argv[4:])
