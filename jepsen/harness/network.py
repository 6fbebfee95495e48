"""Nodes: network namespaces on one bridge, each with its own address; and what can be done to
the packets between them.  Knows no process and no protocol above TCP.
"""

import ctypes
import os
import socket
import subprocess
import threading

from .isolation import run

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Node:
    """One machine, as far as the network is concerned."""

    def __init__(self, name, address):
        self.name = name
        self.address = address
        self._path = f'/run/netns/{name}'
        run('ip', 'netns', 'add', name)
        run('ip', 'link', 'add', f'v-{name}', 'type', 'veth', 'peer', 'name', 'eth0',
            'netns', name)
        run('ip', 'link', 'set', f'v-{name}', 'master', 'bridge0', 'up')
        self.run('ip', 'addr', 'add', f'{address}/16', 'dev', 'eth0')
        self.run('ip', 'link', 'set', 'eth0', 'up')
        self.run('ip', 'link', 'set', 'lo', 'up')

    def __repr__(self):
        return self.name

    def command(self, *command):
        """The command that runs `command` on this node, with the pid of `command` itself."""
        return ['nsenter', f'--net={self._path}', '--', *map(str, command)]

    def run(self, *command, check=True):
        return run(*self.command(*command), check=check)

    def call(self, function):
        """Calls `function` on a thread that lives on this node; what it starts does too."""
        result = {}

        def body():
            try:
                handle = os.open(self._path, os.O_RDONLY)
                try:
                    if _libc.setns(handle, _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), 'setns')
                finally:
                    os.close(handle)
                result['value'] = function()
            except BaseException as error:  # pylint: disable=broad-except
                result['error'] = error

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if 'error' in result:
            raise result['error']
        return result['value']


class Network:
    """All nodes, and the rules that disturb what goes between them.

    A rule is given back by `drop`, `lose`, ... and taken out again by `remove`; several may
    hold at once.  Called by one thread at a time.
    """

    def __init__(self):
        run('ip', 'link', 'add', 'bridge0', 'type', 'bridge')
        run('ip', 'link', 'set', 'bridge0', 'up')
        self.nodes = {}
        self._rules = []

    def add(self, name, address):
        self.nodes[name] = Node(name, address)
        return self.nodes[name]

    def _insert(self, node, *rule):
        node.run('iptables', '-w', '-A', 'INPUT', *rule)
        self._rules.append((node, rule))
        return (node, rule)

    def drop(self, source, target):
        """Nothing from `source` reaches `target` any more; the other way is not touched."""
        return [self._insert(target, '-s', source.address, '-j', 'DROP')]

    def cut(self, one, other):
        """Nothing passes between the two."""
        return self.drop(one, other) + self.drop(other, one)

    def lose(self, node, probability):
        """Of the packets that arrive at `node`, so many are lost."""
        return [self._insert(node, '-i', 'eth0', '-m', 'statistic', '--mode', 'random',
                             '--probability', f'{probability:.3f}', '-j', 'DROP')]

    def queue(self, node, number):
        """Packets that arrive at `node` are handed to who listens at netfilter queue `number`;
        dropped while nobody does."""
        return [self._insert(node, '-i', 'eth0', '-j', 'NFQUEUE', '--queue-num', number)]

    def reset(self, node):
        """Breaks every TCP connection of `node` to other nodes; returns how many it broke."""
        # It lists what it broke, and passes over in silence what the kernel would not break.
        killed = node.run('ss', '-K', '-t', '-n', '-H', 'dst', '10.77.0.0/16', check=False)
        return len(killed.splitlines())

    def remove(self, rules):
        for node, rule in rules:
            if (node, rule) in self._rules:
                node.run('iptables', '-w', '-D', 'INPUT', *rule)
                self._rules.remove((node, rule))

    def heal(self):
        self.remove(list(self._rules))


def can_reset():
    """None when `ss -K` breaks a connection here, else why not."""
    with socket.create_server(('127.0.0.1', 0)) as server, \
            socket.create_connection(server.getsockname()) as client:
        port = server.getsockname()[1]
        done = subprocess.run(['ss', '-K', '-t', '-n', '-H', 'dst', '127.0.0.1', 'dport', '=',
                               str(port)], capture_output=True, text=True, check=False)
        try:
            client.send(b'?')
        except OSError:
            return None
    return f'ss -K breaks no connection: {done.stderr.strip() or "the kernel does not let it"}'


def can_filter(*match):
    """None when iptables takes this rule here, else why not."""
    rule = ['INPUT', '-s', '192.0.2.1', *map(str, match)]
    done = subprocess.run(['iptables', '-w', '-A', *rule], capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        return f'iptables {" ".join(map(str, match))}: {done.stderr.strip()}'
    run('iptables', '-w', '-D', *rule)
    return None
