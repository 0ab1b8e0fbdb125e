#!/usr/bin/python3
"""Random streams recorded by a daemon and played again by `zonectl replay`, while the
daemon still has the history: as recorded on the simulation and on the kernel back end, and
as what-ifs.

    test_replay_daemon.py ZONED ZONED_BINPB ZONECTL [KERNEL] [unittest arguments]

Without KERNEL the kernel back end is left out. SEED=N repeats a run.
"""
import json
import os
import random
import subprocess
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "rpc"))
from zoned_client import Contract, DaemonCase  # noqa: E402

MIB = 1 << 20
GFP_KERNEL, GFP_HIGHUSER = 0xcc0, 0x100cc2
READ_WRITE = 3
LONG = os.environ.get("ZONED_TEST_LONG") == "1"


class Life:
    """A client that does something to a machine and remembers what it got."""

    def __init__(self, client, machine, rng):
        self.client, self.machine, self.rng = client, machine, rng
        self.pages, self.mapped, self.areas, self.heaps = [], [], [], []
        self.task = 0

    def op(self, name, args=None, task=0):
        result = self.client.op(self.machine, name, args, task=task, owner=name.lower())
        return result if result.outcome.status == 0 else None

    def begin(self):
        self.task = self.op("TaskCreate").task
        self.op("Schedule", {"next": self.task})

    def alloc(self):
        order = self.rng.choice((0, 0, 0, 1, 3))
        gfp = self.rng.choice((GFP_KERNEL, GFP_HIGHUSER, GFP_HIGHUSER))
        r = self.op("AllocPages", {"gfp": gfp, "order": order})
        if r:
            self.pages.append((r.pfn, order))

    def free(self):
        # What is mapped with kmap cannot be freed in HIGHMEM, but in lowmem it can.
        free = [p for p in self.pages if p[0] not in self.mapped]
        if free:
            pfn, order = self.rng.choice(free)
            self.pages.remove((pfn, order))
            self.op("FreePages", {"pfn": pfn, "order": order})

    def kmap(self):
        if self.pages:
            pfn = self.rng.choice(self.pages)[0]
            r = self.op("Kmap", {"pfn": pfn}, self.task)
            if r:
                self.mapped.append(pfn)
                self.op("Access", {"va": r.va + 8, "mode": 1, "privilege": 1, "data": b"kernel"},
                        self.task)

    def kunmap(self):
        if self.mapped:
            self.op("Kunmap", {"pfn": self.mapped.pop(0)}, self.task)

    def vmalloc(self):
        r = self.op("Vmalloc", {"size": self.rng.randrange(1, 40) * 4096})
        if r:
            self.areas.append(r.va)

    def vfree(self):
        if self.areas:
            self.op("Vfree", {"va": self.areas.pop()})

    def mmap(self):
        length = self.rng.randrange(1, 60) * 4096
        r = self.op("Mmap", {"length": length, "prot": READ_WRITE}, self.task)
        if r:
            self.heaps.append((r.addr, length))

    def touch(self):
        if self.heaps:
            addr, length = self.rng.choice(self.heaps)
            self.op("Access", {"va": addr, "length": min(length, 65536), "mode": 1,
                               "data": b"user"}, self.task)

    def munmap(self):
        if self.heaps:
            addr, length = self.heaps.pop()
            self.op("Munmap", {"addr": addr, "length": length}, self.task)

    def fork(self):
        self.op("TaskFork", {"parent": self.task})

    def live(self, n):
        self.begin()
        self.more(n)

    def more(self, n):
        for _ in range(n):
            self.rng.choice((self.alloc, self.alloc, self.alloc, self.free, self.kmap, self.kunmap,
                             self.vmalloc, self.vfree, self.mmap, self.touch, self.touch,
                             self.munmap, self.fork))()


class ReplayTest(DaemonCase):
    def setUp(self):
        options = ("--kernel-image", KERNEL) if KERNEL else ()
        self.begin(PROGRAM, CONTRACT, *options)
        self.history = self.daemon.history

    def live(self, machine, n, **config):
        self.client.create(machine, **config)
        Life(self.client, machine, random.Random(f"{SEED} {machine}")).live(n * (10 if LONG else 1))

    def replay(self, machine, *flags):
        done = subprocess.run([ZONECTL, "replay", "--history", str(self.history), "-m", machine,
                               "--json", *flags], capture_output=True, text=True, check=False)
        return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr

    def equal(self, machine, *flags):
        code, report, errors = self.replay(machine, *flags)
        self.assertEqual(code, 0, f"SEED={SEED}\n{report and report.get('difference')}\n{errors}")
        self.assertTrue(report["equal"])
        return report

    def test_simulation(self):
        self.live("m0", 300, ram=512 * MIB, highmem=256 * MIB)
        report = self.equal("m0")
        self.assertEqual(report["ops"], self.client.machine("m0").ops)
        self.assertGreater(report["events"], report["ops"])

    def test_what_if(self):
        self.live("m0", 300, ram=1536 * MIB)
        code, report, errors = self.replay("m0", "--set", "split=3G,1G")
        self.assertEqual(code, 0, errors)
        same, other = report["worlds"]
        for kind in ("fails", "works", "answers", "moved", "skipped"):
            self.assertEqual(same[kind]["ops"], 0, f"SEED={SEED} {same}")
        # Under 1G there is no HIGHMEM, and enough of everything else.
        self.assertEqual(other["skipped"]["ops"], 0, f"SEED={SEED} {other}")
        self.assertEqual(other["fails"]["ops"], 0, f"SEED={SEED} {other}")
        self.assertGreater(other["frames"]["HIGHMEM"]["NORMAL"], 0)
        self.assertNotIn("HIGHMEM", other["zones"])
        self.assertEqual(report["recorded"]["pkmap_peak"] > 0, True)
        self.assertEqual(other["pkmap_peak"], 0)

    def test_forked_and_ended(self):
        self.live("m0", 60, ram=512 * MIB)
        self.client.op("m0", "Fork", {"name": b"m1"})
        self.client.op("m0", "Fork", {"name": b"m1"})  # EXISTS, and recorded
        Life(self.client, "m1", random.Random(SEED)).live(60)
        self.client.call("Machines/Destroy", machine="m1")
        self.equal("m0")
        self.equal("m1")

    def test_kernel(self):
        if not KERNEL:
            self.skipTest("no kernel image")
        image = ("--kernel-image", KERNEL)
        self.live("s", 150, ram=128 * MIB, highmem=48 * MIB)
        self.equal("s", "--backend", "kernel", *image)
        self.live("k", 150, ram=128 * MIB, highmem=48 * MIB, backend="KERNEL")
        self.equal("k", "--backend", "sim")
        self.equal("k", "--backend", "kernel", *image)
        code, report, errors = self.replay("s", "--backend", "kernel", *image, "--set",
                                           "highmem=48M")
        self.assertEqual(code, 0, errors)
        self.assertEqual(report["worlds"][0]["skipped"]["ops"], 0)


if __name__ == "__main__":
    PROGRAM, BINPB, ZONECTL = sys.argv[1:4]
    rest = sys.argv[4:]
    KERNEL = rest.pop(0) if rest and not rest[0].startswith("-") and "." in rest[0] else None
    CONTRACT = Contract(BINPB)
    SEED = os.environ.get("SEED", str(time.time_ns()))
    print(f"SEED={SEED}")
    unittest.main(argv=[sys.argv[0]] + rest)
