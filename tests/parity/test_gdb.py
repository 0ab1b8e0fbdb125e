#!/usr/bin/python3
"""`zonectl kernel --gdb`: gdb stops a guest in the engine's fault handler while an access is
made, shows who called it with symbols, and lets it go on. The end leaves nothing behind.

    test_gdb.py ZONECTL
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest


@unittest.skipUnless(shutil.which("gdb"), "no gdb here")
class WatchAFault(unittest.TestCase):
    def setUp(self):
        self.own = subprocess.Popen([ZONECTL, "kernel", "--gdb", "--ram", "64M"],
                                    stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.own.stdout.close)
        self.addCleanup(self.own.kill)
        said = ""
        while "Ctrl-C ends it" not in said:
            line = self.own.stdout.readline()
            self.assertTrue(line, said)
            said += line
        self.environment = os.environ | dict(re.search(r"export (.*)=(.*) (.*)=(.*)", said)
                                             .group(*pair) for pair in ((1, 2), (3, 4)))
        self.commands = re.search(r"gdb -x (\S+)", said)[1]
        self.symbols = re.search(r'Symbols \(file\): "(.*)"', said)[1]

    def start(self, *words):
        return subprocess.Popen([ZONECTL, "--json", *words], env=self.environment,
                                stdout=subprocess.PIPE, text=True)

    def zonectl(self, *words):
        process = self.start(*words)
        out, _ = process.communicate()
        self.assertEqual(process.returncode, 0, out)
        return out

    def test_backtrace_of_a_fault(self):
        self.assertTrue(os.path.exists(self.symbols))
        self.zonectl("task-create")
        self.zonectl("schedule", "--next", "1")
        mapped = self.zonectl("mmap", "--task", "1", "--length", "0x1000", "--prot",
                              "PROT_READ,PROT_WRITE")
        va = re.search(r'"addr": ?"?(0x[0-9a-f]+|\d+)', mapped)[1]
        gdb = subprocess.Popen(
            ["gdb", "-nx", "-batch", "-x", self.commands, "-ex", "break fault_handle", "-ex",
             "echo ready\\n", "-ex", "continue", "-ex", "bt", "-ex", "info registers cr2",
             "-ex", "delete", "-ex", "detach"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = ""
        while "ready\n" not in said:
            line = gdb.stdout.readline()
            self.assertTrue(line, said)
            said += line
        access = self.start("access", "--task", "1", "--va", va, "--mode", "ACCESS_WRITE",
                            "--data", "hello")
        said += gdb.communicate()[0]
        out, _ = access.communicate()
        self.assertEqual(access.returncode, 0, said + out)
        for name in ("fault_handle", "op_access", "engine_execute", "kernel_main"):
            self.assertRegex(said, rf"#\d.* {name} \(")
        self.assertIn(f"cr2 {int(va, 0):#x}", re.sub(" +", " ", said))

    def tearDown(self):
        folder = os.path.dirname(self.commands)
        guests = subprocess.run(["pgrep", "-f", folder], stdout=subprocess.PIPE, text=True)
        self.assertTrue(guests.stdout)
        self.own.send_signal(signal.SIGINT)
        self.assertEqual(self.own.wait(), 0)
        self.assertFalse(os.path.exists(folder))
        for pid in guests.stdout.split():
            while os.path.exists(f"/proc/{pid}"):
                time.sleep(0.01)


if __name__ == "__main__":
    ZONECTL = sys.argv[1]
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
