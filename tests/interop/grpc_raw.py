"""What the interop tests share: a server process, and messages without generated code.

Messages come from the descriptor set that the build made, so the tests need no code
generator and see exactly the contract that the server was built from.
"""
import os
import pathlib
import signal
import subprocess
import tempfile

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

BINARY_DIR = pathlib.Path(os.environ.get("BINARY_DIR", "build/release"))


class Contract:
    """Messages by full name, from BINARY_DIR/proto/zoned.binpb."""

    def __init__(self, files=None):
        if files is None:
            blob = (BINARY_DIR / "proto/zoned.binpb").read_bytes()
            files = descriptor_pb2.FileDescriptorSet.FromString(blob).file
        self.pool = descriptor_pool.DescriptorPool()
        for f in files:
            self.pool.Add(f)
        self.factory = message_factory.MessageFactory(self.pool)

    def message(self, name):
        return self.factory.GetPrototype(self.pool.FindMessageTypeByName(name))

    def method(self, channel, service, name):
        """A callable for /service/name, of the kind that the descriptor says."""
        m = self.pool.FindServiceByName(service).FindMethodByName(name)
        p = descriptor_pb2.MethodDescriptorProto()
        m.CopyToProto(p)
        kind = ("stream" if p.client_streaming else "unary") + "_" + (
            "stream" if p.server_streaming else "unary")
        return getattr(channel, kind)(
            f"/{service}/{name}",
            request_serializer=lambda x: x.SerializeToString(),
            response_deserializer=self.factory.GetPrototype(m.output_type).FromString)


class Server:
    """A server process that prints where it listens; stop() expects a clean end."""

    def __init__(self, argv, ready="listening "):
        self.dir = tempfile.TemporaryDirectory(prefix="interop.")
        self.process = subprocess.Popen(
            [a.replace("DIR", self.dir.name) for a in argv], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line.startswith(ready):
            raise RuntimeError(f"{argv}: {line!r}")
        self.address = line[len(ready):].strip()

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        rc = self.process.wait()
        self.process.stdout.close()
        self.dir.cleanup()
        if rc:
            raise RuntimeError(f"the server ended with {rc}")


def code_of(call):
    """The status of a call that is expected to fail."""
    try:
        result = call()
        if hasattr(result, "__next__"):
            list(result)
    except grpc.RpcError as e:
        return e.code(), e.details()
    return grpc.StatusCode.OK, ""
