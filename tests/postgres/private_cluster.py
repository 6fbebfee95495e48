#!/usr/bin/python3
"""Private PostgreSQL 15 clusters for tests, demos and benchmarks.

A cluster lives in a directory of its own, listens on 127.0.0.1 and on a socket in that
directory, and is found again by its directory alone: its postmaster is the process named in
postmaster.pid whose working directory is that directory, so a signal never reaches anything
else. Whatever was started is stopped again: by stop(), at exit, on SIGTERM, and, when this
process is killed, by a guardian process that notices. The system's clusters are never touched.

As a library:

    with Cluster("east", max_prepared_transactions=200) as east:
        connect(east.conninfo())
        east.kill()        # SIGKILL to the postmaster and all its children
        east.start()       # crash recovery, same port

As a command (used by tests in C++):

    private_cluster.py create|start|stop|kill|promote|standby|pid --dir DIR ...
"""

import argparse
import atexit
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

BIN = pathlib.Path(os.environ.get("TROTH_PG_BIN", "/usr/lib/postgresql/15/bin"))
OWNER = "postgres"

# What a cluster is unless told otherwise: small, and as durable as a real one.
DEFAULTS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_connections": 200,
    "max_prepared_transactions": 400,
    "shared_buffers": "64MB",
    "max_wal_size": "1GB",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] ",
    "logging_collector": "off",
    "lc_messages": "C",
    "autovacuum_naptime": "10s",
}


class ClusterError(Exception):
    """Something about a cluster failed; the text names the directory and says why."""


def _run_as():
    """Arguments for subprocess that make the child run as the owner of clusters."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(OWNER)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _environment():
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    environment["LC_ALL"] = "C.UTF-8"
    return environment


def _run(*command, timeout=120):
    """Runs a tool of PostgreSQL as the clusters' owner; ClusterError with its output if it fails."""
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=timeout, cwd="/tmp",
                          env=_environment(), stdin=subprocess.DEVNULL, check=False, **_run_as())
    if done.returncode != 0:
        raise ClusterError(f"{command[0]} failed ({done.returncode}): {done.stdout.strip()[-2000:]}")
    return done.stdout


def free_port():
    """A port nobody listens on, below the range the kernel gives to outgoing connections,
    so that it is still free when a killed cluster comes back."""
    for _ in range(1000):
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise ClusterError("no free port between 20000 and 32000 on 127.0.0.1")


def _process_state(pid):
    """(state letter, parent) of a process, or None."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2:].split()
    return fields[0], int(fields[1])


def _alive(pid):
    state = _process_state(pid)
    return state is not None and state[0] not in "ZX"


def _children(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            state = _process_state(int(entry))
            if state is not None and state[1] == pid:
                found.append(int(entry))
    return found


def _signal(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _reap(pid):
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass


def _wait_gone(pid, seconds):
    """Waits until the process has ended; reaps it if it is our child (else its parent will)."""
    end = time.monotonic() + seconds
    while _alive(pid) and time.monotonic() < end:
        _reap(pid)
        time.sleep(0.005)
    _reap(pid)
    return not _alive(pid)


def postmaster_of(data):
    """Pid of the live postmaster of a data directory, or None."""
    try:
        pid = int((pathlib.Path(data) / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None
    if not _alive(pid):
        return None
    try:
        if os.readlink(f"/proc/{pid}/cwd") != os.path.realpath(data):
            return None  # a stale file whose pid belongs to somebody else by now
    except OSError:
        return None
    return pid


def _stop_data(data, number, seconds):
    """Stops the postmaster of `data` with the signal; after `seconds` kills it."""
    pid = postmaster_of(data)
    if pid is None:
        return
    _signal(pid, number)
    _signal(pid, signal.SIGCONT)
    if not _wait_gone(pid, seconds):
        kill_tree(pid)


def kill_tree(pid):
    """SIGKILL to a postmaster and every child of it; returns when all are gone."""
    _signal(pid, signal.SIGSTOP)  # so that it starts no more children
    children = _children(pid)
    for victim in [pid] + children:
        _signal(victim, signal.SIGKILL)
    for victim in [pid] + children:
        _wait_gone(victim, 10)


class _Guardian:
    """A process that outlives ours by a moment: when our end of the pipe closes, for whatever
    reason, it stops the clusters named to it and removes the directories that are temporary."""

    def __init__(self):
        self._pipe = None
        self._owner = None
        self._lock = threading.Lock()

    def tell(self, line):
        with self._lock:
            if self._pipe is None or self._owner != os.getpid():
                self._start()
            self._pipe.write(line + "\n")
            self._pipe.flush()

    def _start(self):
        process = subprocess.Popen([sys.executable, os.path.abspath(__file__), "guardian"],
                                   stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                   start_new_session=True, text=True, cwd="/")
        self._pipe = process.stdin
        self._owner = os.getpid()

    @staticmethod
    def serve():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        watched = {}
        for line in sys.stdin:
            word, _, path = line.rstrip("\n").partition(" ")
            if word == "forget":
                watched.pop(path, None)
            else:
                watched[path] = word == "temporary"
        for path, temporary in watched.items():
            for data in _data_directories(path):
                _stop_data(data, signal.SIGQUIT, 10)
            if temporary:
                shutil.rmtree(path, ignore_errors=True)


def _data_directories(root):
    """The data directories at or below `root` (two levels)."""
    root = pathlib.Path(root)
    return [p.parent for pattern in ("PG_VERSION", "*/PG_VERSION", "*/*/PG_VERSION")
            for p in root.glob(pattern)]


_guardian = _Guardian()
_live = []


class Cluster:
    """One private cluster.

    `dir` is where it lives: `<dir>/data`, `<dir>/log`, the socket. Without it a directory
    under /tmp is made and removed again by stop(). An existing `dir` with data is taken as it
    is, with the port it had. `settings` are settings of postgresql.conf and override DEFAULTS.
    Not thread-safe per object; different objects may be used from different threads.
    """

    def __init__(self, name, dir=None, port=None, **settings):  # pylint: disable=redefined-builtin
        self.name = name
        self.temporary = dir is None
        self.dir = pathlib.Path(dir if dir is not None
                                else tempfile.mkdtemp(prefix=f"troth-pg-{name}-", dir="/tmp")).resolve()
        self.data = self.dir / "data"
        self.log = self.dir / "log"
        self.settings = {**DEFAULTS, **settings}
        self._detached = False
        self.dir.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            self.dir.chmod(0o755)
            shutil.chown(self.dir, OWNER, OWNER)
        if port is None and (self.data / "troth.port").exists():
            port = int((self.data / "troth.port").read_text())
        self.port = port
        _guardian.tell(("temporary " if self.temporary else "keep ") + str(self.dir))
        _live.append(self)

    # Life -------------------------------------------------------------------------------

    def start(self, timeout=60):
        """Makes the cluster if there is none, starts it, and returns when it accepts
        connections. Returns self. The port stays the same for the life of the directory."""
        if self.pid is not None:
            return self
        if not (self.data / "PG_VERSION").exists():
            _run(BIN / "initdb", "-D", self.data, "-U", OWNER, "-A", "trust", "--no-sync",
                 "-E", "UTF8", "--locale=C.UTF-8")
            self._configure(self.settings)
        for _ in range(10):
            fresh = self.port is None
            if fresh:
                self.port = free_port()
            (self.data / "troth.port").write_text(str(self.port))
            if self._launch(timeout):
                return self
            if not fresh:
                raise ClusterError(f"{self.dir}: port {self.port} is taken")
            self.port = None
        raise ClusterError(f"{self.dir}: found no free port in 10 attempts")

    def stop(self, mode="fast", timeout=30):
        """Stops it (`fast`, `smart` or `immediate`), and removes a temporary directory."""
        number = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]
        _stop_data(self.data, number, timeout)
        if self.temporary:
            shutil.rmtree(self.dir, ignore_errors=True)
            _guardian.tell("forget " + str(self.dir))
        if self in _live:
            _live.remove(self)

    def shutdown(self, mode="fast", timeout=30):
        """As stop(), but the directory stays, to be started again."""
        number = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]
        _stop_data(self.data, number, timeout)

    def kill(self):
        """SIGKILL to the postmaster and all its children. start() recovers it."""
        pid = self.pid
        if pid is not None:
            kill_tree(pid)

    def restart(self, mode="fast"):
        self.shutdown(mode)
        return self.start()

    def detach(self):
        """Leaves it running when this process ends (a demo's --keep)."""
        self._detached = True
        _guardian.tell("forget " + str(self.dir))
        if self in _live:
            _live.remove(self)

    @property
    def pid(self):
        """Pid of the live postmaster, or None."""
        return postmaster_of(self.data)

    def children(self):
        """Pids of the postmaster's children (backends and helpers)."""
        pid = self.pid
        return _children(pid) if pid is not None else []

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    # Use ----------------------------------------------------------------------------------

    def conninfo(self, dbname="postgres", **more):
        """A libpq connection string for the superuser on loopback."""
        parts = {"host": "127.0.0.1", "port": self.port, "user": OWNER, "dbname": dbname, **more}
        return " ".join(f"{k}={v}" for k, v in parts.items())

    def psql(self, sql, dbname="postgres"):
        """Runs SQL (several statements allowed), returns unaligned rows as text."""
        return _run(BIN / "psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1",
                    "-d", self.conninfo(dbname), "-c", sql)

    def set(self, **settings):
        """Changes settings of postgresql.conf; the caller reloads or restarts."""
        self._configure(settings)

    def standby(self, name, dir=None, **settings):  # pylint: disable=redefined-builtin
        """A streaming standby of this cluster, started; promote() makes it a primary."""
        other = Cluster(name, dir, **{**self.settings, **settings})
        _run(BIN / "pg_basebackup", "-D", other.data, "-R", "-X", "stream", "-c", "fast",
             "-d", self.conninfo("postgres", application_name=name))
        (other.data / "troth.port").unlink(missing_ok=True)
        other._configure(settings)
        return other.start()

    def clone(self, name, dir=None, **settings):  # pylint: disable=redefined-builtin
        """A physical copy, started: the same system identifier, timeline and prepared transactions,
        and a primary of its own from here on."""
        other = Cluster(name, dir, **{**self.settings, **settings})
        _run(BIN / "pg_basebackup", "--no-sync", "-D", other.data, "-X", "stream", "-c", "fast",
             "-d", self.conninfo("postgres", application_name=name))
        (other.data / "troth.port").unlink(missing_ok=True)
        other._configure(settings)
        return other.start()

    def promote(self):
        """Makes a standby a primary, on a timeline of its own; returns when it accepts writes."""
        self.psql("SELECT pg_promote(true, 60)")

    # Inside -------------------------------------------------------------------------------

    def _configure(self, settings):
        text = "".join(f"{key} = '{value}'\n" for key, value in settings.items())
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as conf:
            conf.write(text)

    def _launch(self, timeout):
        """Starts the postmaster; False when the port is taken."""
        stale = self.data / "postmaster.pid"
        if stale.exists() and self.pid is None:
            stale.unlink()  # the process is gone, as pid() has seen
        with open(self.log, "ab") as log:
            start = log.tell()
            process = subprocess.Popen(
                [str(BIN / "postgres"), "-D", str(self.data), "-p", str(self.port),
                 "-k", str(self.dir)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                env=_environment(), start_new_session=True, **_run_as())
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if process.poll() is not None:
                with open(self.log, "rb") as log:
                    log.seek(start)
                    text = log.read().decode("utf-8", "replace")
                if "could not bind" in text or "could not create any TCP/IP sockets" in text:
                    return False
                raise ClusterError(f"{self.dir}: the server did not start: {text.strip()[-2000:]}")
            if self._ready(process.pid):
                return True
            time.sleep(0.01)
        kill_tree(process.pid)
        raise ClusterError(f"{self.dir}: the server was not ready after {timeout} s; see {self.log}")

    def _ready(self, pid):
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() in ("ready", "standby")


def stop_all():
    """Stops every cluster this process started and did not detach."""
    for cluster in list(_live):
        cluster.stop("immediate", 10)


def stop_below(root):
    """Stops every cluster whose data lies below `root`, whoever started it."""
    for data in _data_directories(root):
        _stop_data(data, signal.SIGQUIT, 10)


def stop_on_signals():
    """Makes SIGTERM and SIGHUP end this program through its exit handlers."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, lambda n, _: sys.exit(128 + n))


atexit.register(stop_all)


def _main():
    parser = argparse.ArgumentParser(description="Private PostgreSQL clusters for tests.")
    parser.add_argument("command", choices=["create", "start", "stop", "kill", "promote",
                                            "standby", "pid", "guardian"])
    parser.add_argument("--dir", help="where the cluster lives")
    parser.add_argument("--name", default="private", help="its name, for logs")
    parser.add_argument("--of", help="standby: directory of the primary")
    parser.add_argument("--mode", default="fast", choices=["smart", "fast", "immediate"])
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                        help="a setting of postgresql.conf")
    options = parser.parse_args()
    if options.command == "guardian":
        _Guardian.serve()
        return 0
    if not options.dir:
        parser.error("--dir is needed")
    settings = dict(s.split("=", 1) for s in options.set)
    try:
        if options.command == "standby":
            cluster = Cluster("primary", options.of).standby(options.name, options.dir, **settings)
        else:
            cluster = Cluster(options.name, options.dir, **settings)
            if options.command in ("create", "start"):
                cluster.start()
            elif options.command == "stop":
                cluster.shutdown(options.mode)
            elif options.command == "kill":
                cluster.kill()
            elif options.command == "promote":
                cluster.promote()
        print(cluster.pid if options.command == "pid" else cluster.conninfo())
    except (ClusterError, OSError, subprocess.SubprocessError) as error:
        print(f"private_cluster: {error}", file=sys.stderr)
        return 1
    finally:
        for left in list(_live):
            left.detach()  # the harness that owns the directory stops it
    return 0


if __name__ == "__main__":
    sys.exit(_main())
