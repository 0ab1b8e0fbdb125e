#!/usr/bin/python3
"""Stock python3-grpcio against net/, health and reflection (the echo server).

    BINARY_DIR=build/release tests/interop/test_grpc_python.py [-v] [Case.test]
"""
import os
import signal
import threading
import unittest

import grpc

from grpc_raw import BINARY_DIR, Contract, Server, code_of

ECHO = str(BINARY_DIR / "tests/rpc/echo_server")
Code = grpc.StatusCode
# Distinct channels get distinct connections only if they do not share subchannels.
LOCAL = [("grpc.use_local_subchannel_pool", 1)]


class Echo(unittest.TestCase):
    """The official interop cases that make sense here, over a Unix socket."""

    argv = [ECHO, "unix:DIR/s"]
    metadata = ()

    @classmethod
    def setUpClass(cls):
        cls.server = Server(cls.argv)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def setUp(self):
        self.channel = grpc.insecure_channel(self.server.address, options=LOCAL)
        self.addCleanup(self.channel.close)

    def unary(self, name="Unary", channel=None):
        call = (channel or self.channel).unary_unary(f"/test.Echo/{name}")
        return lambda request, **kw: call(request, metadata=self.metadata, **kw)

    def stream(self, name="Stream"):
        call = self.channel.stream_stream(f"/test.Echo/{name}")
        return lambda requests, **kw: call(requests, metadata=self.metadata, **kw)

    def test_unary(self):
        self.assertEqual(self.unary()(b"hello"), b"hello")
        self.assertEqual(self.unary()(b""), b"")

    def test_large_unary(self):
        request = os.urandom(271828)
        self.assertEqual(self.unary()(request), request)
        request = os.urandom(4 * 1024 * 1024)
        big = grpc.insecure_channel(self.server.address,
                                    options=LOCAL + [("grpc.max_receive_message_length", -1)])
        self.assertEqual(self.unary(channel=big)(request), request)
        big.close()

    def test_message_too_large(self):
        code, _ = code_of(lambda: self.unary()(bytes(4 * 1024 * 1024 + 1)))
        self.assertEqual(code, Code.RESOURCE_EXHAUSTED)
        self.assertEqual(self.unary()(b"alive"), b"alive")

    def test_client_streaming(self):
        count = self.channel.stream_unary("/test.Echo/Count")
        sizes = (27182, 8, 1828, 45904)
        answer = count((bytes(n) for n in sizes), metadata=self.metadata)
        self.assertEqual(answer, b"74922")

    def test_server_streaming(self):
        flood = self.channel.unary_stream("/test.Echo/Flood")
        n, size = 3000, 10000
        request = n.to_bytes(4, "big") + size.to_bytes(4, "big")
        lengths = [len(m) for m in flood(request, metadata=self.metadata)]
        self.assertEqual(lengths, [size] * n)

    def test_ping_pong(self):
        turn = threading.Semaphore(1)

        def requests():
            for n in (31415, 9, 2653, 58979):
                turn.acquire()
                yield bytes(n)

        got = []
        for m in self.stream()(requests()):
            got.append(len(m))
            turn.release()
        self.assertEqual(got, [31415, 9, 2653, 58979])

    def test_empty_stream(self):
        self.assertEqual(list(self.stream()(iter(()))), [])

    def test_status_code_and_message(self):
        text = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n 100%"
        for code in Code:
            if code is Code.OK:
                continue
            request = bytes([code.value[0]]) + text.encode()
            self.assertEqual(code_of(lambda: self.unary("Fail")(request)), (code, text))

    def test_unimplemented(self):
        call = self.channel.unary_unary("/test.Echo/Nothing")
        self.assertEqual(code_of(lambda: call(b"", metadata=self.metadata))[0], Code.UNIMPLEMENTED)
        call = self.channel.unary_unary("/no.Service/Method")
        self.assertEqual(code_of(lambda: call(b"", metadata=self.metadata))[0], Code.UNIMPLEMENTED)

    def test_error_before_request_ends(self):
        def endless():
            while True:
                yield bytes(10000)

        code, text = code_of(lambda: self.stream("Early")(endless()))
        self.assertEqual((code, text), (Code.PERMISSION_DENIED, "not you"))

    def test_timeout(self):
        code, _ = code_of(lambda: self.unary("Sleep")(b"", timeout=0.05))
        self.assertEqual(code, Code.DEADLINE_EXCEEDED)
        code, _ = code_of(lambda: self.stream("Sleep")(iter([b"x"]), timeout=0.05))
        self.assertEqual(code, Code.DEADLINE_EXCEEDED)

    def test_cancel(self):
        call = self.channel.unary_unary("/test.Echo/Sleep").future(b"", metadata=self.metadata)
        call.cancel()
        self.assertEqual(call.code(), Code.CANCELLED)
        call = self.stream()(iter(lambda: b"again", None))
        self.assertEqual(next(call), b"again")
        call.cancel()
        self.assertEqual(call.code(), Code.CANCELLED)

    def test_cancel_storm(self):
        """More cancels than nghttp2 1.52 takes by itself, on one connection."""
        sleep = self.channel.unary_unary("/test.Echo/Sleep")
        for _ in range(15):
            calls = [sleep.future(b"", metadata=self.metadata) for _ in range(100)]
            # A unary echo behind them: they have reached the server.
            self.assertEqual(self.unary()(b"x"), b"x")
            for c in calls:
                c.cancel()
        self.assertEqual(self.unary()(b"alive"), b"alive")

    def test_compression(self):
        code, _ = code_of(lambda: self.unary()(bytes(1000), compression=grpc.Compression.Gzip))
        self.assertEqual(code, Code.UNIMPLEMENTED)

    def test_concurrent_large_unary(self):
        call = self.channel.unary_unary("/test.Echo/Unary")
        requests = [os.urandom(200000) for _ in range(100)]
        futures = [call.future(r, metadata=self.metadata) for r in requests]
        for r, f in zip(requests, futures):
            self.assertEqual(f.result(), r)

    def test_keepalive(self):
        """Pings far more often than gRPC's own server allows."""
        options = LOCAL + [("grpc.keepalive_time_ms", 10), ("grpc.keepalive_timeout_ms", 20000),
                           ("grpc.keepalive_permit_without_calls", 1),
                           ("grpc.http2.max_pings_without_data", 0),
                           ("grpc.http2.min_ping_interval_without_data_ms", 10)]
        channel = grpc.insecure_channel(self.server.address, options=options)
        states = []
        channel.subscribe(states.append)
        sleep = channel.unary_unary("/test.Echo/Sleep")
        code, _ = code_of(lambda: sleep(b"", timeout=1, metadata=self.metadata))
        self.assertEqual(code, Code.DEADLINE_EXCEEDED)
        self.assertEqual(self.unary(channel=channel)(b"alive"), b"alive")
        self.assertNotIn(grpc.ChannelConnectivity.TRANSIENT_FAILURE, states)
        channel.close()


class EchoTcp(Echo):
    """The same over TCP, with a token."""

    argv = [ECHO, "tcp:127.0.0.1:0", "secret-token"]
    metadata = (("authorization", "Bearer secret-token"),)

    def test_token(self):
        call = self.channel.unary_unary("/test.Echo/Unary")
        self.assertEqual(code_of(lambda: call(b"x"))[0], Code.UNAUTHENTICATED)
        wrong = (("authorization", "Bearer wrong"),)
        self.assertEqual(code_of(lambda: call(b"x", metadata=wrong))[0], Code.UNAUTHENTICATED)
        public = self.channel.unary_unary("/test.Echo/Public")
        self.assertEqual(public(b"x"), b"x")


class Shutdown(unittest.TestCase):
    def test_graceful(self):
        """A stream under way ends well; the process ends by itself; the next call fails."""
        server = Server([ECHO, "unix:DIR/s"])
        channel = grpc.insecure_channel(server.address, options=LOCAL)
        go = threading.Semaphore(1)

        def requests():
            for m in (b"before", b"after"):
                go.acquire()
                yield m

        call = channel.stream_stream("/test.Echo/Stream")(requests())
        self.assertEqual(next(call), b"before")
        server.signal(signal.SIGTERM)
        go.release()
        self.assertEqual(list(call), [b"after"])
        self.assertEqual(call.code(), Code.OK)
        server.process.wait()
        self.assertEqual(server.process.returncode, 0)
        code, _ = code_of(lambda: channel.unary_unary("/test.Echo/Unary")(b"x"))
        self.assertEqual(code, Code.UNAVAILABLE)
        channel.close()
        server.stop()


class Health(unittest.TestCase):
    def setUp(self):
        self.contract = Contract()
        self.server = Server([ECHO, "tcp:127.0.0.1:0", "secret-token"])
        self.addCleanup(self.server.stop)
        self.channel = grpc.insecure_channel(self.server.address, options=LOCAL)
        self.addCleanup(self.channel.close)
        self.request = self.contract.message("grpc.health.v1.HealthCheckRequest")
        self.check = self.contract.method(self.channel, "grpc.health.v1.Health", "Check")
        self.watch = self.contract.method(self.channel, "grpc.health.v1.Health", "Watch")

    def test_check(self):
        """Without the token: probes have none."""
        for service in ("", "zoned.v1.Memory", "grpc.health.v1.Health"):
            self.assertEqual(self.check(self.request(service=service)).status, 1)
        code, _ = code_of(lambda: self.check(self.request(service="no.such")))
        self.assertEqual(code, Code.NOT_FOUND)
        self.server.signal(signal.SIGUSR1)
        # The signal and the next request race; ask until it has arrived.
        while self.check(self.request()).status != 2:
            pass
        raw = self.channel.unary_unary("/grpc.health.v1.Health/Check")
        self.assertEqual(code_of(lambda: raw(b"\xff"))[0], Code.INVALID_ARGUMENT)

    def test_watch(self):
        known = self.watch(self.request(service="zoned.v1.Machines"))
        unknown = self.watch(self.request(service="no.such"))
        self.assertEqual(next(known).status, 1)
        self.assertEqual(next(unknown).status, 3)
        for want in (2, 1, 2):
            self.server.signal(signal.SIGUSR1)
            self.assertEqual(next(known).status, want)
        self.assertTrue(unknown.is_active())
        known.cancel()
        unknown.cancel()


class ReflectionV1(unittest.TestCase):
    package = "grpc.reflection.v1"

    @classmethod
    def setUpClass(cls):
        cls.server = Server([ECHO, "unix:DIR/s"])
        cls.contract = Contract()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def ask(self, *requests):
        """One stream, one answer per request."""
        request = self.contract.message(self.package + ".ServerReflectionRequest")
        with grpc.insecure_channel(self.server.address, options=LOCAL) as channel:
            call = self.contract.method(channel, self.package + ".ServerReflection",
                                        "ServerReflectionInfo")
            sent = [request(host="h", **r) for r in requests]
            got = list(call(iter(sent)))
        self.assertEqual(len(got), len(requests))
        for s, g in zip(sent, got):
            self.assertEqual(g.original_request, s)
            self.assertEqual(g.valid_host, "h")
        return got

    def files(self, answer):
        """The answer's files must be complete: a pool can be built from them alone."""
        from google.protobuf import descriptor_pb2
        files = [descriptor_pb2.FileDescriptorProto.FromString(b)
                 for b in answer.file_descriptor_response.file_descriptor_proto]
        names = [f.name for f in files]
        self.assertEqual(len(set(names)), len(names))
        for f in files:
            for d in f.dependency:
                self.assertIn(d, names)
        return names

    def test_list(self):
        got, = self.ask({"list_services": "*"})
        names = [s.name for s in got.list_services_response.service]
        for want in ("zoned.v1.Memory", "zoned.v1.Machines", "zoned.v1.History",
                     "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
                     "grpc.reflection.v1alpha.ServerReflection"):
            self.assertIn(want, names)

    def test_files(self):
        got = self.ask({"file_by_filename": "zoned/v1/memory.proto"},
                       {"file_containing_symbol": "zoned.v1.Memory.AllocPages"},
                       {"file_containing_symbol": "zoned.v1.AllocPages"},
                       {"file_containing_symbol": "zoned.v1.Memory"},
                       {"file_by_filename": "google/protobuf/descriptor.proto"})
        names = self.files(got[0])
        self.assertEqual(names[0], "zoned/v1/memory.proto")
        self.assertIn("google/protobuf/descriptor.proto", names)
        self.assertEqual(self.files(got[1])[0], "zoned/v1/memory.proto")
        self.assertEqual(self.files(got[2])[0], "zoned/v1/ops.proto")
        self.assertEqual(self.files(got[3])[0], "zoned/v1/memory.proto")
        self.assertEqual(self.files(got[4]), ["google/protobuf/descriptor.proto"])

    def test_every_service(self):
        """What grpcurl does: list, then fetch each service's file."""
        listed, = self.ask({"list_services": ""})
        services = [s.name for s in listed.list_services_response.service]
        for answer in self.ask(*({"file_containing_symbol": s} for s in services)):
            self.assertTrue(self.files(answer))

    def test_extensions(self):
        options = "google.protobuf.MessageOptions"
        got = self.ask({"all_extension_numbers_of_type": options},
                       {"file_containing_extension": {"containing_type": options,
                                                      "extension_number": 50601}},
                       {"all_extension_numbers_of_type": "zoned.v1.AllocPages"})
        numbers = got[0].all_extension_numbers_response
        self.assertEqual(numbers.base_type_name, options)
        self.assertEqual(sorted(numbers.extension_number), [50601, 50602, 50603])
        self.assertEqual(self.files(got[1])[0], "zoned/v1/options.proto")
        self.assertEqual(got[2].WhichOneof("message_response"), "all_extension_numbers_response")
        self.assertEqual(list(got[2].all_extension_numbers_response.extension_number), [])

    def test_errors(self):
        options = "google.protobuf.MessageOptions"
        got = self.ask({"file_by_filename": "no.proto"}, {"file_containing_symbol": "no.such"},
                       {"file_containing_extension": {"containing_type": options,
                                                      "extension_number": 1}},
                       {"file_containing_extension": {}},
                       {"all_extension_numbers_of_type": "no.such"}, {})
        codes = [g.error_response.error_code for g in got]
        self.assertEqual(codes, [5, 5, 5, 5, 5, 3])
        self.assertTrue(all(g.error_response.error_message for g in got))

    def test_slow_reader(self):
        """Hundreds of questions before the first answer is read."""
        got = self.ask(*({"file_containing_symbol": "zoned.v1.Memory"} for _ in range(500)))
        self.assertEqual(len({g.SerializeToString() for g in got}), 1)


class ReflectionV1Alpha(ReflectionV1):
    package = "grpc.reflection.v1alpha"


if __name__ == "__main__":
    unittest.main()
