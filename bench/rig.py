"""What the measurements of bench/ stand on: private PostgreSQL servers with a table of accounts,
a coordinator and participants on them, drivers that run rounds when told to, and where CPU time
and calls are read. Knows no figure that is asked for."""

import json
import os
import pathlib
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests/postgres"), str(ROOT / "examples/bank")]
import private_cluster  # noqa: E402  pylint: disable=wrong-import-position
from process import Process, StartError  # noqa: E402,F401  pylint: disable=wrong-import-position

JARS = ["btm", "postgresql", "geronimo-jta-1.2-spec", "slf4j-api", "slf4j-nop"]


class BenchError(Exception):
    """A measurement cannot be made; the text says why."""


def cpu_seconds(pids):
    """CPU time that these processes have used so far, by the scheduler's nanoseconds."""
    total = 0
    for pid in pids:
        for task in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(task.read_text().split()[0])
            except OSError:
                pass  # a thread or backend that has just ended
    return total / 1e9


def rss_mib(pid):
    """Resident memory of a process."""
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def segments_sent(ports):
    """Messages sent so far on established connections to these local ports. A call of the
    coordinator is one message; its connections have one unanswered call at most."""
    total = 0
    for port in ports:
        text = subprocess.run(["ss", "-tinHO", "state", "established", f"( dport = :{port} )"],
                              stdout=subprocess.PIPE, check=True, text=True).stdout
        for word in text.split():
            if word.startswith("data_segs_out:"):
                total += int(word.split(":")[1])
    return total


class Servers:
    """Private PostgreSQL servers, each with databases that have the table `account`."""

    def __init__(self, count, rows, databases=1, **settings):
        self.rows = rows
        self.clusters = [private_cluster.Cluster(f"bench{i}", **settings) for i in range(count)]
        threads = [threading.Thread(target=c.start) for c in self.clusters]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.names = ["postgres"]
        for extra in range(1, databases):
            self.names.append(f"bench{extra}")
        for cluster in self.clusters:
            for name in self.names:
                if name != "postgres":
                    cluster.psql(f"CREATE DATABASE {name}")
                cluster.psql(
                    "CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL) "
                    "WITH (fillfactor = 50);"
                    f"INSERT INTO account SELECT n, 0 FROM generate_series(1, {rows}) n", name)
                cluster.psql("VACUUM ANALYZE account", name)
            cluster.psql("CHECKPOINT")

    def conninfos(self):
        """One for each database, alternating between servers. A lock that is not had within
        two seconds ends a transaction, in whatever driver: two servers see no deadlock. Both
        limits are shorter than those of a branch, which then sets none (docs/participants.md)."""
        limits = "'-c lock_timeout=2000 -c idle_in_transaction_session_timeout=4500'"
        return [c.conninfo(name, options=limits)
                for name in self.names for c in self.clusters]

    def pids(self):
        """Of all server processes."""
        return [p for c in self.clusters for p in [c.pid, *c.children()] if p]

    def stop(self):
        """Stops and removes them."""
        for cluster in self.clusters:
            cluster.stop("immediate")


class Troth:
    """A coordinator and a participant for each connection string, as processes."""

    def __init__(self, binaries, directory, conninfos, pool_size, participant_flags=None,
                 coordinator_flags=()):
        directory = pathlib.Path(directory)
        wal = directory / "wal"
        subprocess.run([f"{binaries}/troth-coordinator", "--init", f"--wal_dir={wal}",
                        "--name=bench"], check=True, stdout=subprocess.DEVNULL)
        self._bin = binaries
        self.coordinator = Process(
            "coordinator", directory, False,
            [f"{binaries}/troth-coordinator", f"--wal_dir={wal}", *coordinator_flags],
            ["client_port", "peer_port", "admin_port"]).start()
        self.participants = []
        for i, conninfo in enumerate(conninfos):
            more = (participant_flags or {}).get(i, [])
            self.participants.append(Process(
                f"p{i}", directory, False,
                [f"{binaries}/bench-participant", f"--name=p{i}", f"--conninfo={conninfo}",
                 f"--coordinator=127.0.0.1:{self.coordinator.ports['peer_port']}",
                 f"--pool_size={pool_size}", f"--max_work_connections={pool_size + 8}", *more],
                ["port", "peer_port"]).start())
        end = time.monotonic() + 20
        while sum(p["up"] for p in self.status()["participants"]) < len(self.participants):
            if time.monotonic() > end:
                raise BenchError("the participants did not come up: " + self.coordinator.tail())
            time.sleep(0.05)

    @property
    def address(self):
        """Of the coordinator, for clients."""
        return f"127.0.0.1:{self.coordinator.ports['client_port']}"

    def status(self):
        """The coordinator's status, as trothctl tells it."""
        done = subprocess.run(
            [f"{self._bin}/trothctl", "--json",
             f"--coordinator=127.0.0.1:{self.coordinator.ports['admin_port']}", "status"],
            stdout=subprocess.PIPE, check=True, text=True)
        return json.loads(done.stdout)

    def settle(self):
        """Waits until nothing is under way."""
        end = time.monotonic() + 30
        while True:
            status = self.status()
            if status["in_flight"] == 0 and status["unacknowledged"] == 0:
                return status
            if time.monotonic() > end:
                raise BenchError(f"transactions do not end: {status}")
            time.sleep(0.02)

    def calls(self):
        """Calls of the coordinator to participants so far."""
        return segments_sent([p.ports["peer_port"] for p in self.participants])

    def stop(self):
        """SIGTERM to all."""
        self.coordinator.stop()
        for participant in self.participants:
            participant.stop()


class Driver:
    """A program that speaks the language of bench/rounds.h."""

    def __init__(self, name, command, log):
        self.name = name
        self._log = open(log, "ab")  # pylint: disable=consider-using-with
        self._log_path = log
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=self._log, text=True)
        if self._process.stdout.readline().strip() != "ready":
            self._fail()

    def _fail(self):
        self._process.wait(10)
        end = pathlib.Path(self._log_path).read_text(errors="replace")[-1500:]
        raise BenchError(f"{self.name} ended: {end}")

    def begin(self, mode, seconds):
        """Begins a round."""
        self._process.stdin.write(f"run {mode} {seconds}\n")
        self._process.stdin.flush()

    def end(self):
        """Figures of the round that was begun."""
        line = self._process.stdout.readline()
        if not line:
            self._fail()
        return json.loads(line)

    def run(self, mode, seconds):
        """One round; its figures."""
        self.begin(mode, seconds)
        return self.end()

    @property
    def pid(self):
        """Of the process."""
        return self._process.pid

    def children(self):
        """Processes that it began, in their order."""
        path = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def stop(self):
        """Ends its input, and waits for its end."""
        self._process.stdin.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def compile_bitronix(directory):
    """Compiles the driver of the peer; the command that begins it."""
    jars = ":".join(f"/usr/share/java/{jar}.jar" for jar in JARS)
    classes = pathlib.Path(directory) / "classes"
    classes.mkdir()
    subprocess.run(["javac", "-d", str(classes), "-cp", jars,
                    str(ROOT / "bench/BitronixDriver.java")], check=True)
    return ["java", "-cp", f"{classes}:{jars}", "BitronixDriver"]


def machine():
    """One line on what this ran on."""
    model = "unknown CPU"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = int(pathlib.Path("/proc/meminfo").read_text().split()[1]) / 2**20
    kernel = os.uname().release
    return f"{os.cpu_count()} x {model}, {memory:.0f} GiB, Linux {kernel}"


def median(values):
    """The middle one."""
    values = sorted(values)
    return values[len(values) // 2] if len(values) % 2 else (
        values[len(values) // 2 - 1] + values[len(values) // 2]) / 2
