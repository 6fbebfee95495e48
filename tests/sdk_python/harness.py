"""What the tests of the Python package and of conformance start: processes found by their port
files, ended by their pids; banks with a database each. Knows no rule."""

import ctypes
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "sdk" / "python"), str(ROOT / "tests" / "postgres")]

import private_cluster  # noqa: E402  pylint: disable=wrong-import-position
import troth  # noqa: E402  pylint: disable=wrong-import-position

PYTHON_BRANCH = ROOT / "examples" / "bank" / "python_branch.py"
troth.idl.load(ROOT / "examples" / "bank" / "bank.thrift")


def until(condition, seconds=10.0, what=""):
    """Waits until condition() is true, and returns it. AssertionError when time is up."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.01)


def _die_with_parent():
    """In the child: the kernel kills it should this process end without a word."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


class Process:
    """A program that writes a port file when it is ready. Ended with the test that made it."""

    def __init__(self, command, directory, failpoints="", ready_seconds=20.0, may_die=False):
        self.port_file = pathlib.Path(tempfile.mktemp(prefix="ports-", dir=directory))
        self.log_path = self.port_file.with_suffix(".log")
        environment = dict(os.environ, TROTH_FAILPOINTS=failpoints)
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [str(part) for part in command] + ["--port_file", str(self.port_file)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                preexec_fn=_die_with_parent)
        try:
            until(lambda: self.port_file.exists() or self.process.poll() is not None,
                  ready_seconds, f"{command[0]} ready")
            if not self.port_file.exists() and not may_die:
                raise AssertionError(f"{command} ended: {self.log()}")
        except BaseException:
            self.kill()
            raise
        self.ports = json.loads(self.port_file.read_text()) if self.port_file.exists() else {}

    def log(self):
        return self.log_path.read_text(errors="replace")[-4000:]

    def wait_for_death(self, seconds=20.0):
        """Until it has ended by itself; its exit code."""
        return self.process.wait(seconds)

    def kill(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """SIGTERM; its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def find_program(name):
    """TROTH_BIN, or a build tree of the presets; None when it was never built."""
    folders = [os.environ.get("TROTH_BIN", "")] + [
        str(ROOT / "build" / preset / "bin") for preset in ("release", "debug")]
    for folder in filter(None, folders):
        if os.access(os.path.join(folder, name), os.X_OK):
            return pathlib.Path(folder) / name
    return None


def make_bank(cluster, name, accounts=10, balance=1000, program=(sys.executable, PYTHON_BRANCH)):
    """A database with the bank's tables and accounts; its connection string."""
    cluster.psql(f'CREATE DATABASE "{name}"')
    conninfo = cluster.conninfo(name)
    subprocess.run([str(part) for part in (*program, "--init", "--conninfo", conninfo)], check=True,
                   stdout=subprocess.DEVNULL)
    cluster.psql("INSERT INTO account SELECT n, {0}, {0} FROM generate_series(1, {1}) n".format(
        balance, accounts), name)
    return conninfo


def python_branch(name, conninfo, coordinators, directory, failpoints="", may_die=False, **flags):
    command = [sys.executable, PYTHON_BRANCH, "--name", name, "--conninfo", conninfo,
               "--coordinators", coordinators]
    for flag, value in flags.items():
        command += [f"--{flag}", value]
    return Process(command, directory, failpoints, may_die=may_die)


def make_certificates(directory, *names):
    """With scripts/dev-certs; `names` are its options."""
    subprocess.run([str(ROOT / "scripts" / "dev-certs"), str(directory), *names], check=True,
                   stderr=subprocess.DEVNULL)


def tls_flags(directory, name):
    """Of a process that serves with that certificate; none without a directory."""
    if directory is None:
        return {}
    return {"tls_cert": f"{directory}/{name}.pem", "tls_key": f"{directory}/{name}.key",
            "tls_ca": f"{directory}/ca.pem", "tls_roles": f"{directory}/roles"}


def start_coordinator(directory, **flags):
    """The real one, with a new log. None when it was never built."""
    program = find_program("troth-coordinator")
    if program is None:
        return None
    wal = pathlib.Path(directory) / "wal"
    subprocess.run([str(program), "--init", "--wal_dir", str(wal), "--name", "test"], check=True,
                   stdout=subprocess.DEVNULL)
    return restart_coordinator(directory, **flags)


def restart_coordinator(directory, failpoints="", peer_port=0, client_port=0, **flags):
    program = find_program("troth-coordinator")
    wal = pathlib.Path(directory) / "wal"
    return Process([program, "--wal_dir", wal, "--client_port", client_port, "--peer_port",
                    peer_port, "--admin_port", 0,
                    *(f"--{flag}={value}" for flag, value in flags.items())], directory, failpoints)
