"""zonectl report: its numbers against the inspections, its page in a browser.

    test_report.py ZONECTL ZONED

Exit code 77 (skipped) without a page in zonectl, or without chromium.
"""
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from xml.etree import ElementTree

ZONECTL, ZONED = sys.argv[1:3]
LABEL = "<script>window.hurt = 1</script>"
ORDER = 9
SKIPPED = 77

# Before the page's own scripts: what goes wrong. After them: what is drawn on each canvas
# beyond the ground, and whether the label did harm.
ERRORS = "<script>window.wrong = []; onerror = text => { wrong.push(String(text)); };</script>"
PROBE = """<pre id="probe"></pre><script>
document.querySelectorAll("details").forEach(d => { d.open = true; });
setTimeout(() => {
	const plots = [...document.querySelectorAll(".plot")].map(p => {
		const c = p.querySelector("canvas"), box = p.getBoundingClientRect();
		const data = c.getContext("2d").getImageData(0, 0, c.width, c.height).data, colours = new Set();
		for (let i = 0; i < data.length; i += 4)
			if (data[i + 3] > 200 && Math.max(data[i], data[i + 1], data[i + 2]) - Math.min(data[i], data[i + 1], data[i + 2]) > 60)
				colours.add(data[i] >> 5 | data[i + 1] >> 5 << 3 | data[i + 2] >> 5 << 6);
		return {section: p.closest("section").id, marks: colours.size, width: box.width, right: box.right};
	});
	document.getElementById("probe").textContent = JSON.stringify({plots, wrong, hurt: window.hurt || 0,
		width: document.documentElement.clientWidth, scroll: document.documentElement.scrollWidth,
		sections: [...document.querySelectorAll("section")].map(s => ({id: s.id, sql: s.querySelectorAll("pre").length,
			rows: s.querySelectorAll("table tr").length, failed: s.querySelectorAll(".failed").length})),
		ground: getComputedStyle(document.body).backgroundColor, owners: document.getElementById("owners").textContent});
}, 500);
</script>"""


def load():
    """A program that outgrows HIGHMEM, the kernel between it, and what they give back."""
    rng = random.Random(7)
    yield {"op": "task-create"}
    yield {"op": "schedule", "next": 1}
    yield {"op": "mmap", "length": "256M", "prot": "PROT_READ|PROT_WRITE", "task": 1, "as": "heap"}
    for i in range(60):
        yield {"op": "access", "va": f"$heap.addr+{i * 0x180000}", "length": "64K", "mode": "ACCESS_WRITE",
               "data": ".", "task": 1, "owner": "program"}
    yield {"op": "schedule", "next": 0}
    yield {"op": "alloc", "gfp": "GFP_HIGHUSER", "owner": LABEL, "as": "page"}
    yield {"op": "kmap", "pfn": "$page.pfn"}
    yield {"op": "kunmap", "pfn": "$page.pfn"}
    for i in range(3500):
        yield {"op": "alloc", "gfp": rng.choice(["GFP_HIGHUSER", "GFP_KERNEL"]), "order": i % 6, "owner": LABEL, "as": f"a{i}"}
        if i % 3 == 2:
            yield {"op": "free", "pfn": f"$a{i - 2}.pfn", "order": (i - 2) % 6}
    for _ in range(6):
        yield {"op": "alloc", "gfp": "GFP_HIGHUSER", "order": 10, "owner": "greedy"}


class Report(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="zoned")
        cls.address = f"unix:{cls.dir}/socket"
        cls.daemon = subprocess.Popen([ZONED, "--listen", cls.address, "--history", f"{cls.dir}/history.db"],
                                      stderr=subprocess.PIPE, text=True)
        for line in cls.daemon.stderr:
            if "serving" in line:
                break
        cls.addClassCleanup(cls.end)
        cls.ctl("machine", "create", "m0", "--ram", "96M", "--highmem", "32M", "--pae")
        cls.ctl("pipe", "--quiet", "-m", "m0", stdin="\n".join(json.dumps(line) for line in load()), codes=(0, 1))
        cls.ctl("drain-pcp", "-m", "m0", "--all")
        cls.report = json.loads(cls.ctl("report", "-m", "m0", "--json"))
        cls.page = Path(cls.dir, "report.html")
        cls.ctl("report", "-m", "m0", "-o", str(cls.page))

    @classmethod
    def end(cls):
        cls.daemon.terminate()
        cls.daemon.communicate()
        shutil.rmtree(cls.dir)

    @classmethod
    def ctl(cls, *args, stdin=None, codes=(0,)):
        done = subprocess.run([ZONECTL, "--address", cls.address, *args], input=stdin, capture_output=True, text=True,
                              check=False)
        assert done.returncode in codes, f"{args}: {done.returncode}\nout: {done.stdout[-2000:]}\nerr: {done.stderr[-2000:]}"
        return done.stdout

    def rows(self, section):
        found = next(s for s in self.report["sections"] if s["id"] == section)
        self.assertNotIn("error", found)
        return [dict(zip(found["columns"], row)) for row in found["rows"]]

    def test_free_pages_are_the_zones(self):
        last = {}
        for row in self.rows("free"):
            if row["at_end"] is not None:
                last[row["zone"]] = row
                self.assertLessEqual(row["least"], row["at_end"])
                self.assertLessEqual(row["at_end"], row["most"])
        zones = json.loads(self.ctl("zoneinfo", "-m", "m0", "--json"))["zones"]
        self.assertEqual({z["zone"]: z["free"] + z["pcp"] for z in zones if z["spanned"]},
                         {name: row["at_end"] for name, row in last.items()})

    def test_fragmentation_is_the_buddys(self):
        end = {r["zone"]: r for r in self.rows("fragmentation") if r["x"] == self.report["ops"]}
        blocks = json.loads(self.ctl("buddyinfo", "-m", "m0", "--json"))["blocks"]
        wanted = {b["zone"]: b["extfrag_index"] for b in blocks if b["order"] == ORDER and b["zone"] in end}
        for zone, row in end.items():
            index = -1000 if row["extfrag_index"] is None else row["extfrag_index"]
            self.assertEqual(index, wanted[zone], zone)
        self.assertTrue(any(v > 0 for v in wanted.values()), wanted)
        zones = json.loads(self.ctl("zoneinfo", "-m", "m0", "--json"))["zones"]
        for z in zones:
            if z["spanned"]:
                self.assertEqual(end[z["zone"]]["free_pages"], z["free"] + z["pcp"], z["zone"])

    def test_fragmentation_of_a_machine_that_has_ended(self):
        self.ctl("machine", "create", "e0", "--ram", "64M", "--early")
        self.ctl("memblock-reserve", "-m", "e0", "0x1000000", "0x100000")
        self.ctl("boot", "-m", "e0")
        for order in (0, 3, 0, 5):
            self.ctl("alloc", "-m", "e0", "--gfp", "GFP_KERNEL", "--order", str(order))
        self.ctl("drain-pcp", "-m", "e0", "--all")
        free = {z["zone"]: z["free"] for z in json.loads(self.ctl("zoneinfo", "-m", "e0", "--json"))["zones"] if z["spanned"]}
        self.ctl("machine", "destroy", "e0")
        report = json.loads(self.ctl("report", "-m", "e0", "--json"))
        section = next(s for s in report["sections"] if s["id"] == "fragmentation")
        rows = [dict(zip(section["columns"], row)) for row in section["rows"]]
        self.assertEqual({r["zone"]: r["free_pages"] for r in rows if r["x"] == report["ops"]}, free)

    def test_counts_are_the_views(self):
        def ask(sql):
            return list(json.loads(self.ctl("sql", sql, "--json"))[0].values())[0]
        counted = {s: sum(r["n"] for r in self.rows(s)) for s in ("fallbacks", "faults", "steals", "ops")}
        self.assertEqual(counted["faults"], ask("select count(*) from event_page_fault where machine = 'm0'"))
        self.assertEqual(counted["steals"], ask("select count(*) from event_steal where machine = 'm0'"))
        self.assertEqual(counted["fallbacks"], ask("select (select count(*) from zone_fallbacks where machine = 'm0') + "
                                                   "(select count(*) from event_alloc_failed where machine = 'm0')"))
        self.assertEqual(counted["ops"], self.report["ops"])
        self.assertTrue(all(counted.values()), counted)
        findings = " ".join(r["finding"] for r in self.rows("findings"))
        self.assertRegex(findings, r"first zone to fall below its min mark: op \d+")
        self.assertRegex(findings, r"allocations of order \d+ failed")

    def test_a_point_stands_for_many_ops(self):
        few = json.loads(self.ctl("report", "-m", "m0", "--json", "--points", "10"))
        self.assertGreater(few["bucket"], self.report["ops"] // 11)
        free = next(s for s in few["sections"] if s["id"] == "free")
        self.assertLessEqual(len(free["rows"]), 3 * 12 + 6)

    def test_the_map_is_drawn(self):
        runs = json.loads(self.ctl("frame-map", "-m", "m0", "--json"))["runs"]
        whole = json.loads(self.ctl("map", "-m", "m0", "--json"))
        self.assertEqual((whole["about"], whole["runs"]), (False, runs))
        self.assertIn("LAYOUT_PKMAP", [p["part"] for p in whole["parts"]])
        there = sum(r["count"] for r in runs if r["state"] != "FRAME_HOLE") / 256
        for layout in ("rows", "hilbert"):
            for colour in ("state", "zone", "order", "migratetype", "owner"):
                svg = self.ctl("map", "-m", "m0", "--svg", "-", "--layout", layout, "--color", colour)
                root = ElementTree.fromstring(svg)
                texts = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
                legend = [float(t.rsplit(": ", 1)[1].split()[0]) for t in texts if ": " in t and t.endswith(" MiB")]
                self.assertAlmostEqual(sum(legend), there, delta=0.01, msg=(layout, colour))
                cells = re.findall(r"M(\d+) (\d+)h1v1h-1z", svg)
                self.assertEqual(len(cells), len(set(cells)))
                self.assertGreater(len(cells), 4000)
                if colour == "owner":
                    self.assertTrue(any(LABEL in t for t in texts))
                if colour == "order":
                    blocks = json.loads(self.ctl("frame-map", "-m", "m0", "--blocks", "--json"))["runs"]
                    for order in range(11):
                        pages = sum(r["count"] for r in blocks if r["order"] == order and r["state"] != "FRAME_HOLE")
                        drawn = sum(mib for t, mib in zip([t for t in texts if t.endswith(" MiB") and ": " in t], legend)
                                    if t.startswith(f"order {order}:"))
                        self.assertAlmostEqual(drawn * 256, pages, delta=1, msg=order)
        self.ctl("map", "-m", "m0", "--svg", "-", "--color", "taste", codes=(2,))
        self.ctl("map", "-m", "m0", "--layout", "rows", codes=(2,))
        self.ctl("map", "-m", "m0", "--svg", f"{self.dir}/no/such/dir.svg", codes=(6,))

    def test_the_address_space_is_drawn(self):
        self.ctl("machine", "create", "space", "--ram", "1200M", "--pae", "--cpus", "2")
        lines = [{"op": "task-create"}, {"op": "schedule", "next": 1}, {"op": "mmap", "length": "256M", "prot": "PROT_READ|PROT_WRITE", "task": 1},
                 {"op": "vmalloc", "size": "20M", "gfp": "GFP_KERNEL"}, {"op": "vmalloc", "size": "30M", "gfp": "GFP_KERNEL", "as": "v"},
                 {"op": "vfree", "va": "$v.va"}, {"op": "ioremap", "paddr": "0xe0000000", "size": "10M"}]
        for i in range(100):
            lines += [{"op": "alloc", "gfp": "GFP_HIGHUSER", "as": f"p{i}"}, {"op": "kmap", "pfn": f"$p{i}.pfn"}]
        lines += [{"op": "kunmap", "pfn": "$p0.pfn"}, {"op": "kmap-local", "pfn": "$p1.pfn", "cpu": 1}]
        self.ctl("pipe", "--quiet", "-m", "space", stdin="\n".join(map(json.dumps, lines)))
        root = ElementTree.fromstring(self.ctl("map", "-m", "space", "--svg", "-", "--space"))
        name = "{http://www.w3.org/2000/svg}"
        texts = ["".join(t.itertext()) for t in root.iter(name + "text")]
        parts = json.loads(self.ctl("layout", "-m", "space", "--json"))["parts"]
        bands = [t for t in texts if re.search("0x[0-9a-f]{8}-0x[0-9a-f]{8} ", t)]
        self.assertEqual(len(bands), len(parts))
        for part in parts:
            where = f"0x{part['start']:08x}-0x{(part['end'] or 1 << 32) - 1:08x}"
            word = part["part"].removeprefix("LAYOUT_").lower().replace("_", " ")
            self.assertEqual(sum(where in b and word in b for b in bands), 1, part)
        self.assertTrue(any("3 areas, 60" in t for t in bands), bands)
        self.assertTrue(any("99 of 512 slots used, 1 stale" in t for t in bands), bands)
        self.assertTrue(any("task 1: 256M mapped, 0B there" in t for t in texts), texts)
        self.assertTrue(any("1 slots used" in t for t in bands), bands)
        # A column's area by colour is what is taken: of the vmalloc window, in its own scale.
        window = next(p for p in parts if p["part"] == "LAYOUT_VMALLOC")
        window = window["end"] - window["start"]
        columns = {}
        for path in root.iter(name + "path"):
            found = re.findall(r"M([0-9.]+) ([0-9.]+)v-([0-9.]+)h([0-9.]+)v([0-9.]+)z", path.get("d"))
            for x, y, up, wide, down in found:
                self.assertEqual(up, down)
                self.assertTrue(330 <= float(x) and float(x) + float(wide) <= 330 + 768.1, (x, wide))
                columns.setdefault(y, {}).setdefault(path.get("fill"), []).append(float(up) * float(wide))
        taken = next(c for c in columns.values() if "#d55e00" in c and "#c9ced3" in c)
        for colour, mib in (("#0072b2", 20), ("#c9ced3", 30), ("#d55e00", 10)):
            self.assertAlmostEqual(sum(taken[colour]) / (768 * 26), (mib << 20) / window, delta=0.005, msg=colour)
        for args in (("--space",), ("--svg", "-", "--space", "--layout", "rows"), ("--svg", "-", "--space", "--diff", "1")):
            self.ctl("map", "-m", "space", *args, codes=(2,))

    def test_what_changed(self):
        self.ctl("machine", "create", "diff", "--ram", "96M", "--highmem", "32M")
        lines = [{"op": "alloc", "gfp": "GFP_KERNEL", "order": i % 5, "owner": f"o{i % 3}", "as": f"a{i}"} for i in range(200)]
        lines += [{"op": "free", "pfn": f"$a{i}.pfn", "order": i % 5} for i in range(0, 200, 2)]
        lines += [{"op": "alloc", "gfp": "GFP_HIGHUSER", "order": i % 4, "owner": LABEL} for i in range(150)]
        lines += [{"op": "vmalloc", "size": "2M", "gfp": "GFP_KERNEL", "owner": "o1"}]
        lines += [{"op": "alloc", "gfp": "GFP_KERNEL", "owner": "o2"} for _ in range(100)]
        self.ctl("pipe", "--quiet", "-m", "diff", stdin="\n".join(map(json.dumps, lines)))
        states, texts = {}, {}
        for op in (150, 320, 551):
            states[op] = {}
            for r in json.loads(self.ctl("frame-map", "-m", "diff", "--at", str(op), "--json"))["runs"]:
                for pfn in range(r["first"], r["first"] + r["count"]):
                    states[op][pfn] = (r["state"], r["owner"], r["zone"])
        free = ("FRAME_FREE", "FRAME_PCP")
        for since, until in ((150, 320), (320, 551), (150, None)):
            a, b = states[since], states[until or 551]
            wanted = {"taken": 0, "given_back": 0, "changed_hands": 0, "between_lists": 0, "still_free": 0, "still_used": 0}
            changes = {}
            for pfn, (state, owner, zone) in a.items():
                now, owner_now, _ = b[pfn]
                if state in free and now in free:
                    change = "still_free" if state == now else "between_lists"
                elif state in free or now in free:
                    change = "taken" if state in free else "given_back"
                elif state == now == "FRAME_HOLE":
                    continue
                else:
                    change = "still_used" if (state, owner) == (now, owner_now) else "changed_hands"
                wanted[change] += 1
                if not change.startswith("still"):
                    changes[pfn] = (change, zone, state, now, owner, owner_now)
            which = f"{since}..{until}" if until else str(since)
            seen = json.loads(self.ctl("map", "-m", "diff", "--diff", which, "--json"))
            self.assertEqual((seen["from"], seen["to"], seen["counts"]), (since, until or 551, wanted))
            told = {pfn: (c["change"], c["zone"], c["state_before"], c["state_after"], c["owner_before"], c["owner_after"])
                    for c in seen["changes"] for pfn in range(c["first"], c["first"] + c["count"])}
            self.assertEqual(told, changes)
            self.assertEqual(sum(z["taken"] for z in seen["zones"]), wanted["taken"])
            for o in seen["owners"]:
                self.assertEqual(o["taken"], sum(c[5] == o["owner"] and c[0] != "given_back" for c in changes.values()), o)
                self.assertEqual(o["given_back"], sum(c[4] == o["owner"] and c[0] != "taken" for c in changes.values()), o)
            text = self.ctl("map", "-m", "diff", "--diff", which, "--ascii")
            texts[since] = text
            self.assertRegex(text, rf"  \+ +\S+ +{wanted['taken']} pages  taken\n")
            if wanted["given_back"]:
                self.assertRegex(text, rf"  - +\S+ +{wanted['given_back']} pages  given back\n")
            cells = "".join(re.findall("(?m)^  0x[0-9a-f]{6} (.*)$", text))
            self.assertEqual("+" in cells, wanted["taken"] > 0)
            root = ElementTree.fromstring(self.ctl("map", "-m", "diff", "--diff", which, "--svg", "-"))
            legend = dict(t.text.rsplit(": ", 1) for t in root.iter("{http://www.w3.org/2000/svg}text") if t.text.endswith(" MiB") and ": " in t.text)
            self.assertAlmostEqual(float(legend["taken"].split()[0]) * 256, wanted["taken"], delta=0.01)
        self.assertIn("vmalloc    0 areas, 0B taken\n  ->         1 areas, 2.00M taken\n", texts[320])
        self.assertIn(LABEL, texts[320])
        self.assertNotIn("o0", texts[320])
        nothing = json.loads(self.ctl("map", "-m", "diff", "--diff", "300..300", "--json"))
        self.assertEqual((nothing["changes"], nothing["owners"]), ([], []))
        for bad in ("x", "3..", "..3", "5..4", "1..2..3", ""):
            self.ctl("map", "-m", "diff", "--diff", bad, codes=(2,))
        self.ctl("map", "-m", "diff", "--diff", "1", "--at", "2", codes=(2,))
        self.ctl("map", "-m", "diff", "--diff", "1..9999", codes=(4,))
        self.ctl("machine", "destroy", "diff")
        self.assertEqual(json.loads(self.ctl("map", "-m", "diff", "--diff", "320..551", "--json"))["to"], 551)

    def test_bad_input(self):
        self.ctl("report", "-m", "m0", codes=(2,))
        self.ctl("report", "-m", "m0", "-o", "-", "--points", "0", codes=(2,))
        self.ctl("report", "-m", "nobody'", "-o", f"{self.dir}/none.html", codes=(4,))
        self.ctl("report", "-m", "m0", "-o", f"{self.dir}/no/such/dir.html", codes=(6,))
        self.assertFalse(Path(self.dir, "none.html").exists())

    def test_labels_are_text(self):
        text = self.page.read_text(encoding="utf-8")
        self.assertNotIn(LABEL, text)
        self.assertEqual(text.count("window.hurt"), text.count(json.dumps(LABEL)[1:-1].replace("<", "\\u003c")))

    def browse(self, width, *flags):
        text = self.page.read_text(encoding="utf-8").replace("<head>", "<head>" + ERRORS, 1)
        self.assertNotRegex(text, r"(src|href)=\"?(https?:)?//")
        probed = Path(self.dir, "probed.html")
        probed.write_text(text.replace("</body>", PROBE + "</body>"), encoding="utf-8")
        done = subprocess.run(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             f"--user-data-dir={self.dir}/browser", "--enable-logging=stderr", "--virtual-time-budget=20000",
             f"--window-size={width},900", *flags, "--dump-dom", probed.as_uri()],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        self.assertEqual([line for line in done.stderr.splitlines() if "CONSOLE" in line], [])
        found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.S)
        self.assertTrue(found and found[1], done.stderr[-2000:])
        return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))

    def test_in_a_browser(self):
        grounds = set()
        for width, flags in ((1280, ()), (520, ("--blink-settings=preferredColorScheme=0",))):
            seen = self.browse(width, *flags)
            self.assertEqual((seen["wrong"], seen["hurt"]), ([], 0))
            plotted = {p["section"] for p in seen["plots"]}
            self.assertEqual(plotted, {"free", "fallbacks", "fragmentation", "steals", "faults", "pkmap", "latency", "ops"})
            for p in seen["plots"]:
                self.assertGreater(p["marks"], 0, p)
                self.assertLessEqual(p["right"], seen["width"])
            self.assertLessEqual(seen["scroll"], seen["width"])
            self.assertEqual([s["id"] for s in seen["sections"] if not s["sql"] or s["failed"]], [])
            self.assertEqual([s["id"] for s in seen["sections"] if s["id"] in plotted and s["rows"] < 2], [])
            self.assertIn(LABEL, seen["owners"])
            grounds.add(seen["ground"])
        self.assertEqual(len(grounds), 2, "light and dark")


if __name__ == "__main__":
    if not shutil.which("chromium"):
        print("no chromium")
        sys.exit(SKIPPED)
    no_page = subprocess.run([ZONECTL, "report", "-m", "m", "-o", "-", "--address", "unix:/nonexistent"],
                             capture_output=True, text=True, check=False)
    if "has no page" in no_page.stderr:
        print(no_page.stderr)
        sys.exit(SKIPPED)
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
