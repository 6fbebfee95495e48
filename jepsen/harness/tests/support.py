"""What the tests of the harness share: the path, a node that is this machine, and programs of a
few words of shell in place of Troth's.
"""

import pathlib
import shlex
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / 'jepsen'))
from harness.process import Process  # pylint: disable=wrong-import-position


class Node:
    """This machine."""

    name = address = 'here'

    @staticmethod
    def command(*command):
        return list(map(str, command))


class Place:
    """A directory for a test, and the programs that it starts there."""

    def __init__(self, test):
        directory = tempfile.TemporaryDirectory(prefix='troth-harness-')
        test.addCleanup(directory.cleanup)
        self.path = pathlib.Path(directory.name)
        self._test = test

    def program(self, name, script, **more):
        """A Process of this shell script; `$ready` in it makes it ready."""
        port_file = self.path / f'{name}.ports'
        script = script.replace('$ready', f'echo {{}} >{shlex.quote(str(port_file))}')
        process = Process(name, Node(), ['/bin/sh', '-c', script], self.path / f'{name}.log',
                          str(port_file), **more)
        process.log.touch()
        self._test.addCleanup(process.kill)
        return process
