#!/usr/bin/python3
"""Stock python3-grpcio against the daemon: machines, ops, streams, deadlines, restarts.

    BINARY_DIR=build/release tests/interop/test_zoned_python.py [-v] [Case.test]
"""
import os
import queue
import signal
import subprocess
import tempfile
import threading
import unittest

import grpc

from grpc_raw import BINARY_DIR, Contract, code_of

ZONED = str(BINARY_DIR / "server/zoned")
Code = grpc.StatusCode
OK, DOUBLE_FREE, PARKED, WITHDRAWN = 0, 11, 15, 16  # zoned.v1.Status
GFP_KERNEL, GFP_HIGHUSER = 0xcc0, 0x100cc2
PKMAP_SLOTS = 1024
TOKEN = "0123456789abcdef-interop"
# The daemon may start to listen after the first attempt to connect.
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 50),
           ("grpc.min_reconnect_backoff_ms", 50)]
# A deadline for calls that are to succeed: far beyond what any machine needs.
PATIENCE = 600


class Daemon:
    """zoned with its history and socket in a folder of its own."""

    def __init__(self, contract):
        self.contract = contract
        self.dir = tempfile.TemporaryDirectory(prefix="zoned.")
        self.token = os.path.join(self.dir.name, "token")
        with open(os.open(self.token, os.O_CREAT | os.O_WRONLY, 0o600), "w") as f:
            f.write(TOKEN + "\n")
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [ZONED, "--listen", f"unix:{self.dir.name}/s", "--history",
             f"{self.dir.name}/history.db", "--log-level", "error"])
        self.channel = grpc.insecure_channel(f"unix:{self.dir.name}/s",
                                             options=OPTIONS)
        watch = self.method("grpc.health.v1.Health", "Watch")
        request = self.contract.message("grpc.health.v1.HealthCheckRequest")()
        states = watch(request, wait_for_ready=True, timeout=PATIENCE)
        while next(states).status != 1:
            pass
        states.cancel()

    def method(self, service, name):
        return self.contract.method(self.channel, service, name)

    def stop(self, number=signal.SIGTERM):
        self.channel.close()
        self.process.send_signal(number)
        return self.process.wait()

    def remove(self):
        """Whatever happened."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.channel.close()
        self.dir.cleanup()


class ZonedCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.contract = Contract()
        cls.daemon = Daemon(cls.contract)

    @classmethod
    def tearDownClass(cls):
        rc = cls.daemon.stop()
        cls.daemon.remove()
        assert rc == 0, f"zoned ended with {rc}"

    def message(self, name, /, **fields):
        return self.contract.message("zoned.v1." + name)(**fields)

    def call(self, name, /, timeout=PATIENCE, **fields):
        """A unary op of Memory, on the test's machine."""
        context = {"machine": self.id(), **fields.pop("context", {})}
        op = self.daemon.method("zoned.v1.Memory", name)
        return op(self.message(name, context=context, **fields), timeout=timeout)

    def machines(self, name, request, /, **fields):
        call = self.daemon.method("zoned.v1.Machines", name)
        return call(self.message(request, **fields), timeout=PATIENCE)

    def id(self):
        return super().id().split(".")[-1]

    def create(self, **config):
        config = {"ram": 2 << 30, **config}
        return self.machines("Create", "CreateRequest", name=self.id(), config=config)

    def query(self, sql):
        call = self.daemon.method("zoned.v1.History", "Query")
        pages = list(call(self.message("QueryRequest", sql=sql), timeout=PATIENCE))
        return [[getattr(v, v.WhichOneof("value")) for v in row.values]
                for page in pages for row in page.rows]


class Ops(ZonedCase):
    def test_alloc_free(self):
        machine = self.create()
        self.assertEqual((machine.name, machine.ops), (self.id(), 0))
        first = self.call("AllocPages", gfp=GFP_KERNEL, order=3)
        self.assertEqual((first.outcome.status, first.outcome.op), (OK, 1))
        self.assertEqual(first.pfn % 8, 0)
        free = self.call("FreePages", pfn=first.pfn, order=3)
        self.assertEqual((free.outcome.status, free.outcome.op), (OK, 2))
        again = self.call("FreePages", pfn=first.pfn, order=3)
        self.assertEqual((again.outcome.status, again.outcome.op), (DOUBLE_FREE, 3))
        self.assertTrue(again.outcome.detail)
        check = self.machines("Check", "CheckRequest", machine=self.id())
        self.assertEqual((check.ok, check.lie, check.op), (True, "", 3))
        # Acknowledged means recorded.
        allocs = self.query(f"SELECT op, pfn FROM op_alloc_pages WHERE machine = '{self.id()}'")
        self.assertEqual(allocs, [[1, first.pfn]])
        frees = self.query(f"SELECT op, status FROM op_free_pages WHERE machine = '{self.id()}'"
                           " ORDER BY op")
        self.assertEqual(frees, [[2, "OK"], [3, "DOUBLE_FREE"]])

    def test_errors(self):
        self.create()
        alloc = self.daemon.method("zoned.v1.Memory", "AllocPages")
        request = self.message("AllocPages", context={"machine": "nobody"}, gfp=GFP_KERNEL)
        self.assertEqual(code_of(lambda: alloc(request))[0], Code.NOT_FOUND)
        code, text = code_of(lambda: self.call("AllocPages", gfp=GFP_KERNEL, order=11))
        self.assertEqual(code, Code.INVALID_ARGUMENT)
        self.assertIn("order", text)
        self.assertEqual(code_of(self.create)[0], Code.ALREADY_EXISTS)
        raw = self.daemon.channel.unary_unary("/zoned.v1.Memory/AllocPages")
        self.assertEqual(code_of(lambda: raw(b"\xff\xff"))[0], Code.INVALID_ARGUMENT)
        raw = self.daemon.channel.unary_unary("/zoned.v1.Memory/NoSuchOp")
        self.assertEqual(code_of(lambda: raw(b""))[0], Code.UNIMPLEMENTED)
        # None of it became an op.
        self.assertEqual(self.call("AllocPages", gfp=GFP_KERNEL).outcome.op, 1)

    def test_concurrent_unary(self):
        """Many calls in flight: dense numbers, no frame twice."""
        self.create()
        op = self.daemon.method("zoned.v1.Memory", "AllocPages")
        request = self.message("AllocPages", context={"machine": self.id()}, gfp=GFP_HIGHUSER)
        got = [f.result() for f in [op.future(request, timeout=PATIENCE) for _ in range(500)]]
        self.assertEqual(sorted(r.outcome.op for r in got), list(range(1, 501)))
        self.assertEqual(len({r.pfn for r in got}), 500)

    def test_run(self):
        """Batches in, batches out; every result names its op and its place."""
        self.create()
        batches, size = 50, 100
        alloc = self.message("AllocPages", gfp=GFP_HIGHUSER)

        def requests():
            for i in range(batches):
                batch = self.message("OpBatch")
                if i == 0:
                    batch.context.machine = self.id()
                for _ in range(size):
                    batch.ops.add().alloc_pages.CopyFrom(alloc)
                yield batch

        run = self.daemon.method("zoned.v1.Memory", "Run")
        results = [r for page in run(requests(), timeout=PATIENCE) for r in page.results]
        self.assertEqual([r.index for r in results], list(range(batches * size)))
        self.assertTrue(all(r.code == 0 for r in results))
        self.assertEqual([r.alloc_pages.outcome.op for r in results],
                         list(range(1, batches * size + 1)))
        self.assertEqual(len({r.alloc_pages.pfn for r in results}), batches * size)

    def test_run_goes_on_after_an_error(self):
        self.create()
        batch = self.message("OpBatch", context={"machine": self.id()})
        batch.ops.add().alloc_pages.gfp = GFP_KERNEL
        batch.ops.add().alloc_pages.order = 99
        batch.ops.add().alloc_pages.gfp = GFP_KERNEL
        run = self.daemon.method("zoned.v1.Memory", "Run")
        results = [r for page in run(iter([batch]), timeout=PATIENCE) for r in page.results]
        results.sort(key=lambda r: r.index)
        self.assertEqual([r.code for r in results], [0, Code.INVALID_ARGUMENT.value[0], 0])
        self.assertEqual([r.alloc_pages.outcome.op for r in results], [1, 0, 2])


class Parking(ZonedCase):
    def fill_window(self):
        """The kernel's own context holds the whole pkmap window. Returns a frame too many."""
        self.create()
        task = self.call("TaskCreate").task
        pfns = [self.call("AllocPages", gfp=GFP_HIGHUSER).pfn for _ in range(PKMAP_SLOTS + 1)]
        self.assertEqual(self.call("Schedule", next=task).outcome.status, OK)
        for pfn in pfns[:-1]:
            self.assertEqual(self.call("Kmap", pfn=pfn).outcome.status, OK)
        return task, pfns

    def test_deadline_withdraws(self):
        task, pfns = self.fill_window()
        named = {"task": task, "token": 77, "sequence": 1}
        code, _ = code_of(lambda: self.call("Kmap", timeout=0.3, pfn=pfns[-1], context=named))
        self.assertEqual(code, Code.DEADLINE_EXCEEDED)
        status = self.daemon.method("zoned.v1.Memory", "Status")
        request = self.message("StatusRequest", machine=self.id(), token=77, sequence=1)
        # The client's own timer may be ahead of the daemon's.
        answer = status(request, timeout=PATIENCE)
        while answer.parked:
            answer = status(request, timeout=PATIENCE)
        self.assertTrue(answer.taken)
        self.assertEqual(answer.result.kmap.outcome.status, WITHDRAWN)
        # The task is awake again.
        self.assertEqual(self.call("Kunmap", pfn=pfns[0]).outcome.status, OK)
        again = self.call("Kmap", pfn=pfns[-1], context={"task": task})
        self.assertEqual(again.outcome.status, OK)

    def test_wakes(self):
        task, pfns = self.fill_window()
        op = self.daemon.method("zoned.v1.Memory", "Kmap")
        parked = op.future(self.message("Kmap", pfn=pfns[-1],
                                        context={"machine": self.id(), "task": task}),
                           timeout=PATIENCE)
        # Another op of the task is BUSY once the first one sleeps; until then wait.
        get = self.daemon.method("zoned.v1.Machines", "Get")
        while not get(self.message("GetRequest", machine=self.id())).parked:
            pass
        self.assertFalse(parked.done())
        self.assertEqual(self.call("Kunmap", pfn=pfns[5]).outcome.status, OK)
        self.assertEqual(parked.result().outcome.status, OK)

    def test_cancel_withdraws(self):
        task, pfns = self.fill_window()
        op = self.daemon.method("zoned.v1.Memory", "Kmap")
        get = self.daemon.method("zoned.v1.Machines", "Get")
        parked = op.future(self.message("Kmap", pfn=pfns[-1],
                                        context={"machine": self.id(), "task": task}))
        while not get(self.message("GetRequest", machine=self.id())).parked:
            pass
        parked.cancel()
        while get(self.message("GetRequest", machine=self.id())).parked:
            pass


class Standard(ZonedCase):
    def test_health_and_reflection(self):
        check = self.daemon.method("grpc.health.v1.Health", "Check")
        request = self.contract.message("grpc.health.v1.HealthCheckRequest")
        self.assertEqual(check(request(service="zoned.v1.Memory")).status, 1)
        self.assertEqual(code_of(lambda: check(request(service="x")))[0], Code.NOT_FOUND)
        for version in ("v1", "v1alpha"):
            service = f"grpc.reflection.{version}.ServerReflection"
            ask = self.contract.method(self.daemon.channel, service, "ServerReflectionInfo")
            request_type = self.contract.message(f"grpc.reflection.{version}.ServerReflectionRequest")
            answer, = ask(iter([request_type(list_services="")]))
            self.assertIn("zoned.v1.Memory",
                          [s.name for s in answer.list_services_response.service])


class Life(unittest.TestCase):
    """Daemons that are ended and started again."""

    def setUp(self):
        self.contract = Contract()
        self.daemon = Daemon(self.contract)
        self.addCleanup(self.daemon.remove)

    def op(self, name, /, **fields):
        request = self.contract.message("zoned.v1." + name)(context={"machine": "m"}, **fields)
        return self.daemon.method("zoned.v1.Memory", name)(request, timeout=PATIENCE)

    def machines(self, name, request, /, **fields):
        call = self.daemon.method("zoned.v1.Machines", name)
        return call(self.contract.message("zoned.v1." + request)(**fields), timeout=PATIENCE)

    def restart_keeps_everything(self, number, want):
        self.machines("Create", "CreateRequest", name="m", config={"ram": 1 << 30})
        for order in range(5):
            self.op("AllocPages", gfp=GFP_KERNEL, order=order)
        before = self.machines("Digest", "DigestRequest", machine="m")
        self.assertEqual(before.op, 5)
        self.assertEqual(self.daemon.stop(number), want)
        self.daemon.start()
        self.assertEqual(self.machines("Digest", "DigestRequest", machine="m"), before)
        self.assertEqual(self.op("AllocPages", gfp=GFP_KERNEL).outcome.op, 6)
        self.assertEqual(self.daemon.stop(), 0)

    def test_terminated(self):
        self.restart_keeps_everything(signal.SIGTERM, 0)

    def test_killed(self):
        self.restart_keeps_everything(signal.SIGKILL, -signal.SIGKILL)

    def test_stream_ends_on_shutdown(self):
        """A Run stream that waits is not what keeps a daemon from ending."""
        self.machines("Create", "CreateRequest", name="m", config={"ram": 1 << 30})
        batch = self.contract.message("zoned.v1.OpBatch")(context={"machine": "m"})
        batch.ops.add().alloc_pages.gfp = GFP_KERNEL
        requests = queue.Queue()
        requests.put(batch)
        call = self.daemon.method("zoned.v1.Memory", "Run")(iter(requests.get, None))
        self.assertEqual(len(next(call).results), 1)
        self.daemon.process.send_signal(signal.SIGTERM)
        codes = []
        waiter = threading.Thread(target=lambda: codes.append(code_of(lambda: call)[0]))
        waiter.start()
        self.assertEqual(self.daemon.process.wait(), 0)
        waiter.join()
        self.assertIn(codes[0], (Code.OK, Code.UNAVAILABLE, Code.CANCELLED))
        requests.put(None)
        self.daemon.channel.close()


if __name__ == "__main__":
    unittest.main()
