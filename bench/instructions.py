#!/usr/bin/python3
"""Counts the instructions of the hot path under callgrind, on fixed inputs, and compares them with
the recorded counts. bench/instructions starts this after building."""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
RECORDED = HERE / "instructions.json"
PIECES = ["step", "append", "codec"]
FEW, MANY = 1000, 3000  # the difference leaves the start of the program out
LIMIT = 0.10


def collected(binary, piece, count):
    """Instructions of one run in user space."""
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", binary,
         f"--count={count}", piece],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        env={**os.environ, "GLIBC_TUNABLES": ""})
    found = re.search(r"Collected : (\d+)", done.stdout)
    if done.returncode != 0 or not found:
        sys.exit(f"bench/instructions: callgrind failed:\n{done.stdout[-2000:]}")
    return int(found.group(1))


def main():
    """See bench/instructions --help."""
    parser = argparse.ArgumentParser(prog="bench/instructions", allow_abbrev=False)
    parser.add_argument("--bin", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    binary = f"{options.bin}/bench-hot-path"
    counts = {piece: round((collected(binary, piece, MANY) - collected(binary, piece, FEW)) /
                           (MANY - FEW)) for piece in PIECES}
    if options.record:
        RECORDED.write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    grown = [p for p in PIECES if counts[p] > recorded[p] * (1 + LIMIT)]
    for piece in PIECES:
        print(f"{piece:8} {counts[piece]:8} instructions, recorded {recorded[piece]:8}, "
              f"{counts[piece] / recorded[piece] - 1:+.1%}{'  TOO MANY' if piece in grown else ''}")
    if grown:
        print("grown by more than a tenth. If that is meant: bench/instructions --record, and say "
              "why in the commit", file=sys.stderr)
    print("instructions: " + " ".join(f"{p}={counts[p]}" for p in PIECES) + f" grown={len(grown)}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
