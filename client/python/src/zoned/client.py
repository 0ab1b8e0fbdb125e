"""A connection to a daemon, its machines, and ops on them."""
from __future__ import annotations

import concurrent.futures
import inspect
import itertools
import os
import queue
import threading
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import grpc

from .contract import Contract, Op, fill, plain
from .values import CallFailed, OpFailed, Report, Result, Table

Future = concurrent.futures.Future

# Who an op is from, in every call: fields of OpContext that a caller may set.
_CONTEXT = ("cpu", "task", "owner")


def connect(address: Optional[str] = None, *, token: Optional[str] = None,
            timeout: float = 30) -> "Client":
    """Connects to a daemon.

    address: "unix:PATH" or "tcp:HOST:PORT"; default $ZONED_ADDRESS.
    token: what a TCP listener asks for; default: first line of the file $ZONED_TOKEN_FILE.
    timeout: of every call, in seconds. A parked kmap ends by it too.
    """
    return Client(address, token=token, timeout=timeout)


def _snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")


class Client:
    """One daemon. A context manager; threads may share it."""

    def __init__(self, address: Optional[str] = None, *, token: Optional[str] = None,
                 timeout: float = 30):
        address = address or os.environ.get("ZONED_ADDRESS")
        if not address:
            raise ValueError("no address: pass one, or set ZONED_ADDRESS")
        if token is None and "ZONED_TOKEN_FILE" in os.environ:
            token = Path(os.environ["ZONED_TOKEN_FILE"]).read_text().split("\n", 1)[0]
        self.address = address
        self.timeout = timeout
        self._metadata = [("authorization", f"Bearer {token}")] if token else []
        self._channel = grpc.insecure_channel(address.removeprefix("tcp:"))
        self._methods: dict[str, Callable[..., Any]] = {}
        try:
            self.contract = Contract(self._channel, timeout, self._metadata)
        except grpc.RpcError as e:
            self._channel.close()
            raise CallFailed(e.code().name, f"{address}: {e.details()}") from None
        except BaseException:
            self._channel.close()
            raise
        # Bound to this daemon's contract, so that help() and completion know its ops.
        self._machine_class = _bind(self.contract)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    # ---- calls ----

    def _method(self, service: str, name: str) -> Callable[..., Any]:
        key = f"/{service}/{name}"
        if key not in self._methods:
            method = self.contract.method(service, name)
            kind = {("Memory", "Run"): "stream_stream", ("History", "Query"): "unary_stream",
                    ("History", "Tail"): "unary_stream"}
            make = getattr(self._channel, kind.get((service.split(".")[-1], name), "unary_unary"))
            self._methods[key] = make(
                key, request_serializer=lambda m: m.SerializeToString(),
                response_deserializer=self.contract.message(method.output_type.full_name).FromString)
        return self._methods[key]

    def _call(self, service: str, name: str, request: Any) -> Any:
        try:
            return self._method(service, name)(request, timeout=self.timeout,
                                               metadata=self._metadata)
        except grpc.RpcError as e:
            raise CallFailed(e.code().name, e.details()) from None

    def _machines(self, method: str, request: str, /, **values: Any) -> Any:
        message = self.contract.message(f"zoned.v1.{request}")()
        fill(self.contract, message, values, method.lower())
        return self._call("zoned.v1.Machines", method, message)

    # ---- machines ----

    def create(self, name: str, *, split: Optional[str] = None, **config: Any) -> "Machine":
        """Makes a machine: create("m0", ram="2G", split="3G_OPT", pae=True, preset="linux-6.1").

        split is one of splits; all else is a field of MachineConfig, which create_fields
        lists.
        """
        if split is not None:
            if split.upper() not in self.splits:
                raise ValueError(f"split: {split!r} is none of {', '.join(self.splits)}; "
                                 "any other offset goes into page_offset")
            config["page_offset"] = self.splits[split.upper()]
        if isinstance(config.get("preset"), str):
            config["preset"] = config["preset"].upper().replace("-", "_").replace(".", "_")
        self._machines("Create", "CreateRequest", name=name, config=config)
        return self.machine(name)

    @property
    def splits(self) -> dict[str, int]:
        """Page offsets by the names of Linux's choices: 3G, 3G_OPT, ..."""
        return {name.removeprefix("SPLIT_"): mib << 20
                for name, mib in self.contract.enum("zoned.v1.Split").items() if mib}

    @property
    def create_fields(self) -> dict[str, str]:
        """What create() takes, and what it means."""
        config = self.contract.message("zoned.v1.MachineConfig").DESCRIPTOR
        return {a.name: a.doc for a in self.contract.arguments(config)}

    def machine(self, name: str) -> "Machine":
        """A handle on a machine; nothing is asked of the daemon."""
        return self._machine_class(self, name)

    def machines(self) -> Table:
        """All machines, a row each."""
        return Table.of_dicts([plain(m) for m in
                               self._machines("List", "ListRequest").machines])

    # ---- the history ----

    def sql(self, query: str, *parameters: Any, row_limit: int = 0, timeout_ms: int = 0) -> Table:
        """Asks the history: sql("select * from ops where machine = ?1", "m0")."""
        request = self.contract.message("zoned.v1.QueryRequest")(
            sql=query, row_limit=row_limit, timeout_ms=timeout_ms)
        for p in parameters:
            value = request.parameters.add()
            if p is None:
                value.null = True
            elif isinstance(p, (bytes, bytearray)):
                value.blob = bytes(p)
            else:
                setattr(value, {int: "integer", bool: "integer", float: "real"}.get(type(p), "text"), p)
        columns: list[str] = []
        rows: list[list[Any]] = []
        truncated = False
        try:
            for page in self._method("zoned.v1.History", "Query")(
                    request, timeout=max(self.timeout, timeout_ms / 1000 + 5),
                    metadata=self._metadata):
                columns = columns or [c.name for c in page.columns]
                rows += [[_value(v) for v in row.values] for row in page.rows]
                truncated = truncated or page.truncated
        except grpc.RpcError as e:
            raise CallFailed(e.code().name, e.details()) from None
        return Table(columns, rows, truncated)

    def tail(self, machine: str = "", *, follow: bool = True, from_start: bool = False,
             after_op: int = 0, ops: tuple[str, ...] = (),
             kinds: tuple[str, ...] = (), zones: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
        """Ops as they are committed, each a dict with its events; with `kinds` or `zones`
        those alone that have such an event, and these events of them. Ends when caught up
        unless `follow`; close the iterator to end it earlier."""
        request = self.contract.message("zoned.v1.TailRequest")()
        fill(self.contract, request,
             {"machine": machine, "after_op": after_op, "from_start": from_start, "ops": list(ops),
              "no_follow": not follow,
              "kinds": [k if k.startswith("EVENT_") else f"EVENT_{k.upper()}" for k in kinds],
              "zones": [z if z.startswith("ZONE_") else f"ZONE_{z.upper()}" for z in zones]}, "tail")
        call = self._method("zoned.v1.History", "Tail")(request, metadata=self._metadata)
        try:
            for answer in call:
                for record in answer.records:
                    row = plain(record)
                    row["events"] = [self._event(e) for e in record.events]
                    yield row
        except grpc.RpcError as e:
            if e.code() != grpc.StatusCode.CANCELLED:
                raise CallFailed(e.code().name, e.details()) from None
        finally:
            call.cancel()

    def _event(self, event: Any) -> dict[str, Any]:
        kind = self.contract.events.get(event.kind, str(event.kind))
        name = "Event" + "".join(w.capitalize() for w in kind.removeprefix("EVENT_").split("_"))
        try:
            fields = self.contract.message(f"zoned.v1.{name}").DESCRIPTOR.fields
        except KeyError:
            return {"kind": kind, "values": list(event.values)}
        out: dict[str, Any] = {"kind": kind}
        for field, value in zip(fields, event.values):
            known = field.enum_type and field.enum_type.values_by_number.get(value)
            out[field.name] = known.name if known else value
        return out


def _value(v: Any) -> Any:
    kind = v.WhichOneof("value")
    return None if kind in (None, "null") else getattr(v, kind)


class Machine:
    """One machine. Every op and every inspection of the contract is a method, by the word
    that zonectl has for it and by its full name: m.alloc(...) is m.alloc_pages(...).

    An op raises OpFailed when the machine's answer is not OK; through `m.unchecked` the
    answer comes back whatever it is. Beside the op's own arguments every op takes cpu=,
    task= and owner=.
    """

    _contract: Contract

    def __init__(self, client: Client, name: str, checked: bool = True):
        self.client = client
        self.name = name
        self._checked = checked

    def __repr__(self) -> str:
        return f"<zoned machine {self.name}>"

    def __getattr__(self, name: str) -> Any:
        import difflib
        known = [n for n in dir(type(self)) if not n.startswith("_")]
        near = difflib.get_close_matches(name, known, 1)
        raise AttributeError(f"no op and no inspection is called {name!r}"
                             + (f"; did you mean {near[0]}?" if near else ""))

    @property
    def unchecked(self) -> "Machine":
        """This machine, with methods that return whatever status the machine answers."""
        return type(self)(self.client, self.name, checked=False)

    @property
    def info(self) -> dict[str, Any]:
        """State, configuration, ops so far, and what it costs."""
        return plain(self.client._machines("Get", "GetRequest", machine=self.name))

    @property
    def digest(self) -> str:
        """A hash of the machine's whole state."""
        return self.client._machines("Digest", "DigestRequest", machine=self.name).digest

    def check(self) -> None:
        """Has the machine recount everything; AssertionError names the first lie."""
        answer = self.client._machines("Check", "CheckRequest", machine=self.name)
        if not answer.ok:
            raise AssertionError(f"{self.name}, after op {answer.op}: {answer.lie}")

    def revive(self) -> None:
        """Makes a lost machine again by replaying its history."""
        self.client._machines("Revive", "ReviveRequest", machine=self.name)

    def destroy(self) -> None:
        """Ends the machine. Its history stays."""
        self.client._machines("Destroy", "DestroyRequest", machine=self.name)

    def tail(self, **how: Any) -> Iterator[dict[str, Any]]:
        """client.tail() of this machine."""
        return self.client.tail(self.name, **how)

    def run(self, *, batch: int = 128) -> "Run":
        """A stream of ops at speed, to be used in a with statement. Its methods are the
        ops; each returns a concurrent.futures.Future of the Result."""
        return Run(self, batch)

    def _request(self, op: Op, values: dict[str, Any], context: bool) -> Any:
        message = self._contract.message(op.field.message_type.full_name)()
        who = {k: values.pop(k) for k in _CONTEXT if k in values}
        fill(self._contract, message, values, op.word)
        if context or who:
            message.context.machine = self.name
            for k, v in who.items():
                setattr(message.context, k, v)
        return message

    def _result(self, op: Op, answer: Any) -> Result:
        values = plain(answer)
        outcome = values.pop("outcome")
        result = Result(op.name, outcome["op"], outcome["status"], outcome["detail"], values)
        if self._checked and result.status != "OK":
            raise OpFailed(result)
        return result

    def _do(self, op: Op, values: dict[str, Any]) -> Any:
        request = self._request(op, values, context=True)
        return self._result(op, self.client._call("zoned.v1.Memory", op.name, request))

    def _look(self, op: Op, values: dict[str, Any]) -> Report:
        request = self._contract.message("zoned.v1.InspectRequest")(machine=self.name)
        own = {a.name for a in op.arguments}
        for name in [n for n in values if n not in own]:
            # What holds for every inspection, such as the op after which to look.
            if name not in request.DESCRIPTOR.fields_by_name or name == "machine":
                raise TypeError(f"{op.word}: no argument {name!r}; it has {', '.join(own) or 'none'}")
            setattr(request, name, values.pop(name))
        question = getattr(request, op.field.name)
        question.SetInParent()
        fill(self._contract, question, values, op.word)
        answer = self.client._call("zoned.v1.Machines", "Inspect", request)
        report = getattr(answer, answer.WhichOneof("report"))
        tables = {f.name: Table.of_dicts([plain(r) for r in getattr(report, f.name)],
                                         [c.name for c in f.message_type.fields])
                  for f in report.DESCRIPTOR.fields if f.message_type}
        return Report(op.word, answer.op, answer.text, answer.truncated, tables)


class Run:
    """Ops in batches on one stream. Results may come out of order: a parked op's late."""

    def __init__(self, machine: Machine, batch: int):
        self._machine = machine
        self._batch = batch
        contract = machine._contract
        self._new_batch = contract.message("zoned.v1.OpBatch")
        self._pending = self._new_batch()
        self._pending.context.machine = machine.name
        self._futures: dict[int, tuple[Op, Future[Result]]] = {}
        self._lock = threading.Lock()
        self._sent = itertools.count()
        self._out: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._call = machine.client._method("zoned.v1.Memory", "Run")(
            iter(self._out.get, None), metadata=machine.client._metadata)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind:
            self._call.cancel()
        else:
            self.flush()
        self._out.put(None)
        self._reader.join()

    def __getattr__(self, name: str) -> Callable[..., Future[Result]]:
        method = getattr(type(self._machine), name, None)
        op = getattr(method, "_op", None)
        if op is None or op.name not in self._machine._contract.ops:
            raise AttributeError(f"no op is called {name!r}")
        return lambda **values: self._add(op, values)

    def _add(self, op: Op, values: dict[str, Any]) -> Future[Result]:
        message = self._machine._request(op, values, context=False)
        future: Future[Result] = concurrent.futures.Future()
        with self._lock:
            getattr(self._pending.ops.add(), op.field.name).CopyFrom(message)
            self._futures[next(self._sent)] = (op, future)
            if len(self._pending.ops) >= self._batch:
                self._flush()
        return future

    def flush(self) -> None:
        """Sends what has been gathered; a full batch goes by itself."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if self._pending.ops:
            self._out.put(self._pending)
            self._pending = self._new_batch()

    def _read(self) -> None:
        error: Exception = CallFailed("CANCELLED", "the stream was closed")
        try:
            for batch in self._call:
                for answer in batch.results:
                    op, future = self._futures.pop(answer.index)
                    try:
                        if answer.code:
                            name = next((c.name for c in grpc.StatusCode
                                         if c.value[0] == answer.code), str(answer.code))
                            raise CallFailed(name, answer.message)
                        future.set_result(self._machine._result(op, getattr(answer, op.field.name)))
                    except Exception as e:  # it is the caller's, who has the future
                        future.set_exception(e)
        except grpc.RpcError as e:
            error = CallFailed(e.code().name, e.details())
        finally:
            with self._lock:
                left, self._futures = self._futures, {}
            for _, future in left.values():
                future.set_exception(error)


def _bind(contract: Contract) -> type[Machine]:
    """Machine with a method per op and inspection of this contract, documented by it."""
    members: dict[str, Any] = {"_contract": contract, "__doc__": Machine.__doc__}

    def method(op: Op, do: str, extra: tuple[str, ...]) -> Callable[..., Any]:
        def call(self: Machine, **values: Any) -> Any:
            return getattr(self, do)(op, values)
        kinds = inspect.Parameter
        call.__name__ = op.word.replace("-", "_")
        call.__qualname__ = f"Machine.{call.__name__}"
        call.__doc__ = op.doc
        call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [kinds("self", kinds.POSITIONAL_OR_KEYWORD)]
            + [kinds(a.name, kinds.KEYWORD_ONLY, annotation=a.kind,
                     default=kinds.empty if a.required else None)
               for a in sorted(op.arguments, key=lambda a: not a.required)]
            + [kinds(e, kinds.KEYWORD_ONLY, default=None) for e in extra])
        call._op = op  # type: ignore[attr-defined]
        return call

    for ops, do, extra in ((contract.inspections, "_look", ()), (contract.ops, "_do", _CONTEXT)):
        for op in ops.values():
            made = method(op, do, extra)
            for name in (op.word.replace("-", "_"), _snake(op.name)):
                if not hasattr(Machine, name):
                    members.setdefault(name, made)
    return type("Machine", (Machine,), members)
