#!/usr/bin/python3
"""What was seen of a machine while it lived is seen again later with `at`: every inspection,
the audit and the digest; after a restart, after its end, of a fork; and a machine that is
forked at an op goes on as the first one did.

    test_time_travel.py ZONED ZONED_BINPB ZONECTL [unittest arguments]

SEED=N repeats a run.
"""
import os
import random
import subprocess
import sys
import time
import unittest
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "rpc"))
from test_replay_daemon import Life  # noqa: E402
from zoned_client import Contract, DaemonCase  # noqa: E402

MIB = 1 << 20
LONG = os.environ.get("ZONED_TEST_LONG") == "1"
Code = grpc.StatusCode


class TimeTravelTest(DaemonCase):
    def setUp(self):
        self.begin(PROGRAM, CONTRACT)

    def inspect(self, machine, question, at=None, **args):
        request = CONTRACT.type("InspectRequest")(machine=machine)
        getattr(request, question).SetInParent()
        for name, value in args.items():
            setattr(getattr(request, question), name, value)
        if at is not None:
            request.at.op = at
        r = self.client.unary("Machines/Inspect")(request, timeout=60)
        self.assertEqual(r.op, at if at is not None else r.op)
        return r.SerializeToString()

    def look(self, machine, life, at=None):
        """Every inspection of the contract, the digest and the audit."""
        page = life.pages[0][0] if life.pages else 0x1400
        va = life.heaps[0][0] if life.heaps else 0x1000
        args = {"maps": {"task": life.task}, "page": {"pfn": page},
                "walk": {"va": va, "task": life.task}, "frame_map": {"grain": 64}}
        fields = [f.name for f in CONTRACT.type("InspectRequest").DESCRIPTOR.oneofs[0].fields]
        self.assertIn("zoneinfo", fields)
        seen = {}
        for question in fields:
            try:
                seen[question] = self.inspect(machine, question, at, **args.get(question, {}))
            except grpc.RpcError as e:
                seen[question] = e.code()
        moment = {} if at is None else {"at": CONTRACT.type("Moment")(op=at)}
        seen["digest"] = self.client.call("Machines/Digest", machine=machine, **moment).digest
        check = self.client.call("Machines/Check", machine=machine, **moment)
        self.assertTrue(check.ok, check.lie)
        return seen, (page, va, life.task)

    def live(self, machine, looks=5, **config):
        """Moments of a random life: op -> what was seen then, and of whom."""
        config = config or {"ram": 256 * MIB, "highmem": 64 * MIB}
        self.client.create(machine, **config)
        rng = random.Random(f"{SEED} {machine}")
        life = Life(self.client, machine, rng)
        life.begin()
        moments = []
        for _ in range(looks):
            life.more(rng.randrange(10, 60) * (10 if LONG else 1))
            moments.append((self.client.machine(machine).ops,
                            *self.look(machine, life)))
        return life, moments

    def assert_as_seen(self, machine, moments):
        class Then:
            pass

        # Backwards too, and in any order.
        for op, seen, (page, va, task) in random.Random(SEED).sample(moments, len(moments)):
            then = Then()
            then.pages, then.heaps, then.task = [(page, 0)], [(va, 0)], task
            again, _ = self.look(machine, then, op)
            for what, value in seen.items():
                self.assertEqual(again[what], value, f"SEED={SEED}: {what} of {machine} at {op}")

    def refused(self, code, fn, *args, **kwargs):
        with self.assertRaises(grpc.RpcError) as caught:
            fn(*args, **kwargs)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        return caught.exception.details()

    def test_as_it_was(self):
        _, moments = self.live("m0")
        self.assert_as_seen("m0", moments)
        self.assertEqual(self.daemon.stop(), 0)
        self.daemon.start()
        self.assert_as_seen("m0", moments)
        self.client.call("Machines/Destroy", machine="m0")
        self.assert_as_seen("m0", moments)
        # The name is free again; the number is for ever.
        number = f"#{self.client.create('m0', ram=64 * MIB).id - 1}"
        self.assert_as_seen(number, moments)
        self.refused(Code.OUT_OF_RANGE, self.inspect, "m0", "zoneinfo", 1)
        self.inspect("m0", "zoneinfo", 0)

    def test_errors(self):
        _, moments = self.live("m0", 1)
        last = moments[0][0]
        for op in (last + 1, 2 ** 40, 2 ** 64 - 1):
            self.refused(Code.OUT_OF_RANGE, self.inspect, "m0", "zoneinfo", op)
        self.refused(Code.NOT_FOUND, self.inspect, "nobody", "zoneinfo", 1)
        self.refused(Code.NOT_FOUND, self.inspect, "#77", "zoneinfo", 1)
        self.refused(Code.NOT_FOUND, self.inspect, "m0", "maps", 1, task=99)

    def test_fork_at(self):
        life, moments = self.live("m0")
        op, seen, _ = moments[2]
        fork = self.client.call("Machines/ForkAt", machine="m0", name="m1",
                                at=CONTRACT.type("Moment")(op=op))
        self.assertEqual((fork.name, fork.ops), ("m1", op))
        self.assertEqual(self.client.digest("m1"), seen["digest"])
        self.refused(Code.ALREADY_EXISTS, self.client.call, "Machines/ForkAt", machine="m0",
                     name="m1", at=CONTRACT.type("Moment")(op=op))
        self.refused(Code.OUT_OF_RANGE, self.client.call, "Machines/ForkAt", machine="m0",
                     name="m2", at=CONTRACT.type("Moment")(op=moments[-1][0] + 1))
        # Its labels and numbers are those of then: what comes next, comes alike.
        a = self.client.op("m1", "AllocPages", {"gfp": 0xcc0}, owner="a new one")
        self.assertEqual(a.outcome.op, op + 1)
        self.assert_as_seen("m1", moments[:3])
        last = self.client.call("Machines/ForkAt", machine="m0", name="m3")
        self.assertEqual(last.ops, moments[-1][0])
        self.assertEqual(self.client.digest("m3"), self.client.digest("m0"))
        # It is recovered like any other, and so is a fork of it at an op of its parent.
        digests = {m: self.client.digest(m) for m in ("m0", "m1", "m3")}
        self.client.call("Machines/ForkAt", machine="m1", name="m4",
                         at=CONTRACT.type("Moment")(op=moments[0][0]))
        self.client.call("Machines/Destroy", machine="m0")
        self.daemon.kill()
        self.daemon.start()
        for m in ("m1", "m3"):
            self.assertEqual(self.client.digest(m), digests[m])
        self.assertEqual(self.client.digest("m4"), moments[0][1]["digest"])
        self.assertEqual(self.client.call("Machines/ForkAt", machine="m0", name="m0", at=CONTRACT
                                          .type("Moment")(op=moments[1][0])).ops, moments[1][0])
        self.assertEqual(self.client.digest("m0"), moments[1][1]["digest"])

    def touched(self, machine, mib):
        """A machine whose RAM has been written to."""
        c = self.client
        c.create(machine, ram=2 * mib * MIB)
        c.op(machine, "TaskCreate")
        c.op(machine, "Schedule", {"next": 1})
        heap = c.op(machine, "Mmap", {"length": mib * MIB, "prot": 3}, task=1).addr
        writes = [("Access", {"va": heap + i * 65536, "length": 65536, "mode": 1, "data": b"x"},
                   {"machine": machine, "task": 1}) for i in range(mib * 16)]
        done = list(c.run([c.batch(writes)]))
        self.assertEqual(len(done), mib * 16)

    def during(self, call, *others):
        """How often the others could be called before the call was answered."""
        n = 0
        while not call.done():
            for other in others:
                other()
            n += not call.done()
        return n

    def test_others_go_on_while_ram_is_copied(self):
        c = self.client
        self.touched("big", 160)
        c.create("small", ram=64 * MIB)
        digest = c.digest("big")
        for name, kind in (("copy", "Fork"), ("still", "Snapshot")):
            # A busy host may leave this client no time meanwhile, but not always.
            for _ in range(20):
                call = c.start_op("big", kind, {"name": name.encode()})
                n = self.during(call, lambda: c.op("small", "AllocPages", {"gfp": 0xcc0}))
                self.assertEqual(call.result().outcome.status, 0)
                self.assertEqual(c.digest(name), c.digest("big"))
                if n > 4:
                    break
                c.call("Machines/Destroy", machine=name)
            else:
                self.fail("other machines waited for a copy")
        self.assertNotEqual(c.digest("big"), digest)
        # The machine's own clients wait, and go on after it.
        call = c.start_op("big", "Fork", {"name": b"again"})
        mine = c.op("big", "AllocPages", {"gfp": 0xcc0})
        self.assertEqual(mine.outcome.op, call.result().outcome.op + 1)
        # The name is taken meanwhile.
        call = c.start_op("big", "Fork", {"name": b"raced"})
        self.wait_until_copied(call, lambda: c.create("raced", ram=64 * MIB))
        # The machine ends meanwhile.
        call = c.start_op("copy", "Fork", {"name": b"orphan"})
        try:
            c.call("Machines/Destroy", machine="copy")
            call.result()
        except grpc.RpcError as e:
            self.assertIn(e.code(), (Code.NOT_FOUND, Code.ABORTED, Code.FAILED_PRECONDITION))
        names = {m.name for m in c.call("Machines/List").machines}
        self.assertNotIn("copy", names)
        # All of it comes back.
        digests = {n: c.digest(n) for n in names}
        self.assertEqual(self.daemon.stop(), 0)
        self.daemon.start()
        self.assertEqual({n: c.digest(n) for n in names}, digests)

    def wait_until_copied(self, call, make):
        """Either the copy or whoever took its name meanwhile has it, and the other is told."""
        try:
            make()
            self.assertEqual(call.result().outcome.status, 4)  # EXISTS
        except grpc.RpcError as e:
            self.assertEqual(e.code(), Code.ALREADY_EXISTS)
            self.assertEqual(call.result().outcome.status, 0)

    def ctl(self, *words, code=0):
        done = subprocess.run([ZONECTL, "--address", self.daemon.address, *words],
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout

    def test_zonectl(self):
        life, _ = self.live("m0", 1)
        words = [["zoneinfo"], ["buddyinfo"], ["tasks"], ["kmap-window"], ["map", "--ascii"],
                 ["maps", str(life.task)], ["meminfo", "--json"], ["machine", "check"],
                 ["machine", "digest"]]
        then = self.client.machine("m0").ops
        seen = [self.ctl(*w, "-m", "m0") for w in words]
        life.more(30)
        self.assertNotEqual(self.ctl("zoneinfo", "-m", "m0"), seen[0])
        for word, text in zip(words, seen):
            self.assertEqual(self.ctl(*word, "-m", "m0", "--at", str(then)), text, word)
        self.ctl("machine", "fork", "m0", "m1", "--at", str(then))
        self.assertEqual(self.ctl("machine", "digest", "m1"), seen[-1])
        self.assertIn("RUNNING", self.ctl("machine", "fork", "m0", "m2"))
        self.ctl("machine", "fork", "m0", "m2", code=1)
        self.ctl("zoneinfo", "-m", "m0", "--at", "1000000", code=4)
        self.ctl("zoneinfo", "-m", "m0", "--at", "then", code=2)


if __name__ == "__main__":
    PROGRAM, BINPB, ZONECTL = sys.argv[1:4]
    CONTRACT = Contract(BINPB)
    SEED = os.environ.get("SEED", str(time.time_ns()))
    print(f"SEED={SEED}")
    unittest.main(argv=[sys.argv[0]] + sys.argv[4:])
