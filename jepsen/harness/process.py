"""One process of the system under test: started on its node, signalled by its recorded pid,
started again when it ought to run.  Knows nothing of what it does.
"""

import json
import os
import signal
import subprocess
import threading
import time


class Process:
    """A program that ought to run until told otherwise.

    Thread-safe.  `argv` is the program with its flags; a `port_file` makes start() wait for
    readiness.  Output goes to `log`, appended.  `refusal`: the exit code with which it may end
    before it is ready, as when its server is away.  No death is lost: reap() tells each.
    """

    def __init__(self, name, node, argv, log, port_file=None, env=None, refusal=None):
        self.name = name
        self.node = node
        self.argv = list(argv)
        self.env = dict(env or {})
        self.prefix = []          # Put in front of argv: a tracer.
        self.log = log
        self.port_file = port_file
        self.wanted = False       # The supervisor starts it when it is not alive.
        self.starts = 0
        self.refusal = refusal
        self._killed = False      # By us: its death is no surprise.
        self._expected = None     # The exit code that is none in this life.
        self._code = None
        self._deaths = []         # (exit code, surprise), not told yet.
        self._popen = None
        self._lock = threading.RLock()

    def __repr__(self):
        return self.name

    @property
    def pid(self):
        return self._popen.pid if self._popen else None

    @property
    def alive(self):
        with self._lock:
            return self._popen is not None and self._popen.poll() is None

    @property
    def code(self):
        """Its exit code; None while it lives."""
        with self._lock:
            self._see_death()
            return self._code

    def launch(self, env=None, watched=True, expected=None):
        """Starts it, without waiting for anything.  `env`: variables for this life only; not
        `watched`: nobody starts it again, and its death is no surprise; `expected`: expect()."""
        with self._lock:
            if self.alive:
                return
            self._see_death()
            if self.port_file and os.path.exists(self.port_file):
                os.unlink(self.port_file)
            with open(self.log, 'ab') as log:
                log.write(f'--- start {self.starts} at {time.strftime("%H:%M:%S")}\n'.encode())
                log.flush()
                self._popen = subprocess.Popen(
                    self.node.command(*self.prefix, *self.argv), stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, cwd='/', env={**os.environ, **self.env, **(env or {})},
                    start_new_session=True)
            self.starts += 1
            self.wanted = watched
            self._killed = not watched
            self._expected = expected
            self._code = None

    @property
    def ready(self):
        """It is alive and has written its port file."""
        return self.alive and (self.port_file is None or os.path.exists(self.port_file))

    def wait_ready(self, seconds=30):
        """True when ready, False when it has died or the time is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.ready:
                return True
            if not self.alive:
                return False
            time.sleep(0.01)
        return False

    def start(self, seconds=30):
        """Starts it and returns when it is ready.  RuntimeError with its last words if not."""
        self.launch()
        if not self.wait_ready(seconds):
            raise RuntimeError(f'{self.name} did not start:\n{self.last_words()}')
        return self

    def ports(self):
        with open(self.port_file, encoding='utf-8') as file:
            return json.load(file)

    def lives(self, pid):
        """The life that had this pid has not ended."""
        with self._lock:
            return self.pid == pid and self.alive

    def wait_death(self, seconds):
        """True when it has ended within so many seconds."""
        end = time.monotonic() + seconds
        while self.alive and time.monotonic() < end:
            time.sleep(0.01)
        return not self.alive

    def last_words(self, count=15):
        with open(self.log, encoding='utf-8', errors='replace') as log:
            return ''.join(log.readlines()[-count:]).rstrip()

    def signal(self, number):
        """True when it was alive to get it."""
        with self._lock:
            if not self.alive:
                return False
            os.kill(self._popen.pid, number)
            return True

    def kill(self):
        """SIGKILL; returns when it is gone.  It is not wanted any more."""
        with self._lock:
            self.abandon()
            if not self.signal(signal.SIGKILL):
                return False
            popen = self._popen
        popen.wait()
        return True

    def abandon(self):
        """What it dies of from here on is our doing, and nobody starts it but launch()."""
        with self._lock:
            self._see_death()     # What it died of before is not.
            self.wanted = False
            self._killed = True

    def expect(self, code):
        """In this life it may end with this code, and is started again; None: with none."""
        with self._lock:
            self._see_death()
            self._expected = code

    def pause(self):
        return self.signal(signal.SIGSTOP)

    def resume(self):
        return self.signal(signal.SIGCONT)

    def reap(self):
        """(exit code, surprise) of the oldest death not told yet, or None."""
        with self._lock:
            self._see_death()
            return self._deaths.pop(0) if self._deaths else None

    def _see_death(self):
        if self._popen is None or self._popen.poll() is None:
            return
        self._code, self._popen = self._popen.returncode, None
        ready = self.port_file is None or os.path.exists(self.port_file)
        excused = self._code == self._expected or (self._code == self.refusal and not ready)
        self._deaths.append((self._code, not (self._killed or excused)))


class Supervisor:
    """Starts what ought to run and does not, as an init system would: after a moment, again and
    again.  `tell(name, code, surprise)` hears of every death."""

    def __init__(self, processes, tell, pause_seconds=0.3):
        self._processes = processes
        self._tell = tell
        self._pause = pause_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        due = {}
        while not self._stop.wait(0.05):
            now = time.monotonic()
            for process in self._processes:
                if self._tell_deaths(process):
                    due[process] = now + self._pause
                if process.wanted and not process.alive and now >= due.get(process, 0):
                    process.launch()

    def _tell_deaths(self, process):
        """True when there were some."""
        some = False
        while (death := process.reap()) is not None:
            self._tell(process.name, *death)
            some = True
        return some

    def stop(self):
        self._stop.set()
        self._thread.join()
        for process in self._processes:
            self._tell_deaths(process)
