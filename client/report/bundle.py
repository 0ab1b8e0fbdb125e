#!/usr/bin/env python3
"""Makes the report's page and its statements part of zonectl: a C file.

    bundle.py OUT.c SOURCE_DIR WORK_DIR

The plotting library is installed by npm from the lock file into WORK_DIR. Without npm, or
without the library, the page is left empty, and `zonectl report` says what is missing.
"""
import json
import shutil
import subprocess
import sys
from pathlib import Path

OUT, SOURCE, WORK = (Path(a) for a in sys.argv[1:4])
LIBRARY = WORK / "node_modules/uplot/dist"
OPTIONS = {"hold": str, "panel": str, "unit": str, "scale": str, "draw": str, "needs": str,
           "band": str.split, "dashed": str.split, "counts": bool, "samples": bool}


def install():
    """Why the library is not there; None: it is."""
    if not shutil.which("npm"):
        return "npm was not there when zonectl was built"
    WORK.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCE / name, WORK)
    done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline",
                           "--fetch-retries=1", "--loglevel=error"], cwd=WORK, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, check=False)
    if done.returncode or not (LIBRARY / "uPlot.iife.min.js").exists():
        print(done.stderr, file=sys.stderr)
        return "npm could not install uplot when zonectl was built"
    return None


def page():
    """The page's text before and after its data."""
    parts = {"uplot.css": LIBRARY / "uPlot.min.css", "uplot.js": LIBRARY / "uPlot.iife.min.js",
             "page.css": SOURCE / "page.css", "page.js": SOURCE / "page.js"}
    text = (SOURCE / "page.html").read_text(encoding="utf-8")
    for name, path in parts.items():
        part = path.read_text(encoding="utf-8")
        assert "</script" not in part and "</style" not in part and "{{data}}" not in part
        text = text.replace("{{" + name + "}}", part)
    return text.split("{{data}}")


def section(path):
    head, sql = {}, []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not sql and line.startswith("-- "):
            key, value = line[3:].split(": ", 1)
            head[key] = value
        else:
            sql.append(line)
    options = {k: OPTIONS[k](v) for k, v in head.items() if k not in ("title", "about")}
    return [path.stem.split("_", 1)[1], head["title"], head["about"], json.dumps(options), "\n".join(sql)]


def literal(text):
    """A C string, in pieces that every compiler takes."""
    data = text.encode()
    pieces = [data[i:i + 100] for i in range(0, len(data), 100)] or [b""]
    return "\n\t".join('"' + "".join(chr(b) if 32 <= b < 127 and chr(b) not in '\\"?' else f"\\{b:03o}" for b in p) + '"'
                       for p in pieces)


why = install()
before, after = ("", "") if why else page()
with open(OUT, "w", encoding="ascii") as c:
    c.write('/* Made from client/report by bundle.py. Not to be edited. */\n\n#include <stddef.h>\n\n#include "report.h"\n\n')
    c.write(f"const char *const report_missing = {literal(why) if why else 'NULL'};\n")
    for name, text in (("before", before), ("after", after)):
        data = text.encode()
        c.write(f"static const unsigned char {name}[] = {{\n")
        for at in range(0, len(data), 20):
            c.write("\t" + "".join(f"{b}," for b in data[at:at + 20]) + "\n")
        c.write(f"\t0}};\nconst char *const report_{name} = (const char *){name};\n")
    c.write("const struct report_section report_sections[] = {\n")
    sections = sorted((SOURCE / "sections").glob("*.sql"))
    for path in sections:
        c.write("\t{" + ",\n\t".join(literal(t) for t in section(path)) + "},\n")
    c.write(f"}};\nconst unsigned nr_report_sections = {len(sections)};\n")
