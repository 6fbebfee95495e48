#!/usr/bin/python3
"""Each law of docs/protocol.md has a test named after it, and no test is named after another; each
planted bug names a law, stands in the table of docs/testing.md, and applies.

Knows names only: that a test can fail is what tests/planted/run shows.
"""
import os
import re
import subprocess
import sys

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.realpath(__file__)), "../.."))


def text_of(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


def tests_by_law():
    """Law -> names of its tests."""
    tests = {}
    for folder, _, names in os.walk(os.path.join(ROOT, "tests")):
        for name in sorted(names):
            if not name.endswith(".cc"):
                continue
            for test in re.findall(r"^TEST(?:_[FP])?\(\w+, (\w+)\)", text_of(folder, name), re.M):
                law = re.match(r"(L\d+[a-d]?)_", test)
                if law:
                    tests.setdefault(law.group(1), []).append(test)
    return tests


def main():
    laws = re.findall(r"^- \*\*(L\d+[a-d]?)\*\* ", text_of("docs", "protocol.md"), re.M)
    tests = tests_by_law()
    wrong = [f"{law} has no test named after it" for law in laws if law not in tests]
    wrong += [f"{', '.join(tests[law])}: docs/protocol.md has no {law}"
              for law in sorted(tests) if law not in laws]
    table = re.findall(r"^\| (\d\d [\w-]+) \| (L\d+[a-d]?) \| ", text_of("docs", "testing.md"), re.M)
    listed = dict(table)
    patches = sorted(name for name in os.listdir(os.path.join(ROOT, "tests", "planted"))
                     if name.endswith(".patch"))
    for patch in patches:
        name = patch.removesuffix(".patch").replace("-", " ", 1)
        law = text_of("tests", "planted", patch).split("\n", 1)[0].removeprefix("Law: ")
        if law not in laws:
            wrong.append(f"{patch} breaks '{law}', which is no law")
        if listed.pop(name, law) != law or name not in dict(table):
            wrong.append(f"docs/testing.md does not list '{name}' with its law {law}")
        applies = subprocess.run(["patch", "-p1", "-F0", "-s", "--dry-run", "-i",
                                  os.path.join("tests", "planted", patch)], cwd=ROOT, check=False,
                                 stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if applies.returncode:
            wrong.append(f"{patch} does not apply: {applies.stdout.strip()}")
    wrong += [f"docs/testing.md lists {name}, and there is no such patch" for name in listed]
    for line in wrong:
        print(line)
    print(f"laws: laws={len(laws)} tests={sum(map(len, tests.values()))} planted={len(patches)} "
          f"wrong={len(wrong)}")
    return 1 if wrong or not laws or not patches else 0


if __name__ == "__main__":
    sys.exit(main())
