"""zonectl top: its figures against the inspections, and on a terminal.

    test_top.py ZONECTL ZONED
"""
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import unittest

ZONECTL, ZONED = sys.argv[1:3]


class Screen:
    """A VT100 as far as a program that draws whole screens needs one."""

    def __init__(self, width, height):
        self.resize(width, height)
        self.left = ""

    def resize(self, width, height):
        self.width, self.height = width, height
        self.rows = [[" "] * width for _ in range(height)]
        self.x = self.y = self.top = 0
        self.bottom = height - 1

    def step(self, by):
        """A line up or down; at the margin what is between the margins moves."""
        if self.y == (self.top if by < 0 else self.bottom):
            del self.rows[self.bottom if by < 0 else self.top]
            self.rows.insert(self.y, [" "] * self.width)
        else:
            self.y = min(max(self.y + by, 0), self.height - 1)

    def feed(self, text):
        text = self.left + text
        self.left = ""
        while text:
            found = re.match(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b[()].|\x1b[=>78]|\x1b([DM])|[\x00\x0e\x0f\x07]", text)
            if found and found[3]:
                self.step(-1 if found[3] == "M" else 1)
                text = text[2:]
            elif found:
                self.control(found[1] or "", found[2])
                text = text[found.end():]
            elif text[0] == "\x1b":
                if len(text) > 20:
                    raise ValueError(f"what is {text[:20]!r}?")
                self.left = text
                return
            else:
                self.put(text[0])
                text = text[1:]

    def control(self, arguments, letter):
        n = [int(a) if a else 0 for a in arguments.lstrip("?").split(";")]
        if letter == "H":
            self.y, self.x = max(n[0], 1) - 1, max(n[1] if len(n) > 1 else 1, 1) - 1
        elif letter in ("A", "B", "C", "D"):
            step = max(n[0], 1)
            self.y += {"A": -step, "B": step}.get(letter, 0)
            self.x += {"C": step, "D": -step}.get(letter, 0)
        elif letter == "K":
            row = self.rows[self.y]
            for i in range(0 if n[0] else self.x, self.x + 1 if n[0] == 1 else self.width):
                row[i] = " "
        elif letter == "J":
            if n[0] == 2:
                self.x = self.y = 0
            self.rows[self.y][self.x:] = [" "] * (self.width - self.x)
            for y in range(self.y + 1, self.height):
                self.rows[y] = [" "] * self.width
        elif letter == "r":
            self.top, self.bottom = max(n[0], 1) - 1, (n[1] if len(n) > 1 and n[1] else self.height) - 1
            self.x = self.y = 0
        elif letter and letter not in "mhl":
            raise ValueError(f"what is CSI {arguments} {letter}?")

    def put(self, c):
        if c == "\r":
            self.x = 0
        elif c == "\n":
            self.step(1)
        elif c == "\b":
            self.x -= 1
        elif c == "\t":
            self.x = (self.x // 8 + 1) * 8
        elif self.y < self.height and self.x < self.width:
            self.rows[self.y][self.x] = c
            self.x += 1

    def text(self):
        return "\n".join("".join(row).rstrip() for row in self.rows)


class Terminal:
    """zonectl top at work on a terminal."""

    def __init__(self, test, env, *args, width=100, height=40, term="vt100"):
        self.test, self.screen, self.raw = test, Screen(width, height), ""
        self.pty, self.slave = pty.openpty()
        self.set_size(width, height)
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen([ZONECTL, "top", "-i", "100ms", *args], stdin=self.slave, stdout=self.slave,
                                        stderr=self.slave, env={**env, "TERM": term}, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def set_size(self, width, height):
        fcntl.ioctl(self.pty, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def resize(self, width, height):
        self.screen.resize(width, height)
        self.set_size(width, height)

    def type(self, text):
        os.write(self.pty, text.encode())

    def read(self, why):
        self.test.assertTrue(select.select([self.pty], [], [], 60)[0], f"{why}:\n{self.screen.text()}")
        piece = os.read(self.pty, 65536).decode(errors="replace")
        self.raw += piece
        self.screen.feed(piece)

    def wait_for(self, wanted, there=True):
        """Until the screen has it; returns the screen."""
        for _ in range(300):  # the clock alone makes a piece a second
            if bool(re.search(wanted, self.screen.text())) == there:
                return self.screen.text()
            self.read(f"waited for {wanted!r}")
        return self.test.fail(f"{wanted!r} is {'not ' * there}there:\n{self.screen.text()}")

    def wait_without(self, unwanted):
        return self.wait_for(unwanted, False)

    def end(self):
        """Its exit code, and whether the terminal is as it was."""
        while self.process.poll() is None:
            if select.select([self.pty], [], [], 0.05)[0]:
                self.read("end")
        while select.select([self.pty], [], [], 0)[0]:
            self.read("end")
        after = termios.tcgetattr(self.slave)
        os.close(self.slave)
        os.close(self.pty)
        return self.process.returncode, after == self.before


class Top(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="zoned")
        self.addCleanup(shutil.rmtree, self.dir)
        self.env = {**{k: v for k, v in os.environ.items() if not k.startswith("ZONED_") and k != "NO_COLOR"},
                    "ZONED_ADDRESS": f"unix:{self.dir}/socket", "LC_ALL": "C.UTF-8"}
        self.env.pop("COLUMNS", None)
        self.start()
        self.addCleanup(self.stop)

    def start(self, *options):
        self.daemon = subprocess.Popen([ZONED, "--listen", self.env["ZONED_ADDRESS"], "--history", f"{self.dir}/history.db", *options],
                                       stderr=subprocess.PIPE, text=True)
        for line in self.daemon.stderr:
            if "serving" in line:
                return
        self.fail("the daemon does not serve")

    def stop(self):
        self.daemon.terminate()
        self.daemon.communicate()

    def ctl(self, *args, code=0, stdin=None, **env):
        done = subprocess.run([ZONECTL, *args], input=stdin, capture_output=True, text=True, env={**self.env, **env}, check=False)
        self.assertEqual(done.returncode, code, f"{args}\nout: {done.stdout}\nerr: {done.stderr}")
        return done.stdout

    def ask(self, *args):
        return json.loads(self.ctl(*args, "-m", "m0", "--json"))

    def machine(self, name="m0", ops=()):
        self.ctl("machine", "create", name, "--ram", "1200M", "--cpus", "2")
        lines = [{"op": "alloc", "gfp": "GFP_HIGHUSER", "as": "p", "owner": "evil\x1b[2Jlabel"},
                 {"op": "kmap", "pfn": "$p.pfn"}, {"op": "vmalloc", "size": "1M", "gfp": "GFP_KERNEL"},
                 {"op": "vmalloc", "size": "64K", "gfp": "GFP_KERNEL", "as": "v"}, {"op": "vfree", "va": "$v.va"},
                 {"op": "alloc", "gfp": "GFP_KERNEL", "order": 3, "cpu": 1}, {"op": "free", "pfn": 1, "order": 0, "expect": "any"},
                 *ops]
        self.ctl("pipe", "--quiet", "-m", name, stdin="\n".join(map(json.dumps, lines)))

    # ---- for pipes ----

    def test_the_figures_are_the_inspections(self):
        self.machine()
        top = json.loads(self.ctl("top", "-m", "m0", "--json", "--once"))
        for inspection, lists in (("zoneinfo", ("zones", "pcps")), ("buddyinfo", ("blocks",)), ("pagetypeinfo", ("free", "pageblocks"))):
            seen = self.ask(inspection)
            for name in lists:
                self.assertEqual(top[name], seen[name], name)
        kmap, areas = self.ask("kmap-window"), self.ask("vmallocinfo")["areas"]
        self.assertEqual({**kmap["summary"][0], "sleepers": 0, "locals": 0}, top["pkmap"])
        self.assertEqual(top["pkmap"]["used"], 1)
        lazy = [a for a in areas if a["kind"] == "VMAP_LAZY"]
        self.assertEqual((top["vmalloc"]["areas"], top["vmalloc"]["lazy_areas"]), (len(areas) - len(lazy), len(lazy)))
        self.assertEqual(top["vmalloc"]["taken"] + top["vmalloc"]["lazy"], (256 + 1 + 16 + 1) * 4096)
        window = next(p for p in self.ask("layout")["parts"] if p["part"] == "LAYOUT_VMALLOC")
        self.assertEqual(top["vmalloc"]["size"], window["end"] - window["start"])
        counted = {c["kind"]: c["count"] for c in self.ask("statistics")["events"] if c["count"]}
        self.assertEqual({"EVENT_" + k.upper(): v["total"] for k, v in top["events"].items()}, counted)
        self.assertEqual((top["name"], top["op"], top["ops_per_second"]), ("m0", 7, None))
        self.assertRegex(top["last"][-1], r"^#7 free pfn=0x1 order=0 -> RESERVED$")
        self.assertTrue(any(l.endswith("(evil?[2Jlabel)") for l in top["last"]), top["last"])

    def test_text_for_a_pipe(self):
        self.machine()
        out = self.ctl("top", "--once")
        self.assertNotRegex(out, r"[\x00-\x09\x0b-\x1f\x7f]")
        self.assertRegex(out, r"^m0 \d\d:\d\d:\d\d  RUNNING  CLASSIC 1.17G, 2 CPUs  op 7  asleep 0 ")
        for zone in ("DMA", "NORMAL", "HIGHMEM"):
            self.assertRegex(out, rf"\n{zone} .* ok  \[█*m█*l?█*h?█*·*\]\n")
        self.assertRegex(out, r"\npkmap .* 1 of 1024 slots used")
        self.assertRegex(out, r"\n#7 free pfn=0x1 order=0 -> RESERVED\n")
        self.assertIn("\nops/s       -\n", out)
        self.assertTrue(self.ctl("top", "--once", LC_ALL="C").isascii())
        narrow = self.ctl("top", "--once", COLUMNS="40")
        self.assertRegex(narrow, r"\nHIGHMEM .* ok\n")

    def test_rates_take_two_pictures(self):
        self.machine()
        p = subprocess.Popen([ZONECTL, "top", "-m", "m0", "--json", "-i", "100ms"], stdout=subprocess.PIPE, env=self.env, text=True)
        first = json.loads(p.stdout.readline())
        self.assertIsNone(first["ops_per_second"])
        self.ctl("alloc", "-m", "m0", "--gfp", "GFP_KERNEL")
        later = json.loads(p.stdout.readline())
        while later["ops"] == 7:
            self.assertEqual((later["ops_per_second"], later["last"]), (0, []))
            later = json.loads(p.stdout.readline())
        self.assertGreater(later["ops_per_second"], 0)
        self.assertGreater(later["events"]["alloc"]["per_second"], 0)
        self.assertEqual(later["events"]["alloc"]["total"], first["events"]["alloc"]["total"] + 1)
        self.assertEqual(len(later["last"]), 1)
        while later["ops_per_second"]:
            later = json.loads(p.stdout.readline())
        self.assertEqual(later["events"]["alloc"]["per_second"], 0)
        # A daemon that comes back is asked again; the end of the machine is the batch's.
        self.stop()
        self.start()
        while json.loads(p.stdout.readline())["ops"] != 8:
            pass
        self.ctl("machine", "destroy", "m0")
        p.communicate()
        self.assertEqual(p.returncode, 4)

    def test_pictures_are_counted(self):
        self.machine()
        out = self.ctl("top", "--batch", "-n", "3", "-i", "100ms")
        self.assertEqual(len(re.findall("(?m)^m0 ", out)), 3)
        self.assertEqual(out.count("#7 free"), 1)
        out = self.ctl("top", "--once", "--sort", "name", "--zone", "normal")
        self.assertIn("of NORMAL by migratetype", out)
        self.assertEqual(re.search(r"events by kind.*\n(\w+)", out)[1], "alloc")

    def test_bad_input(self):
        for args, code in (((), 2), (("--count", "3"), 2), (("--batch", "-n", "0"), 2), (("--once", "-i", "1ms"), 2), (("--once", "-i", "soon"), 2),
                           (("--once", "--zone", "swap"), 2), (("--once", "--sort", "taste"), 2), (("--once", "word"), 2), (("--once",), 4),
                           (("--once", "-m", "nobody"), 4), (("--once", "--address", "unix:/nonexistent"), 3)):
            self.ctl("top", *args, code=code)

    # ---- on a terminal ----

    def test_keys(self):
        self.machine("m0")
        self.machine("m1", [{"op": "flush-tlb"}])
        self.ctl("machine", "create", "m2", "--ram", "64M")
        t = Terminal(self, self.env, "-m", "m1")
        seen = t.wait_for("m1 .* op 8 [\\s\\S]*#8 flush-tlb")
        self.assertIn("one of 3 machines", seen)
        self.assertIn("of HIGHMEM by migratetype", seen)
        t.type("\x1bOA")  # up
        t.wait_for("of NORMAL by migratetype")
        t.type("\x1bOB\x1bOB")
        t.wait_for("of DMA by migratetype")
        t.type("\x1bOC")  # right
        t.wait_for("m2 .* op 0 [\\s\\S]*of NORMAL by")
        t.type("\x1bOC")
        t.wait_for("m0 .* op 7 [\\s\\S]*of HIGHMEM by")
        t.type("\x1bOD\x1bOD")
        t.wait_for("m1 .* op 8 ")
        t.type("s")
        t.wait_for("by total")
        t.type("+")
        t.wait_for(r"\+- 0.2 s")
        t.type("-")
        t.wait_for(r"\+- 0.1 s")
        t.type("?")
        t.wait_for("another machine\n")
        t.wait_without("managed")
        t.type("x")
        t.wait_for("managed")
        t.type(" ")
        t.wait_for("PAUSED")
        self.ctl("alloc", "-m", "m1", "--gfp", "GFP_KERNEL", "--order", "1")
        t.type("s")
        self.assertIn(" op 8 ", t.wait_for("by name"))
        t.type("r")
        t.wait_for(" op 9 [\\s\\S]*#9 alloc gfp=GFP_KERNEL order=1")
        t.type(" ")
        t.wait_without("PAUSED")
        t.type("q")
        self.assertEqual(t.end(), (0, True))

    def test_every_size(self):
        self.machine()
        t = Terminal(self, self.env, width=120, height=45)
        t.wait_for("#7 free")
        t.wait_for("q quit")
        t.wait_for(r"ops/s +0\n")
        whole = t.wait_without(r" - +\d")  # the second picture, to its end: there are rates
        for part in ("managed", "free blocks", "by migratetype", "pkmap", "pcp/high", "events by kind", "q quit"):
            self.assertIn(part, whole)
        t.resize(80, 24)
        t.wait_for("q quit")
        t.wait_for("\nfree blocks[\\s\\S]*#7 free")
        t.wait_without("by migratetype")
        for width, height in ((40, 12), (20, 7)):
            t.resize(width, height)
            t.wait_for("q quit")
        for width, height in ((12, 3), (1, 1), (2, 2), (300, 1)):
            t.resize(width, height)
            t.wait_for("m" if width == 1 else "m0")
        t.resize(120, 45)
        t.wait_for("#7 free")
        first_line = re.compile(".*\n")
        self.assertEqual(first_line.sub("", t.wait_for("q quit"), 1), first_line.sub("", whole, 1))
        t.type("\x03")
        self.assertEqual(t.end(), (0, True))

    def test_a_daemon_that_goes_and_comes(self):
        self.machine()
        t = Terminal(self, self.env, "-m", "m0")
        t.wait_for("#7 free")
        self.stop()
        self.assertIn(" op 7 ", t.wait_for("trying again"))
        t.type("s")  # keys work
        t.wait_for("by total")
        self.start()
        t.wait_without("trying again")
        self.ctl("alloc", "-m", "m0", "--gfp", "GFP_KERNEL")
        t.wait_for(" op 8 ")
        self.daemon.send_signal(signal.SIGSTOP)
        t.wait_for("no answer for")
        t.type("s")  # keys still work
        t.wait_for("by name")
        self.daemon.send_signal(signal.SIGCONT)
        t.wait_without("no answer for")
        self.ctl("machine", "destroy", "m0")
        t.wait_for("there is no machine m0")
        self.machine("m0")
        t.wait_for(" op 7 [\\s\\S]*#7 free")
        t.wait_without("there is no")
        t.process.send_signal(signal.SIGTERM)
        self.assertEqual(t.end(), (-signal.SIGTERM, True))

    def test_a_daemon_that_refuses(self):
        self.machine()
        self.stop()
        with open(f"{self.dir}/token", "w", encoding="ascii", opener=lambda path, flags: os.open(path, flags, 0o600)) as f:
            f.write("a-secret-of-a-test\n")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"tcp:127.0.0.1:{free.getsockname()[1]}"
        self.start("--listen", address, "--token-file", f"{self.dir}/token")
        t = Terminal(self, self.env, "--address", address, term="xterm")
        t.screen.feed = lambda text: None
        self.assertEqual(t.end(), (4, True))
        self.assertRegex(t.raw, r"\x1b\[\?1049l[\s\S]*UNAUTHENTICATED")  # after the screen is gone
        t = Terminal(self, self.env, "--address", address, "--token-file", f"{self.dir}/token")
        t.wait_for("#7 free")
        t.type("q")
        self.assertEqual(t.end(), (0, True))

    def test_no_machine_yet(self):
        t = Terminal(self, self.env)
        t.wait_for("zonectl machine create")
        self.machine("late")
        t.wait_for("late .*RUNNING")
        t.type("q")
        self.assertEqual(t.end(), (0, True))

    def test_colours(self):
        self.machine()
        for extra, wanted in (({}, True), ({"NO_COLOR": "1"}, False)):
            t = Terminal(self, {**self.env, **extra}, term="xterm-256color", height=30)
            t.screen.feed = lambda text: None
            while "pkmap" not in t.raw:
                t.read("waited for colours")
            t.type("q")
            self.assertEqual(t.end(), (0, True))
            self.assertEqual(bool(re.search(r"\x1b\[(\d+;)*3[0-7]m", t.raw)), wanted)
            self.assertIn("\x1b[?1049h", t.raw)
            self.assertIn("\x1b[?1049l", t.raw)
        for term in ("dumb", "no-such-terminal"):
            t = Terminal(self, self.env, term=term)
            t.screen.feed = lambda text: None
            self.assertEqual(t.end(), (2, True))
            self.assertIn("--batch", t.raw)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
