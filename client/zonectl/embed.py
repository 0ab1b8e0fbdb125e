#!/usr/bin/env python3
"""Makes Lua files part of the program: a C table of their names and texts.

    embed.py OUT.c FILE.lua...
"""
import sys
from pathlib import Path

out, files = sys.argv[1], [Path(f) for f in sys.argv[2:]]
with open(out, "w", encoding="ascii") as c:
    c.write('/* Made from *.lua by embed.py. Not to be edited. */\n\n#include "lua_script.h"\n\n')
    for i, f in enumerate(files):
        data = f.read_bytes()
        c.write(f"static const unsigned char text_{i}[] = {{\n")
        for at in range(0, len(data), 20):
            c.write("\t" + " ".join(f"{b}," for b in data[at:at + 20]) + "\n")
        c.write("\t0};\n\n")
    c.write("const struct embedded embedded_scripts[] = {\n")
    for i, f in enumerate(files):
        c.write(f'\t{{"{f.stem}", (const char *)text_{i}, sizeof text_{i} - 1}},\n')
    c.write("};\nconst unsigned nr_embedded_scripts = sizeof embedded_scripts / sizeof *embedded_scripts;\n")
