"""troth-jepsen-client as seen from here: a process that takes requests as lines and gives
answers as lines, for several workers at once.  Used by one thread.
"""

import json
import os
import signal
import subprocess


class Client:
    """One client process.  `handle` is readable when `answers` has something to give."""

    def __init__(self, name, node, argv, log):
        self.name = name
        self._node = node
        self._argv = argv
        self._log = log
        self._popen = None
        self._rest = b''
        self.start()

    def __repr__(self):
        return self.name

    def start(self):
        with open(self._log, 'ab') as log:
            self._popen = subprocess.Popen(
                self._node.command(*self._argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, cwd='/', start_new_session=True)
        self._rest = b''
        os.set_blocking(self.handle.fileno(), False)

    @property
    def handle(self):
        return self._popen.stdout

    @property
    def alive(self):
        return self._popen.poll() is None

    @property
    def pid(self):
        return self._popen.pid

    def signal(self, number):
        if self.alive:
            os.kill(self._popen.pid, number)

    def kill(self):
        """Returns its exit code: -SIGKILL unless it had ended before."""
        self.signal(signal.SIGKILL)
        code = self._popen.wait()
        try:
            self._popen.stdin.close()
        except OSError:
            pass
        return code

    def ask(self, *request):
        """Sends a request.  A client that is dead takes it too; it is not answered."""
        try:
            self._popen.stdin.write(json.dumps(request, separators=(',', ':')).encode() + b'\n')
            self._popen.stdin.flush()
        except (OSError, ValueError):  # Gone, or closed by kill().
            pass

    def answers(self):
        """What has come since, without waiting; None at the end of the process."""
        try:
            read = os.read(self.handle.fileno(), 1 << 20)
        except BlockingIOError:
            return []
        if not read:
            return None
        lines = (self._rest + read).split(b'\n')
        self._rest = lines.pop()
        return [json.loads(line) for line in lines]
