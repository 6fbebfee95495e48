"""One process of a demo or a test: started until it says its ports, killed by its recorded pid,
started again at the same ports. Dies with the process that started it, unless kept."""

import ctypes
import json
import os
import pathlib
import signal
import subprocess
import time

PR_SET_PDEATHSIG = 1


class StartError(Exception):
    """Something did not start; the text says what, why, and where its log is."""


class Process:
    """A program with --port_file. Not thread-safe; start() from a thread that lives as long."""

    def __init__(self, name, directory, keep, command, ports):
        self.name = name
        self.log = pathlib.Path(directory) / f"{name}.log"
        self.ports = {}
        self._command = command
        self._names = ports
        self._keep = keep
        self._port_file = pathlib.Path(directory) / f"{name}.ports"
        self._process = None

    @property
    def pid(self):
        """Of the last one started."""
        return self._process.pid

    def running(self):
        """True while it lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_s=20):
        """Starts it, the first time at ports of its own choice; returns when it is ready."""
        self._port_file.unlink(missing_ok=True)
        ports = [f"--{name}={self.ports.get(name, 0)}" for name in self._names]
        libc = ctypes.CDLL(None, use_errno=True)

        def die_with_parent():
            if not self._keep:
                libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *ports, f"--port_file={self._port_file}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=die_with_parent)
        end = time.monotonic() + timeout_s
        while not self._port_file.exists():
            if self._process.poll() is not None:
                raise StartError(f"{self.name} ended with {self._process.returncode}: {self.tail()}")
            if time.monotonic() > end:
                raise StartError(f"{self.name} was not ready after {timeout_s} s: {self.tail()}")
            time.sleep(0.005)
        said = json.loads(self._port_file.read_text(encoding="utf-8"))
        self.ports = {name: said[name] for name in self._names}
        return self

    def tail(self):
        """The end of its log."""
        return self.log.read_text(errors="replace")[-1000:].strip()

    def kill(self):
        """SIGKILL; returns when it is gone."""
        self._process.kill()
        self._process.wait()

    def signal(self, number):
        """Sends a signal."""
        self._process.send_signal(number)

    def stop(self, timeout_s=12):
        """SIGTERM, and SIGKILL if that takes too long. Its exit code."""
        if self._process is None:
            return 0
        if self.running():
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.returncode

    @staticmethod
    def stop_pid(name, pid, directory):
        """Stops a process kept by another run, if the pid still belongs to it: its command line
        names a file of `directory`."""
        command = pathlib.Path(f"/proc/{pid}/cmdline")
        try:
            if f"{directory}/{name}.ports" not in command.read_text():
                return
        except OSError:
            return
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + 12
        while command.exists() and time.monotonic() < end:
            time.sleep(0.02)
        if command.exists():
            os.kill(pid, signal.SIGKILL)
