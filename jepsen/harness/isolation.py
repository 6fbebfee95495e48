"""Namespaces of our own: processes, network, mounts.

Everything a test starts lives inside them and dies with them; no signal can reach a
process outside, no fault another's network.  Outside, one process waits, passes
SIGTERM and SIGINT on, and ends everything when it is itself killed.
"""

import os
import pathlib
import signal
import subprocess
import sys

_MARK = 'TROTH_JEPSEN_INSIDE'
_GRACE_SECONDS = 60


def enter(module, arguments):
    """Outside: runs `module` again inside namespaces of its own, then exits with its status.
    Inside: returns."""
    if os.environ.get(_MARK):
        _settle()
        return
    reason = missing()
    if reason:
        print(f'{module.split(".")[-1]}: {reason}', file=sys.stderr)
        sys.exit(2)
    child = subprocess.Popen(
        ['unshare', '--pid', '--net', '--mount', '--fork', '--kill-child', '--mount-proc', '--',
         sys.executable, '-m', module, *arguments],
        env={**os.environ, _MARK: '1'}, start_new_session=True)
    sys.exit(_wait(child))


def missing():
    """Why there can be no namespaces here, or None."""
    if os.geteuid() != 0:
        return 'it makes namespaces of its own, which takes root: run it with sudo'
    done = subprocess.run(['unshare', '--pid', '--net', '--mount', '--fork', '--mount-proc', 'true'],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f'this system gives no namespaces: {done.stderr.strip()}'
    return None


def _inner(child):
    """Pid of the one process that unshare forked, seen from here."""
    path = pathlib.Path(f'/proc/{child.pid}/task/{child.pid}/children')
    try:
        return int(path.read_text().split()[0])
    except (OSError, IndexError, ValueError):
        return None


def _wait(child):
    def pass_on(number, _):
        inner = _inner(child)
        if inner is not None:
            os.kill(inner, signal.SIGTERM)
        else:
            child.kill()
        # Then it has a while to end what it started; the namespace does the rest.
        signal.signal(signal.SIGALRM, lambda *_: child.kill())
        signal.alarm(_GRACE_SECONDS)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    status = child.wait()
    return status if status >= 0 else 128 - status


def _settle():
    """Inside, once: loopback, a /run of our own, and SIGTERM as an exception."""
    os.environ.pop(_MARK)
    run('ip', 'link', 'set', 'lo', 'up')
    run('mount', '-t', 'tmpfs', 'none', '/run')
    os.makedirs('/run/netns')

    def stop(*_):
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def run(*command, check=True):
    """Runs a tool; RuntimeError with its words when it fails.  Returns its output."""
    done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f'{" ".join(map(str, command))}: '
                           f'{(done.stderr or done.stdout).strip()}')
    return done.stdout
