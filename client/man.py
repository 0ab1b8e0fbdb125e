#!/usr/bin/env python3
"""Manual pages from what the programs say of themselves.

    man.py ZONECTL ZONED CONF OUT_DIR

zonectl(1), zonectl-COMMAND(1) for every command, op and inspection, zoned(8) from their
--help, and zoned.conf(5) from the commented example. The programs' help comes from the
contract, so a new op has its page without a change here.
"""
import os
import re
import subprocess
import sys
from pathlib import Path

# "  -m, --machine NAME   text", "      --json   text", "  create   text": a term and its text.
TERM = re.compile(r"^ {2,6}(?=\S)(.{0,27}?\S)(?: {2,}(\S.*))?$")
# The same where the text may stand close: "  --history FILE  text", "  --help  this".
OPTION = re.compile(r"^ {2,6}((?:-\w, )?--[\w-]+(?: (?! )\S+)?) +(\S.*)$")
TITLE = re.compile(r"^[a-z][\w ,()-]*:$")
CONTINUED = re.compile(r"^ {14,}(\S.*)$")


def say(*command):
    env = dict(os.environ, COLUMNS="79", NO_COLOR="1")
    return subprocess.run(command, env=env, text=True, check=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE).stdout


def roff(text):
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga")
    return "\\&" + text if text[:1] in (".", "'") else text


def page(title, section, name, help_text, see):
    """A page from a --help: name, usage, paragraphs, titled lists of terms, examples."""
    lines = help_text.rstrip().split("\n")
    about = re.sub(r"^[\w .-]*? - ", "", lines[0])
    out = [f".TH {title.upper().replace('-', chr(92) + '-')} {section} \"\" zoned",
           ".ad l", ".SH NAME", f"{roff(name)} \\- {roff(about)}"]
    inside, verbatim = None, False

    def block(on):
        nonlocal verbatim
        if on != verbatim:
            out.append(".RS 4\n.nf" if on else ".fi\n.RE")
            verbatim = on

    for before, line in zip(lines, [line.rstrip() for line in lines[1:]]):
        term, continued = TERM.match(line), CONTINUED.match(line)
        if inside is None and OPTION.match(line):
            inside = "terms"
        if OPTION.match(line):
            term = OPTION.match(line)
        if line.startswith("usage: "):
            out.append(".SH SYNOPSIS\n.nf")
            out.append(roff(line[7:]))
            inside = "usage"
        elif inside == "usage" and line.startswith("       "):
            out.append(roff(line[7:]))
        elif inside == "usage" and not line:
            out.append(".fi\n.SH DESCRIPTION")
            inside = None
        elif TITLE.match(line) and not before:
            block(False)
            if line == "for every command:":
                break
            out.append(f".SH {roff(line[:-1].upper())}")
            inside = "examples" if line == "examples:" else "terms"
        elif inside == "terms" and term:
            out.append(f".TP\n\\fB{roff(term[1])}\\fR\n{roff(term[2] or '')}".rstrip())
        elif inside == "terms" and continued:
            out.append(roff(continued[1]))
        elif not line:
            block(False)
            if inside != "terms":
                out.append(".PP")
        else:
            block(line.startswith("  "))
            if inside == "terms" and not line.startswith(" "):
                out.append(".PP")
                inside = None
            out.append(roff(line.strip() if not verbatim else line))
    block(False)
    out.append(".SH SEE ALSO\n" + ",\n".join(f".BR {roff(s)}" for s in see))
    # A paragraph break before a section is none; nor is a section of nothing.
    text = re.sub(r"(\.PP\n)+(?=\.(?:SH|PP|RS))", "", "\n".join(out) + "\n")
    return re.sub(r"\.SH DESCRIPTION\n(?=\.SH)", "", text)


def main():
    zonectl, zoned, conf, out = sys.argv[1:]
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)

    def write(name, section, text):
        (out / f"{name}.{section}").write_text(text)

    write("zonectl", 1, page("zonectl", 1, "zonectl", say(zonectl, "help"),
                             ["zoned (8)", "zoned.conf (5)"]))
    for line in say(zonectl, "completion", "--", "").splitlines():
        word = line.split("\t")[0]
        text = say(zonectl, word, "--help")
        if "SUBCOMMAND" in text:
            for sub in say(zonectl, "completion", "--", word, "").splitlines():
                sub = sub.split("\t")[0]
                write(f"zonectl-{word}-{sub}", 1,
                      page(f"zonectl-{word}-{sub}", 1, f"zonectl {word} {sub}",
                           say(zonectl, word, sub, "--help"), ["zonectl (1)", f"zonectl-{word} (1)"]))
        write(f"zonectl-{word}", 1,
              page(f"zonectl-{word}", 1, f"zonectl {word}", text, ["zonectl (1)"]))
    write("zoned", 8, page("zoned", 8, "zoned", say(zoned, "--help"), ["zonectl (1)", "zoned.conf (5)"]))
    example = Path(conf).read_text()
    write("zoned.conf", 5,
          ".TH ZONED.CONF 5 \"\" zoned\n.SH NAME\nzoned.conf \\- settings of zoned\n.SH DESCRIPTION\n"
          "Lines of\n.I name\n=\n.IR value ,\nwith the names of zoned's options; a line that begins "
          "with # is a comment.\n.SH EXAMPLE\n.nf\n" + "\n".join(roff(l) for l in example.splitlines())
          + "\n.fi\n.SH SEE ALSO\n.BR zoned (8)\n")


if __name__ == "__main__":
    main()
