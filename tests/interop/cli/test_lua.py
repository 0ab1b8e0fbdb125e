"""Scripts and the shell, with the daemon: what client/experiments/README.md promises.

    test_lua.py ZONECTL ZONED [unittest arguments]
"""
import csv
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import unittest

ZONECTL, ZONED = sys.argv[1:3]


class Scripts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="zoned")
        cls.env = {k: v for k, v in os.environ.items() if not k.startswith("ZONED_")}
        cls.env.update(ZONED_ADDRESS=f"unix:{cls.dir}/socket", LC_ALL="C.UTF-8", TERM="xterm",
                       XDG_STATE_HOME=f"{cls.dir}/state")
        cls.daemon = subprocess.Popen(
            [ZONED, "--listen", cls.env["ZONED_ADDRESS"], "--history", f"{cls.dir}/history.db"],
            stderr=subprocess.PIPE, text=True, env=cls.env)
        for line in cls.daemon.stderr:
            if "serving" in line:
                return
        raise AssertionError("the daemon did not start")

    @classmethod
    def tearDownClass(cls):
        cls.daemon.send_signal(signal.SIGTERM)
        cls.daemon.communicate()
        shutil.rmtree(cls.dir)

    def ctl(self, *args, code=0, stdin=""):
        done = subprocess.run([ZONECTL, *args], input=stdin, capture_output=True, text=True, env=self.env,
                              check=False)
        self.assertEqual(done.returncode, code, f"{args}\nout: {done.stdout}\nerr: {done.stderr}")
        return done

    def run_lua(self, text, *args, code=0):
        """Runs a script on a machine m of 1 GiB; line 1 is the script's first."""
        head = 'local m = zoned.machine{name="m0", ram="1G", pae=true, replace=true} '
        return self.ctl("run", "-", *args, code=code, stdin=head + text)

    def fails(self, text, code, *parts):
        err = self.run_lua(text, code=code).stderr
        for part in parts:
            self.assertIn(part, err)

    def test_ops_are_methods(self):
        out = self.run_lua("""
            local p = m:alloc{gfp="GFP_HIGHUSER|__GFP_ZERO", order=1, owner="me"}
            local k = m:kmap(p.pfn)
            local w = m:access{va=k.va, data="a\\0b", mode="write", privilege="kernel"}
            local r = m:access{va=k.va, length=3, privilege="kernel"}
            print(p.status, p.ok, p.zone, p.number, #r.data, r.data == "a\\0b")
            print(m:op("free_pages", {pfn=p.pfn, order=1}).status)
            print(m:memblock().text ~= nil, m:page(p.pfn).frame[1].state)
            local a, b = m:alloc("GFP_KERNEL"), m:alloc("GFP_KERNEL")
            print(m:vmap({a.pfn, b.pfn}).ok, m:vmap{pfns={b.pfn}, prot="READ"}.ok)
            print(m, p)""").stdout.splitlines()
        self.assertEqual(out[0], "OK\ttrue\tZONE_HIGHMEM\t1\t3\ttrue")
        self.assertEqual(out[1], "BUSY")
        self.assertEqual(out[2], "true\tFRAME_ALLOCATED")
        self.assertEqual(out[3], "true\ttrue")
        self.assertRegex(out[4], r"^machine m0\talloc #1 OK pfn=0x[0-9a-f]+ zone=ZONE_HIGHMEM migratetype=")

    def test_an_answer_s_fields(self):
        out = self.run_lua("""
            local p = m:async("alloc", {gfp="GFP_HIGHUSER"})
            local names = {}
            for name in pairs(p) do names[#names + 1] = name end
            table.sort(names)
            print(table.concat(names, " "))
            local bad = m:free_pages{pfn=p.pfn, order=3}
            print(zoned.json{p, bad})
            zoned.print(m:async("drain_pcp", {all=true}))
            local read = m:access{va=m:kmap(p.pfn).va, length=2, privilege="kernel"}
            print(zoned.json(read))
            print(pcall(function() p.note = 1 end))""").stdout.splitlines()
        self.assertEqual(out[0], "migratetype number op pfn status zone")
        good, bad = json.loads(out[1])
        self.assertEqual((good["op"], good["number"], good["zone"]), ("alloc", 1, "ZONE_HIGHMEM"))
        self.assertEqual((bad["op"], bad["status"], bad["number"]), ("free", "WRONG_ORDER", 2))
        self.assertIn("order", bad["detail"])
        self.assertEqual(out[2], "drain-pcp #3 OK pages=6")
        self.assertEqual(json.loads(out[3])["data"], "\0\0")
        self.assertIn("attempt to index a zoned.result value", out[4])

    def test_a_machine_that_is_not_there(self):
        self.fails('zoned.attach("m1")', 4, "stdin:1: m1: NOT_FOUND", "Did you mean m0?")

    def test_answers_that_will_not_come(self):
        self.fails("""
            local p = m:async("alloc", {gfp="GFP_KERNEL"})
            m:destroy()
            print(p)
            print(p.pfn)""", 3, "stdin:5: m0: the connection that this answer was to come over is gone")
        self.fails('zoned.json{m:async("drain_pcp", {all=true})}', 2,
                   "json: it cannot hold an answer that is not there yet; wait() for it first")

    def test_texts_are_understood_however_many_there_are(self):
        out = self.run_lua("""
            local t = m:task_create().task
            m:schedule(t)
            local user = m:with{task=t}
            local heap = user:mmap{length="16M", prot="READ|WRITE"}.addr
            local long = "GFP_HIGHUSER|__GFP_ZERO|__GFP_NOWARN|__GFP_HIGHMEM|__GFP_IO|__GFP_FS"
            for i = 0, 3000 do
                local va = heap + (i % 4096) * 4096
                user:async("access", {va=i % 2 == 0 and va or zoned.hex(va), arg_length="1", mode="write", data="x"})
                m:async("alloc", {gfp=i % 3 == 0 and long or "GFP_KERNEL", order=i % 2 == 0 and 0 or "0"})
            end
            m:flush()
            zoned.print(zoned.sql("select count(distinct va) as pages, min(va) - ?2 as first, max(va) - ?2 as last "
                .. "from op_access where machine_id = ?1 and faults = 1", m, heap))
            zoned.print(zoned.sql("select zone, count(*) as n from op_alloc_pages where machine_id = ?1 "
                .. "group by 1 order by 2", m))""").stdout.split()
        self.assertEqual(out[6:9], ["3001", "0", "12288000"])
        self.assertEqual(out[-4:], ["ZONE_HIGHMEM", "1001", "ZONE_NORMAL", "2000"])

    def test_on_whose_behalf(self):
        out = self.run_lua("""
            local t = m:task_create().task
            m:schedule(t)
            local user = m:with{task=t, owner="program"}
            local heap = user:mmap{length="64K", prot="READ|WRITE"}
            print(user:access{va=heap.addr, data="x", mode="WRITE"}.faults, m == user)
            zoned.print(zoned.sql("select owner, task from op_access where machine_id = ?1", m))""").stdout
        self.assertEqual(out.split(), ["1", "true", "owner", "task", "-------", "----", "program", "1"])

    def test_async_keeps_the_order_and_runs_callbacks(self):
        out = self.run_lua("""
            local seen, last, ordered = 0, 0, true
            for i = 1, 20000 do
                m:async("alloc", {gfp="GFP_KERNEL"}, function(r)
                    seen, ordered, last = seen + 1, ordered and r.number > last, r.number
                    if seen == 5 then m:async("drain_pcp", {all=true}); m:drain_pcp() end
                end)
            end
            local counts = m:flush()
            print(seen, ordered, counts.OK, zoned.json(m:flush()))
            local f = m:async("alloc", {gfp="GFP_KERNEL"})
            print(tostring(f), f.zone, f:wait().zone == f.zone)
            for i = 1, 10 do m:async("alloc", {gfp="GFP_KERNEL"}) end""").stdout.splitlines()
        self.assertEqual(out[0], "20000\ttrue\t20002\t[]")
        self.assertEqual(out[1], "an answer that is not there yet\tZONE_NORMAL\ttrue")
        # What the script did not wait for is done all the same.
        self.assertEqual(json.loads(self.ctl("machine", "get", "m0", "--json").stdout)["ops"], 20013)

    def test_sleepers_do_not_hold_a_script_up(self):
        out = self.run_lua("""
            local pages = {}
            for i = 1, 513 do pages[i] = m:async("alloc", {gfp="GFP_HIGHUSER"}) end
            for i = 1, 512 do m:async("kmap", {pfn=pages[i].pfn}) end
            local t = m:task_create().task
            m:schedule(t)
            local sleeper = m:async("kmap", {pfn=pages[513].pfn, task=t})
            print(m:flush().PARKED, m:kmap_window().sleepers[1].task == t)
            m:schedule(0)
            m:kunmap(pages[7].pfn)
            print(sleeper.status, sleeper.slot)""").stdout.splitlines()
        self.assertEqual(out, ["1\ttrue", "OK\t7"])

    def test_a_sleeper_that_nobody_wakes(self):
        err = self.run_lua("""
            for i = 1, 512 do m:kmap(m:alloc("GFP_HIGHUSER").pfn) end
            local t = m:task_create().task
            m:schedule(t)
            m:kmap{pfn=m:alloc("GFP_HIGHUSER").pfn, task=t}""", "--timeout", "300ms", code=1).stderr
        self.assertIn("stdin:5: m0: no answer for 300 ms: asleep", err)

    def test_errors_name_line_and_op(self):
        self.fails("\nm:aloc{}", 2, "stdin:2: no op, inspection or method aloc; did you mean alloc?")
        self.fails('\n\nm:alloc{gfp="GFP_KERNL"}', 2, "stdin:3: alloc: gfp: no GFP_KERNL; did you mean GFP_KERNEL?")
        self.fails('m:alloc{gfp="GFP_KERNEL", ordr=1}', 2, "alloc: no argument ordr; did you mean order?")
        self.fails("m:alloc{order=1}", 2, "stdin:1: alloc: gfp is needed")
        self.fails('m:alloc("GFP_KERNEL", 1, 2)', 2, "alloc: it takes 1 arguments by position")
        self.fails('m:alloc{gfp="GFP_KERNEL", order=11}', 2, "alloc: order: 11 is not in 0 to 10")
        self.fails('m:alloc{gfp="GFP_KERNEL", order=-1}', 2, "alloc: order: -1 is negative")
        self.fails('m:alloc{gfp="GFP_KERNEL", order=0.5}', 2, "alloc: order: 0.5 is not a whole number")
        self.fails('m:alloc{gfp="GFP_KERNEL", cpu=32}', 2, "cpu: a number from 0 to 31")
        self.fails('print(m:alloc("GFP_KERNEL").pnf)', 2, "alloc answers no pnf; did you mean pfn?")
        self.fails("local r = m:kmap(0xffffff)\nprint(r.va)", 2, "stdin:2: kmap answered INVALID and has no va")
        self.fails('zoned.machine{name="x", ram="1G", splt="3G"}', 2, "no splt; did you mean split?")
        self.fails('zoned.machine{name="m0", ram="1G"}', 4, "stdin:1: m0: ALREADY_EXISTS")
        self.fails('zoned.attach("nobody")', 4, "NOT_FOUND")
        self.fails('zoned.sql("select nothing from nowhere")', 4, "stdin:1: sql: INVALID_ARGUMENT")
        self.fails("local x = nil\nx.y = 1", 1, "stdin:2: attempt to index")
        self.fails('error("mine")', 1, "stdin:1: mine")
        self.fails("if then", 2, "stdin:1:")
        self.fails('local function f() m:aloc{} end\nf()', 2, "stdin:1: no op", "called from stdin:2")
        self.ctl("run", "no-such-file", code=6)
        self.ctl("run", code=2)
        self.ctl("run", "-", "--backend", "moon", code=2)
        self.ctl("run", "-", "--address", "unix:/nowhere", code=3, stdin="zoned.machines()")
        # Caught, an error is the script's affair.
        out = self.run_lua('print(pcall(m.alloc, m, {gfp="x"})) os.exit(7)', code=7).stdout
        self.assertIn("false\t", out)

    def test_a_refusal_names_the_line_that_sent_it(self):
        self.fails('m:destroy()\nm:async("alloc", {gfp="GFP_KERNEL"})\nm:flush()', 4, "stdin:2: alloc: NOT_FOUND")

    def test_expect(self):
        self.run_lua("""
            local r = zoned.expect{m:alloc("GFP_KERNEL"), zone="ZONE_NORMAL"}
            zoned.expect{m:free(r.pfn)}
            zoned.expect{m:free(r.pfn), status={"DOUBLE_FREE", "WRONG_ORDER"}}
            assert(zoned.expect{"five", got=5, is=5, above=4, below=6, at_least=5, at_most=5, is_not=6} == 5)
            zoned.expect{got={1, {a=2}}, is={1, {a=2}}}
            zoned.expect{got="b", one_of={"a", "b"}}""")
        self.fails('\nzoned.expect{m:alloc("GFP_KERNEL"), zone="ZONE_DMA"}', 1,
                   'stdin:2: expected zone "ZONE_DMA", got "ZONE_NORMAL": alloc #1 OK pfn=')
        self.fails('zoned.expect{m:free(1)}', 1, 'expected status "OK", got "')
        self.fails('zoned.expect{"pages", got=3, at_least=4}', 1, "stdin:1: pages: got 3, expected at least 4")
        self.fails('zoned.expect{"pages", got=nil, is=4}', 1, "pages: got nil, expected 4")
        self.fails('zoned.expect{got=false}', 1, "got false, expected something")
        self.fails('zoned.expect{got="x", above=4}', 1, "expected above 4")
        self.fails('zoned.expect{got=1, abov=4}', 2, "expect: no comparison abov; did you mean above")

    def test_json_csv_and_sql(self):
        out = self.run_lua("""
            m:alloc{gfp="GFP_KERNEL", owner='a "b", c'}
            local rows = zoned.sql("select owner, op, null as n, 1.5 as x, x'00ff' as y from op_alloc_pages where machine_id = ?1", m)
            io.write(zoned.csv(rows, {"owner", "op", "n", "x"}))
            print(zoned.json(rows))
            print(zoned.json(zoned.from_json('{"a":[1,2.5,"x",null,true]}')))
            print(rows.columns[1], #rows[1].y)""").stdout
        lines = out.splitlines()
        self.assertEqual(list(csv.reader(io.StringIO("\n".join(lines[:2])))),
                         [["owner", "op", "n", "x"], ['a "b", c', "1", "", "1.5"]])
        self.assertEqual(json.loads(lines[2])[0]["op"], 1)
        self.assertEqual(lines[3][:15], '{"a":[1,2.5,"x"')
        self.assertEqual(lines[4], "owner\t2")
        self.fails("zoned.json(print)", 2, "json: it cannot hold a function")
        self.fails("local t = {} t.t = t zoned.json(t)", 2, "nested deeper")

    def test_as_it_was(self):
        out = self.run_lua("""
            local p = m:alloc("GFP_HIGHUSER")
            m:free(p.pfn)
            print(m:page{pfn=p.pfn, at=p.number}.frame[1].state, m:page(p.pfn, {at=p.number}).op)""").stdout
        self.assertEqual(out, "FRAME_ALLOCATED\t1\n")
        self.fails("m:zoneinfo{at='noon'}", 2, "zoneinfo: at: the number of an op is needed")

    def test_a_progress_bar_on_a_terminal(self):
        script = 'for i in zoned.steps(300000, "working") do end print("done")'
        master, slave = pty.openpty()
        p = subprocess.Popen([ZONECTL, "run", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=slave,
                             env=self.env)
        os.close(slave)
        self.assertEqual(p.communicate(script.encode())[0], b"done\n")
        bar = b""
        try:
            while piece := os.read(master, 65536):
                bar += piece
        except OSError:
            pass  # how the end of a pty reads
        os.close(master)
        bar = bar.decode()
        self.assertRegex(bar, r"\[#* +\] +[0-9]+% working")
        self.assertTrue(bar.endswith("\r\x1b[K"), repr(bar))  # and nothing of it stays
        # Where there is no terminal there is none.
        self.assertEqual(self.ctl("run", "-", stdin=script).stderr, "")

    def test_arguments_and_modules(self):
        self.assertEqual(self.run_lua("print(arg[0], arg[1], ...)", "one", "--", "--two").stdout,
                         "-\tone\tone\t--two\n")
        self.assertEqual(self.run_lua("print(zoned.backend)").stdout, "sim\n")
        self.assertEqual(self.run_lua("print(m:info().config.backend)").stdout, "SIM\n")

    def test_machines_that_a_script_made(self):
        self.ctl("run", "-", "--destroy", stdin='zoned.machine{name="gone", ram="64M"}')
        self.ctl("machine", "get", "gone", code=4)
        self.ctl("run", "-", stdin='zoned.machine{name="stays", ram="64M"}')
        self.ctl("machine", "get", "stays")

    def test_ctrl_c_ends_a_script(self):
        # With its own meaning: the process dies of the signal.
        p = subprocess.Popen([ZONECTL, "run", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.env)
        p.stdin.write(b'io.write("on") io.flush() while true do end')
        p.stdin.close()
        self.assertEqual(p.stdout.read(2), b"on")
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.wait(), -signal.SIGINT)
        p.stdout.close()

    # ---- the shell ----

    def test_shell_from_a_pipe(self):
        out = self.ctl("shell", stdin='x = 1\nfor i = 1, 2 do\n  x = x + i\nend\nx\n"a", nil\n').stdout
        self.assertEqual(out, "4\na\nnil\n")
        self.assertIn("shell:1:", self.ctl("shell", code=2, stdin="x = = 1\n").stderr)
        self.ctl("shell", code=1, stdin="error('x')\nprint(1)\n")
        self.ctl("shell", code=2, stdin="for i = 1, 2 do\n")

    def talk(self, *dialogue):
        """Types each text and waits until what follows has been seen. Returns everything."""
        pid, fd = pty.fork()
        if pid == 0:
            os.execve(ZONECTL, [ZONECTL, "shell", "-m", "m0"], {**self.env, "COLUMNS": "90"})
        seen, all_of_it = "", ""
        for text, wanted in [("", "zoned> "), *dialogue]:
            os.write(fd, text.encode())
            while not re.search(wanted, seen):
                self.assertTrue(select.select([fd], [], [], 60)[0], f"waited for {wanted!r} after {text!r}: {seen!r}")
                try:
                    piece = os.read(fd, 65536).decode(errors="replace")
                except OSError:
                    self.fail(f"it ended while {wanted!r} was waited for after {text!r}: {seen!r}")
                seen += piece
                all_of_it += piece
            seen = seen[re.search(wanted, seen).end():]
            if wanted.endswith("> "):
                self.assertFalse(termios.tcgetattr(fd)[3] & termios.ICANON, "a prompt before its terminal is ready for keys")
        os.write(fd, b"\x04")
        try:
            while os.read(fd, 65536):
                pass
        except OSError:
            pass  # how the end of a pty reads
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        os.close(fd)
        return all_of_it

    def test_shell_completes_prints_and_survives_ctrl_c(self):
        self.run_lua("")
        self.talk(
            ("m:allo\t", "oc|c"), ("{gf\t", "p="), ('"GFP_HIGHUSER_M\t', "MOVABLE|OVABLE"),
            ('"}\n', r"alloc #1 OK pfn=0x[0-9a-f]+ zone=ZONE_HIGHMEM[^\n]*\n.*zoned> "),
            ("m:kma\t\t", r"kmap +kmap_atomic +kmap_local +kmap_window"),
            ("\x15zoned.ma\t\t", r"machine +machines"),
            ('\x15zoned.machine{split="3\t\t', r"3G +3G_OPT"),
            ('\x15m:async("dma\t\t', r"dma_map +dma_sync +dma_unmap"),
            ("\x03", "dma_\r\n.*zoned> "),
            ("for i = 1, 3 do\n", r"\.\.> "), ("print(i * 100)\n", r"\.\.> "), ("end\n", "100\r\n200\r\n300\r\n.*zoned> "),
            ("for i = 1, 3 do\n", r"\.\.> "), ("\x03", "zoned> "), ("'fr' .. 'ee'\n", "free\r\n.*zoned> "),
            ("print('o' .. 'n') while true do end\n", "on\r\n"), ("\x03", r"interrupted[\s\S]*zoned> "), ("1 + 1\n", "2\r\n.*zoned> "),
            ("m:alocc{}\n", "no op, inspection or method alocc; did you mean alloc.*\n.*zoned> "),
        )
        with open(f"{self.dir}/state/zoned/shell_history", encoding="utf-8") as history:
            self.assertIn("alocc", history.read())
        # The next shell remembers, and Ctrl-C ends a wait for a sleeper.
        self.talk(
            ("\x10", "alocc"), ("\x03", "\r\n.*zoned> "),
            ("for i = 1, 512 do m:kmap(m:alloc('GFP_HIGHUSER').pfn) end t = m:task_create().task m:schedule(t)\n", "\n.*zoned> "),
            ("print('o' .. 'n') m:kmap{pfn=m:alloc('GFP_HIGHUSER').pfn, task=t}\n", "on\r\n"), ("\x03", r"interrupted[\s\S]*zoned> "),
            ("2 + 2\n", "4\r\n.*zoned> "),
        )


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
