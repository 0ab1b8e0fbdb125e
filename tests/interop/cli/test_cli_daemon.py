"""zonectl, the Python example and the daemon together.

    test_cli_daemon.py ZONECTL ZONED CLIENT_DIR [unittest arguments]
"""
import contextlib
import json
import os
import pty
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import termios
import time
import unittest
from pathlib import Path

ZONECTL, ZONED, CLIENT = sys.argv[1:4]


class Daemon(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="zoned")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("ZONED_")}
        self.env.update(ZONED_ADDRESS=f"unix:{self.dir}/socket", ZONED_MACHINE="m0", LC_ALL="C.UTF-8",
                        ZONECTL=ZONECTL)
        self.start()

    def tearDown(self):
        self.stop(signal.SIGTERM)
        shutil.rmtree(self.dir)

    def start(self):
        self.daemon = subprocess.Popen(
            [ZONED, "--listen", self.env["ZONED_ADDRESS"], "--history", f"{self.dir}/history.db",
             "--query-timeout-ms", "600000"],
            stderr=subprocess.PIPE, text=True, env=self.env)
        for line in self.daemon.stderr:
            if "serving" in line:
                return
        self.fail("the daemon did not start")

    def stop(self, how):
        self.daemon.send_signal(how)
        self.daemon.communicate()

    def ctl(self, *args, code=0, stdin=None):
        done = subprocess.run([ZONECTL, *args], input=stdin, capture_output=True, text=True, env=self.env,
                              check=False)
        self.assertEqual(done.returncode, code, f"{args}\nout: {done.stdout}\nerr: {done.stderr}")
        return done.stdout

    def op(self, *args, code=0):
        return json.loads(self.ctl(*args, "--json", code=code))

    def test_a_day_in_the_life(self):
        self.ctl("health")
        self.ctl("alloc", "GFP_KERNEL", code=4)
        self.ctl("machine", "create", "m0", "--ram", "1G", "--pae")
        self.ctl("machine", "create", "m0", "--ram", "1G", code=4)
        page = self.op("alloc", "GFP_HIGHUSER", "--owner", "me")
        self.assertEqual((page["number"], page["status"], page["zone"]), (1, "OK", "ZONE_HIGHMEM"))
        self.assertEqual(self.op("free", str(page["pfn"]), "--order", "2", code=1)["status"], "WRONG_ORDER")
        va = self.op("kmap", str(page["pfn"]))["va"]
        self.ctl("access", hex(va), "--data", "hello", "--mode", "write", "--privilege", "kernel")
        read = self.op("access", hex(va), "--length", "5", "--privilege", "kernel")
        self.assertEqual(read["data"], "hello")
        self.assertIn("HighMem", self.ctl("zoneinfo"))
        frame = json.loads(self.ctl("page", str(page["pfn"]), "--json"))["frame"][0]
        self.assertEqual((frame["op"], frame["state"]), (1, "FRAME_ALLOCATED"))
        self.assertIn("me\n", self.ctl("map", "--ascii"))
        self.assertIn("adds up", self.ctl("machine", "check"))
        rows = json.loads(self.ctl("sql", "select owner, from_op, pfn from allocations where live and owner = 'me'", "--json"))
        self.assertEqual(rows, [{"owner": "me", "from_op": 1, "pfn": page["pfn"]}])
        tail = [json.loads(l) for l in self.ctl("tail", "--no-follow", "--json", "--op", "kmap").splitlines()]
        self.assertEqual([(r["op"], r["args"]["pfn"], r["values"]["va"]) for r in tail], [("kmap", page["pfn"], va)])

    def test_mistyped_names(self):
        def says(text, *args, code):
            done = subprocess.run([ZONECTL, *args], capture_output=True, text=True, env=self.env, check=False)
            self.assertEqual((done.returncode, text in done.stderr), (code, True), done.stderr)
            return done.stderr

        says("There is no machine yet: zonectl machine create board --ram 2G", "alloc", "GFP_KERNEL", "-m", "board", code=4)
        for name in ("board", "m0"):
            self.ctl("machine", "create", name, "--ram", "64M")
        says("Did you mean board?", "alloc", "GFP_KERNEL", "-m", "bord", code=4)
        says("Did you mean board?", "machine", "get", "baord", code=4)
        err = says("`zonectl machine list` names the machines.", "zoneinfo", "-m", "something-else", code=4)
        self.assertNotIn("Did you mean", err)
        says("no hihgmem; did you mean HIGHMEM?", "unboost", "--zone", "hihgmem", code=2)
        says("no min_free; did you mean MIN_FREE_KBYTES?", "sysctl", "min_free", "5", code=2)
        says("Did you mean zone_fallbacks?", "sql", "select * from zone_falbacks", code=4)
        says("Did you mean migratetype?", "sql", "select e.migratype from event_alloc e", code=4)
        says("lists the views", "sql", "select nonsense from event_alloc", code=4)
        says("75161927680 bytes (70G) is not in 0 to 68719476736 (64G)", "machine", "create", "x", "--ram", "70G", code=2)
        says("none of 3G, 3G_OPT, 2G, 2G_OPT, 1G, and no page offset", "machine", "create", "x", "--split", "4G", code=2)

    def on_terminal(self, *args, **env):
        """What a command writes to a terminal of 24 lines."""
        pid, fd = pty.fork()
        if pid == 0:
            termios.tcsetwinsize(0, (24, 80))
            os.execve(ZONECTL, [ZONECTL, *args], {**self.env, "TERM": "xterm", **env})
        out = b""
        with contextlib.suppress(OSError):  # how the end of a pty reads
            while piece := os.read(fd, 65536):
                out += piece
        os.close(fd)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        return out.decode()

    def test_colours_and_the_pager(self):
        self.ctl("machine", "create", "m0", "--ram", "64M")
        self.assertIn("\033[", self.on_terminal("map"))
        self.assertIn("\033[", self.on_terminal("map", NO_COLOR=""))
        for plain in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            self.assertNotIn("\033[", self.on_terminal("map", **plain))
        self.assertNotIn("\033[", self.ctl("map"))
        # What is read by people goes through the pager, what is read by programs does not.
        pager = {"PAGER": "sed 's/^/paged: /'"}
        rows = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 50) select i from n"
        self.assertEqual(self.on_terminal("sql", rows, **pager).count("paged: "), 52)
        self.assertEqual(self.on_terminal("zoneinfo", **pager).count("paged: "), self.ctl("zoneinfo").count("\n"))
        for args in (("sql", rows, "--no-pager"), ("sql", rows, "--json"), ("zoneinfo", "--json")):
            self.assertNotIn("paged: ", self.on_terminal(*args, **pager))
        self.assertNotIn("paged: ", self.ctl("sql", rows))

    def test_a_machine_that_has_ended_has_a_report(self):
        self.ctl("machine", "create", "m0", "--ram", "64M")
        self.ctl("alloc", "GFP_KERNEL")
        self.ctl("machine", "destroy", "m0")
        done = subprocess.run([ZONECTL, "report", "-o", f"{self.dir}/r.html"], capture_output=True, text=True,
                              env=self.env, check=True)
        self.assertEqual(done.stderr, "")

    def test_ram_that_is_out_of_reach_is_told(self):
        done = subprocess.run([ZONECTL, "machine", "create", "big", "--ram", "8G"], capture_output=True, text=True,
                              env=self.env, check=True)
        self.assertIn("5G of its RAM is out of reach and not used: --pae reaches 64G", done.stderr)
        done = subprocess.run([ZONECTL, "machine", "create", "pae", "--ram", "8G", "--pae"], capture_output=True,
                              text=True, env=self.env, check=True)
        self.assertEqual(done.stderr, "")

    def test_every_column_of_the_history_is_explained(self):
        self.ctl("machine", "create", "m0", "--ram", "64M")
        with contextlib.closing(sqlite3.connect(f"file:{self.dir}/history.db?mode=ro", uri=True)) as history:
            names = [n for n, in history.execute(
                "select distinct p.name from sqlite_schema s, pragma_table_info(s.name) p where s.type = 'view'")]
        # Fields by number say nothing by themselves, and X_names is X as a text.
        plain = [n for n in names if not re.fullmatch(r"[avw]\d", n) and not n.endswith("_names")]
        self.assertGreater(len(plain), 120)
        self.ctl("explain", *plain)

    def test_pipe_parks_and_wakes(self):
        self.ctl("machine", "create", "m0", "--ram", "1G", "--pae")
        lines = [{"op": "task-create", "as": "t"}, {"op": "schedule", "next": "$t.task"}]
        for i in range(513):
            lines.append({"op": "alloc", "gfp": "GFP_HIGHUSER", "as": f"p{i}"})
        for i in range(513):  # the window under PAE has 512 slots
            # A task that held the whole window and slept for it would be a deadlock.
            lines.append({"op": "kmap", "pfn": f"$p{i}.pfn", "task": "$t.task" if i == 512 else 0,
                          "as": f"m{i}"})
        lines[514:514] = [{"op": "schedule", "next": 0}]
        lines[-1:-1] = [{"op": "schedule", "next": "$t.task"}]
        lines.append({"op": "schedule", "next": 0})
        lines.append({"op": "kunmap", "pfn": "$p7.pfn", "comment": "wakes the sleeper"})
        out = [json.loads(l) for l in self.ctl("pipe", stdin="\n".join(map(json.dumps, lines))).splitlines()]
        maps = [o for o in out if o["op"] == "kmap"]
        self.assertEqual({o["status"] for o in maps}, {"OK"})
        self.assertEqual(maps[-1]["as"], "m512")
        self.assertEqual(maps[-1]["va"], next(o["va"] for o in maps if o["as"] == "m7"))

    def test_survives_the_daemon(self):
        self.ctl("machine", "create", "m0", "--ram", "512M")
        ops = '{"op":"alloc","gfp":"GFP_KERNEL"}\n' * 2000
        self.assertEqual(len(self.ctl("pipe", stdin=ops).splitlines()), 2000)
        digest = self.ctl("machine", "digest")
        self.stop(signal.SIGKILL)
        self.ctl("alloc", "GFP_KERNEL", code=3)
        self.start()
        self.assertEqual(self.ctl("machine", "digest"), digest)

    def popen(self, *args, **kwargs):
        return subprocess.Popen([ZONECTL, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, env=self.env, **kwargs)

    def test_an_op_in_flight_while_the_daemon_restarts_succeeds_once(self):
        self.ctl("machine", "create", "m0", "--ram", "512M")
        for how in (signal.SIGKILL, signal.SIGTERM):
            before = json.loads(self.ctl("machine", "get", "m0", "--json"))["ops"]
            # It is connected and has sent its op when the daemon, stopped, is ended.
            self.daemon.send_signal(signal.SIGSTOP)
            op = self.popen("alloc", "GFP_KERNEL", "--json")
            while not self.waits(op):
                time.sleep(0.01)
            self.daemon.send_signal(how)
            self.daemon.send_signal(signal.SIGCONT)
            self.daemon.communicate()
            self.start()
            out, err = op.communicate()
            self.assertEqual(op.returncode, 0, err)
            self.assertEqual(json.loads(out)["number"], before + 1)
            after = json.loads(self.ctl("machine", "get", "m0", "--json"))["ops"]
            self.assertEqual(after, before + 1)

    def waits(self, process):
        """Has it a connection, and sleeps?"""
        proc = Path(f"/proc/{process.pid}")
        try:
            return (any("socket:" in os.readlink(fd) for fd in (proc / "fd").iterdir())
                    and proc.joinpath("stat").read_text().split()[2] == "S")
        except OSError:
            return False

    def test_a_pipe_outlives_the_daemon(self):
        self.ctl("machine", "create", "m0", "--ram", "512M")
        pipe = self.popen("pipe", "--retry", "--batch", "8")
        done = 0
        for round in range(6):
            for _ in range(200):
                pipe.stdin.write('{"op":"alloc","gfp":"GFP_KERNEL"}\n')
            pipe.stdin.flush()
            if round % 2:
                self.stop(signal.SIGKILL if round == 3 else signal.SIGTERM)
                self.start()
            for _ in range(200):
                done += 1
                line = json.loads(pipe.stdout.readline())
                self.assertEqual((line["line"], line["number"], line["status"]), (done, done, "OK"))
        out, err = pipe.communicate()
        self.assertEqual((pipe.returncode, out), (0, ""), err)
        self.assertIn("1200 ops", self.ctl("machine", "get", "m0"))

    def test_the_python_example(self):
        done = subprocess.run(["/usr/bin/python3", f"{CLIENT}/python/example.py"], env=self.env, check=True,
                              capture_output=True, text=True)
        self.assertIn("free with the wrong order: WRONG_ORDER", done.stdout)
        self.assertIn("run: 1024 allocations, 1024 different frames", done.stdout)
        # And what the kernel's own tables took on the way.
        self.assertRegex(done.stdout, "sql: example ZONE_NORMAL 10[2-9][0-9]")

    def test_the_experiment(self):
        done = subprocess.run([f"{CLIENT}/experiments/drain.sh"], env=self.env, check=False,
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        answers = done.stdout.split("\n== ")
        rows = [line.split() for line in answers[-2].splitlines() if line.startswith("ZONE_")]
        self.assertEqual([r[:2] for r in rows], [["ZONE_HIGHMEM", "ZONE_NORMAL"], ["ZONE_HIGHMEM", "ZONE_DMA"]])
        zones = [line.split()[1] for line in answers[-1].splitlines() if line.startswith("FAULT_DEMAND_ZERO")]
        self.assertEqual(zones, ["ZONE_HIGHMEM", "ZONE_NORMAL", "ZONE_DMA"])
        firsts = [int(r[4]) for r in rows]
        self.assertLess(firsts[0], firsts[1])
        self.assertTrue(Path(CLIENT, "experiments", "686-pae-2G.dmesg").exists())


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]] + sys.argv[4:])
