#!/usr/bin/python3
"""Every alert rule of docs/monitoring fires: a real Prometheus watches a bank of real processes, and
what each rule is for is made to happen. Durations are shortened for it, conditions are not.

    alerts.py --bin build/release/bin

The last line is `alerts: rules=N fired=N`; exits 0 when all fired and promtool finds no fault.
"""

import errno
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from stuck_bank import StuckBank, until, transfer  # noqa: E402  pylint: disable=wrong-import-position
from process import Process  # noqa: E402  pylint: disable=wrong-import-position

RULES = ROOT / "docs" / "monitoring" / "troth-alerts.yml"
DASHBOARD = ROOT / "docs" / "monitoring" / "troth-dashboard.json"
INSIDE = "TROTH_ALERTS_INSIDE"
DISK_MIB = 12  # of the coordinator whose disk gets full


def say(text):
    """A line for people."""
    print(text, flush=True)


def shortened(text):
    """The rules with test-sized durations: what must last minutes lasts a second, rates are of the
    last seconds. The figures compared are those of time or of transactions begun."""
    text = re.sub(r"for: [0-9]+[sm]", "for: 1s", text)
    text = re.sub(r"\[[0-9]+m\]", "[10s]", text)
    text = re.sub(r"(_seconds) > [0-9]+", r"\1 > 2", text)
    return re.sub(r"(troth_prepared_xmin_age) > [0-9]+", r"\1 > 3", text)


def free_port():
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Prometheus:
    """A private one; scrapes twice a second."""

    def __init__(self, directory, targets):
        self.dir = pathlib.Path(directory)
        self.dir.mkdir()
        self.port = free_port()
        self.fired = {}
        (self.dir / "rules.yml").write_text(shortened(RULES.read_text(encoding="utf-8")),
                                            encoding="utf-8")
        jobs = [{"job_name": job, "static_configs": [{"targets": where}]}
                for job, where in targets.items()]
        (self.dir / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms",
                       "evaluation_interval": "500ms"},
            "rule_files": ["rules.yml"], "scrape_configs": jobs}), encoding="utf-8")
        self.process = None

    def start(self):
        """Returns when it answers."""
        with open(self.dir / "log", "wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={self.dir}/prometheus.yml",
                 f"--storage.tsdb.path={self.dir}/data",
                 f"--web.listen-address=127.0.0.1:{self.port}"],
                stdout=log, stderr=log, start_new_session=True)
        until("Prometheus answers", self._ready, 60)

    def _ready(self):
        if self.process.poll() is not None:
            raise RuntimeError((self.dir / "log").read_text()[-2000:])
        try:
            return self.ask("/-/ready") is not None
        except OSError:
            return False

    def ask(self, path):
        """Text of a page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as reply:
            return reply.read().decode()

    def value(self, query):
        """Of an instant query; None: no such series."""
        from urllib.parse import quote
        found = json.loads(self.ask(f"/api/v1/query?query={quote(query)}"))["data"]["result"]
        return float(found[0]["value"][1]) if found else None

    def look(self):
        """Notes what fires now."""
        for alert in json.loads(self.ask("/api/v1/alerts"))["data"]["alerts"]:
            name = alert["labels"]["alertname"]
            if alert["state"] == "firing" and name not in self.fired:
                self.fired[name] = alert
                say(f"  fired: {name}: {alert['annotations']['summary']}")

    def await_fired(self, *names, seconds=60, meanwhile=lambda: None):
        """Until all of them fired."""
        def all_fired():
            meanwhile()
            self.look()
            return all(name in self.fired for name in names)
        until(f"{', '.join(n for n in names if n not in self.fired)} fires", all_fired, seconds)

    def stop(self):
        """Ends it."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Scene:
    """The bank, the Prometheus, and what goes wrong."""

    def __init__(self, bin_dir):
        self.bin = pathlib.Path(bin_dir)
        self.stuck = StuckBank(bin_dir)
        self.bank = self.stuck.bank
        self.small = None
        self.disk = None
        self.prometheus = None

    def start(self):
        """All is well."""
        self.stuck.start()
        self.start_small()
        at = lambda p: f"127.0.0.1:{p.ports['http_port']}"  # noqa: E731
        self.prometheus = Prometheus(self.bank.dir / "prometheus", {
            "troth-coordinator": [at(self.bank.coordinator), at(self.small)],
            "troth-participant": [at(b) for b in self.bank.branches.values()]})
        self.prometheus.start()
        until("all is scraped", lambda: self.prometheus.value("sum(up)") == 4, 60)
        until("heuristics are scraped", lambda: self.prometheus.value(
            "count(troth_heuristics)") == 2, 60)
        self.transfer(5)
        self.transfer(1, "east/999999=-1")  # no such account: aborted
        until("syncs are seen", lambda: self.prometheus.value(
            "sum(rate(troth_log_sync_duration_seconds_count[10s]))"))
        quiet_from = time.monotonic()
        while time.monotonic() < quiet_from + 3:  # that nothing fires can only be waited for
            self.transfer()
            self.prometheus.look()
        if self.slow_syncs():  # this disk is: of so few syncs, one is the 99th percentile
            self.prometheus.fired.pop("TrothLogSlow", None)
        quiet = set(self.prometheus.fired)
        assert not quiet, f"fired although all is well: {quiet}"

    def slow_syncs(self):
        """How many syncs of a log took more than 100 ms, as the coordinators tell."""
        slow = 0
        for coordinator in (self.bank.coordinator, self.small):
            url = f"http://127.0.0.1:{coordinator.ports['http_port']}/metrics"
            with urllib.request.urlopen(url, timeout=10) as reply:
                at_most = dict(re.findall(r'^troth_log_sync_duration_seconds_bucket\{le="([^"]+)"\} (\d+)$',
                                          reply.read().decode(), re.MULTILINE))
            slow += int(at_most["+Inf"]) - int(at_most["0.1"])
        return slow

    def start_small(self):
        """Another coordinator, on a small disk of its own."""
        self.disk = self.bank.dir / "small"
        self.disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs",
                        str(self.disk)], check=True)
        wal = self.disk / "wal"
        wal.mkdir()
        program = str(self.bin / "troth-coordinator")
        size = ["--wal_segment_bytes", "131072"]
        subprocess.run([program, "--init", "--wal_dir", str(wal), "--name", "small", *size],
                       check=True, stdout=subprocess.DEVNULL)
        self.small = Process("small", self.bank.dir, False, [program, "--wal_dir", str(wal), *size],
                             ["client_port", "peer_port", "admin_port", "http_port"])
        self.small.start()

    def transfer(self, count=1, leg="east/20=-1"):
        """Commits, or does not."""
        for _ in range(count):
            subprocess.run(self.bank.client("transfer", leg, "west/20=1"),
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60,
                           check=False)

    def stop(self):
        """Ends all of it."""
        if self.prometheus is not None:
            self.prometheus.stop()
        if self.small is not None:
            self.small.stop(timeout_s=3)
        self.stuck.stop()

    # ---- what goes wrong

    def disk_full(self):
        """The small disk has no room left; keys are closed, which are kept, until the log notices."""
        client = transfer.connect_coordinator(
            f"127.0.0.1:{self.small.ports['client_port']}", 10)
        fill = os.open(self.disk / "fill", os.O_WRONLY | os.O_CREAT)
        keys = iter(range(1_000_000))

        def write():
            from troth.wire.values.ttypes import Refused
            try:
                while os.write(fill, b"\0" * 65536):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
            try:
                for _ in range(500):
                    client.close_key(f"key {next(keys)} ".ljust(128, "."))
            except Refused:
                pass
        self.prometheus.await_fired("TrothLogFull", "TrothNotServing", meanwhile=write)
        os.close(fill)

    def slow_disk(self):
        """Each sync of the bank's log takes 300 ms longer."""
        tracer = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e",
             "inject=fdatasync:delay_enter=300000", "-p", str(self.bank.coordinator.pid)])
        try:
            self.prometheus.await_fired("TrothLogSlow", meanwhile=self.transfer)
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait()

    def participant_lost(self):
        """East is gone with a branch prepared; an unheard-of branch at west blocks a session."""
        identity = self.stuck.stick(account=1)
        blocker, _ = self.stuck.begin(account=2, names=("west",))
        waiters = self.stuck.wait_behind("west", 2, 2)
        for _ in range(5):
            self.bank.sql("west", "SELECT pg_current_xact_id()")
        self.prometheus.await_fired("TrothParticipantDown", "TrothParticipantProcessDown",
                                    "TrothTransactionStuck", "TrothBranchInDoubt",
                                    "TrothSessionsBlocked", "TrothVacuumHeldBack", seconds=25)
        self.stuck.ctl("resolve", blocker, "--abort", "--reason", "the test is over", "--yes")
        for waiter in waiters:
            waiter.join(20)
            assert waiter.done, "what blocked it was rolled back"
        return identity

    def settled_by_hand(self, identity):
        """Somebody rolls a committed branch back in psql."""
        self.bank.sql("east", f"ROLLBACK PREPARED 'troth:east:{identity}'")
        self.bank.branches["east"].start()
        self.prometheus.await_fired("TrothHeuristic")

    def over_a_limit(self):
        """East owes more acknowledgements than the coordinator allows."""
        coordinator = self.bank.coordinator
        coordinator.stop()
        command = list(coordinator._command)  # pylint: disable=protected-access
        coordinator._command.append("--max_unacknowledged=1")  # pylint: disable=protected-access
        coordinator.start()
        until("east and west are up", self.both_up)
        identity = self.stuck.stick(account=3)

        def refused():
            from troth.wire.coordinator.ttypes import BranchClaim, CommitRequest, Wait
            from troth.wire.values.ttypes import Refused
            client = self.stuck.connect()
            lease = client.lease(1)
            try:
                client.commit(CommitRequest(
                    transaction_id=f"{lease.prefix}{lease.first}", deadline_ms=1_000,
                    wait=Wait.DECIDED,
                    branches=[BranchClaim(participant="east", mark="m", works=1, instance="i")]))
            except Refused:
                pass
        self.prometheus.await_fired("TrothOverloaded", meanwhile=refused)
        coordinator.stop()
        coordinator._command[:] = command  # pylint: disable=protected-access
        coordinator.start()
        return identity

    def moved_away(self):
        """East's name is bound to another database while its former one owes a finish: nobody can
        tell any more how that branch ends."""
        self.stuck.ctl("participants", "rebind", "east")
        self.bank.clusters["west"].psql("CREATE DATABASE moved")
        conninfo = self.bank.clusters["west"].conninfo("moved")
        program = str(self.bin / "bank-branch")
        subprocess.run([program, "--init", "--conninfo", conninfo], check=True)
        east = self.bank.branches["east"]
        former = list(east._command)  # pylint: disable=protected-access
        command = east._command  # pylint: disable=protected-access
        command[command.index("--conninfo") + 1] = conninfo
        east.start()
        self.prometheus.await_fired("TrothHazard")
        east.stop()
        command[:] = former
        self.stuck.ctl("participants", "rebind", "east")
        self.bank.sql("east", "SELECT 1")

    def both_up(self):
        """The coordinator is connected to both banks."""
        return all(p["up"] for p in self.stuck.ctl_json("participants"))

    def coordinator_lost(self):
        """It is killed."""
        self.bank.coordinator.kill()
        self.prometheus.await_fired("TrothCoordinatorDown", "TrothNoCoordinator")
        self.bank.coordinator.start()

    def database_lost(self):
        """West's server is stopped."""
        self.bank.clusters["west"].kill()
        self.prometheus.await_fired("TrothDatabaseDown")
        self.bank.clusters["west"].start()

    def log_cut(self):
        """The bank's log is put back to an earlier copy."""
        wal = self.bank.dir / "wal"
        copy = self.bank.dir / "wal-copy"
        self.bank.coordinator.stop()
        shutil.copytree(wal, copy)
        self.bank.coordinator.start()
        until("west has enrolled", lambda: next(
            p for p in self.stuck.ctl_json("participants")
            if p["participant"] == "west")["silent_ms"] >= 0, 30)
        self.bank.coordinator.stop()
        shutil.rmtree(wal)
        shutil.move(copy, wal)
        self.bank.coordinator.start()
        self.prometheus.await_fired("TrothLogSuspect")


def rule_names():
    """Of the file, in its order."""
    return re.findall(r"^ +- alert: (\S+)$", RULES.read_text(encoding="utf-8"), re.MULTILINE)


def check_files(scene):
    """promtool's opinion; and each metric that a rule or the dashboard names was scraped."""
    subprocess.run(["promtool", "check", "rules", str(RULES)], check=True,
                   stdout=subprocess.DEVNULL)
    queries = [t["expr"] for p in json.loads(DASHBOARD.read_text())["panels"]
               for t in p["targets"]]
    text = RULES.read_text(encoding="utf-8") + "\n".join(queries)
    names = set(re.findall(r"\btroth_[a-z_]+", re.sub(r'"[^"]*"', "", text)))
    missing = sorted(n for n in names if scene.prometheus.value(
        f'count(last_over_time({{__name__="{n}"}}[10m]))') is None)
    assert not missing, f"nobody tells {missing}"
    for query in queries:
        scene.prometheus.value(query)  # an error is an HTTP error


def enter():
    """A mount namespace of its own, so that the small disk goes with this process."""
    if os.environ.pop(INSIDE, None):
        return
    if os.geteuid() != 0:
        sys.exit("alerts: CANNOT RUN HERE: mounting a small disk takes root: run it with sudo")
    for tool in ("prometheus", "promtool", "strace"):
        if shutil.which(tool) is None:
            sys.exit(f"alerts: CANNOT RUN HERE: there is no {tool}: scripts/setup test")
    done = subprocess.run(["unshare", "--mount", "--", sys.executable, "-W", "ignore", *sys.argv],
                          env={**os.environ, INSIDE: "1"}, check=False)
    sys.exit(done.returncode)


def main():
    """Makes it all happen."""
    arguments = sys.argv[1:]
    if "--help" in arguments or "-h" in arguments:
        print(__doc__.strip())
        return 0
    if len(arguments) != 2 or arguments[0] != "--bin":
        print("alerts.py: --bin DIRECTORY is required; see --help", file=sys.stderr)
        return 2
    enter()
    names = rule_names()
    scene = Scene(arguments[1])
    error = None
    try:
        scene.start()
        say("all is well, and nothing fires")
        scene.disk_full()
        scene.slow_disk()
        scene.settled_by_hand(scene.participant_lost())
        scene.database_lost()
        scene.over_a_limit()
        scene.moved_away()
        check_files(scene)
        scene.coordinator_lost()
        scene.log_cut()
    except (AssertionError, RuntimeError, OSError, subprocess.SubprocessError) as caught:
        error = caught
        say(f"alerts: {type(caught).__name__}: {caught}")
    finally:
        fired = set(scene.prometheus.fired) if scene.prometheus else set()
        scene.stop()
    for name in names:
        if name not in fired:
            say(f"never fired: {name}")
    print(f"alerts: rules={len(names)} fired={len(fired & set(names))}")
    return 0 if error is None and fired >= set(names) else 1


if __name__ == "__main__":
    sys.exit(main())
