"""Disks of our own: ext4 in a file, which can lose power and be full.

Power loss is ext4's shutdown without a flush of its journal: what was not synced is gone,
and every write from then on fails.  The kernel knows it, no device mapper is needed.
"""

import fcntl
import os
import pathlib
import time

from .isolation import run

_SHUTDOWN = 0x8004587d    # EXT4_IOC_SHUTDOWN
_NO_LOG_FLUSH = 2


class Disk:
    """A file system of `megabytes` at `mount_point`, gone with the namespace."""

    def __init__(self, image, mount_point, megabytes):
        self.image = pathlib.Path(image)
        self.path = pathlib.Path(mount_point)
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.image, 'wb') as file:
            file.truncate(megabytes << 20)
        run('mkfs.ext4', '-q', '-F', '-m', '0', '-E', 'lazy_itable_init=0,lazy_journal_init=0',
            self.image)
        self.mount()
        (self.path / 'lost+found').rmdir()
        self._filler = self.path / '.filler'

    def mount(self):
        run('mount', '-o', 'loop', self.image, self.path)

    def lose_power(self):
        """From here on nothing reaches the disk.  Who uses it is to be killed now."""
        handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(handle, _SHUTDOWN, _NO_LOG_FLUSH.to_bytes(4, 'little'))
        finally:
            os.close(handle)

    def power_on(self):
        """Mounts what the disk held; nobody may have a file open on it."""
        self.unmount()
        self.mount()
        # That it was removed may be lost with the power.
        self.empty()

    def unmount(self, seconds=10):
        end = time.monotonic() + seconds
        while True:
            try:
                run('umount', self.path)
                return
            except RuntimeError:
                # A killed process lets go of its files a moment after it is reaped.
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def fill(self):
        """Takes every free block; returns how many bytes that were."""
        taken = 0
        handle = os.open(self._filler, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            for chunk in (4 << 20, 256 << 10, 4096):
                while True:
                    try:
                        os.posix_fallocate(handle, taken, chunk)
                        taken += chunk
                    except OSError:
                        break
        finally:
            os.close(handle)
        return taken

    def empty(self):
        self._filler.unlink(missing_ok=True)


def can_mount():
    """None when a file can be mounted and shut down here, else why not."""
    import tempfile  # pylint: disable=import-outside-toplevel
    with tempfile.TemporaryDirectory(prefix='troth-probe-') as place:
        try:
            disk = Disk(f'{place}/image', f'{place}/mount', 8)
        except (RuntimeError, OSError) as error:
            return f'no loop mount of ext4: {error}'
        try:
            disk.lose_power()
        except OSError as error:
            return f'ext4 takes no shutdown: {error.strerror}'
        finally:
            disk.unmount()
    return None
