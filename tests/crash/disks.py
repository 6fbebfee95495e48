"""Disks of the crash tests' own: loop-mounted ext4 that can lose power and be full, in a mount
namespace that takes them along when the test ends, however it ends. Knows no log.

The disk itself is that of the fault tests with real databases (jepsen/harness/disk.py).
"""

import os
import subprocess
import sys

import world  # noqa: F401  pylint: disable=unused-import  # sets sys.path

from harness.disk import Disk, can_mount  # noqa: E402  pylint: disable=wrong-import-position

_INSIDE = "TROTH_CRASH_INSIDE"


def enter(name):
    """Runs this program again in namespaces of its own and exits with its code; inside, returns.
    Where there can be none, or no disk can be mounted and shut down, says what is missing and
    exits with 2: a run that could do nothing is no success."""
    if os.environ.pop(_INSIDE, None):
        reason = can_mount()
        if reason:
            sys.exit(_missing(name, reason))
        return
    if os.geteuid() != 0:
        sys.exit(_missing(name, "mounting disks takes root: run it with sudo"))
    command = ["unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "--",
               sys.executable, *sys.argv]
    sys.exit(subprocess.run(command, env={**os.environ, _INSIDE: "1"}, check=False).returncode)


def _missing(name, reason):
    print(f"{name}: CANNOT RUN HERE: {reason}. Needed: root, /dev/loop-control, ext4 with the "
          f"shutdown ioctl. To leave it out on purpose: ctest --exclude-regex '^{name}$'",
          file=sys.stderr)
    return 2


__all__ = ["Disk", "enter"]
