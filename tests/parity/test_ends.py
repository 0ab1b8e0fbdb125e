#!/usr/bin/python3
"""What becomes of guests, and how they end, each for real: the ops in flight are LOST, the machine is LOST with a
reason, the daemon and its other machines go on, and Revive brings it back.

    test_ends.py ZONED ZONED_BINPB KERNEL FAULTY_KERNEL [unittest arguments]

FAULTY_KERNEL is the guest that ends as an op tells it (kernel-backend/fault.h).
"""
import ctypes
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "rpc"))
from zoned_client import Contract, Daemon  # noqa: E402

MIB = 1 << 20
GFP_KERNEL, GFP_HIGHUSER = 0xcc0, 0x100cc2
FAULT_ORDER = 0xfa170000
(PANIC, TRAP, TRIPLE, HANG, SPIN, GARBAGE, EXIT,
 OP, STATUS, COUNT, KIND, WAKE, TWICE) = range(1, 14)
Code = grpc.StatusCode


class GuestTest(unittest.TestCase):
    image = property(lambda self: FAULTY)
    options = ()
    environment = {}

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.daemon = Daemon(PROGRAM, CONTRACT, folder.name, "--kernel-image", self.image,
                             *self.options)
        for name, value in self.environment.items():
            before = os.environ.get(name)
            self.addCleanup(os.environ.__setitem__, name, before)
            os.environ[name] = value
        self.daemon.start()
        self.addCleanup(self.end)
        self.client = self.daemon.client()
        self.addCleanup(lambda: self.client.close())

    def end(self):
        self.assertTrue(self.daemon.is_running(), (self.daemon.folder / "log").read_text())
        guests = self.guests()
        self.assertEqual(self.daemon.stop(), 0)
        for pid in guests:
            self.assertFalse(Path(f"/proc/{pid}").exists(), "a guest outlived its daemon")

    def status(self, result):
        return CONTRACT.pool.FindEnumTypeByName("zoned.v1.Status").values_by_number[
            result.outcome.status].name

    def state(self, name):
        return CONTRACT.pool.FindEnumTypeByName("zoned.v1.MachineState").values_by_number[
            self.client.machine(name).state].name

    def guests(self):
        pid = self.daemon.process.pid
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def refused(self, code, fn, *args, **kwargs):
        with self.assertRaises(grpc.RpcError) as caught:
            fn(*args, **kwargs)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        return caught.exception.details()

    def pair(self):
        """A guest with some ops done, and a simulated machine beside it."""
        c = self.client
        for name, backend in (("k", "KERNEL"), ("s", "SIM")):
            c.create(name, ram=64 * MIB, backend=backend)
            ops = [("AllocPages", {"gfp": GFP_KERNEL, "order": i % 4}) for i in range(40)]
            done = list(c.run([c.batch(ops + [("Vmalloc", {"size": 70000})], machine=name,
                                       owner="before")]))
            self.assertEqual(len(done), 41)
        self.assertEqual(c.digest("k"), c.digest("s"))
        return c.digest("k")

    def lost_and_revived(self, digest, reason, lost_ops=1):
        """After the end: what is known of it, and the way back."""
        c = self.client
        m = c.machine("k")
        self.assertEqual(self.state("k"), "MACHINE_LOST")
        self.assertIn(reason, m.reason)
        rows = c.query("SELECT count(*) FROM ops WHERE key >> 40 = 1 AND status ="
                       f" {CONTRACT.enum('Status')['LOST'].number}")
        self.assertEqual(rows, [[lost_ops]])
        (last_op, why), = c.query("SELECT last_op, reason FROM losses WHERE machine = 1")
        self.assertEqual(last_op, 41)
        self.assertIn(reason, why)
        self.assertIn(reason, self.refused(Code.FAILED_PRECONDITION, c.op, "k", "FlushTlb"))
        while self.guests():  # killed if it must be, and reaped: not even a zombie is left
            time.sleep(0.01)
        # The other machine and the daemon have not noticed.
        self.assertEqual(self.status(c.op("s", "FlushTlb")), "OK")
        back = c.call("Machines/Revive", machine="k")
        self.assertEqual(self.state("k"), "MACHINE_RUNNING")
        self.assertEqual(back.ops, 41 + lost_ops)
        if not lost_ops:
            self.assertEqual(c.digest("k"), digest)
        self.assertTrue(c.call("Machines/Check", machine="k").ok)
        r = c.op("k", "AllocPages", {"gfp": GFP_KERNEL})
        self.assertEqual((self.status(r), r.outcome.op), ("OK", 42 + lost_ops))
        # The same again on the simulation, with a number used up for each lost op.
        c.create("t", ram=64 * MIB)
        ops = [("AllocPages", {"gfp": GFP_KERNEL, "order": i % 4}) for i in range(40)]
        ops += [("Vmalloc", {"size": 70000})]
        list(c.run([c.batch(ops, machine="t", owner="before")]))
        self.assertEqual(c.digest("t"), digest)
        for _ in range(lost_ops):
            c.op("t", "Withdraw", {"op": 999})
        c.op("t", "AllocPages", {"gfp": GFP_KERNEL})
        self.assertEqual(c.digest("t"), c.digest("k"))
        # And a daemon that starts again skips the lost ops too.
        digest = c.digest("k")
        c.close()
        self.assertEqual(self.daemon.stop(), 0)
        self.daemon.start()
        self.client = self.daemon.client()
        self.assertEqual(self.state("k"), "MACHINE_RUNNING")
        self.assertEqual(self.client.digest("k"), digest)

    def last_event_is_kept(self):
        rows = self.client.query("SELECT kind FROM event_log WHERE machine = 'k' AND op = 42")
        self.assertEqual(rows, [["tlb_flush"]])

    def order(self, fault):
        return self.client.op("k", "Withdraw", {"op": FAULT_ORDER + fault})


class Ends(GuestTest):
    options = ("--guest-timeout-ms", "5000")

    def test_panic(self):
        digest = self.pair()
        self.assertEqual(self.status(self.order(PANIC)), "LOST")
        self.last_event_is_kept()
        self.lost_and_revived(digest, "guest panic: a panic on order")

    def test_trap(self):
        digest = self.pair()
        self.assertEqual(self.status(self.order(TRAP)), "LOST")
        self.last_event_is_kept()
        self.lost_and_revived(digest, "guest panic: trap 14")

    def test_triple_fault(self):
        digest = self.pair()
        self.assertEqual(self.status(self.order(TRIPLE)), "LOST")
        self.lost_and_revived(digest, "triple fault")

    def test_hang(self):
        digest = self.pair()
        self.assertEqual(self.status(self.order(HANG)), "LOST")
        self.lost_and_revived(digest, "the guest hangs")

    def test_spin(self):
        digest = self.pair()
        self.assertEqual(self.status(self.order(SPIN)), "LOST")
        self.lost_and_revived(digest, "the guest hangs")

    def test_garbage(self):
        digest = self.pair()
        self.assertEqual(self.status(self.order(GARBAGE)), "LOST")
        self.lost_and_revived(digest, "garbage on the link")

    def test_exit(self):
        digest = self.pair()
        self.assertEqual(self.status(self.order(EXIT)), "LOST")
        self.lost_and_revived(digest, "QEMU exited with status 65")

    def lie(self, order, reason):
        digest = self.pair()
        self.assertEqual(self.status(self.order(order)), "LOST")
        self.lost_and_revived(digest, reason)

    def test_answer_to_another_op(self):
        self.lie(OP, "the guest answered op 43, and the oldest that waits is op 42")

    def test_status_that_there_is_not(self):
        self.lie(STATUS, "the guest answered op 42 with status 77, which there is not")

    def test_count_of_events_that_is_wrong(self):
        self.lie(COUNT, "the guest sent 3 events in 32 bytes")

    def test_event_that_there_is_not(self):
        self.lie(KIND, "the guest sent an event of kind 999, which there is not")

    def test_end_of_an_op_that_is_not_asleep(self):
        self.lie(WAKE, "the guest woke op 1, which is not asleep")

    def test_one_answer_too_many(self):
        """The first is right, and stands. What is wrong with the second is found at once or
        by the next op, which is then LOST or refused."""
        c = self.client
        self.pair()
        self.assertEqual(self.status(self.order(TWICE)), "NOT_FOUND")
        try:
            self.assertEqual(self.status(c.op("k", "FlushTlb")), "LOST")
        except grpc.RpcError as e:
            self.assertEqual(e.code(), Code.FAILED_PRECONDITION)
        self.assertEqual(self.state("k"), "MACHINE_LOST")
        self.assertRegex(c.machine("k").reason,
                         "sent what nobody asked for|answered op 42, and the oldest .* is op 43")
        self.assertEqual(self.status(c.op("s", "Withdraw", {"op": 999})), "NOT_FOUND")
        c.call("Machines/Revive", machine="k")
        while c.machine("s").ops < c.machine("k").ops:
            c.op("s", "Withdraw", {"op": 999})  # the number that a LOST op used up
        self.assertEqual(c.digest("k"), c.digest("s"))

    def test_killed_while_idle(self):
        digest = self.pair()
        os.kill(self.guests()[0], signal.SIGKILL)
        while self.state("k") != "MACHINE_LOST":
            time.sleep(0.01)
        self.lost_and_revived(digest, "killed by signal 9", lost_ops=0)

    def break_socket(self, guest):
        libc = ctypes.CDLL(None, use_errno=True)
        pidfd = os.pidfd_open(guest)
        link = libc.syscall(438, pidfd, 3, 0)  # pidfd_getfd: QEMU's end of the link
        os.close(pidfd)
        if link < 0:
            self.skipTest(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
        with socket.socket(fileno=link) as s:
            s.shutdown(socket.SHUT_RDWR)

    def test_socket_broken(self):
        digest = self.pair()
        self.break_socket(self.guests()[0])
        while self.state("k") != "MACHINE_LOST":
            time.sleep(0.01)
        self.lost_and_revived(digest, "the link to the guest broke", lost_ops=0)

    def while_it_spins(self, end, answers=("LOST",)):
        """The guest ends while it owes an answer: the op that waits for it is LOST."""
        got = []

        def ask():
            try:
                got.append(self.status(self.order(SPIN)))
            except grpc.RpcError as e:
                got.append(e.code().name)

        waiting = threading.Thread(target=ask)
        waiting.start()
        guest, = self.guests()
        before = self.cpu_time(guest)
        while self.cpu_time(guest) < before + 0.2:  # it has the order and spins
            time.sleep(0.01)
        end(guest)
        waiting.join()
        self.assertEqual(len(got), 1)
        self.assertIn(got[0], answers)

    def cpu_time(self, pid):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def test_stopped_in_flight(self):
        """It does not end, it only does nothing more."""
        digest = self.pair()
        self.while_it_spins(lambda guest: os.kill(guest, signal.SIGSTOP))
        self.lost_and_revived(digest, "the guest hangs")

    def test_terminated_while_idle(self):
        """QEMU obeys a SIGTERM, and exits as after a triple fault."""
        digest = self.pair()
        os.kill(self.guests()[0], signal.SIGTERM)
        while self.state("k") != "MACHINE_LOST":
            time.sleep(0.01)
        self.lost_and_revived(digest, "terminating on signal 15", lost_ops=0)

    def test_killed_in_flight(self):
        digest = self.pair()
        self.while_it_spins(lambda guest: os.kill(guest, signal.SIGKILL))
        self.lost_and_revived(digest, "killed by signal 9")

    def test_socket_broken_in_flight(self):
        digest = self.pair()
        self.while_it_spins(self.break_socket)
        self.lost_and_revived(digest, "the link to the guest broke")

    def test_sigterm_in_flight(self):
        """The daemon does not wait for ever for a guest that gives no answer."""
        digest = self.pair()

        def stop(guest):
            self.assertEqual(self.daemon.stop(), 0)
            self.assertFalse(Path(f"/proc/{guest}").exists(), "a guest outlived its daemon")

        self.while_it_spins(stop, answers=("LOST", "UNAVAILABLE"))
        self.client.close()
        self.daemon.start()
        self.client = self.daemon.client()
        for name in ("k", "s"):
            self.assertEqual(self.client.digest(name), digest)
        if self.state("k") == "MACHINE_LOST":  # the watchdog was first
            self.client.call("Machines/Revive", machine="k")
        self.assertEqual(self.status(self.client.op("k", "FlushTlb")), "OK")

    def test_many_in_flight(self):
        """Each op in flight has its LOST row, in order, and nothing of them remains."""
        digest = self.pair()
        c = self.client
        ops = [("Withdraw", {"op": FAULT_ORDER + PANIC})]
        ops += [("AllocPages", {"gfp": GFP_KERNEL})] * 300
        results = list(c.run([c.batch(ops, machine="k")]))
        statuses = [self.status(getattr(r, r.WhichOneof("result"))) if r.WhichOneof("result")
                    else "refused" for r in results]
        self.assertEqual(statuses[0], "LOST")
        lost = statuses.count("LOST")
        self.assertEqual(statuses, ["LOST"] * lost + ["refused"] * (301 - lost))
        self.lost_and_revived(digest, "guest panic", lost_ops=lost)


class Boot(GuestTest):
    """What is started as QEMU the first time is no QEMU. There is one op in flight, which
    has been answered by nobody."""
    image = property(lambda self: KERNEL)
    options = ("--guest-timeout-ms", "5000")

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.bin = Path(folder.name)
        self.environment = {"PATH": f"{self.bin}:{os.environ['PATH']}"}
        self.qemu = shutil.which("qemu-system-x86_64")
        super().setUp()

    def lost_at_boot(self, instead, reason, end=None):
        program = self.bin / "qemu-system-x86_64"
        program.write_text(f"""#!/bin/bash
if mkdir {self.bin}/once; then {instead}; fi
exec {self.qemu} "$@"
""")
        program.chmod(0o755)
        c = self.client
        c.create("k", ram=64 * MIB, backend="KERNEL")
        alloc = c.start_op("k", "AllocPages", {"gfp": GFP_KERNEL})
        if end:
            while not (self.bin / "once").exists():
                time.sleep(0.01)
            end(self.guests()[0])
        self.assertEqual(self.status(alloc.result()), "LOST")
        self.assertEqual(self.state("k"), "MACHINE_LOST")
        self.assertIn(reason, c.machine("k").reason)
        c.call("Machines/Revive", machine="k")
        c.create("s", ram=64 * MIB)
        c.op("s", "Withdraw", {"op": 999})  # the number that the lost op used up
        for name in ("k", "s"):
            self.assertEqual(c.op(name, "AllocPages", {"gfp": GFP_KERNEL}).outcome.op, 2)
        self.assertEqual(c.digest("k"), c.digest("s"))

    def test_killed(self):
        self.lost_at_boot("exec sleep 1000", "killed by signal 9",
                          lambda guest: os.kill(guest, signal.SIGKILL))

    def test_silent(self):
        self.lost_at_boot("exec sleep 1000", "the guest did not start in time")

    def test_garbage(self):
        self.lost_at_boot("echo this is no frame, and no kernel >&3; exec sleep 1000",
                          "garbage on the link")

    def test_closes_the_link(self):
        self.lost_at_boot("exec 3>&-; exec sleep 1000", "the link to the guest broke")

    def test_exits(self):
        self.lost_at_boot("echo out of order >&2; exit 7", "QEMU exited with status 7: out of order")


class Meanwhile(GuestTest):
    """What the daemon is asked to do while a guest has ops in flight."""
    image = property(lambda self: KERNEL)
    options = ("--checkpoint-ops", "500")

    def ops(self, nr):
        some = [("AllocPages", {"gfp": GFP_KERNEL, "order": 1}), ("Vmalloc", {"size": 5000}),
                ("AllocPages", {"gfp": GFP_HIGHUSER}), ("FlushTlb", {})]
        return [some[i % 4] for i in range(nr)]

    def statuses(self, name, ops):
        return [self.status(getattr(r, r.WhichOneof("result")))
                for r in self.client.run([self.client.batch(ops, machine=name)])]

    def same_digests(self, *names):
        digests = [self.client.digest(name) for name in names]
        self.assertEqual(digests, digests[:1] * len(names))

    def create_both(self):
        for name, backend in (("k", "KERNEL"), ("s", "SIM")):
            self.client.create(name, ram=1024 * MIB, backend=backend)

    def test_fork_and_snapshot(self):
        """The copies have what came before them in the stream, and nothing of what came
        after; and go on by themselves."""
        c = self.client
        self.create_both()
        for name in ("k", "s"):
            ops = [*self.ops(300), ("Fork", {"name": f"{name}-fork".encode()}), *self.ops(200),
                   ("Snapshot", {"name": f"{name}-then".encode()}), *self.ops(300)]
            self.assertEqual(self.statuses(name, ops), ["OK"] * len(ops))
        self.same_digests("k-fork", "s-fork")
        self.same_digests("k-then", "s-then")
        self.same_digests("k", "s")
        self.assertEqual(c.machine("k-fork").ops, 301)
        self.assertEqual(c.machine("k-then").ops, 502)
        self.assertEqual(len(self.guests()), 1)  # a copy's guest comes with its first op
        for name in ("k-fork", "s-fork"):
            self.assertEqual(self.statuses(name, self.ops(100)), ["OK"] * 100)
        self.assertEqual(len(self.guests()), 2)
        self.same_digests("k-fork", "s-fork")
        self.same_digests("k", "s")

    def answers(self, nr, first):
        """So many ops as a stream; `first` is called with the first answer. Those that the
        daemon took up, by their number; the rest it never answered, or refused."""
        taken = {}
        try:
            for r in self.client.run([self.client.batch(self.ops(nr), machine="k")]):
                if not taken:
                    first()
                if r.WhichOneof("result"):
                    outcome = getattr(r, r.WhichOneof("result")).outcome
                    taken[outcome.op] = outcome.status
        except grpc.RpcError as e:
            self.assertEqual(e.code(), Code.UNAVAILABLE)
        return taken

    def after_restart(self, taken):
        """Everything answered is there, in the guest that comes back as in a simulation."""
        self.client.close()
        self.daemon.start()
        self.client = c = self.daemon.client()
        ops = c.machine("k").ops
        self.assertEqual(sorted(taken), list(range(1, len(taken) + 1)))
        self.assertEqual(set(taken.values()), {0})
        self.assertGreaterEqual(ops, len(taken))
        c.create("s", ram=1024 * MIB)
        self.statuses("s", self.ops(ops))
        self.same_digests("k", "s")
        for name in ("k", "s"):
            c.op(name, "AllocPages", {"gfp": GFP_KERNEL})
        self.same_digests("k", "s")
        return ops

    def test_checkpoints_and_a_kill(self):
        self.client.create("k", ram=1024 * MIB, backend="KERNEL")
        guest, = self.guests()
        taken = self.answers(4000, self.daemon.kill)
        while Path(f"/proc/{guest}/exe").exists():
            time.sleep(0.01)
        self.assertGreater(self.after_restart(taken), 0)

    def test_checkpoints_of_a_busy_guest(self):
        """The history is kept at ops that a guest executed, without asking it."""
        c = self.client
        self.create_both()
        for name in ("k", "s"):
            self.assertEqual(self.statuses(name, self.ops(3000)), ["OK"] * 3000)
        while c.query("SELECT count(*) FROM checkpoints WHERE key >> 40 = 1") == [[0]]:
            time.sleep(0.01)
        self.same_digests("k", "s")

    def test_sigterm(self):
        """The daemon ends in order: what it took up is answered, the rest is not taken up."""
        self.client.create("k", ram=1024 * MIB, backend="KERNEL")
        guest, = self.guests()
        taken = self.answers(8000, lambda: self.daemon.process.send_signal(signal.SIGTERM))
        self.assertEqual(self.daemon.process.wait(), 0)
        self.daemon.log.close()
        self.assertFalse(Path(f"/proc/{guest}").exists(), "a guest outlived its daemon")
        self.assertEqual(self.after_restart(taken), len(taken))


class Reads(GuestTest):
    image = property(lambda self: KERNEL)

    def test_what_a_kernel_reads_of_itself_is_read_again(self):
        """All of lowmem: there is the guest kernel's own memory, and tables in which a CPU
        sets bits in its own time."""
        c = self.client
        reads = [("Access", {"va": 0xc0000000 + at, "length": 1 << 16, "mode": "ACCESS_READ",
                             "privilege": "PRIVILEGE_KERNEL"}) for at in range(0, 64 * MIB, 1 << 16)]
        answers = {}
        for name, backend in (("k", "KERNEL"), ("s", "SIM")):
            c.create(name, ram=64 * MIB, pae=True, backend=backend)
            c.op(name, "Vmalloc", {"size": 70000})
            answers[name] = [r.access for r in c.run([c.batch(reads, machine=name)])]
        self.assertEqual(answers["k"], answers["s"])
        os.kill(self.guests()[0], signal.SIGKILL)
        while self.state("k") != "MACHINE_LOST":
            time.sleep(0.01)
        c.call("Machines/Revive", machine="k")
        self.assertEqual(c.digest("k"), c.digest("s"))


class TwoDaemons(GuestTest):
    image = property(lambda self: KERNEL)

    def test_do_not_notice_each_other(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        other = Daemon(PROGRAM, CONTRACT, folder.name, "--kernel-image", self.image).start()
        with other.client() as c:
            for client in (self.client, c):
                client.create("k", ram=64 * MIB, backend="KERNEL")
                client.op("k", "Vmalloc", {"size": 70000})
            self.assertEqual(self.client.digest("k"), c.digest("k"))
            # Not even each other's ends.
            os.kill(self.guests()[0], signal.SIGKILL)
            while self.state("k") != "MACHINE_LOST":
                time.sleep(0.01)
            self.assertEqual(self.status(c.op("k", "Vmalloc", {"size": 5000})), "OK")
        self.assertEqual(other.stop(), 0)
        self.client.call("Machines/Revive", machine="k")
        self.assertEqual(self.status(self.client.op("k", "Vmalloc", {"size": 5000})), "OK")


class Cpus(GuestTest):
    image = property(lambda self: KERNEL)

    def test_each_takes_its_ops_and_comes_back(self):
        """Four CPUs, each with a task and a mapping of its own; and again after QEMU's end."""
        c = self.client
        for name, backend in (("k", "KERNEL"), ("s", "SIM")):
            c.create(name, ram=1024 * MIB, backend=backend, cpus=4)
            pfn = c.op(name, "AllocPages", {"gfp": GFP_HIGHUSER}).pfn
            for cpu in range(4):
                task = c.op(name, "TaskCreate").task
                self.assertEqual(self.status(c.op(name, "Schedule", {"next": task}, cpu=cpu)), "OK")
                va = c.op(name, "KmapAtomic", {"pfn": pfn}, cpu=cpu, task=task).va
                self.assertEqual(va, 0xfffff000 - 0x1000 * (68 + 16 * cpu))
        self.assertEqual(c.digest("k"), c.digest("s"))
        os.kill(self.guests()[0], signal.SIGKILL)
        while self.state("k") != "MACHINE_LOST":
            time.sleep(0.01)
        c.call("Machines/Revive", machine="k")
        self.assertEqual(c.digest("k"), c.digest("s"))
        for cpu in range(4):
            read = {"va": 0xfffff000 - 0x1000 * (68 + 16 * cpu), "length": 64, "mode": "ACCESS_READ",
                    "privilege": "PRIVILEGE_KERNEL"}
            results = [c.op(name, "Access", read, cpu=cpu, task=cpu + 1)
                       for name in ("k", "s")]
            self.assertEqual(self.status(results[0]), "OK")
            self.assertEqual(results[0], results[1])
        self.assertEqual(c.digest("k"), c.digest("s"))


class Refused(GuestTest):
    image = property(lambda self: KERNEL)

    def test_impossible_machines(self):
        c = self.client
        for fields, words in (
                ({"preset": "ARM32"}, ["arm32", "x86"]),
                ({"preset": "PPC32"}, ["ppc32", "x86"]),
                ({"ram": 0, "e820": [{"start": 0, "size": 0xd0000000, "type": 1}]},
                 ["0xd0000000", "0xc0000000"])):
            fields = {"ram": 64 * MIB, "backend": "KERNEL", **fields}
            why = self.refused(Code.INVALID_ARGUMENT, c.create, "m", **fields)
            for word in words:
                self.assertIn(word, why)
        self.assertEqual(self.guests(), [])

    def test_stale_daemon_leaves_no_guest(self):
        self.client.create("m", ram=64 * MIB, backend="KERNEL")
        guest, = self.guests()
        self.client.close()
        self.daemon.kill()
        while Path(f"/proc/{guest}").exists() and \
                "Z" not in Path(f"/proc/{guest}/stat").read_text().rsplit(")", 1)[1].split()[0]:
            time.sleep(0.01)
        self.daemon.start()
        self.client = self.daemon.client()
        self.assertEqual(self.state("m"), "MACHINE_RUNNING")

    def test_not_lost(self):
        self.client.create("m", ram=64 * MIB)
        self.refused(Code.FAILED_PRECONDITION, self.client.call, "Machines/Revive", machine="m")


class NoQemu(GuestTest):
    image = property(lambda self: KERNEL)
    environment = {"PATH": "/nonexistent"}

    def test_names_the_package(self):
        why = self.refused(Code.INVALID_ARGUMENT, self.client.create, "m", ram=64 * MIB,
                           backend="KERNEL")
        self.assertIn("qemu-system-x86", why)


class NoKernel(GuestTest):
    image = "/nonexistent.elf"

    def test_names_the_image(self):
        why = self.refused(Code.INVALID_ARGUMENT, self.client.create, "m", ram=64 * MIB,
                           backend="KERNEL")
        self.assertIn("/nonexistent.elf", why)


class NotAKernel(GuestTest):
    image = "/bin/sh"

    def test_says_what_qemu_said(self):
        self.client.create("m", ram=64 * MIB, backend="KERNEL")
        while self.state("m") != "MACHINE_LOST":
            time.sleep(0.01)
        self.assertIn("QEMU exited with status 1: qemu", self.client.machine("m").reason)


if __name__ == "__main__":
    PROGRAM, CONTRACT, KERNEL, FAULTY = sys.argv[1], Contract(sys.argv[2]), *sys.argv[3:5]
    unittest.main(argv=[sys.argv[0], *sys.argv[5:]])
