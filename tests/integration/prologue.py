"""How a test of a whole bank begins: its flags, and then unittest's own arguments. Knows no bank."""

import sys
import unittest


def main(module, flags=("bin",), optional=()):
    """`module` is globals() of the test. Each of `flags` must be given, in front, and sets the global
    of its name in capitals (--bin sets BIN), so do those of `optional` behind them; the rest is
    unittest's."""
    name = module["__file__"].rpartition("/")[2]
    arguments = sys.argv[1:]
    if "--help" in arguments or "-h" in arguments:
        print(module["__doc__"].strip())
        return
    for flag in (*flags, *optional):
        if len(arguments) > 1 and arguments[0] == f"--{flag}":
            module[flag.upper()] = arguments[1]
            arguments = arguments[2:]
        elif flag in flags:
            wanted = " ".join(f"--{one} {one.upper()}" for one in flags)
            print(f"{name}: {wanted} come first; see --help", file=sys.stderr)
            sys.exit(2)
    # Thrift's Python leaves sockets to the collector.
    unittest.main(module="__main__", argv=[sys.argv[0], "-v", *arguments], warnings="ignore")
