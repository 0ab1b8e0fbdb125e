#!/usr/bin/python3
"""The daemon from end to end, through a stock gRPC client.

    test_daemon.py ZONED ZONED_BINPB [unittest arguments]

What is held here: an op's way and its record; parked ops and who ends them; restart
and kill -9 bring back the same digest; what is wrong is refused and harms nothing;
a new op needs nothing outside the contract and the engine.
"""
import os
import queue
import random
import re
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).parent))
from zoned_client import Client, Contract, Daemon, DaemonCase, snake  # noqa: E402

TOP = Path(__file__).resolve().parents[2]
GFP_KERNEL, GFP_HIGHUSER = 0xcc0, 0x100cc2
MIB = 1 << 20
Code = grpc.StatusCode


class DaemonTest(DaemonCase):
    options = ()

    def setUp(self):
        self.begin(PROGRAM, CONTRACT, *self.options)

    def status(self, result):
        return CONTRACT.pool.FindEnumTypeByName("zoned.v1.Status").values_by_number[
            result.outcome.status].name

    def refused(self, code, fn, *args, **kwargs):
        with self.assertRaises(grpc.RpcError) as caught:
            fn(*args, **kwargs)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        return caught.exception.details()

    def wait_for(self, what, condition):
        """Until a condition holds; the suite's own limit ends a wait for nothing."""
        while not condition():
            self.assertTrue(self.daemon.is_running(), f"the daemon died waiting for {what}")
            time.sleep(0.01)

    def fill_pkmap(self, machine="m"):
        """All slots of pkmap taken by task 1; task 2 current; a frame more to map."""
        c = self.client
        self.assertEqual(c.op(machine, "TaskCreate").task, 1)
        self.assertEqual(c.op(machine, "TaskCreate").task, 2)
        c.op(machine, "Schedule", {"next": 1})
        ops = [("AllocPages", {"gfp": GFP_HIGHUSER})] * 1025
        pfns = [r.alloc_pages.pfn for r in c.run([c.batch(ops, machine=machine)])]
        maps = [("Kmap", {"pfn": p}) for p in pfns[:1024]]
        results = list(c.run([c.batch(maps, machine=machine, task=1)]))
        self.assertEqual({self.status(r.kmap) for r in results}, {"OK"})
        c.op(machine, "Schedule", {"next": 2})
        return pfns


class Ops(DaemonTest):
    def test_an_op_and_its_record(self):
        c = self.client
        m = c.create("m", ram=512 * MIB)
        self.assertEqual((m.name, m.ops, m.config.ram), ("m", 0, 512 * MIB))
        r = c.op("m", "AllocPages", {"gfp": GFP_KERNEL, "order": 2}, owner="somebody")
        self.assertEqual((self.status(r), r.outcome.op), ("OK", 1))
        self.assertEqual(r.pfn % 4, 0)
        bad = c.op("m", "FreePages", {"pfn": r.pfn, "order": 1})
        self.assertEqual((self.status(bad), bad.outcome.op), ("WRONG_ORDER", 2))
        self.assertIn("another order", bad.outcome.detail)
        rows = c.query("SELECT key & 0xffffffffff, code, owner, status, a0, a1, v0 FROM ops"
                       " WHERE key & 0xffffffffff > 0 ORDER BY key")
        self.assertEqual(rows, [[1, 20, 1, 0, GFP_KERNEL, 2, r.pfn],
                                [2, 21, 0, 13, r.pfn, 1, 0]])
        self.assertEqual(c.query("SELECT number, label FROM owners"), [[1, "somebody"]])
        check = c.call("Machines/Check", machine="m")
        self.assertEqual((check.ok, check.lie, check.op), (True, "", 2))

    def test_owners_are_numbered_in_the_order_of_first_use(self):
        c = self.client
        c.create("m", ram=64 * MIB)
        for owner in ("b", "a", "b", "", "c", "a"):
            c.op("m", "AllocPages", {"gfp": GFP_KERNEL}, owner=owner)
        # An op that is refused before it exists uses no label.
        self.refused(Code.INVALID_ARGUMENT, c.op, "m", "AllocPages",
                     {"gfp": GFP_KERNEL, "order": 11}, owner="never")
        c.op("m", "AllocPages", {"gfp": GFP_KERNEL}, owner="d")
        self.assertEqual(c.query("SELECT number, label FROM owners ORDER BY number"),
                         [[1, "b"], [2, "a"], [3, "c"], [4, "d"]])
        self.assertEqual([r[0] for r in c.query("SELECT owner FROM ops WHERE code ORDER BY key")],
                         [1, 2, 1, 0, 3, 2, 4])

    def test_run_carries_its_context_over(self):
        c = self.client
        c.create("m", ram=256 * MIB)
        c.create("n", ram=256 * MIB)
        batches = [
            c.batch([("AllocPages", {"gfp": GFP_KERNEL})] * 3, machine="m", owner="x"),
            c.batch([("AllocPages", {"gfp": GFP_KERNEL}),
                     ("AllocPages", {"gfp": GFP_KERNEL, "order": 77}),
                     ("AllocPages", {"gfp": GFP_KERNEL}, {"machine": "n"}),
                     ("AllocPages", {"gfp": GFP_KERNEL}, {"machine": "nobody"})]),
        ]
        results = {r.index: r for r in c.run(batches)}
        self.assertEqual(sorted(results), list(range(7)))
        self.assertEqual([results[i].alloc_pages.outcome.op for i in (0, 1, 2, 3, 5)],
                         [1, 2, 3, 4, 1])
        self.assertEqual((results[4].code, results[6].code), (3, 5))
        self.assertIn("order", results[4].message)
        self.assertIn("nobody", results[6].message)
        self.assertEqual(c.query("SELECT machine, label FROM owners ORDER BY machine"),
                         [[1, "x"], [2, "x"]])

    def test_inspections_have_rows_and_text(self):
        c = self.client
        c.create("m", ram=1024 * MIB)
        questions = CONTRACT.pool.FindMessageTypeByName("zoned.v1.InspectRequest").fields
        needs = {"maps": {"task": 1}, "page": {"pfn": 5000}, "walk": {"va": 0xc0000000}}
        c.op("m", "TaskCreate")
        asked = 0
        for f in questions:
            if f.containing_oneof is None:
                continue
            q = CONTRACT.type("InspectRequest")(machine="m")
            getattr(q, f.name).SetInParent()
            getattr(q, f.name).CopyFrom(CONTRACT.type(f.message_type.name)(**needs.get(f.name, {})))
            r = c.unary("Machines/Inspect")(q, timeout=60)
            self.assertEqual(r.WhichOneof("report"), f.name)
            self.assertEqual(r.op, 1)
            asked += 1
        self.assertGreater(asked, 10)
        zones = c.call("Machines/Inspect", machine="m", zoneinfo={}).zoneinfo.zones
        self.assertGreater(sum(z.free for z in zones), 200000)
        self.refused(Code.INVALID_ARGUMENT, c.call, "Machines/Inspect", machine="m")

    def test_destroy_ends_a_machine_for_ever(self):
        c = self.client
        first = c.create("m", ram=64 * MIB).id
        self.refused(Code.ALREADY_EXISTS, c.create, "m", ram=64 * MIB)
        c.op("m", "AllocPages", {"gfp": GFP_KERNEL})
        c.call("Machines/Destroy", machine="m")
        self.refused(Code.NOT_FOUND, c.op, "m", "AllocPages", {"gfp": GFP_KERNEL})
        self.refused(Code.NOT_FOUND, c.digest, "m")
        second = c.create("m", ram=64 * MIB).id
        self.assertGreater(second, first)
        self.again()
        self.assertEqual([m.id for m in self.client.call("Machines/List").machines], [second])

    def test_tail_gives_every_op_in_order(self):
        c = self.client
        c.create("m", ram=64 * MIB)
        list(c.run([c.batch([("AllocPages", {"gfp": GFP_KERNEL})] * 500, machine="m", owner="o")]))
        tail = c.channel.unary_stream(
            "/zoned.v1.History/Tail", request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=CONTRACT.type("TailResponse").FromString)
        request = CONTRACT.type("TailRequest")(machine="m", from_start=True, no_follow=True)
        records = [r for page in tail(request, timeout=60) for r in page.records]
        by_op = [r for r in records if r.op]
        self.assertEqual([r.op for r in by_op], list(range(1, 501)))
        self.assertEqual({(r.machine, r.name, r.owner, r.status) for r in by_op},
                         {("m", "AllocPages", "o", "OK")})
        kinds = CONTRACT.enum("EventKind")
        self.assertTrue(all(any(e.kind == kinds["EVENT_ALLOC"].number for e in r.events)
                            for r in by_op))
        # Following: a new op arrives without being asked for.
        follow = tail(CONTRACT.type("TailRequest")(machine="m", after_op=500), timeout=60)
        c.op("m", "DrainPcp")
        record = next(iter(follow)).records[0]
        self.assertEqual((record.op, record.name), (501, "DrainPcp"))
        follow.cancel()

    def test_tail_by_kind_and_zone(self):
        c = self.client
        c.create("m", ram=1024 * MIB)
        kinds, zones = CONTRACT.enum("EventKind"), CONTRACT.enum("Zone")
        normal = [c.op("m", "AllocPages", {"gfp": GFP_KERNEL}).outcome.op for _ in range(3)]
        high = [c.op("m", "AllocPages", {"gfp": GFP_HIGHUSER}).outcome.op for _ in range(3)]
        c.op("m", "FlushTlb")
        tail = c.channel.unary_stream(
            "/zoned.v1.History/Tail", request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=CONTRACT.type("TailResponse").FromString)

        def ops(**filters):
            request = CONTRACT.type("TailRequest")(machine="m", from_start=True, no_follow=True,
                                                   **filters)
            records = [r for page in tail(request, timeout=60) for r in page.records]
            self.assertTrue(filters.get("every_op") or all(r.events for r in records))
            self.assertTrue(all(e.kind in filters.get("kinds", [e.kind]) for r in records for e in r.events))
            return [r.op for r in records if r.op]

        alloc, flush = kinds["EVENT_ALLOC"].number, kinds["EVENT_TLB_FLUSH"].number
        highmem = zones["ZONE_HIGHMEM"].number
        self.assertEqual(ops(kinds=[alloc]), normal + high)
        self.assertEqual(ops(zones=[highmem]), high)
        self.assertEqual(ops(kinds=[alloc], every_op=True), normal + high + [high[-1] + 1])
        self.assertEqual(ops(every_op=True), normal + high + [high[-1] + 1])
        self.assertEqual(ops(zones=[highmem, zones["ZONE_NORMAL"].number], kinds=[alloc]),
                         normal + high)
        self.assertEqual(ops(zones=[zones["ZONE_MOVABLE"].number]), [])
        self.refused(Code.INVALID_ARGUMENT, ops, zones=[9])
        self.assertIn("name no zone", self.refused(Code.INVALID_ARGUMENT, ops, zones=[highmem],
                                                   kinds=[flush]))

    def test_a_slow_tail_is_told_how_far_behind_it_is(self):
        """It does not read; ops go on as ever, and then it hears how many there were."""
        c = self.client
        c.create("m", ram=1024 * MIB)
        tail = c.channel.unary_stream(
            "/zoned.v1.History/Tail", request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=CONTRACT.type("TailResponse").FromString)
        pages = iter(tail(CONTRACT.type("TailRequest")(machine="m", from_start=True), timeout=120))
        total = 60000
        allocs = [("AllocPages", {"gfp": GFP_KERNEL}), ("AllocPages", {"gfp": GFP_KERNEL}),
                  ("DrainPcp", {})] * 200
        results = list(c.run([c.batch(allocs, machine="m")] * (total // 600)))
        self.assertEqual(len(results), total)
        last, behind = -1, []
        while last < total:
            page = next(pages)
            for record in page.records:
                # In order; of an op with many events the number comes again.
                self.assertIn(record.op, (last, last + 1))
                last = record.op
            if page.records:
                behind.append((last, page.behind))
        self.assertEqual(behind[-1], (total, 0))
        self.assertGreater(max(b for _, b in behind), total // 2)

    def test_queries_are_paged_limited_and_read_only(self):
        c = self.client
        c.create("m", ram=256 * MIB)
        list(c.run([c.batch([("AllocPages", {"gfp": GFP_KERNEL})] * 20000, machine="m")]))
        rows = c.query("SELECT a.key, a.code, a.time_ns, a.v0 FROM ops a, (SELECT 1 UNION SELECT 2)")
        self.assertEqual(len(rows), 2 * 20001)
        self.refused(Code.INVALID_ARGUMENT, c.query, "SELECT nothing FROM nowhere")
        self.refused(Code.INVALID_ARGUMENT, c.query, "DELETE FROM ops")
        self.refused(Code.INVALID_ARGUMENT, c.query, "")
        self.assertEqual(c.query("SELECT count(*) FROM ops WHERE code = ?1", 20), [[20000]])
        self.assertEqual(c.query("SELECT ?1, NULL, 1.5, x'00ff'", "text"),
                         [["text", None, 1.5, b"\x00\xff"]])


class Parking(DaemonTest):
    def setUp(self):
        super().setUp()
        self.client.create("m", ram=1024 * MIB)
        self.pfns = self.fill_pkmap()

    def completion(self):
        return self.client.query(
            "SELECT key & 0xffffffffff, woken_by, status FROM completions ORDER BY key")

    def park(self, client, timeout=60):
        before = self.client.machine("m").parked
        call = client.start_op("m", "Kmap", {"pfn": self.pfns[1024]}, task=2, timeout=timeout)
        self.wait_for("a sleeper", lambda: self.client.machine("m").parked == before + 1)
        return call, self.client.machine("m").ops

    def test_a_sleeper_is_woken_by_an_unmap(self):
        call, op = self.park(self.client)
        busy = self.client.op("m", "Kmap", {"pfn": self.pfns[0]}, task=2)
        self.assertEqual(self.status(busy), "BUSY")
        for pfn in self.pfns[:1024]:
            self.client.op("m", "Kunmap", {"pfn": pfn})
            if not self.client.machine("m").parked:
                break
        r = call.result()
        self.assertEqual((self.status(r), r.outcome.op), ("OK", op))
        self.assertNotEqual(r.va, 0)
        self.assertEqual([row[0] for row in self.completion()], [op])

    def test_a_deadline_withdraws(self):
        call, op = self.park(self.client, timeout=1)
        with self.assertRaises(grpc.RpcError) as caught:
            call.result()
        self.assertEqual(caught.exception.code(), Code.DEADLINE_EXCEEDED)
        self.wait_for("the withdrawal", lambda: not self.client.machine("m").parked)
        # An op of the daemon's own ended it, numbered like any other.
        self.assertEqual(self.completion(), [[op, op + 1, 16]])
        self.assertEqual(self.client.query(
            "SELECT code, a0, client FROM ops WHERE key & 0xffffffffff = ?1", op + 1),
            [[36, op, 0]])

    def test_a_client_that_leaves_withdraws(self):
        other = self.connect()
        _, op = self.park(other)
        other.close()
        self.wait_for("the withdrawal", lambda: not self.client.machine("m").parked)
        self.assertEqual(self.completion(), [[op, op + 1, 16]])

    def test_a_stream_answers_out_of_order(self):
        c = self.client
        ops = [("Kmap", {"pfn": self.pfns[1024]}, {"task": 2}), ("Kunmap", {"pfn": self.pfns[3]}),
               ("PurgeVmap", {})]
        results = list(c.run([c.batch(ops, machine="m")]))
        # The unmap woke the sleeper, and has its own answer first.
        self.assertEqual([r.index for r in results], [1, 0, 2])
        self.assertEqual([self.status(r.kmap) for r in results if not r.index], ["OK"])

    def test_a_sleeper_does_not_survive_a_restart_without_its_client(self):
        for kill in (False, True):
            with self.subTest(kill=kill):
                call, op = self.park(self.client)
                self.again(kill)
                self.assertTrue(call.done() or call.exception() is not None)
                self.wait_for("the withdrawal", lambda: not self.client.machine("m").parked)
                self.assertIn([op, op + 1, 16], self.completion())

    def test_the_daemon_s_end_tells_a_sleeper_to_come_back(self):
        call, op = self.park(self.client)
        self.assertEqual(self.daemon.stop(), 0)
        with self.assertRaises(grpc.RpcError) as caught:
            call.result()
        self.assertEqual(caught.exception.code(), Code.UNAVAILABLE)
        self.daemon.start()
        self.client = self.connect()
        self.wait_for("the withdrawal", lambda: not self.client.machine("m").parked)
        self.assertEqual(self.completion(), [[op, op + 1, 16]])

    def test_destroy_aborts_a_sleeper(self):
        call, _ = self.park(self.client)
        self.client.call("Machines/Destroy", machine="m")
        with self.assertRaises(grpc.RpcError) as caught:
            call.result()
        self.assertEqual(caught.exception.code(), Code.ABORTED)

    def test_a_fork_withdraws_the_sleepers_that_came_along(self):
        call, op = self.park(self.client)
        self.assertEqual(self.status(self.client.op("m", "Fork", {"name": b"f"})), "OK")
        self.wait_for("the fork's withdrawal", lambda: not self.client.machine("f").parked)
        self.assertEqual(self.client.machine("m").parked, 1)
        rows = self.client.query("SELECT key >> 40, key & 0xffffffffff, status FROM completions")
        self.assertEqual(rows, [[2, op, 16]])
        call.cancel()


    def test_as_many_sleep_as_there_are_tasks(self):
        """The limit of sleepers is that of tasks. At it everyone gets a defined answer, the
        machine adds up, and they all go when their client does."""
        c, other = self.client, self.connect()
        tasks = [2]
        while True:
            made = [r.task_create for r in c.run([c.batch([("TaskCreate", {})] * 128,
                                                          machine="m")])]
            tasks += [r.task for r in made if self.status(r) == "OK"]
            if any(self.status(r) != "OK" for r in made):
                break
        self.assertEqual(self.status(made[-1]), "LIMIT")
        self.assertEqual(len(tasks), 4095)  # and the holder, who is awake
        sleep = [op for t in tasks for op in (("Schedule", {"next": t}),
                                              ("Kmap", {"pfn": self.pfns[1024]}, {"task": t}))]
        stream = other.channel.stream_stream(
            "/zoned.v1.Memory/Run", request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=CONTRACT.type("ResultBatch").FromString)
        running = stream(iter([other.batch(sleep[i:i + 512], machine="m")
                               for i in range(0, len(sleep), 512)]), timeout=600)
        self.wait_for("the last sleeper", lambda: c.machine("m").parked == len(tasks))
        self.assertTrue(c.call("Machines/Check", machine="m").ok)
        # Who may not sleep, who sleeps already, and who would be the last one awake.
        answers = {"NO_SPACE": 0, "BUSY": tasks[7], "DEADLOCK": 1}
        for status, task in answers.items():
            c.op("m", "Schedule", {"next": task})
            r = c.op("m", "Kmap", {"pfn": self.pfns[1024]}, task=task)
            self.assertEqual(self.status(r), status)
        self.assertEqual(self.status(c.op("m", "TaskCreate")), "LIMIT")
        # The rest of the machine goes on, and a slot that comes free is the first one's.
        self.assertEqual(self.status(c.op("m", "AllocPages", {"gfp": GFP_KERNEL})), "OK")
        self.assertEqual(self.status(c.op("m", "Kunmap", {"pfn": self.pfns[5]})), "OK")
        self.wait_for("the first", lambda: c.machine("m").parked == 0)
        running.cancel()

    def test_a_deadline_is_no_undo(self):
        """It passes while a long op is under way: the caller hears DEADLINE_EXCEEDED, and the
        op is done and in the history. What Status denies has not been done."""
        c = self.client
        c.create("long", ram=1024 * MIB)
        size, began = 32 * MIB, time.monotonic()
        first = c.op("long", "Vmalloc", {"size": size})
        took = time.monotonic() - began
        self.assertEqual(self.status(c.op("long", "Vfree", {"va": first.va})), "OK")
        rng, done, sequence = random.Random(7), 0, 0
        while done < 5:
            sequence += 1
            try:
                r = c.op("long", "Vmalloc", {"size": size}, token=9, sequence=sequence,
                         timeout=rng.uniform(0, took))
                self.assertEqual(self.status(r), "OK")
            except grpc.RpcError as e:
                self.assertEqual(e.code(), Code.DEADLINE_EXCEEDED)
                r = None
            status = c.call("Memory/Status", machine="long", token=9, sequence=sequence)
            rows = c.query("SELECT key & 0xffffffffff, v0, status FROM ops WHERE token = 9 AND"
                           f" sequence = {sequence}")
            self.assertEqual(len(rows), int(status.taken))
            done += r is None and len(rows)
            if rows:
                self.assertEqual(rows[0][2], 0)
                self.assertEqual(self.status(c.op("long", "Vfree", {"va": rows[0][1]})), "OK")
                c.op("long", "PurgeVmap")
        before = c.digest("long")
        self.again(kill=True)
        self.assertEqual(self.client.digest("long"), before)


class Recovery(DaemonTest):
    def work(self, machine, seed, count=3000):
        """Random ops of every easy kind; most succeed, some must fail."""
        rng = random.Random(seed)
        c, held, ops = self.client, [], []
        for _ in range(count):
            pick = rng.random()
            if pick < 0.5 or not held:
                ops.append(("AllocPages", {"gfp": rng.choice([GFP_KERNEL, GFP_HIGHUSER, 0xa20]),
                                           "order": rng.choice([0, 0, 0, 1, 3, 9])}))
                held.append(len(ops) - 1)
            elif pick < 0.8:
                ops.append(("Vmalloc", {"size": rng.randrange(1, 40) * 4096}))
            else:
                ops.append(("FreePages", {"pfn": rng.randrange(1, 200000), "order": 0}))
        batches = [c.batch(ops[i:i + 128], machine=machine, owner=f"o{i % 3}")
                   for i in range(0, len(ops), 128)]
        return list(c.run(batches))

    def same_after(self, kill):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}", file=sys.stderr)
        c = self.client
        c.create("m", ram=1024 * MIB)
        c.create("early", ram=256 * MIB, early=True)
        c.op("early", "MemblockReserve", {"start": 0x200000, "size": 0x1000})
        c.op("early", "Boot")
        self.work("m", seed)
        c.op("m", "Snapshot", {"name": b"frozen"})
        c.op("m", "Fork", {"name": b"fork"})
        self.assertEqual(self.status(c.op("m", "Fork", {"name": b"fork"})), "EXISTS")
        self.assertEqual(self.status(c.op("m", "Fork", {"name": b"no/name"})), "INVALID")
        self.work("fork", seed + 1, 300)
        self.work("m", seed + 2, 300)
        c.op("fork", "Fork", {"name": b"grandchild"})
        c.call("Machines/Destroy", machine="fork")
        names = ["m", "early", "frozen", "grandchild"]
        before = {n: (c.digest(n), c.machine(n).ops, c.machine(n).state) for n in names}
        self.again(kill)
        c = self.client
        self.assertEqual({n: (c.digest(n), c.machine(n).ops, c.machine(n).state) for n in names},
                         before)
        for n in names:
            check = c.call("Machines/Check", machine=n)
            self.assertTrue(check.ok, check.lie)
        # And it goes on: numbers continue, a snapshot still refuses.
        self.assertEqual(c.op("m", "DrainPcp").outcome.op, before["m"][1] + 1)
        self.refused(Code.FAILED_PRECONDITION, c.op, "frozen", "DrainPcp")

    def test_forks_of_forks(self):
        """However deep, and though what they came from has ended."""
        c, deep = self.client, 100
        c.create("m0", ram=64 * MIB)
        for i in range(deep):
            self.assertEqual(self.status(c.op(f"m{i}", "AllocPages", {"gfp": GFP_KERNEL})), "OK")
            self.assertEqual(self.status(c.op(f"m{i}", "Fork", {"name": b"m%d" % (i + 1)})), "OK")
            c.call("Machines/Destroy", machine=f"m{i}")
        last = f"m{deep}"
        c.op(last, "AllocPages", {"gfp": GFP_KERNEL})
        before = c.digest(last)
        self.again(kill=True)
        c = self.client
        self.assertEqual((c.digest(last), c.machine(last).reason), (before, ""))
        # Its first op is its first ancestor's.
        then = c.call("Machines/Digest", machine=last, at=CONTRACT.type("Moment")(op=1)).digest
        self.assertEqual(then, c.call("Machines/Digest", machine="#1",
                                      at=CONTRACT.type("Moment")(op=1)).digest)
        r = subprocess.run([PROGRAM, "replay", "--history", str(self.daemon.history), "--machine",
                            last], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           check=False)
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)

    def test_a_restart_brings_back_the_same(self):
        self.same_after(kill=False)

    def test_kill_brings_back_the_same(self):
        self.same_after(kill=True)

    def test_nothing_acknowledged_is_lost_to_kill(self):
        """Killed in the middle of a stream: what was answered is there, and as answered."""
        c = self.client
        c.create("m", ram=1024 * MIB)
        answered = {}

        def stream():
            batches = (c.batch([("AllocPages", {"gfp": GFP_KERNEL})] * 64, machine="m")
                       for _ in range(100000))
            try:
                for r in c.run(batches):
                    answered[r.alloc_pages.outcome.op] = (r.alloc_pages.outcome.status,
                                                          r.alloc_pages.pfn)
            except grpc.RpcError:
                pass

        worker = threading.Thread(target=stream)
        worker.start()
        self.wait_for("some answers", lambda: len(answered) > 20000)
        self.daemon.kill()
        worker.join()
        self.daemon.start()
        self.client = self.connect()
        rows = {op: (status, pfn) for op, status, pfn in self.client.query(
            "SELECT key & 0xffffffffff, status, v0 FROM ops WHERE code")}
        self.assertGreaterEqual(len(rows), len(answered))
        self.assertEqual({op: rows.get(op) for op in answered}, answered)
        self.assertEqual(sorted(rows), list(range(1, len(rows) + 1)))
        self.assertEqual(self.client.machine("m").ops, len(rows))

    def test_a_fork_has_the_labels_of_its_own(self):
        """Owners are of one machine: a fork takes its parent's along, number by number,
        and what it adds is not its parent's."""
        c = self.client
        c.create("m", ram=256 * MIB)
        for owner in ("first", "second"):
            c.op("m", "AllocPages", {"gfp": GFP_KERNEL}, owner=owner)
        c.op("m", "Fork", {"name": b"f"}, owner="third")
        for kill in (False, True):
            c.op("f", "AllocPages", {"gfp": GFP_KERNEL, "order": 1}, owner="second")
            c.op("f", "AllocPages", {"gfp": GFP_KERNEL, "order": 2}, owner="own")
            c.op("m", "AllocPages", {"gfp": GFP_KERNEL, "order": 3}, owner="parent's")
            self.again(kill)
            c = self.client
        self.assertEqual(c.query(
            "SELECT machine, owner, count(*), sum(pages) FROM allocations"
            " GROUP BY machine, owner ORDER BY machine, owner"),
            [["f", "own", 2, 8], ["f", "second", 2, 4],
             ["m", "first", 1, 1], ["m", "parent's", 2, 16], ["m", "second", 1, 1]])
        labels = "SELECT label FROM owners JOIN machines m ON m.id = machine WHERE m.name = ?1" \
                 " ORDER BY number"
        self.assertEqual(c.query(labels, "f"), [["first"], ["second"], ["third"], ["own"]])
        self.assertEqual(c.query(labels, "m"), [["first"], ["second"], ["third"], ["parent's"]])
        # And by number in the engine's own state.
        r = c.op("f", "AllocPages", {"gfp": GFP_KERNEL}, owner="own")
        page = c.call("Machines/Inspect", machine="f", page={"pfn": r.pfn})
        self.assertRegex(page.text, r"owner\s+4\b")

    def test_status_knows_what_became_of_an_op(self):
        c = self.client
        c.create("m", ram=256 * MIB)
        r = c.op("m", "AllocPages", {"gfp": GFP_KERNEL}, token=77, sequence=1)
        list(c.run([c.batch([("AllocPages", {"gfp": GFP_KERNEL})] * 3, machine="m", token=78)]))
        for again in (False, True):
            if again:
                self.again(kill=True)
                c = self.client
            s = c.call("Memory/Status", machine="m", token=77, sequence=1)
            self.assertTrue(s.taken)
            self.assertEqual(s.result.alloc_pages, r)
            # A stream counts its ops by itself.
            for sequence in (1, 2, 3):
                s = c.call("Memory/Status", machine="m", token=78, sequence=sequence)
                self.assertEqual(s.result.alloc_pages.outcome.op, 1 + sequence)

    def test_what_status_denied_may_be_sent_again_and_comes_once(self):
        old = self.client
        old.create("m", ram=256 * MIB)
        new = self.connect()
        new.machine("m")
        for sequence in (1, 2):
            s = new.call("Memory/Status", machine="m", token=77, sequence=sequence)
            self.assertFalse(s.taken)
        # Should it still arrive by a call from before the question, it comes too late.
        self.refused(Code.ABORTED, old.op, "m", "AllocPages", {"gfp": GFP_KERNEL}, token=77,
                     sequence=2)
        # Whoever asked may send it again, under its name or another.
        r = new.op("m", "AllocPages", {"gfp": GFP_KERNEL}, token=77, sequence=2)
        self.assertEqual(self.status(r), "OK")
        r = old.op("m", "AllocPages", {"gfp": GFP_KERNEL}, token=77, sequence=3)
        self.assertEqual(self.status(r), "OK")
        self.assertEqual(new.query("select token, sequence from ops where token = 77"),
                         [[77, 2], [77, 3]])


class Disk(DaemonTest):
    def test_a_commit_that_fails_acknowledges_nothing(self):
        """The file may not grow: commits fail, callers hear of it, machines are made
        again from the record, and go on once there is room."""
        c = self.client
        c.create("m", ram=256 * MIB)
        c.create("untouched", ram=64 * MIB)
        pid, unlimited = self.daemon.process.pid, resource.RLIM_INFINITY
        ops = c.batch([("AllocPages", {"gfp": GFP_KERNEL})] * 100, machine="m", owner="before")
        list(c.run([ops]))
        before = c.digest("m")
        # Less than the smallest transaction writes, in whichever file it does.
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, unlimited))
        more = c.batch([("AllocPages", {"gfp": GFP_KERNEL})] * 2000, machine="m", owner="failed")
        results = list(c.run([more]))
        self.assertEqual(len(results), 2000)
        self.assertLessEqual({r.code for r in results}, {8, 14}, results[0].message)
        self.refused_with({Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE},
                          lambda: c.create("new", ram=64 * MIB))
        self.refused_with({Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE},
                          lambda: c.call("Machines/Destroy", machine="untouched"))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
        for name in ("m", "untouched"):
            self.wait_for(name, lambda: c.machine(name).state == 2)
        self.assertEqual((c.machine("m").ops, c.digest("m")), (100, before))
        self.assertEqual([m.name for m in c.call("Machines/List").machines], ["m", "untouched"])
        r = c.op("m", "AllocPages", {"gfp": GFP_KERNEL}, owner="after")
        self.assertEqual(r.outcome.op, 101)
        self.assertEqual(c.query("SELECT number, label FROM owners ORDER BY number"),
                         [[1, "before"], [2, "after"]])
        after = c.digest("m")
        self.again(kill=True)
        self.assertEqual(self.client.digest("m"), after)

    def refused_with(self, codes, fn):
        with self.assertRaises(grpc.RpcError) as caught:
            fn()
        self.assertIn(caught.exception.code(), codes)


class Wrong(DaemonTest):
    def test_configurations_that_no_machine_has(self):
        c, config = self.client, CONTRACT.type("MachineConfig")
        usable = {"type": "USABLE"}
        wrong = [
            config(),
            config(ram=64 * MIB, e820=[{"start": 0, "size": 64 * MIB, **usable}]),
            config(ram=(64 << 30) + 4096, pae=True),
            config(ram=1 << 12),
            config(ram=64 * MIB, cpus=33),
            config(ram=64 * MIB, preset=9),
            config(ram=64 * MIB, user_fallback=7),
            config(ram=64 * MIB, page_offset=0x12345678),
            config(ram=64 * MIB, vmalloc=0x40000001),
            config(e820=[{"start": 0, "size": 64 * MIB}]),
            config(e820=[{"start": 0, "size": 0, **usable}]),
            config(e820=[{"start": 0, "size": 64 * MIB, "type": 17}]),
            config(e820=[{"start": 0, "size": 64 * MIB, "type": "RESERVED"}]),
            config(e820=[{"start": 1 << 41, "size": 4096, **usable}]),
            config(e820=[{"start": i << 20, "size": 4096, **usable} for i in range(129)]),
            config(ram=64 * MIB, reserved=[{"start": 0, "size": 0}]),
            config(e820=[{"start": 0, "size": 64 * MIB, **usable},
                         {"start": 32 * MIB, "size": 64 * MIB, **usable}]),
        ]
        for w in wrong:
            with self.subTest(config=str(w)):
                details = self.refused(Code.INVALID_ARGUMENT, c.create, "m", config=w)
                self.assertGreater(len(details), 10)
        self.refused(Code.INVALID_ARGUMENT, c.call, "Machines/Create", name="m")
        for name in ("", "a/b", "x" * 64, "ä", "a b"):
            self.refused(Code.INVALID_ARGUMENT, c.create, name, ram=64 * MIB)
        self.refused(
            Code.INVALID_ARGUMENT, c.create, "m", ram=64 * MIB, backend="KERNEL", preset="ARM32"
        )
        self.assertEqual(len(c.call("Machines/List").machines), 0)

    def test_ops_that_cannot_be(self):
        c = self.client
        c.create("m", ram=64 * MIB)
        self.refused(Code.NOT_FOUND, c.op, "nobody", "DrainPcp")
        self.refused(Code.INVALID_ARGUMENT, c.op, "", "DrainPcp")
        self.refused(Code.INVALID_ARGUMENT, c.op, "m", "DrainPcp", cpu=32)
        self.refused(Code.INVALID_ARGUMENT, c.op, "m", "DrainPcp", owner="x" * 64)
        details = self.refused(Code.INVALID_ARGUMENT, c.op, "m", "AllocPages",
                               {"gfp": GFP_KERNEL, "order": 11})
        for word in ("order", "11", "0xa"):
            self.assertIn(word, details)
        self.refused(Code.INVALID_ARGUMENT, c.op, "m", "UnboostZone", {"zone": 9})
        self.refused(Code.INVALID_ARGUMENT, c.op, "m", "SetFixmap", {"index": 1, "prot": 8})
        self.refused(Code.INVALID_ARGUMENT, c.op, "m", "Mmap",
                     {"length": 4096, "prot": 3, "flags": 0x4})
        self.refused(Code.INVALID_ARGUMENT, c.op, "m", "Vmap", {"pfns": [1 << 24]})
        self.refused(Code.INVALID_ARGUMENT, c.op, "m", "Vmap", {"pfns": [1] * 16385})
        self.refused(Code.INVALID_ARGUMENT, c.op, "m", "FileWrite",
                     {"file": 1, "data": b"x" * 65537})
        # None of them exists.
        self.assertEqual(c.op("m", "DrainPcp").outcome.op, 1)
        # A CPU that the machine lacks is the machine's own answer.
        self.assertEqual(self.status(c.op("m", "DrainPcp", cpu=5)), "INVALID")

    def test_bytes_that_are_no_message(self):
        c = self.client
        c.create("m", ram=64 * MIB)
        good = c.op_message("AllocPages", "m", {"gfp": GFP_KERNEL}).SerializeToString()
        send = c.unary("Memory/AllocPages", raw=True)
        self.refused(Code.INVALID_ARGUMENT, send, good[:-1], timeout=60)
        self.refused(Code.INVALID_ARGUMENT, send, b"\xff" * 20, timeout=60)
        self.refused(Code.INVALID_ARGUMENT, send, good + b"\x0b", timeout=60)
        self.refused(Code.INVALID_ARGUMENT, c.unary("Machines/Create", raw=True), b"\x0a\xff",
                     timeout=60)
        self.refused(Code.INVALID_ARGUMENT, c.unary("Machines/Inspect", raw=True), b"\x52\x7f",
                     timeout=60)
        # Invalid UTF-8 in the owner's label.
        bad = b"\x0a\x06\x0a\x01m\x22\x01\xff" + good[len(b"\x0a\x03\x0a\x01m"):]
        self.refused(Code.INVALID_ARGUMENT, send, bad, timeout=60)
        # Unknown fields are somebody's future, and ignored.
        extra = b"\xa2\x06\x03abc" + b"\xa8\x06\x05" + b"\xb5\x06abcd" + b"\xb9\x06abcdefgh"
        self.assertEqual(self.status(send(good + extra, timeout=60)), "OK")

    def test_random_bytes_harm_nothing(self):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}", file=sys.stderr)
        rng = random.Random(seed)
        c = self.client
        c.create("m", ram=64 * MIB)
        good = c.batch([("Vmap", {"pfns": [5000, 5001]}), ("AllocPages", {"gfp": GFP_KERNEL}),
                        ("FileWrite", {"file": 1, "data": b"abc"})],
                       machine="m", owner="o").SerializeToString()
        run = c.channel.stream_stream("/zoned.v1.Memory/Run")
        for _ in range(300):
            mutated = bytearray(good)
            for _ in range(rng.randrange(1, 6)):
                mutated[rng.randrange(len(mutated))] = rng.randrange(256)
            try:
                for _ in run(iter([bytes(mutated[:rng.randrange(1, len(mutated) + 1)])]),
                             timeout=60):
                    pass
            except grpc.RpcError as e:
                self.assertEqual(e.code(), Code.INVALID_ARGUMENT)
        self.assertTrue(c.call("Machines/Check", machine="m").ok)


class Limits(DaemonTest):
    options = ("--max-machines", "2", "--max-machine-memory", "16M")

    def test_limits_have_answers(self):
        c = self.client
        c.create("a", ram=512 * MIB)
        c.create("b", ram=64 * MIB)
        self.refused(Code.RESOURCE_EXHAUSTED, c.create, "c", ram=64 * MIB)
        self.assertEqual(self.status(c.op("b", "Fork", {"name": b"c"})), "LIMIT")
        # Zeroing touches memory until the machine's share is used up.
        one = c.batch([("AllocPages", {"gfp": GFP_KERNEL | 0x100, "order": 8})] * 4, machine="a")
        codes = set()
        while not codes:
            codes = {r.code for r in c.run([one]) if r.code}
        self.assertEqual(codes, {8})
        self.refused(Code.RESOURCE_EXHAUSTED, c.op, "a", "DrainPcp")
        # The other one, and questions, are not concerned.
        self.assertEqual(self.status(c.op("b", "DrainPcp")), "OK")
        self.assertTrue(c.call("Machines/Check", machine="a").ok)
        self.assertGreater(c.machine("a").resident_bytes, 16 * MIB)
        c.call("Machines/Destroy", machine="a")
        c.create("c", ram=64 * MIB)


class HostLimits(DaemonTest):
    options = ("--max-memory", "1M", "--query-timeout-ms", "300")

    def test_memory_in_all(self):
        """The daemon itself is larger than that. What it hosts already it keeps."""
        c = self.client
        self.refused(Code.RESOURCE_EXHAUSTED, c.create, "m", ram=64 * MIB)
        self.daemon.options[1] = "0"
        self.again()
        before = self.client.create("m", ram=64 * MIB).ops
        self.daemon.options[1] = "1M"
        self.again()
        c = self.client
        self.refused(Code.RESOURCE_EXHAUSTED, c.op, "m", "DrainPcp")
        self.refused(Code.RESOURCE_EXHAUSTED, c.create, "n", ram=64 * MIB)
        self.assertTrue(c.call("Machines/Check", machine="m").ok)
        self.assertEqual(c.machine("m").ops, before)

    def test_a_query_without_end(self):
        c = self.client
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)" \
                  " SELECT count(*) FROM n"
        details = self.refused(Code.DEADLINE_EXCEEDED, c.query, endless)
        self.assertIn("time limit", details)
        self.assertEqual(c.query("SELECT 1"), [[1]])

    def test_a_message_that_is_too_long(self):
        c = self.client
        send = c.unary("Machines/List", raw=True)
        self.refused(Code.RESOURCE_EXHAUSTED, send, b"\xa2\x06" + bytes(5 << 20), timeout=60)
        self.assertEqual(len(c.call("Machines/List").machines), 0)


class QueryLimit(DaemonTest):
    options = ("--query-timeout-ms", "600000")

    def test_more_queries_than_there_may_be(self):
        """32 run or wait; the next ones are refused at once, and a place is free again when
        a client leaves."""
        c = self.client
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)" \
                  " SELECT count(*) FROM n"
        call = c.channel.unary_stream(
            "/zoned.v1.History/Query", request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=CONTRACT.type("QueryResponse").FromString)
        ended = queue.SimpleQueue()
        running = [call(CONTRACT.type("QueryRequest")(sql=endless), timeout=600)
                   for _ in range(40)]
        for r in running:
            r.add_done_callback(ended.put)
        self.assertEqual([ended.get().code() for _ in range(8)], [Code.RESOURCE_EXHAUSTED] * 8)
        self.assertEqual(sum(not r.done() for r in running), 32)
        for r in running:
            r.cancel()
        while True:
            try:
                return self.assertEqual(c.query("select 1"), [[1]])
            except grpc.RpcError as e:
                self.assertEqual(e.code(), Code.RESOURCE_EXHAUSTED)


class Fairness(DaemonTest):
    def test_a_stream_at_full_speed_does_not_hold_others_back(self):
        """While one client keeps thousands of ops queued, another's single ops are
        taken up in between: both progress, by the count of the machine's own numbers."""
        c, other = self.client, self.connect()
        c.create("m", ram=1024 * MIB)
        stop = threading.Event()
        done = [0]

        def stream():
            pair = [("AllocPages", {"gfp": GFP_KERNEL}), ("DrainPcp", {})]

            def batches():
                while not stop.is_set():
                    yield c.batch(pair * 500, machine="m")
            for _ in c.run(batches()):
                done[0] += 1

        worker = threading.Thread(target=stream)
        worker.start()
        self.wait_for("the stream", lambda: done[0] > 1000)
        numbers = [other.op("m", "PurgeVmap").outcome.op for _ in range(50)]
        stop.set()
        worker.join()
        self.assertEqual(numbers, sorted(numbers))
        # The stream holds at most 8192 ops and a batch; had its queue been served first,
        # each single op would have waited for all of them.
        gaps = [b - a for a, b in zip(numbers, numbers[1:])]
        self.assertLess(sorted(gaps)[len(gaps) // 2], 8192)
        self.assertTrue(c.call("Machines/Check", machine="m").ok)


class Slowed(DaemonTest):
    """Streams that bring more than a machine's queue holds wait; none of their ops is
    refused, and a call of its own finds room."""
    OPS = 150000

    def setUp(self):
        super().setUp()
        self.client.create("m", ram=64 * MIB)

    def batch(self, ops, machine="m"):
        head = CONTRACT.type("OpBatch")(context={"machine": machine, "token": 5})
        one = self.client.batch([("DrainPcp", {})]).SerializeToString()
        return head.SerializeToString() + one * ops

    def send(self, client, batches):
        run = client.channel.stream_stream(
            "/zoned.v1.Memory/Run",
            response_deserializer=CONTRACT.type("ResultBatch").FromString)
        return run(iter(batches), timeout=600)

    def test_one_batch_larger_than_the_queue(self):
        results = [r for b in self.send(self.client, [self.batch(self.OPS), self.batch(1)])
                   for r in b.results]
        self.assertEqual({(r.code, r.message) for r in results}, {(0, "")})
        self.assertEqual([r.index for r in results], list(range(self.OPS + 1)))
        self.assertEqual([r.drain_pcp.outcome.op for r in results],
                         list(range(1, self.OPS + 2)))
        # A stream's own numbers go on as if there had been no wait.
        self.assertEqual(self.client.query("SELECT count(DISTINCT sequence), max(sequence)"
                                           " FROM ops WHERE token = 5"), [[self.OPS, self.OPS]])

    def test_many_streams_at_once(self):
        streams = [self.send(self.connect(), [self.batch(10000)] * 2) for _ in range(8)]
        other = self.connect()
        numbers = [other.op("m", "PurgeVmap").outcome.op for _ in range(20)]
        self.assertEqual(numbers, sorted(numbers))
        for stream in streams:
            results = [r for b in stream for r in b.results]
            self.assertEqual({(r.code, r.message) for r in results}, {(0, "")})
            self.assertEqual([r.index for r in results], list(range(20000)))
        self.assertEqual(self.client.machine("m").ops, 8 * 20000 + 20)

    def test_whoever_waits_can_go(self):
        """With a rest of its batch unread: the client, the machine, the daemon."""
        stream = self.send(self.client, [self.batch(self.OPS)])
        next(stream)
        stream.cancel()
        self.client.create("n", ram=64 * MIB)
        stream = self.send(self.client, [self.batch(self.OPS, "n")])
        next(stream)
        self.client.call("Machines/Destroy", machine="n")
        codes = {r.code for b in stream for r in b.results}
        self.assertLessEqual(codes, {0, 5})
        self.assertIn(5, codes)
        stream = self.send(self.client, [self.batch(self.OPS)])
        next(stream)
        self.assertEqual(self.daemon.stop(), 0)
        try:
            self.assertLessEqual({r.code for b in stream for r in b.results}, {0, 14})
        except grpc.RpcError as e:
            self.assertEqual(e.code(), Code.UNAVAILABLE)
        self.daemon.start()


class Looks(DaemonTest):
    """Check, Digest and Inspect of a machine so large that they take their time."""
    MANY = 60

    def setUp(self):
        super().setUp()
        c = self.client
        c.create("big", ram=63 << 30, pae=True, page_offset=0x40000000, vmalloc=1 << 30)
        c.create("small", ram=64 * MIB)
        r = c.op("big", "Vmalloc", {"size": 1000 * MIB, "gfp": GFP_HIGHUSER}, timeout=600)
        self.assertEqual((self.status(r), r.nr_pages), ("OK", 256000))

    def start(self, client, path, **fields):
        kind = CONTRACT.type(CONTRACT.method(path).input_type.name)
        return client.unary(path).future(kind(**fields), timeout=600)

    def checks(self, client):
        return [self.start(client, "Machines/Check", machine="big") for _ in range(self.MANY)]

    def test_an_audit_does_not_hold_another_machine_back(self):
        """By order alone: ops sent one after the other behind many audits are all
        answered before the last audit is."""
        c = self.client
        late = self.start(c, "Memory/DrainPcp", context={"machine": "small"})
        checks = self.checks(c)
        late.result()
        for _ in range(20):
            self.assertEqual(self.status(c.op("small", "DrainPcp")), "OK")
        self.assertFalse(all(f.done() for f in checks))
        # Their own machine waits for them, and goes on.
        number = c.op("big", "DrainPcp", timeout=600).outcome.op
        for f in checks:
            self.assertTrue(f.result().ok)
            self.assertIn(f.result().op, (1, number))
        self.assertEqual(number, 2)
        one = c.digest("big")
        reports = [self.start(c, "Machines/Inspect", machine="big", zoneinfo={}),
                   self.start(c, "Machines/Inspect", machine="big", vmallocinfo={})]
        self.assertEqual([len(r.result().text) > 0 for r in reports], [True, True])
        self.assertEqual(c.digest("big"), one)

    def test_a_machine_that_is_looked_into_can_go(self):
        c = self.client
        checks = self.checks(c)
        c.call("Machines/Destroy", machine="big", timeout=600)
        for f in checks:
            if f.exception() is None:
                self.assertTrue(f.result().ok)
            else:
                self.assertEqual(f.exception().code(), Code.NOT_FOUND)
        self.refused(Code.NOT_FOUND, c.digest, "big")
        self.assertEqual(self.status(c.op("small", "DrainPcp")), "OK")

    def test_whoever_asked_can_go(self):
        other = self.connect()
        checks = self.checks(other)
        checks[0].cancel()
        other.close()
        self.assertEqual(self.status(self.client.op("big", "DrainPcp", timeout=600)), "OK")
        self.assertTrue(self.client.call("Machines/Check", machine="big").ok)

    def test_the_daemon_ends_while_it_looks(self):
        self.checks(self.client)
        self.again()
        self.wait_for("the replay", lambda: self.client.machine("big").state == 2)


class ServiceManager(unittest.TestCase):
    def test_it_hears_of_the_start_the_loop_and_the_end(self):
        with tempfile.TemporaryDirectory() as folder, \
             socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(folder + "/notify")
            said = {"NOTIFY_SOCKET": folder + "/notify", "WATCHDOG_USEC": "20000"}
            os.environ.update(said)
            self.addCleanup(lambda: [os.environ.pop(name) for name in said])
            daemon = Daemon(PROGRAM, CONTRACT, folder).start()
            heard = []
            while heard.count("WATCHDOG=1") < 3 or "READY=1" not in heard:
                heard += manager.recv(4096).decode().split("\n")
            self.assertNotIn("STOPPING=1", heard)
            daemon.process.terminate()
            while "STOPPING=1" not in heard:
                heard += manager.recv(4096).decode().split("\n")
            self.assertEqual(daemon.process.wait(), 0)
            daemon.log.close()


class Contracts(unittest.TestCase):
    def test_a_new_op_needs_nothing_here(self):
        """The services, the history and the client know ops by the contract's tables:
        the name of none stands in their sources."""
        names = {d.name for d in CONTRACT.ops().values()}
        self.assertGreater(len(names), 40)
        words = names | {f"OP_{snake(n).upper()}" for n in names}
        # The history notes from which op on a machine's events are incomplete.
        known = {"server/history": {"OP_SET_POLICY"}}
        for room in ("server/rpc", "server/net", "server/history", "client/lib"):
            sources = [p for p in (TOP / room).rglob("*.[ch]")]
            self.assertTrue(sources, room)
            for path in sources:
                text = re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(), flags=re.S)
                found = words - known.get(room, set())
                found &= set(re.findall(r"\b[A-Za-z_][A-Za-z0-9_]*\b", text))
                self.assertFalse(found, f"{path} knows {found}")

    def test_every_op_has_a_method(self):
        methods = {m.name for m in CONTRACT.pool.FindServiceByName("zoned.v1.Memory").methods}
        self.assertEqual(methods - {d.name for d in CONTRACT.ops().values()}, {"Run", "Status"})


if __name__ == "__main__":
    PROGRAM = sys.argv[1]
    CONTRACT = Contract(sys.argv[2])
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
