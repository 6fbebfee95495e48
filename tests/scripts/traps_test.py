#!/usr/bin/python3
"""docs/traps.md and the tests agree: each test that its tables name exists, and each test of
tests/integration/traps stands in a table.

Knows names only: that a test can fail is shown by who wrote it.
"""
import os
import re
import sys

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.realpath(__file__)), "../.."))
LEAST_ROWS = 28


def text_of(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


def tests_in(*path):
    """Suite.Name of each test of a file, in C++ or in Python."""
    text = text_of(*path)
    if path[-1].endswith(".cc"):
        return {f"{suite}.{name}" for suite, name in
                re.findall(r"^TEST(?:_[FP])?\((\w+),\s*(\w+)\)", text, re.M)}
    found, suite = set(), None
    for line in text.splitlines():
        if match := re.match(r"class (\w+)\(", line):
            suite = match[1]
        elif match := re.match(r"    def (test_\w+)\(", line):
            found.add(f"{suite}.{match[1]}")
    return found


def main():
    folder = os.path.join(ROOT, "tests", "integration")
    traps = set().union(*(tests_in("tests", "integration", name) for name in os.listdir(folder)
                          if re.fullmatch(r"traps_\w+\.(cc|py)", name)))
    others = tests_in("tests", "participant", "resource_manager_contract_test.cc")
    rows = [row for row in re.findall(r"^\| .+ \|$", text_of("docs", "traps.md"), re.M)
            if re.search(r"\| `\w+\.\w+`", row)]
    named = {name for row in rows for name in re.findall(r"`(\w+\.\w+)`", row)}
    wrong = [f"docs/traps.md names {name}, and there is no such test"
             for name in sorted(named - traps - others)]
    wrong += [f"{name} stands in no table of docs/traps.md" for name in sorted(traps - named)]
    wrong += [f"no outcome: {row}" for row in rows if len(row.strip("| ").split(" | ")) != 3]
    if len(rows) < LEAST_ROWS:
        wrong.append(f"docs/traps.md has {len(rows)} rows with tests, {LEAST_ROWS} are the least")
    for line in wrong:
        print(line)
    print(f"traps_listed: rows={len(rows)} tests={len(traps)} wrong={len(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
