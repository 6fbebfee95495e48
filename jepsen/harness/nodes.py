"""Runs a command among nodes that are network namespaces, for the Jepsen suite (clojure/)."""

import argparse
import pathlib
import subprocess
import sys

from . import isolation
from .network import Network


def make(count):
    """Nodes n1, n2, ... on a bridge of which this machine is part, and whose names resolve."""
    network = Network()
    isolation.run('ip', 'addr', 'add', '10.77.255.1/16', 'dev', 'bridge0')
    names = {f'n{i}': f'10.77.0.{i}' for i in range(1, count + 1)}
    for name, address in names.items():
        network.add(name, address)
    hosts = pathlib.Path('/run/hosts')
    hosts.write_text('127.0.0.1 localhost\n' + ''.join(
        f'{address} {name}\n' for name, address in names.items()), encoding='utf-8')
    isolation.run('mount', '--bind', hosts, '/etc/hosts')


def main():
    parser = argparse.ArgumentParser(
        prog='jepsen/clojure/nodes', usage='jepsen/clojure/nodes [--count N] [--] COMMAND...',
        formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__,
        epilog='Nodes are n1 to nN, 10.77.0.1 and on, on one bridge on which this machine is\n'
               '10.77.255.1; their names resolve. All of it, and whatever the command starts, lies\n'
               'in namespaces of its own and is gone when the command ends. It takes root. Exits\n'
               'with the status of the command, or 2.')
    parser.add_argument('--count', type=int, default=4, metavar='N', help='default: %(default)s')
    parser.add_argument('command', nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ['--'] else options.command
    if not command:
        parser.error('it needs a command to run')
    if not 2 <= options.count <= 200:
        parser.error('--count is from 2 to 200')
    isolation.enter('harness.nodes', sys.argv[1:])
    make(options.count)
    try:
        return subprocess.run(command, check=False).returncode
    except OSError as error:
        print(f'nodes: {command[0]}: {error.strerror}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == '__main__':
    sys.exit(main())
