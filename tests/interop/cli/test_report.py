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
        self.ctl("map", "-m", "m0", "--svg", "-", "--color", "taste", codes=(2,))
        self.ctl("map", "-m", "m0", "--layout", "rows", codes=(2,))
        self.ctl("map", "-m", "m0", "--svg", f"{self.dir}/no/such/dir.svg", codes=(6,))

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
