"""Faults inside processes and between their messages: failpoints, clocks, a cut at a message."""

import os
import socket
import time

from . import crash_table, points
from .faults import Fault, ProcessFault

_FAKETIME = '/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1'


class Failpoint(ProcessFault):
    """A process ends, stands still for a moment, or errs at a named point (docs/protocol.md) that
    load alone passes; those that need more are the sweep's."""

    name = 'failpoint'
    seconds = (0.5, 2.5)
    since = point = action = code = pid = None

    def begin(self):
        role = 'coordinator' if self.process.name == 'c' else 'participant'
        rows = [row for row in crash_table.ROWS
                if row.process == role and row.when == 'running' and row.provoke is None]
        row = self.random.choice(rows)
        self.point = row.name
        self.action = self.random.choice(['crash', 'pause'] + (['error'] if row.error is None else []))
        self.code, self.pid = row.code(self.action), self.process.pid
        self.since = points.mark(self.process)
        self.process.expect(self.code)
        try:
            points.arm(self.cluster, self.process, self.point, self.action)
        except points.PointError:
            self.process.expect(None)
            return None
        return {':target': self.process.name, ':point': self.point, ':action': ':' + self.action}

    def end(self):
        if not self._hit() and self.process.lives(self.pid):
            try:
                points.disarm(self.cluster, self.process, self.point)
            except points.PointError:
                pass
        self.happened = self._hit()
        if self.happened and self.code is not None and not self._ended():
            self.problem = f'{self.process.name} went on after {self.action} at {self.point}'
        self.process.expect(None)
        return {':target': self.process.name, ':point': self.point, ':hit': self.happened,
                ':ready': self.process.wait_ready(15)}

    def _hit(self):
        return points.hit(self.process, self.point, self.since)

    def _ended(self, seconds=5):
        """It was told of before it took effect."""
        end = time.monotonic() + seconds
        while self.process.lives(self.pid) and time.monotonic() < end:
            time.sleep(0.01)
        return not self.process.lives(self.pid)


class StalledLog(Fault):
    """The coordinator's log stands still before a write, all else goes on; then it is killed:
    whoever was told of that commit before its record was durable has been told too early."""

    name = 'stalled-log'
    seconds = (0.1, 1.0)
    POINT = 'log-batch-handed-over'

    def choose(self, busy):
        self.targets = {'c'}
        return 'c' not in busy and self.cluster.coordinator.ready

    def begin(self):
        process = self.cluster.coordinator
        since = points.mark(process)
        try:
            points.arm(self.cluster, process, self.POINT, 'pause')
        except points.PointError:
            return None
        end = time.monotonic() + 5
        while not points.hit(process, self.POINT, since):
            if time.monotonic() > end:
                points.disarm(self.cluster, process, self.POINT)
                return None
            time.sleep(0.01)
        return {':target': 'c', ':point': self.POINT}

    def end(self):
        process = self.cluster.coordinator
        process.kill()
        process.launch()
        return {':target': 'c', ':ready': process.wait_ready(15)}


class Clock(Fault):
    """The wall clock of one process jumps, by seconds up to days, either way, and back."""

    name = 'clock'
    seconds = (1.0, 5.0)
    chosen = None

    @classmethod
    def missing(cls, options):
        return None if os.path.exists(_FAKETIME) else 'there is no libfaketime: scripts/setup test'

    @classmethod
    def preload(cls):
        return _FAKETIME

    def choose(self, busy):
        self.chosen = self.pick(['c', *self.cluster.names()],
                                {name[len('clock-'):] for name in busy if name.startswith('clock-')})
        self.targets = {f'clock-{self.chosen}'}
        return self.chosen is not None

    def _set(self, seconds):
        file = self.cluster.clock_files[self.chosen]
        temporary = file.with_suffix('.new')
        temporary.write_text(f'{seconds:+d}\n', encoding='utf-8')
        temporary.rename(file)

    def begin(self):
        seconds = self.random.choice((-1, 1)) * int(10 ** self.random.uniform(0, 6))
        self._set(seconds)
        return {':target': self.chosen, ':seconds': seconds}

    def end(self):
        self._set(0)
        return {':target': self.chosen}


class CutMessage(Fault):
    """Between a participant and its server the connection is cut at PREPARE TRANSACTION, at its
    answer, at COMMIT PREPARED or at its answer; or that message is held for a while."""

    name = 'cut-message'
    seconds = (0.5, 2.0)
    needs_proxy = True
    chosen = connection = None

    def choose(self, busy):
        self.chosen = self.pick(self.cluster.proxies, busy)
        return self.chosen is not None

    def begin(self):
        point = self.random.choice(('prepare', 'prepare-answer', 'commit', 'commit-answer'))
        action = self.random.choice(('cut', 'cut', f'hold:{self.random.randint(100, 3000)}'))
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(4)
        try:
            self.connection.connect(self.cluster.proxies[self.chosen].port_file)
            self.connection.sendall(f'{point} {action}\n'.encode())
            hit = self.connection.recv(10) == b'done\n'
        except OSError:
            hit = False
        if not hit:
            self.connection.close()
            return None
        return {':target': self.chosen, ':point': ':' + point, ':action': action}

    def end(self):
        self.connection.close()


FAULTS = (Failpoint, StalledLog, Clock, CutMessage)
