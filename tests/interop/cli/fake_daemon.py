"""A daemon that answers from the contract alone: every method of every service, with
values made up from the descriptors. It remembers what it was asked.

Stock grpcio on the other side of zonectl and libzoned; no memory manager behind it.
"""
import threading
from concurrent import futures
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


class Contract:
    """The compiled contract: messages, and the ops and inspections by their words."""

    def __init__(self, path):
        self.pool = descriptor_pool.DescriptorPool()
        files = descriptor_pb2.FileDescriptorSet.FromString(Path(path).read_bytes()).file
        for f in files:
            self.pool.Add(f)
        self.factory = message_factory.MessageFactory(self.pool)
        self.services = [self.pool.FindServiceByName(n) for n in (
            "zoned.v1.Memory", "zoned.v1.Machines", "zoned.v1.History", "grpc.health.v1.Health")]
        self.ops, self.inspections = {}, {}
        for f in files:
            for m in f.message_type:
                full = f"{f.package}.{m.name}"
                op, inspect = self.option(m.options, "op"), self.option(m.options, "inspect")
                if op is not None:
                    self.ops[op.word] = self.pool.FindMessageTypeByName(full)
                if inspect is not None:
                    self.inspections[inspect.word] = self.pool.FindMessageTypeByName(full)

    def option(self, options, name):
        """An option of ours among a descriptor's options, or None."""
        full = options.DESCRIPTOR.full_name
        ours = self.factory.GetPrototype(self.pool.FindMessageTypeByName(full)).FromString(
            options.SerializeToString())
        extension = self.pool.FindExtensionByName("zoned.v1." + name)
        return ours.Extensions[extension] if ours.HasExtension(extension) else None

    def arg(self, field):
        """The ArgInfo of a field, empty where it has none."""
        return self.option(field.GetOptions(), "arg") or self.new("ArgInfo")

    def cls(self, name):
        full = name if "." in name else "zoned.v1." + name
        return self.factory.GetPrototype(self.pool.FindMessageTypeByName(full))

    def new(self, message, /, **fields):
        return self.cls(message)(**fields)


def made_up(field):
    """A value for a field, different from its neighbours' and from the default."""
    if field.label == field.LABEL_REPEATED:
        return [3, 1, 2] if field.type == field.TYPE_UINT32 else []
    if field.type == field.TYPE_ENUM:
        return field.enum_type.values[-1].number
    if field.type == field.TYPE_BOOL:
        return True
    if field.type == field.TYPE_BYTES:
        return b"\x00\xff" + field.name.encode()
    if field.type == field.TYPE_STRING:
        return field.name
    return field.number * 0x11


class FakeDaemon:
    def __init__(self, contract, address):
        self.contract = contract
        self.calls = []             # (method name, request)
        self.statuses = {}          # op message name -> list of statuses, taken one by one
        self.errors = {}            # method name -> (code, text)
        self.answers = {}           # method name -> reply, list of replies, or function
        self.parked = set()         # op message names that Run answers after a wake
        self.wakes = "FlushTlb"     # the op that wakes them
        self.batches = []           # sizes of the batches that Run got
        self.hang = threading.Event()
        self.lock = threading.Lock()
        self.number = 0
        self.taken = {}             # (token, sequence) -> (op message name, result)
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=[
            ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
        for s in contract.services:
            handlers = {m.name: self.handler(s, m) for m in s.methods}
            self.server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(s.full_name, handlers),))
        self.server.add_insecure_port(address)
        self.server.start()

    def stop(self):
        self.hang.set()
        self.server.stop(0).wait()

    def handler(self, service, method):
        request = self.contract.cls(method.input_type.full_name).FromString
        reply = self.contract.cls(method.output_type.full_name).SerializeToString
        if method.name == "Run":
            return grpc.stream_stream_rpc_method_handler(self.run, request, reply)
        if service.name == "History" or method.name == "Watch":
            return grpc.unary_stream_rpc_method_handler(
                lambda r, c: self.stream(method, r, c), request, reply)
        return grpc.unary_unary_rpc_method_handler(
            lambda r, c: self.unary(method, r, c), request, reply)

    def note(self, name, request, context):
        with self.lock:
            self.calls.append((name, request))
        if name in self.errors:
            context.abort(*self.errors[name])

    def result(self, name, context_message=None):
        """An op's result: made-up values, or only an outcome after a failure."""
        with self.lock:
            self.number += 1
            number = self.number
            queue = self.statuses.get(name) or [0]
            status = queue.pop(0) if len(queue) > 1 else queue[0]
        r = self.contract.new(name + "Result")
        r.outcome.op = number
        r.outcome.status = status
        if status:
            r.outcome.detail = "because the test says so"
        else:
            for f in r.DESCRIPTOR.fields:
                if f.number == 1:
                    continue
                value = made_up(f)
                if f.label == f.LABEL_REPEATED:
                    getattr(r, f.name).extend(value)
                else:
                    setattr(r, f.name, value)
        if context_message is not None and context_message.token:
            self.taken[context_message.token, context_message.sequence] = (name, r)
        return r

    def unary(self, method, request, context):
        name = method.name
        self.note(name, request, context)
        answer = self.answers.get(name)
        if callable(answer):
            return answer(request, context)
        if answer is not None:
            return answer
        if name == "Check" and method.containing_service.name == "Health":
            return self.contract.new("grpc.health.v1.HealthCheckResponse", status=1)
        if name == "Status":
            return self.status(request)
        if method.containing_service.name == "Memory":
            return self.result(name, request.context)
        return self.contract.cls(method.output_type.full_name)()

    def status(self, request):
        r = self.contract.new("StatusResponse")
        found = self.taken.get((request.token, request.sequence))
        if found:
            r.taken = True
            field = next(f for f in r.result.DESCRIPTOR.fields
                         if f.message_type and f.message_type.name == found[0] + "Result")
            getattr(r.result, field.name).CopyFrom(found[1])
        return r

    def stream(self, method, request, context):
        self.note(method.name, request, context)
        answer = self.answers.get(method.name, [])
        yield from (answer(request, context) if callable(answer) else answer)

    def run(self, batches, context):
        if "Run" in self.errors:
            context.abort(*self.errors["Run"])
        index, late = 0, []
        for batch in batches:
            with self.lock:
                self.batches.append(len(batch.ops))
                self.calls.append(("Run", batch))
            reply = self.contract.new("ResultBatch")
            for op in batch.ops:
                word = op.WhichOneof("op")
                name = getattr(op, word).DESCRIPTOR.name
                r = self.contract.new("Result", index=index)
                index += 1
                if name in self.errors:
                    r.code, r.message = self.errors[name][0].value[0], self.errors[name][1]
                else:
                    getattr(r, word).CopyFrom(self.result(name))
                (late if name in self.parked else reply.results).append(r)
                if name == self.wakes:
                    reply.results.extend(late)
                    late.clear()
            if reply.results:
                yield reply
