"""Faults of disks: power, space, errors, damage."""

import hashlib
import re
import struct
import subprocess
import time

from . import disk, points
from .faults import DatabaseFault, Fault
from .private import kill_tree


class CoordinatorDisk(Fault):
    """Has the coordinator and its disk to itself."""

    def choose(self, busy):
        self.targets = {'c'}
        return 'c' not in busy and self.cluster.coordinator.ready

    @property
    def process(self):
        return self.cluster.coordinator

    def start_again(self, seconds=20):
        """True when the coordinator serves again."""
        self.process.launch()
        return self.process.wait_ready(seconds)


class PowerCoordinator(CoordinatorDisk):
    """The coordinator's machine loses power: what was not synced is gone."""

    name = 'power-coordinator'
    seconds = (0.0, 2.0)
    disks = 'c'

    @classmethod
    def missing(cls, options):
        return disk.can_mount()

    def begin(self):
        self.process.abandon()
        self.cluster.disks['c'].lose_power()
        time.sleep(self.random.uniform(0, 0.2))
        self.process.kill()
        return {':target': 'c'}

    def end(self):
        self.cluster.disks['c'].power_on()
        return {':target': 'c', ':ready': self.start_again()}


class DatabaseDisk(DatabaseFault):
    """Of the disk of one PostgreSQL server."""

    disks = 'd'

    def fits(self, database):
        """A standby that was promoted has no disk of its own."""
        return database.name in self.cluster.disks

    @classmethod
    def missing(cls, options):
        return disk.can_mount()


class PowerPostgres(DatabaseDisk):
    """A PostgreSQL server's machine loses power."""

    name = 'power-postgres'
    seconds = (0.0, 2.0)

    def begin(self):
        postmaster = self.database.cluster.pid
        self.cluster.disks[self.database.name].lose_power()
        time.sleep(self.random.uniform(0, 0.2))
        kill_tree(postmaster)
        return {':target': self.database.name}

    def end(self):
        self.cluster.disks[self.database.name].power_on()
        self.database.start()
        return {':target': self.database.name}


class DiskFull(CoordinatorDisk):
    """The coordinator's disk is full; half of the times it is also killed and started there."""

    name = 'disk-full'
    seconds = (3.0, 8.0)
    disks = 'c'

    @classmethod
    def missing(cls, options):
        return disk.can_mount()

    def begin(self):
        taken = self.cluster.disks['c'].fill()
        value = {':target': 'c', ':bytes': taken}
        if self.random.random() < 0.5:
            self.process.kill()
            value[':restarted'] = self.start_again()
            if not value[':restarted']:
                self.problem = ('the coordinator did not start on a full disk: '
                                + self.process.last_words(3))
        return value

    def end(self):
        self.cluster.disks['c'].empty()
        return {':target': 'c'}


class DiskFullPostgres(DatabaseDisk):
    """A PostgreSQL server's disk is full; it may end of that, and is started again after."""

    name = 'disk-full-postgres'
    seconds = (2.0, 6.0)

    def begin(self):
        return {':target': self.database.name,
                ':bytes': self.cluster.disks[self.database.name].fill()}

    def end(self):
        self.cluster.disks[self.database.name].empty()
        survived = self.database.up
        self.database.start()
        return {':target': self.database.name, ':survived': survived}


class SyncError(CoordinatorDisk):
    """The next sync of the coordinator's log fails with EIO: it must end, and open anew."""

    name = 'sync-eio'
    seconds = (0.5, 1.0)
    tracer = None

    @classmethod
    def missing(cls, options):
        done = subprocess.run(['strace', '-f', '-qq', '-e', 'trace=getpid', '-e',
                               'inject=getpid:error=EIO', 'true'], capture_output=True,
                              text=True, check=False)
        return None if done.returncode == 0 else f'strace injects nothing: {done.stderr.strip()}'

    def begin(self):
        pid, log = self.process.pid, self.cluster.options.logs / 'strace.log'
        self.process.expect(3)
        self.tracer = subprocess.Popen(
            ['strace', '-f', '-qq', '-o', str(log), '-e', 'trace=fdatasync,fsync',
             '-e', 'inject=fdatasync,fsync:error=EIO', '-p', str(pid)],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 5
        while self.process.lives(pid) and time.monotonic() < end:
            time.sleep(0.01)
        if self.process.lives(pid):
            self._let_go()
            self.process.expect(None)
            if 'INJECTED' not in log.read_text(encoding='utf-8', errors='replace'):
                return None       # Nothing was synced meanwhile.
            self.problem = 'a failed sync of the log did not end the coordinator'
        return {':target': 'c'}

    def _let_go(self):
        if self.tracer.poll() is None:
            self.tracer.terminate()
        self.tracer.wait()

    def end(self):
        self._let_go()
        return {':target': 'c', ':ready': self.process.wait_ready(15)}


BLOCK = 4096


def end_of_checkpoint(content):
    """Where its last batch ends, the one without records; what follows in the file is of an
    earlier life (docs/wal_format.md)."""
    place, records = BLOCK, 1
    while records and place + 40 <= len(content):
        magic, length, records = struct.unpack_from('<4s20xII', content, place)
        if magic != b'TRTB':
            break
        place += -(-(40 + length) // BLOCK) * BLOCK
    return place


class LogDamage(CoordinatorDisk):
    """While the coordinator is down a bit of its log flips: it must refuse to start, name the file,
    change nothing, and start when the bit is as it was."""

    name = 'log-damage'
    seconds = (0.0, 0.5)
    REFUSED = 1               # The exit code of a coordinator that does not take its log.

    def begin(self):
        self.process.kill()
        flipped = self._choose_bit(self.cluster.wal)
        if flipped is None:
            self.start_again()
            return None
        file, place, bit = flipped
        self._flip(file, place, bit)
        words = self._try_to_start(file)
        self._flip(file, place, bit)
        return {':target': 'c', ':where': f'{file.name}:{place}', ':words': words[:300]}

    @staticmethod
    def _flip(file, place, bit):
        with open(file, 'r+b') as log:
            log.seek(place)
            byte = log.read(1)[0]
            log.seek(place)
            log.write(bytes([byte ^ 1 << bit]))

    def _choose_bit(self, wal):
        """(file, place, bit) of what is surely within the log, not in its last two blocks."""
        # What the last checkpoint replaces may still lie there, and is not read any more.
        numbered = [(f.name.partition('-'), f) for f in sorted(wal.iterdir())
                    if re.fullmatch(r'(segment|checkpoint)-[0-9]+', f.name)]
        last = max((int(name[2]) for name, _ in numbered if name[0] == 'checkpoint'), default=-1)
        files = [f for name, f in numbered if int(name[2]) > last
                 or (name[0] == 'checkpoint' and int(name[2]) == last)]
        self.random.shuffle(files)
        for file in files:
            content = file.read_bytes()
            written = (end_of_checkpoint(content) if file.name.startswith('checkpoint')
                       else len(content.rstrip(b'\0')))
            places = [i for i in (self.random.randrange(max(1, written)) for _ in range(64))
                      if content[i] and i < written - 8192]
            if places:
                return file, places[0], self.random.randrange(8)
        return None

    def _try_to_start(self, damaged):
        """The words of its refusal."""
        before, since = self._content(damaged.parent), points.mark(self.process)
        self.process.launch(watched=False)
        if self.process.wait_ready(10):
            self.problem = 'it started on a damaged log'
            self.process.kill()
        elif not self.process.wait_death(1):
            self.problem = 'it neither started on a damaged log nor refused to'
            self.process.kill()
        words = points.told(self.process, since).decode(errors='replace').rstrip()
        changed = {name for name, _ in before ^ self._content(damaged.parent)}
        if self.problem is None and self.process.code != self.REFUSED:
            self.problem = f'of a damaged log it ended with {self.process.code}: {words[-300:]}'
        elif self.problem is None and damaged.name not in words:
            self.problem = f'it does not name {damaged.name}, which is damaged: {words[-300:]}'
        elif self.problem is None and changed:
            self.problem = f'it refused a damaged log, and changed {", ".join(sorted(changed))}'
        return words.rpartition('\n')[2]

    @staticmethod
    def _content(wal):
        """Of every file of the log: (name, a digest of its bytes).  LOCK has its owner's pid."""
        return {(file.name, hashlib.sha256(file.read_bytes()).hexdigest())
                for file in wal.iterdir() if file.name != 'LOCK'}

    def end(self):
        return {':target': 'c', ':ready': self.start_again()}


FAULTS = (PowerCoordinator, PowerPostgres, DiskFull, DiskFullPostgres, SyncError, LogDamage)
