"""What the checkers' tests share: where things are, and runs of the command line."""

import contextlib
import io
import json
import os
import sys

JEPSEN = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HISTORIES = os.path.join(JEPSEN, 'histories')
if JEPSEN not in sys.path:
    sys.path.insert(0, JEPSEN)

from checkers import cli  # noqa: E402


def run(*arguments):
    """(exit status, standard output, standard error) of jepsen/check, in process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main(list(arguments))
        except SystemExit as leaving:
            status = leaving.code
    return status, out.getvalue(), err.getvalue()


def verdict(output):
    """(valid, {anomalies}) of the last line."""
    last = output.rstrip('\n').split('\n')[-1]
    tag, valid, anomalies = last.split(' ')
    assert tag == 'check:', last
    names = anomalies.removeprefix('anomalies=')
    return (valid == 'valid=true',
            set() if names == 'none' else set(names.split(',')))


def expectations(path):
    """The objects of a JSON-lines file below jepsen/histories."""
    with open(os.path.join(HISTORIES, path), encoding='utf-8') as file:
        return [json.loads(line) for line in file]
