"""zonectl import and zoned conformance, as a user calls them.

    test_import.py ZONECTL ZONED RECORDED
"""
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ZONECTL, ZONED, RECORDED = sys.argv[1], sys.argv[2], Path(sys.argv[3])
TRACE = RECORDED / "traces" / "686-pae-1G-fill"


class Conformance(unittest.TestCase):
    def run_zoned(self, *paths):
        return subprocess.run([ZONED, "conformance", *map(str, paths)], capture_output=True, text=True,
                              check=False)

    def test_a_folder_of_recordings(self):
        done = self.run_zoned(RECORDED / "recordings" / "686-pae-64M", RECORDED / "boots")
        self.assertEqual(done.returncode, 0, done.stdout)
        lines = done.stdout.splitlines()
        self.assertEqual(len(lines), 37)
        for line in lines:
            word, count, *_ = line.split()
            agreed, compared = count.split("/")
            self.assertEqual((word, agreed), ("AGREE", compared))

    def test_a_difference(self):
        """A trace in which Linux gave another frame once."""
        with tempfile.TemporaryDirectory() as folder:
            for name in ("dmesg", "state-begin.jsonl.gz", "state-end.jsonl.gz"):
                shutil.copy(TRACE / name, folder)
            lines = gzip.open(TRACE / "kmem.trace.gz", "rt").read().splitlines(True)
            at = next(i for i, line in enumerate(lines) if i > 50000 and ": mm_page_alloc:" in line)
            lines[at] = lines[at].replace("pfn=0x", "pfn=0x1")
            Path(folder, "kmem.trace").write_text("".join(lines))
            done = self.run_zoned(folder)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stdout, r"^DIFFER \d+/\d+ ")
            self.assertIn("; Linux: frame 0x1", done.stdout)
            self.assertIn("shortest prefix", done.stdout)

    def forms(self, source, folder, names, change=lambda name, text: text):
        """A recording's files, unpacked, each changed."""
        for name in names:
            path = source / name
            packed = not path.exists()
            text = gzip.open(f"{path}.gz", "rb").read() if packed else path.read_bytes()
            Path(folder, name).write_bytes(change(name, text))
        return Path(folder)

    def agrees(self, *paths, count=None):
        done = self.run_zoned(*paths)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for line in done.stdout.splitlines():
            self.assertEqual(line.split()[:2], ["AGREE", f"{count}/{count}"])
        return done.stdout

    def test_forms_of_a_trace(self):
        """As people have it: plain and packed, ends of lines, other names, perf script, old spellings, cut off."""
        small, count = RECORDED / "traces" / "686-pae-900M-smp2-first", 10995
        names = ("dmesg", "state-begin.jsonl", "state-end.jsonl", "kmem.trace")

        def dos(_, text):
            return text.replace(b"\n", b"\r\n")

        def perf(name, text):
            if name != "kmem.trace":
                return text
            line = re.compile(rb"\s*(.+)-(\d+)\s+(\[\d+\]) \S+\s+([\d.]+): (\w+): (.*)")
            found = filter(None, map(line.match, text.splitlines()))
            text = b"".join(b"%s %s %s %s: kmem:%s: %s\n\tc01 f+0x1 (vmlinux)\n\n" % m.groups() for m in found)
            text = re.sub(rb"pfn=(0x\w+)", lambda m: b"nr_free=3650 pfn=%d" % int(m[1], 16), text)
            text = text.replace(b"mm_page_free:", b"mm_page_free_direct:").replace(b"page=(ptrval)", b"page=0x17")
            return re.sub(rb"(mm_page_free_batched: .*)", rb"\1 cold=0", text)

        for change in (lambda _, text: text, dos, perf):
            with tempfile.TemporaryDirectory() as folder:
                self.forms(small, folder, names, change)
                self.agrees(f"{folder}/kmem.trace", count=count)
                os.rename(f"{folder}/kmem.trace", f"{folder}/mine.txt")
                Path(folder, "dmesg.gz").write_bytes(gzip.compress(Path(folder, "dmesg").read_bytes()))
                os.unlink(f"{folder}/dmesg")
                os.unlink(f"{folder}/state-end.jsonl")
                self.agrees(folder, count=count)
        with tempfile.TemporaryDirectory() as folder:
            self.forms(small, folder, names, lambda name, text: text[:-30] if name == "kmem.trace" else text)
            self.assertIn("its last line has no end", self.agrees(folder, count=count))
            os.unlink(f"{folder}/state-begin.jsonl")
            done = self.run_zoned(folder)
            self.assertEqual(done.returncode, 1)
            self.assertIn("has no state-begin.jsonl", done.stdout)

    def test_forms_of_a_sequence(self):
        """Another name says nothing, its lines do; and a last line may be half a line."""
        small = RECORDED / "recordings" / "686-200M-smp4"
        with tempfile.TemporaryDirectory() as folder:
            self.forms(small, folder, ("dmesg", "seqP_mix.jsonl"), lambda _, text: text.replace(b"\n", b"\r\n"))
            self.agrees(folder, count=700)
            os.rename(f"{folder}/seqP_mix.jsonl", f"{folder}/mine.jsonl")
            self.agrees(folder, f"{folder}/mine.jsonl", count=700)
            text = Path(folder, "mine.jsonl").read_bytes()
            Path(folder, "mine.jsonl").write_bytes(text[:-50])
            self.assertIn("its last line is cut off", self.agrees(folder, count=699))
            Path(folder, "mine.jsonl").write_bytes(text.replace(b"}]}", b"}", 1))
            self.assertIn("is no JSON", self.run_zoned(folder).stdout)
            # What is no recording is passed over, and an error where it was named.
            Path(folder, "mine.jsonl").write_bytes(bytes(range(256)) * 4000)
            done = self.run_zoned(folder, f"{folder}/mine.jsonl")
            self.assertEqual((done.returncode, done.stdout), (1, ""))

    def test_words(self):
        self.assertIn("AGREE n/n", self.run_zoned("--help").stdout)
        self.assertEqual(self.run_zoned().returncode, 2)
        self.assertEqual(self.run_zoned("/nowhere").returncode, 1)


class Import(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="zoned")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("ZONED_")}
        self.env.update(ZONED_ADDRESS=f"unix:{self.dir}/socket", ZONED_MACHINE="t", LC_ALL="C.UTF-8")
        self.daemon = subprocess.Popen(
            [ZONED, "--listen", self.env["ZONED_ADDRESS"], "--history", f"{self.dir}/history.db"],
            stderr=subprocess.PIPE, text=True, env=self.env)
        for line in self.daemon.stderr:
            if "serving" in line:
                return
        self.fail("the daemon did not start")

    def tearDown(self):
        self.daemon.send_signal(signal.SIGTERM)
        self.daemon.communicate()
        shutil.rmtree(self.dir)

    def ctl(self, *args, code=0, stdin=None):
        done = subprocess.run([ZONECTL, *map(str, args)], input=stdin, capture_output=True, env=self.env,
                              check=False)
        self.assertEqual(done.returncode, code, f"{args}\nout: {done.stdout}\nerr: {done.stderr}")
        return done.stdout.decode()

    def imported(self, *args, **kwargs):
        return json.loads(self.ctl("import", *args, "--json", **kwargs))

    def test_from_the_recorded_state(self):
        """Every frame, from a file and through a pipe; the history has it all."""
        self.ctl("machine", "create", "t", "--from-dmesg", TRACE / "dmesg", "--events", "ops")
        told = self.imported(TRACE / "kmem.trace.gz")
        self.assertEqual((told["allocations"], told["same_frame"]), (136482, 136482))
        self.assertEqual((told["frees"], told["unknown_frees"], told["refused_frees"]), (137015, 593, 0))
        self.assertEqual((told["boosts_taken_back"], told["first_difference"]), (1, 0))
        self.ctl("machine", "check", "t")
        # A state goes into a fresh machine only.
        self.ctl("import", TRACE / "kmem.trace.gz", code=1)
        self.ctl("machine", "create", "t2", "--from-dmesg", TRACE / "dmesg", "--events", "ops")
        piped = self.imported("-", "--state", TRACE / "state-begin.jsonl.gz", "-m", "t2",
                              stdin=(TRACE / "kmem.trace.gz").read_bytes())
        self.assertEqual(piped, told)

    def test_a_trace_alone(self):
        """perf script's spelling, on another machine: frames only name the blocks."""
        text = (b"sh  7 [000] 1.000001: kmem:mm_page_alloc: page=0x1 pfn=77 order=1 migratetype=0 "
                b"gfp_flags=GFP_KERNEL\n\tc01 __alloc_pages (vmlinux)\n\n"
                b"sh  7 [000] 1.000002: kmem:mm_page_free: page=0x1 pfn=77 order=1\n"
                b"sh  7 [000] 1.000003: kmem:mm_page_free: page=0x2 pfn=99 order=0\n"
                b"sh  7 [000] 1.000004: kmem:mm_page_alloc: page=0x0 order=1\n")
        self.ctl("machine", "create", "t", "--ram", "64M")
        told = self.imported("-", stdin=text)
        self.assertEqual((told["allocations"], told["frees"], told["unknown_frees"], told["left_out"],
                          told["not_understood"], told["refused_frees"]), (1, 2, 1, 1, 1, 0))
        self.assertFalse(told["state_loaded"])
        self.ctl("import", "/nowhere", code=6)
        self.ctl("import", code=2)
        self.ctl("import", "-", "--fresh", "--state", "x", code=2)

    def test_the_cpu_that_the_trace_names(self):
        text = b"".join(b"sh-7 [%03d] ..... 1.00000%d: mm_page_alloc: page=1 pfn=%d order=0 migratetype=0 "
                        b"gfp_flags=GFP_KERNEL\n" % (cpu, i, 100 + i) for i, cpu in enumerate((0, 1, 1, 7)))
        self.ctl("machine", "create", "t", "--ram", "64M", "--cpus", "2")
        self.assertEqual(self.imported("-", stdin=text)["allocations"], 4)
        rows = json.loads(self.ctl("sql", "select cpu, count(*) as n from op_alloc_pages group by cpu", "--json"))
        self.assertEqual([(row["cpu"], row["n"]) for row in rows], [(0, 2), (1, 2)])

    def test_what_is_no_trace(self):
        """A clear error, and nothing done, for what is not a trace; what can be read of a damaged one is played."""
        self.ctl("machine", "create", "t", "--ram", "64M")
        line = (b"a-1 [000] ..... 1.000001: mm_page_alloc: page=1 pfn=%d order=0 migratetype=0 "
                b"gfp_flags=GFP_KERNEL\n")
        for text in (b"", b"no trace at all\n", bytes(range(256)) * 40, b"\x1f\x8b and no gzip",
                     b"# tracer: nop\n", b"x-1 [000] ..... 1.0: sched_switch: prev=1\n"):
            done = subprocess.run([ZONECTL, "import", "-"], input=text, capture_output=True, env=self.env, check=False)
            self.assertEqual(done.returncode, 6, text[:40])
            self.assertIn(b"zonectl: import: ", done.stderr)
        whole = gzip.compress(b"".join(line % pfn for pfn in range(1, 3000)))
        cut = subprocess.run([ZONECTL, "import", "-", "--json"], input=whole[:-200], capture_output=True,
                             env=self.env, check=False)
        self.assertEqual(cut.returncode, 6)
        self.assertIn(b"cut off or damaged", cut.stderr)
        # A line that ends in its middle is counted; what is around it is played.
        self.ctl("machine", "create", "t2", "--ram", "64M")
        told = self.imported("-", "-m", "t2", stdin=line % 1 + (line % 2)[:60] + b"\n" + line % 3)
        self.assertEqual((told["allocations"], told["not_understood"]), (2, 1))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]] + sys.argv[4:])
