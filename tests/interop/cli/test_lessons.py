"""The lessons: what they claim is so, on the simulation and, byte for byte the same, on the
kernel back end.

    test_lessons.py ZONECTL ZONED EXPERIMENTS [KERNEL_IMAGE] [unittest arguments]

With an image every lesson is run on both and the outputs are compared.
"""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ZONECTL, ZONED, EXPERIMENTS = sys.argv[1:4]
KERNEL = sys.argv[4] if len(sys.argv) > 4 and sys.argv[4].endswith(".elf") else None
LESSONS = sorted(p.stem for p in Path(EXPERIMENTS).glob("*.lua") if p.read_text().startswith("-- lesson: "))


class Daemon:
    """One for each back end, so that machines have the same ids on both."""

    def __init__(self, *options):
        self.dir = tempfile.mkdtemp(prefix="zoned")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("ZONED_")}
        self.env.update(ZONED_ADDRESS=f"unix:{self.dir}/socket", LC_ALL="C.UTF-8")
        # A query may take as long as a busy machine lets it.
        self.process = subprocess.Popen(
            [ZONED, "--listen", self.env["ZONED_ADDRESS"], "--history", f"{self.dir}/history.db",
             "--query-timeout-ms", "600000", *options],
            stderr=subprocess.PIPE, text=True, env=self.env)
        for line in self.process.stderr:
            if "serving" in line:
                return
        raise AssertionError("the daemon did not start")

    def ctl(self, *args, stdin=""):
        return subprocess.run([ZONECTL, "--timeout", "10m", *args], input=stdin, capture_output=True, text=True,
                              env=self.env, check=False)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate()
        shutil.rmtree(self.dir)


class Lessons(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sim = Daemon()
        cls.kernel = Daemon("--kernel-image", KERNEL) if KERNEL else None

    @classmethod
    def tearDownClass(cls):
        cls.sim.stop()
        if cls.kernel:
            cls.kernel.stop()

    def test_every_lesson(self):
        self.assertGreaterEqual(len(LESSONS), 11)
        for name in LESSONS:
            with self.subTest(lesson=name):
                sim = self.sim.ctl("lesson", name)
                self.assertEqual((sim.returncode, sim.stderr), (0, ""), sim.stdout)
                self.assertIn("\n== the proof: ", sim.stdout)
                self.assertIn("machine_id", sim.stdout)
                # What it shows fits where it is read: prose does, rows may be as wide as their columns.
                self.assertEqual([l for l in sim.stdout.splitlines() if len(l) > 200], [])
                if self.kernel:
                    kernel = self.kernel.ctl("lesson", name, "--backend", "kernel")
                    self.assertEqual((kernel.returncode, kernel.stderr), (0, ""), kernel.stdout)
                    self.assertEqual(kernel.stdout, sim.stdout)
        # Their machines are gone, what happened is not.
        self.assertEqual(self.sim.ctl("machine", "list", "--json").stdout.strip(), "[]")
        rows = self.sim.ctl("sql", "select count(*) > 10000 as kept from op_log", "--csv").stdout.split()
        self.assertEqual(rows[1], "1")

    @unittest.skipIf(KERNEL, "the simulation's own")
    def test_the_command(self):
        listed = self.sim.ctl("lesson").stdout.splitlines()[2:]
        self.assertEqual([l.split()[0] for l in listed], LESSONS)
        source = Path(EXPERIMENTS, "cow.lua")
        self.assertEqual(self.sim.ctl("lesson", "cow", "--show").stdout, source.read_text())
        self.assertEqual(self.sim.ctl("run", str(source)).returncode, 0)
        wrong = self.sim.ctl("lesson", "drian")
        self.assertEqual((wrong.returncode, wrong.stderr), (2, "zonectl: lesson: no lesson drian; did you mean drain?\n"))
        self.sim.ctl("machine", "destroy", "lesson-cow")
        self.assertEqual(self.sim.ctl("lesson", "cow", "--keep").returncode, 0)
        self.assertIn("lesson-cow", self.sim.ctl("machine", "list").stdout)
        self.sim.ctl("machine", "destroy", "lesson-cow")

    @unittest.skipIf(KERNEL, "the simulation's own")
    def test_a_lesson_that_is_not_true_fails(self):
        text = Path(EXPERIMENTS, "cow.lua").read_text()
        lie = text.replace('"mapped twice", got=p.mapcount, is=2', '"mapped twice", got=p.mapcount, is=3')
        self.assertNotEqual(lie, text)
        done = self.sim.ctl("run", "-", "--destroy", stdin=lie)
        line = lie[:lie.index('"mapped twice"')].count("\n") + 1
        self.assertEqual((done.returncode, done.stderr), (1, f"zonectl: stdin:{line}: mapped twice: got 2, expected 3\n"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[5 if KERNEL else 4:])
