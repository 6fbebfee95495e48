#!/usr/bin/python3
"""Every program and every launcher answers --help with 0, and a wrong flag with 2 and advice; what
serves refuses an argument that is no flag (`troth-coordinator init` once started without a word).

Usage: help_test.py BIN, the folder with the built programs (those of test libraries excepted).
"""
import os
import subprocess
import sys

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.realpath(__file__)), "../.."))
TOOLS = ("_test", "_benchmark", "_fuzzer")  # their main is of a library
SERVE = {"troth-coordinator", "troth-participant", "bank-branch"}
SKIPPED = {".git", "build", "store", "__pycache__"}


def launchers():
    """Executable scripts of the tree that start with scripts/launch.sh."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(set(folders) - SKIPPED)
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.access(path, os.X_OK) and os.path.isfile(path):
                with open(path, "rb") as file:
                    if b"/launch.sh\"\n" in file.read(20000):
                        yield path


def programs(folder):
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK) and os.path.isfile(path) and not name.endswith(TOOLS):
            yield path


def faults(path, is_program):
    """What is wrong with the answers of `path`."""
    def call(flag):
        return subprocess.run([path, flag], capture_output=True, text=True, timeout=30,
                              stdin=subprocess.DEVNULL, check=False)
    asked = call("--help")
    if asked.returncode != 0:
        yield f"--help exits {asked.returncode}: {asked.stderr.strip()[-200:]}"
    if len(asked.stdout.split()) < 5:
        yield "--help says next to nothing"
    if is_program:
        wrong = call("--no-such-flag-anywhere=1")
        if wrong.returncode != 2:
            yield f"an unknown flag exits {wrong.returncode}, not 2"
        if "--no-such-flag-anywhere" not in wrong.stderr:
            yield "an unknown flag is not named on stderr"
    if os.path.basename(path) in SERVE:
        stray = call("stray")
        if stray.returncode != 2 or "'stray'" not in stray.stderr:
            yield f"an argument that is no flag is not refused: {stray.returncode}, {stray.stderr!r}"


def main():
    if len(sys.argv) != 2 or sys.argv[1] in ("--help", "-h"):
        print(__doc__)
        return 0 if len(sys.argv) == 2 else 2
    asked = bad = 0
    for path, is_program in [*((p, False) for p in launchers()),
                             *((p, True) for p in programs(sys.argv[1]))]:
        asked += 1
        for fault in faults(path, is_program):
            bad += 1
            print(f"{os.path.relpath(path, ROOT)}: {fault}", file=sys.stderr)
    print(f"help: asked={asked} faults={bad}")
    return 1 if bad or asked == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
