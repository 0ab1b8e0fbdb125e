#!/usr/bin/env python3
"""zoned from Python, with nothing of zoned's but its .proto files.

    example.py [ADDRESS]        default: $ZONED_ADDRESS, e.g. unix:/run/zoned/zoned.sock

Needs grpcio and either grpcio-tools or protoc (Debian: python3-grpcio, and
python3-grpc-tools or protobuf-compiler). The messages are compiled into a temporary
directory at every start; a program of one's own would keep them.
"""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc

PROTO = Path(os.environ.get("ZONED_PROTO", Path(__file__).resolve().parents[2] / "proto"))


def compile_protos(out):
    """Makes Python modules of the contract. The services need no stubs: see Service."""
    files = sorted(str(p) for p in (PROTO / "zoned").rglob("*.proto"))
    args = [f"-I{PROTO}", f"--python_out={out}", *files]
    try:
        from grpc_tools import protoc
        includes = Path(protoc.__file__).parent / "_proto"
        failed = protoc.main(["protoc", f"-I{includes}", *args]) != 0
    except ImportError:
        if not shutil.which("protoc"):
            sys.exit("example.py: needs grpcio-tools or protoc")
        failed = subprocess.run(["protoc", *args], check=False).returncode != 0
    if failed:
        sys.exit("example.py: the .proto files do not compile")
    sys.path.insert(0, out)


class Service:
    """A service's methods, from its descriptor: service.AllocPages(request)."""

    def __init__(self, channel, descriptor):
        from google.protobuf import message_factory
        factory = message_factory.MessageFactory()
        streams = {"Run": channel.stream_stream, "Query": channel.unary_stream,
                   "Tail": channel.unary_stream}
        for method in descriptor.methods:
            call = streams.get(method.name, channel.unary_unary)
            setattr(self, method.name, call(
                f"/{descriptor.full_name}/{method.name}",
                request_serializer=lambda m: m.SerializeToString(),
                response_deserializer=factory.GetPrototype(method.output_type).FromString))


def main():
    address = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("ZONED_ADDRESS")
    if not address:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as out:
        compile_protos(out)
        from zoned.v1 import history_pb2, machines_pb2, memory_pb2, ops_pb2, types_pb2
    token = os.environ.get("ZONED_TOKEN_FILE")
    metadata = [("authorization", "Bearer " + Path(token).read_text().split("\n")[0])] if token else []

    with grpc.insecure_channel(address.removeprefix("tcp:")) as channel:
        machines = Service(channel, machines_pb2.DESCRIPTOR.services_by_name["Machines"])
        memory = Service(channel, memory_pb2.DESCRIPTOR.services_by_name["Memory"])
        history = Service(channel, history_pb2.DESCRIPTOR.services_by_name["History"])
        how = {"timeout": 30, "metadata": metadata}

        name = f"python-{os.getpid()}"
        machines.Create(machines_pb2.CreateRequest(
            name=name, config=machines_pb2.MachineConfig(ram=1 << 30)), **how)
        me = types_pb2.OpContext(machine=name, owner="example")

        # One op, one call. The status is part of the answer.
        page = memory.AllocPages(ops_pb2.AllocPages(context=me, gfp=types_pb2.GFP_HIGHUSER), **how)
        print(f"alloc: op {page.outcome.op} {types_pb2.Status.Name(page.outcome.status)} "
              f"pfn {page.pfn:#x} {types_pb2.Zone.Name(page.zone)}")
        mapped = memory.Kmap(ops_pb2.Kmap(context=me, pfn=page.pfn), **how)
        print(f"kmap: {mapped.va:#x}, slot {mapped.slot}")
        again = memory.FreePages(ops_pb2.FreePages(context=me, pfn=page.pfn, order=3), **how)
        print(f"free with the wrong order: {types_pb2.Status.Name(again.outcome.status)}")

        # Many ops, one stream: batches out, batches of results back.
        def batches():
            for _ in range(16):
                yield memory_pb2.OpBatch(context=me, ops=[
                    memory_pb2.Op(alloc_pages=ops_pb2.AllocPages(gfp=types_pb2.GFP_KERNEL))
                    for _ in range(64)])
        frames = [r.alloc_pages.pfn for batch in memory.Run(batches(), **how) for r in batch.results]
        print(f"run: {len(frames)} allocations, {len(set(frames))} different frames")

        # What happened, asked in SQL.
        question = history_pb2.QueryRequest(
            sql="select owner, zone, count(*) from allocations where machine = ?1 group by 1, 2",
            parameters=[history_pb2.Value(text=name)])
        for answer in history.Query(question, **how):
            for row in answer.rows:
                print("sql:", *(getattr(v, v.WhichOneof("value")) for v in row.values))
        machines.Destroy(machines_pb2.DestroyRequest(machine=name), **how)


if __name__ == "__main__":
    main()
