"""The contract as the daemon tells it: messages, ops, enums and their documentation.

Everything comes from the server's reflection service at connect time. There is no
generated code and no list of ops here, so an op that the daemon learns tomorrow is an
op of this package tomorrow.
"""
from __future__ import annotations

import re
from typing import Any, Iterator

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor

_REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
_SIZES = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SIZE = re.compile(r"(\d+)\s*([KMG]?)(?:i?B)?", re.IGNORECASE)
# Fields of an op's message that are no argument of the op.
_CONTEXT = "context"


def _reflection_messages() -> tuple[Any, Any]:
    """The two messages of the reflection service that asking for files takes."""
    file = descriptor_pb2.FileDescriptorProto(name="reflection.proto", package="r", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto

    def message(name: str, *fields: tuple[str, int, int, int, str]) -> None:
        m = file.message_type.add(name=name)
        for field, number, kind, label, of in fields:
            m.field.add(name=field, number=number, type=kind, label=label,
                        type_name=of or None)

    one, many = kinds.LABEL_OPTIONAL, kinds.LABEL_REPEATED
    message("Request", ("symbol", 4, kinds.TYPE_STRING, one, ""))
    message("Files", ("file", 1, kinds.TYPE_BYTES, many, ""))
    message("Error", ("message", 2, kinds.TYPE_STRING, one, ""))
    message("Response", ("files", 4, kinds.TYPE_MESSAGE, one, ".r.Files"),
            ("error", 7, kinds.TYPE_MESSAGE, one, ".r.Error"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return (_message_class(pool, pool.FindMessageTypeByName("r.Request")),
            _message_class(pool, pool.FindMessageTypeByName("r.Response")))


def _message_class(pool: Any, descriptor: Descriptor) -> Any:
    if hasattr(message_factory, "GetMessageClass"):  # protobuf 4.22 and later
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)


class Op:
    """An op, or an inspection: its names, its message and what it says of itself."""

    def __init__(self, name: str, word: str, field: FieldDescriptor, doc: str,
                 arguments: list["Argument"]):
        self.name = name    # AllocPages
        self.word = word    # alloc, as zonectl has it
        self.field = field  # its place in Op (InspectRequest)
        self.doc = doc
        self.arguments = arguments


class Argument:
    """A field that a caller may set, with its range and unit."""

    def __init__(self, field: FieldDescriptor, info: Any, doc: str, flags: list[EnumDescriptor]):
        self.field = field
        self.name = field.name
        self.unit: str = info.unit
        self.required: bool = info.required
        self.min: int = info.min
        self.max: int = info.max
        self.doc = doc
        self.flags = flags

    @property
    def kind(self) -> type:
        """What it is in Python."""
        if self.field.label == FieldDescriptor.LABEL_REPEATED:
            return list
        if self.field.enum_type or self.flags:
            return str
        return {FieldDescriptor.TYPE_BYTES: bytes, FieldDescriptor.TYPE_BOOL: bool,
                FieldDescriptor.TYPE_STRING: str}.get(self.field.type, int)


class Contract:
    """What one daemon understands."""

    def __init__(self, channel: grpc.Channel, timeout: float, metadata: Any):
        self._pool = descriptor_pool.DescriptorPool()
        self._docs: dict[str, str] = {}
        self._classes: dict[str, Any] = {}
        for file in self._ask(channel, timeout, metadata, "zoned.v1.Memory", "zoned.v1.Machines",
                              "zoned.v1.History", "grpc.health.v1.Health"):
            self._pool.Add(file)
            self._read_docs(file)
        self.message("google.protobuf.MessageOptions")
        self.ops = {op.name: op for op in self._oneof("zoned.v1.Op", "op", "op")}
        self.inspections = {op.name: op
                            for op in self._oneof("zoned.v1.InspectRequest", "question", "inspect")}
        self.events = {e.number: e.name
                       for e in self._pool.FindEnumTypeByName("zoned.v1.EventKind").values}

    @staticmethod
    def _ask(channel: grpc.Channel, timeout: float, metadata: Any,
             *symbols: str) -> list[descriptor_pb2.FileDescriptorProto]:
        request, response = _reflection_messages()
        call = channel.stream_stream(
            _REFLECTION, request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=response.FromString)
        files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
        for answer in call(iter([request(symbol=s) for s in symbols]), timeout=timeout,
                           metadata=metadata, wait_for_ready=True):
            if answer.error.message:
                raise LookupError(f"the server is no zoned: {answer.error.message}")
            for blob in answer.files.file:
                file = descriptor_pb2.FileDescriptorProto.FromString(blob)
                files.setdefault(file.name, file)
        # Imports come before importers.
        ordered: dict[str, descriptor_pb2.FileDescriptorProto] = {}

        def place(name: str) -> None:
            if name not in ordered:
                for dependency in files[name].dependency:
                    place(dependency)
                ordered[name] = files[name]

        for name in files:
            place(name)
        return list(ordered.values())

    def _read_docs(self, file: descriptor_pb2.FileDescriptorProto) -> None:
        """Leading comments by full name: of messages, fields, enums and their values."""
        comments = {tuple(l.path): " ".join(l.leading_comments.split())
                    for l in file.source_code_info.location if l.leading_comments}
        for i, m in enumerate(file.message_type):
            self._docs[f"{file.package}.{m.name}"] = comments.get((4, i), "")
            for j, f in enumerate(m.field):
                self._docs[f"{file.package}.{m.name}.{f.name}"] = comments.get((4, i, 2, j), "")
        for i, e in enumerate(file.enum_type):
            for j, v in enumerate(e.value):
                self._docs[f"{file.package}.{e.name}.{v.name}"] = comments.get((5, i, 2, j), "")

    def message(self, name: str) -> Any:
        """A message's class, by full name."""
        if name not in self._classes:
            self._classes[name] = _message_class(self._pool, self._pool.FindMessageTypeByName(name))
        return self._classes[name]

    def enum(self, name: str) -> dict[str, int]:
        """An enum's values, by full name."""
        values = self._pool.FindEnumTypeByName(name).values
        return {v.name: v.number for v in values}

    def doc(self, name: str) -> str:
        """What the contract says of a message, field or enum value; "" if nothing."""
        return self._docs.get(name, "")

    def method(self, service: str, name: str) -> MethodDescriptor:
        return self._pool.FindServiceByName(service).FindMethodByName(name)

    def _option(self, descriptor: Any, of: str, name: str) -> Any:
        """One of zoned's annotations. Read by this pool, as the default one has none."""
        options = self.message(f"google.protobuf.{of}").FromString(
            descriptor.GetOptions().SerializeToString())
        return options.Extensions[self._pool.FindExtensionByName(f"zoned.v1.{name}")]

    def arguments(self, message: Descriptor) -> list[Argument]:
        found = []
        for field in message.fields:
            if field.name == _CONTEXT:
                continue
            info = self._option(field, "FieldOptions", "arg")
            flags = [self._pool.FindEnumTypeByName(f"zoned.v1.{e}") for e in info.flags.split()]
            found.append(Argument(field, info, self.doc(field.full_name), flags))
        return found

    def _oneof(self, message: str, oneof: str, option: str) -> Iterator[Op]:
        for field in self._pool.FindMessageTypeByName(message).oneofs_by_name[oneof].fields:
            kind = field.message_type
            info = self._option(kind, "MessageOptions", option)
            arguments = self.arguments(kind)
            lines = [self.doc(kind.full_name) or kind.name, ""]
            for a in arguments:
                limits = [a.unit] if a.unit else []
                limits += [f"{a.min:#x} to {a.max:#x}"] if a.max else []
                limits += ["flags of " + ", ".join(e.name for e in a.flags)] if a.flags else []
                limits += ["required"] if a.required else []
                limits += ["one of " + ", ".join(a.field.enum_type.values_by_name)] \
                    if a.field.enum_type else []
                limited = f" [{'; '.join(limits)}]" if limits else ""
                lines.append(f"  {a.name}: {a.doc}{limited}".replace(":  ", ": "))
            answers = list(getattr(info, "answer", ()))
            if answers:
                lines += ["", "Answers beside OK:"]
                lines += [f"  {a.status}: {a.why}" for a in answers]
            yield Op(kind.name, info.word, field, "\n".join(lines).strip(), arguments)


def number(argument: Argument, value: Any) -> int:
    """An integer as people write it: 5, "0x1000", "2G" of what counts bytes, or flags
    by name: "GFP_KERNEL|__GFP_ZERO"."""
    if isinstance(value, str):
        if argument.flags or argument.field.enum_type:
            return _flags(argument, value)
        size = _SIZE.fullmatch(value.strip())
        if size and (size[2] == "" or argument.unit == "bytes"):
            return int(size[1]) * _SIZES[size[2].upper()]
        try:
            return int(value, 0)
        except ValueError:
            raise ValueError(f"{argument.name}: {value!r} is no number") from None
    return int(value)


def _flags(argument: Argument, text: str) -> int:
    enums = argument.flags or [argument.field.enum_type]
    names = {n: v.number for e in enums for n, v in e.values_by_name.items()}
    # ZONE_HIGHMEM may be said HIGHMEM, and highmem.
    short = {}
    for e in enums:
        prefix = next(iter(e.values_by_name)).split("_")[0] + "_"
        short.update({n.removeprefix(prefix): v.number for n, v in e.values_by_name.items()})
    total = 0
    for word in text.split("|"):
        word = word.strip()
        if word in names:
            total |= names[word]
        elif word.upper() in short:
            total |= short[word.upper()]
        elif word[:1].isdigit():
            total |= int(word, 0)
        else:
            raise ValueError(f"{argument.name}: {word!r} is none of {', '.join(names)}")
    return total


def fill(contract: Contract, message: Any, values: dict[str, Any], of: str) -> None:
    """Sets fields by name, from what people write. An unknown name is a TypeError."""
    arguments = {a.name: a for a in contract.arguments(message.DESCRIPTOR)}
    for name, value in values.items():
        if name not in arguments:
            raise TypeError(f"{of}: no argument {name!r}; it has {', '.join(arguments) or 'none'}")
        if value is None:
            continue
        argument = arguments[name]
        field = argument.field
        repeated = field.label == FieldDescriptor.LABEL_REPEATED
        if field.message_type and repeated:
            for item in value:
                fill(contract, getattr(message, name).add(), dict(item), f"{of}.{name}")
        elif field.message_type:
            fill(contract, getattr(message, name), dict(value), f"{of}.{name}")
        elif field.type in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING,
                            FieldDescriptor.TYPE_BOOL):
            if field.type == FieldDescriptor.TYPE_BYTES and isinstance(value, str):
                value = value.encode()
            _set(message, name, value, of, repeated)
        else:
            _set(message, name, [number(argument, v) for v in value] if repeated
                 else number(argument, value), of, repeated)
    for a in arguments.values():
        if a.required and values.get(a.name) is None:
            raise TypeError(f"{of}: {a.name} is missing")


def _set(message: Any, name: str, value: Any, of: str, repeated: bool) -> None:
    try:
        if repeated:
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    except (TypeError, ValueError) as e:
        raise type(e)(f"{of}: {name}: {e}") from None


def plain(message: Any) -> dict[str, Any]:
    """A message's fields as a dict: enum values by name, lists of rows as lists of dicts."""
    out: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.label == FieldDescriptor.LABEL_REPEATED:
            out[field.name] = [_scalar(field, v) for v in value]
        elif field.containing_oneof is None or message.HasField(field.name):
            out[field.name] = _scalar(field, value)
    return out


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type:
        return plain(value)
    if field.enum_type:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return value
