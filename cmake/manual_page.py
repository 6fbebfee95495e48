#!/usr/bin/python3
"""Writes a manual page: the prose of docs/man/NAME.SECTION.md, in place of its line `@flags@` the
flags and in that of `@usage@` what stands before them, as the program's own --help shows them: the
page can't fall behind.

  manual_page.py --program FILE --version VERSION SOURCE TARGET.gz

Knows Troth's --help and argparse's; the rest is go-md2man's work."""
import argparse
import gzip
import pathlib
import re
import subprocess
import sys

FLAG = re.compile(r"^  (--[a-z_]+) \((\w+), default (.*)\)$")


def escaped(text):
    return re.sub(r"([\\`*_<>\[\]{}])", r"\\\1", text)


def flags_of_program(shown):
    """`--name (type, default value)` and indented lines below it."""
    out = []
    for line in shown.split("\nFlags:\n", 1)[1].splitlines():
        flag = FLAG.match(line)
        if flag:
            name, kind, default = flag.groups()
            out.append(f"\n**{escaped(name)}** (*{kind}*, default `{default}`)\n:")
        elif line.startswith("      ") and out:
            out[-1] += " " + escaped(line.strip())
    return "\n".join(out)


def flags_of_argparse(shown):
    options = re.split(r"\noption(?:s|al arguments):\n", shown, maxsplit=1)
    return "```\n" + options[1].rstrip() + "\n```" if len(options) == 2 else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("target", type=pathlib.Path)
    asked = parser.parse_args()
    shown = subprocess.run([asked.program, "--help"], capture_output=True, text=True, check=True,
                           env={"COLUMNS": "96", "PATH": "/usr/bin:/bin"}).stdout
    flags = flags_of_program(shown) if "\nFlags:\n" in shown else flags_of_argparse(shown)
    if not flags:
        sys.exit(f"{asked.program} --help shows no flags")
    usage = re.split(r"\n(?:Flags|options):\n", shown, maxsplit=1)[0]
    text = asked.source.read_text(encoding="utf-8")
    if "\n@flags@\n" not in text:
        sys.exit(f"{asked.source} has no line @flags@")
    text = text.replace("\n@flags@\n", f"\n{flags}\n").replace("@version@", asked.version)
    text = text.replace("\n@usage@\n", f"\n```\n{usage}\n```\n")
    page = subprocess.run(["go-md2man"], input=text, capture_output=True, text=True, check=True)
    asked.target.parent.mkdir(parents=True, exist_ok=True)
    asked.target.write_bytes(gzip.compress(page.stdout.encode(), 9, mtime=0))


if __name__ == "__main__":
    main()
