#!/usr/bin/python3
"""The tables of flags in docs/operations.md are what the programs' --help says.

  flags_test.py BIN            fails, and says which, when a table is not up to date
  flags_test.py BIN --write    brings them up to date; BIN is the folder with the built programs

Knows the form of --help (common/program.h) and no flag."""
import os
import re
import subprocess
import sys

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.realpath(__file__)), "../.."))
DOCUMENT = os.path.join(ROOT, "docs", "operations.md")
PROGRAMS = ["troth-coordinator", "troth-participant", "trothctl"]
TABLE = re.compile(r"(<!-- flags of ([a-z-]+): tests/scripts/flags_test.py --write -->\n)(.*?)"
                   r"(<!-- end of flags -->\n)", re.S)
FLAG = re.compile(r"^  (--[a-z_]+) \((\w+), default (.*)\)$")


def table_of(program):
    shown = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    rows = []
    for line in shown.split("\nFlags:\n", 1)[1].splitlines():
        if flag := FLAG.match(line):
            name, _, default = flag.groups()
            rows.append([f"`{name}`",
                         "" if default == '""' else f"`{default}`", ""])
        elif line.startswith("      ") and rows:
            rows[-1][2] = f"{rows[-1][2]} {line.strip()}".strip().replace("|", "\\|")
    if not rows:
        sys.exit(f"{program} --help shows no flags")
    return "| flag | default | |\n|---|---|---|\n" + "".join(
        f"| {' | '.join(row)} |\n" for row in rows)


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("--help", "-h"):
        print(__doc__)
        return 0 if len(sys.argv) == 2 else 2
    folder, write = sys.argv[1], "--write" in sys.argv[2:]
    with open(DOCUMENT, encoding="utf-8") as file:
        text = file.read()
    seen, stale = [], []

    def fresh(match):
        seen.append(match[2])
        table = table_of(os.path.join(folder, match[2]))
        if table != match[3]:
            stale.append(match[2])
        return match[1] + table + match[4]

    made = TABLE.sub(fresh, text)
    if write:
        with open(DOCUMENT, "w", encoding="utf-8") as file:
            file.write(made)
        stale = []
    bad = stale + [name for name in PROGRAMS if name not in seen]
    for name in bad:
        print(f"docs/operations.md: the flags of {name} are not those of its --help; "
              f"tests/scripts/flags_test.py {folder} --write mends it", file=sys.stderr)
    print(f"flags: tables={len(seen)} stale={len(bad)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
