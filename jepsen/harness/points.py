"""Failpoints of a running process, switched through libfiu's fifos (common/failpoint.h).

A point that took effect is told by the process on stderr, in its log: `failpoint NAME: ...`.
"""

import os
import select
import time

ACTIONS = {'error': 'failnum=1', 'crash': 'failnum=2', 'stop': 'failnum=3',
           'pause': 'failnum=4,failinfo=5000'}


class PointError(RuntimeError):
    """The process could not be told."""


def arm(cluster, process, name, action):
    """The next passing of `name` in `process` does `action`; one passing only."""
    _send(cluster.points(process.name), process, f'enable name={name},onetime,{ACTIONS[action]}')


def disarm(cluster, process, name):
    _send(cluster.points(process.name), process, f'disable name={name}')


def mark(process):
    """A place in the process's log, for `hit` and `told`."""
    return os.path.getsize(process.log)


def hit(process, name, since):
    """True when `name` has taken effect since the mark."""
    return f'failpoint {name}: '.encode() in told(process, since)


def told(process, since):
    """What it has written into its log since the mark."""
    with open(process.log, 'rb') as log:
        log.seek(since)
        return log.read()


def _send(base, process, command, seconds=3):
    end = time.monotonic() + seconds
    while True:
        try:
            to_process = os.open(f'{base}-{process.pid}.in', os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError as error:  # Not there yet, or nobody reads yet.
            if time.monotonic() > end or not process.alive:
                raise PointError(f'{process.name} takes no failpoints: {error}') from error
            time.sleep(0.01)
    try:
        from_process = os.open(f'{base}-{process.pid}.out', os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.write(to_process, command.encode() + b'\n')
            while time.monotonic() < end:
                select.select([from_process], [], [], 0.05)
                try:
                    answer = os.read(from_process, 100)
                except BlockingIOError:
                    continue
                if answer:
                    if answer.strip() != b'0':
                        raise PointError(f'{process.name}: {command}: refused ({answer!r})')
                    return
                time.sleep(0.005)
            raise PointError(f'{process.name}: {command}: no answer')
        finally:
            os.close(from_process)
    finally:
        os.close(to_process)
