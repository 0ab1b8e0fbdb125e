"""A client of the daemon made of the contract's descriptors alone, for the tests.

No generated code: messages are built from the compiled contract (zoned.binpb), so a
new op can be called here the moment it is in the .proto.
"""
import os
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "zoned.v1."


class Contract:
    def __init__(self, binpb):
        self.pool = descriptor_pool.DescriptorPool()
        for f in descriptor_pb2.FileDescriptorSet.FromString(Path(binpb).read_bytes()).file:
            self.pool.Add(f)
        self.factory = message_factory.MessageFactory(self.pool)

    def type(self, name):
        return self.factory.GetPrototype(self.pool.FindMessageTypeByName(PACKAGE + name))

    def enum(self, name):
        return self.pool.FindEnumTypeByName(PACKAGE + name).values_by_name

    def method(self, path):
        service, method = path.split("/")
        return self.pool.FindServiceByName(PACKAGE + service).FindMethodByName(method)

    def ops(self):
        """Message descriptors of all ops, by the field's name in Op."""
        choice = self.pool.FindMessageTypeByName(PACKAGE + "Op")
        return {f.name: f.message_type for f in choice.fields}


class Client:
    """One connection."""

    def __init__(self, contract, address):
        self.contract = contract
        # A channel of its own: channels with equal options share their connection.
        self.channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])

    def close(self):
        self.channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def unary(self, path, raw=False):
        out = self.contract.factory.GetPrototype(self.contract.method(path).output_type)
        return self.channel.unary_unary(
            "/" + PACKAGE + path,
            request_serializer=(lambda b: b) if raw else (lambda m: m.SerializeToString()),
            response_deserializer=out.FromString)

    def call(self, path, timeout=60, **fields):
        kind = self.contract.method(path).input_type
        request = self.contract.factory.GetPrototype(kind)(**fields)
        return self.unary(path)(request, timeout=timeout)

    def op_message(self, name, machine="", args=None, **context):
        m = self.contract.type(name)(**(args or {}))
        if machine or context:
            m.context.CopyFrom(self.contract.type("OpContext")(machine=machine, **context))
        return m

    def op(self, machine, name, args=None, timeout=60, **context):
        return self.unary("Memory/" + name)(
            self.op_message(name, machine, args, **context), timeout=timeout)

    def start_op(self, machine, name, args=None, timeout=60, **context):
        """The call's future; cancel() it, or ask for its result()."""
        return self.unary("Memory/" + name).future(
            self.op_message(name, machine, args, **context), timeout=timeout)

    def run(self, batches, timeout=120):
        """Run with an iterable of OpBatch; gives every Result, in the order of arrival."""
        stream = self.channel.stream_stream(
            "/zoned.v1.Memory/Run",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=self.contract.type("ResultBatch").FromString)
        for batch in stream(iter(batches), timeout=timeout):
            yield from batch.results

    def batch(self, ops, **context):
        """An OpBatch of (name, args) pairs, or of (name, args, context)."""
        b = self.contract.type("OpBatch")()
        if context:
            b.context.CopyFrom(self.contract.type("OpContext")(**context))
        for name, args, *rest in ops:
            field = snake(name)
            getattr(b.ops.add(), field).CopyFrom(
                self.op_message(name, args=args, **(rest[0] if rest else {})))
        return b

    def query(self, sql, *parameters):
        """Rows as lists of Python values."""
        stream = self.channel.unary_stream(
            "/zoned.v1.History/Query",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=self.contract.type("QueryResponse").FromString)
        value = self.contract.type("Value")
        request = self.contract.type("QueryRequest")(
            sql=sql, parameters=[value(integer=p) if isinstance(p, int) else value(text=p)
                                 for p in parameters])
        rows = []
        for page in stream(request, timeout=60):
            for row in page.rows:
                rows.append([None if v.WhichOneof("value") == "null"
                             else getattr(v, v.WhichOneof("value")) for v in row.values])
        return rows

    def create(self, name, config=None, **fields):
        if config is None:
            config = self.contract.type("MachineConfig")(**fields)
        return self.call("Machines/Create", name=name, config=config)

    def digest(self, machine):
        return self.call("Machines/Digest", machine=machine).digest

    def machine(self, name):
        return self.call("Machines/Get", machine=name)


def snake(name):
    return "".join("_" + c.lower() if c.isupper() and i else c.lower()
                   for i, c in enumerate(name))


class Daemon:
    """A daemon with its own folder, which survives restarts of the process."""

    def __init__(self, program, contract, folder, *options):
        self.program, self.contract, self.folder = program, contract, Path(folder)
        self.options = list(options)
        self.socket = self.folder / "zoned.sock"
        self.history = self.folder / "history.db"
        self.process = None

    @property
    def address(self):
        return f"unix:{self.socket}"

    def start(self, wait=True):
        self.log = open(self.folder / "log", "ab")
        self.process = subprocess.Popen(
            [self.program, "--listen", self.address, "--history", str(self.history),
             *self.options], stdin=subprocess.DEVNULL, stderr=self.log)
        if wait:
            self.wait_serving()
        return self

    def wait_serving(self):
        """Until the daemon says that it serves; its death ends the wait."""
        stub = None
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"the daemon ended: {(self.folder / 'log').read_text()}")
            if stub is None and self.socket.exists():
                self.channel = grpc.insecure_channel(
                    self.address, options=[("grpc.use_local_subchannel_pool", 1)])
                stub = self.channel.unary_unary("/grpc.health.v1.Health/Check")
            try:
                # HealthCheckResponse.status = SERVING
                if stub and stub(b"", timeout=60) == b"\x08\x01":
                    break
            except grpc.RpcError as e:
                if e.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
            time.sleep(0.02)
        self.channel.close()

    def client(self):
        return Client(self.contract, self.address)

    def stop(self):
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait()
        self.log.close()
        return code

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def is_running(self):
        return self.process is not None and self.process.poll() is None


class DaemonCase(unittest.TestCase):
    """Tests with a daemon of their own, which may end and begin again on its history, and a
    client of it."""

    def begin(self, program, contract, *options):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.daemon = Daemon(program, contract, folder.name, *options).start()
        self.addCleanup(self.end)
        self.client = self.connect()

    def end(self):
        """Every test leaves a daemon that ends in good order."""
        log = self.daemon.folder / "log"
        self.assertTrue(self.daemon.is_running(), f"the daemon died: {log.read_text()}")
        self.assertEqual(self.daemon.stop(), 0, log.read_text())

    def connect(self):
        client = self.daemon.client()
        self.addCleanup(client.close)
        return client

    def again(self, kill=False, options=None, between=lambda: None):
        self.client.close()
        if kill:
            self.daemon.kill()
        else:
            self.assertEqual(self.daemon.stop(), 0)
        between()
        if options is not None:
            self.daemon.options = list(options)
        self.daemon.start()
        self.client = self.connect()
