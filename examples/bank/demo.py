#!/usr/bin/python3
"""The bank's demo; started by `demo`, which builds first and has the help.

Processes are signalled by the pids recorded here, never by name. Times are CLOCK_BOOTTIME, as in
the journal that `bank load` writes.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import psycopg2

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "postgres"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import private_cluster  # noqa: E402  pylint: disable=wrong-import-position
from process import Process, StartError  # noqa: E402  pylint: disable=wrong-import-position
from stalls import Stalls, now  # noqa: E402  pylint: disable=wrong-import-position

NAMES = ["east", "west", "north", "south", "center", "harbour", "hill", "lake"]
PYTHON_BRANCH = pathlib.Path(__file__).resolve().parent / "python_branch.py"
BALANCE = 1000            # of each account at first
RESTART_AFTER_S = 0.5     # a killed process stays dead for so long
FIRST_COMMIT_S = 2.0      # after the coordinator's restart a new commit is answered within this, of
                          # the time that the machine gave
SETTLED_S = 5.0           # after it is ready nothing prepared before the kill is left after this
LOOKS_FROM_S = 10         # a load as long as this has time for that


def say(text):
    """A line for people."""
    print(text, flush=True)


class Bank:
    """PostgreSQL servers, coordinator and branches of one demo, in one directory."""

    def __init__(self, bin_dir, names, keep, python_branch=False, tls=False):
        self.bin = pathlib.Path(bin_dir)
        self.in_python = names[-1] if python_branch else None
        self.keep = keep
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="troth-demo-", dir="/tmp"))
        self.dir.chmod(0o755)
        self.names = names
        self.certificates = self.dir / "certificates" if tls else None
        self.clusters = {}
        self.branches = {}
        self.coordinator = None
        self.coordinator_flags = []

    def start(self):
        """Everything, from nothing; returns when transfers can be made."""
        for name in self.names:
            self.clusters[name] = private_cluster.Cluster(name, dir=self.dir / f"pg-{name}")
        starters = [threading.Thread(target=c.start) for c in self.clusters.values()]
        for thread in starters:
            thread.start()
        for thread in starters:
            thread.join()
        wal = self.dir / "wal"
        wal.mkdir()
        if self.certificates is not None and not self.certificates.exists():
            participants = [word for name in self.names for word in ("--participant", name)]
            subprocess.run([str(ROOT / "scripts" / "dev-certs"), str(self.certificates),
                            *participants], check=True, stderr=subprocess.DEVNULL)
        coordinator = str(self.bin / "troth-coordinator")
        subprocess.run([coordinator, "--init", "--wal_dir", str(wal), "--name", "bank"],
                       check=True, stdout=subprocess.DEVNULL)
        self.coordinator = Process("coordinator", self.dir, self.keep,
                                   [coordinator, "--wal_dir", str(wal),
                                    *self.tls_flags("coordinator", serves=True),
                                    *self.coordinator_flags],
                                   ["client_port", "peer_port", "admin_port", "http_port"])
        self.coordinator.start()
        for name in self.names:
            self.start_branch(name)
        self.await_up()

    def await_up(self, timeout_s=20):
        """Until the coordinator is connected to every branch. A branch that listens need not have
        enrolled yet, and `bank init` opens accounts at those that have."""
        url = f"http://127.0.0.1:{self.coordinator.ports['http_port']}/api/participants"
        end = now() + timeout_s
        while True:
            with urllib.request.urlopen(url, timeout=timeout_s) as reply:
                up = {p["participant"] for p in json.load(reply)["participants"] if p["up"]}
            away = [name for name in self.names if name not in up]
            if not away:
                return
            if now() > end:
                raise StartError(f"branch {away[0]} was not connected to the coordinator after "
                                 f"{timeout_s} s: {self.branches[away[0]].tail()}")
            time.sleep(0.02)

    def start_branch(self, name):
        """Makes a branch's database and tables, and starts its service."""
        if self.clusters[name].pid is None:
            raise StartError(f"PostgreSQL server {name} did not start; see {self.dir}/pg-{name}/log")
        self.clusters[name].psql("CREATE DATABASE bank")
        program, ports = [str(self.bin / "bank-branch")], ["port", "peer_port", "http_port"]
        if name == self.in_python:
            program, ports = ["/usr/bin/python3", "-W", "ignore", str(PYTHON_BRANCH)], ports[:2]
        conninfo = self.clusters[name].conninfo("bank")
        subprocess.run([*program, "--init", "--conninfo", conninfo], check=True)
        branch = Process(f"branch-{name}", self.dir, self.keep,
                         [*program, "--name", name, "--conninfo", conninfo, "--coordinators",
                          f"127.0.0.1:{self.coordinator.ports['peer_port']}",
                          *self.tls_flags(name, serves=True)], ports)
        branch.start()
        self.branches[name] = branch

    def client(self, *arguments):
        """The command line of `bank`."""
        return [str(self.bin / "bank"), *arguments, "--coordinator",
                f"127.0.0.1:{self.coordinator.ports['client_port']}", *self.tls_flags("teller")]

    def tls_flags(self, name, serves=False):
        """Of a process with the certificate `name`; none in plain text."""
        if self.certificates is None:
            return []
        files = [f"--tls_cert={self.certificates}/{name}.pem",
                 f"--tls_key={self.certificates}/{name}.key",
                 f"--tls_ca={self.certificates}/ca.pem"]
        return files + ([f"--tls_roles={self.certificates}/roles"] if serves else [])

    def sql(self, name, text):
        """Rows of a query at one branch's database; None while it is away."""
        try:
            connection = psycopg2.connect(self.clusters[name].conninfo("bank", connect_timeout=2))
            try:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute(text)
                    return cursor.fetchall() if cursor.description else []
            finally:
                connection.close()
        except psycopg2.Error:
            return None

    def prepared(self):
        """GIDs of Troth prepared in all branches, and the names of servers that were away."""
        gids, away = set(), []
        for name in self.names:
            rows = self.sql(name, "SELECT gid FROM pg_prepared_xacts WHERE starts_with(gid, 'troth:')")
            if rows is None:
                away.append(name)
            else:
                gids.update(row[0] for row in rows)
        return gids, away

    def write_addresses(self):
        """How to connect, for --keep and --stop."""
        processes = [self.coordinator, *self.branches.values()]
        addresses = {
            "dir": str(self.dir),
            "coordinator": self.coordinator.ports,
            "branches": {n: b.ports for n, b in self.branches.items()},
            "postgres": {n: c.conninfo("bank") for n, c in self.clusters.items()},
            "pids": {p.name: p.pid for p in processes},
        }
        path = self.dir / "addresses.json"
        path.write_text(json.dumps(addresses, indent=2) + "\n", encoding="utf-8")
        return path

    def leave(self):
        """--keep: nothing is stopped."""
        for cluster in self.clusters.values():
            cluster.detach()
        path = self.write_addresses()
        say(f"kept running in {self.dir}; addresses in {path}")
        say(f"  {' '.join(self.client('balance', self.names[0] + '/1'))}")
        for name in self.names:
            say(f"  psql '{self.clusters[name].conninfo('bank')}'")
        say(f"  stop it with: examples/bank/demo --stop {self.dir}")

    def stop(self):
        """Ends everything that was started, and removes the directory."""
        for process in [self.coordinator, *self.branches.values()]:
            if process is not None:
                process.stop(timeout_s=3)  # killed then: nothing of it is kept
        for cluster in self.clusters.values():
            cluster.stop(mode="immediate")
        shutil.rmtree(self.dir, ignore_errors=True)


class Load:
    """`bank load` and what it says each second."""

    def __init__(self, bank, options):
        self.journal = bank.dir / "journal"
        arguments = ["load", "--clients", str(options.clients), "--seconds", str(options.seconds),
                     "--accounts", str(options.accounts), "--banks", ",".join(bank.names),
                     "--journal", str(self.journal)]
        if options.early:
            arguments.append("--early")
        self._log = open(bank.dir / "load.log", "wb")
        self.process = subprocess.Popen(bank.client(*arguments), stdout=subprocess.PIPE,
                                        stderr=self._log, text=True, start_new_session=True)
        self.began = now()
        self.stalls = Stalls()
        self.summary = {}
        self.events = collections.deque()  # what to say in the next line
        self._bank = bank
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            if line.startswith("load:"):
                self.summary = dict(pair.split("=") for pair in line.split()[1:])
                continue
            second = json.loads(line)
            gids, away = self._bank.prepared()
            doubt = f"{len(gids)}" + (f" (+ {' '.join(away)} away)" if away else "")
            said = []
            while self.events:
                said.append(self.events.popleft())
            say(f"{second['second']:4.0f} s {second['tps']:6.0f} tx/s   p50 {second['p50_ms']:7.2f} ms"
                f"   p99 {second['p99_ms']:8.2f} ms   in doubt {doubt:<4} {', '.join(said)}".rstrip())

    def running(self):
        """False when it has ended."""
        return self.process.poll() is None

    def wait(self):
        """Until it has ended and its last line is read."""
        self.process.wait()
        self._reader.join()
        self._log.close()
        if self.process.returncode != 0 or not self.summary:
            raise StartError(f"bank load ended with {self.process.returncode}: "
                             + (self._bank.dir / "load.log").read_text(errors="replace")[-500:])

    def stop(self):
        """Ends it now."""
        if self.running():
            self.process.kill()
            self.process.wait()
        self._reader.join()


class Kill:
    """One SIGKILL: what, when, what was prepared then; for the coordinator also its return."""

    def __init__(self, what, at):
        self.what = what
        self.at = at
        self.prepared = set()
        self.launched = None
        self.ready = None
        self.left = None  # prepared before the kill and still there SETTLED_S after ready


class Killer:
    """Kills by plan, in the main thread, while the load runs."""

    def __init__(self, bank, load, seconds):
        self.bank = bank
        self.load = load
        self.kills = []
        count = max(3, int(seconds / 7))
        self._at = [load.began + seconds * (0.12 + 0.65 * i / (count - 1)) for i in range(count)]
        self._targets = [self._coordinator, self._branch, self._postgres]
        self._looks = seconds >= LOOKS_FROM_S

    def run(self, meanwhile):
        """Returns when the plan is done or the load has ended; calls `meanwhile` often."""
        for number, at in enumerate(self._at):
            while (now() < at or self._settling()) and self.load.running():
                self._turn(meanwhile)
            if not self.load.running():
                break
            self._targets[number % len(self._targets)]()
        while self.load.running() or self._settling():
            self._turn(meanwhile)

    def _turn(self, meanwhile):
        if self._settling() and self.load.stalls.given(self.kills[-1].ready, now()) >= SETTLED_S:
            self.kills[-1].left = len(self.kills[-1].prepared & self.bank.prepared()[0])
        meanwhile()
        time.sleep(0.02)

    def _settling(self):
        """A coordinator was killed, and it is not yet known what that left prepared: nothing else is
        killed meanwhile."""
        return (self._looks and self.kills and self.kills[-1].ready is not None
                and self.kills[-1].left is None)

    def _begin(self, what):
        kill = Kill(what, now())
        self.kills.append(kill)
        self.load.events.append(f"killed {what}")
        return kill

    def _coordinator(self):
        coordinator = self.bank.coordinator
        prepared = self._stand_still(coordinator)
        while not prepared and self.load.running():  # nothing would be left to settle
            coordinator.signal(signal.SIGCONT)
            time.sleep(0.02)
            prepared = self._stand_still(coordinator)
        kill = self._begin("coordinator")
        kill.prepared = prepared
        coordinator.kill()
        time.sleep(RESTART_AFTER_S)
        kill.launched = now()
        coordinator.start()
        kill.ready = now()
        self.load.events.append("coordinator back")

    def _stand_still(self, coordinator):
        """Stops it; what is prepared then."""
        coordinator.signal(signal.SIGSTOP)
        return self.bank.prepared()[0]

    def _branch(self):
        # The branch in Python comes first, so that a short run kills it too.
        first = not any(kill.what.startswith("branch") for kill in self.kills)
        name = self.bank.in_python if first and self.bank.in_python else random.choice(self.bank.names)
        self._begin(f"branch {name}")
        self.bank.branches[name].kill()
        time.sleep(RESTART_AFTER_S)
        self.bank.branches[name].start()
        self.load.events.append(f"branch {name} back")

    def _postgres(self):
        name = random.choice(self.bank.names)
        self._begin(f"PostgreSQL {name}")
        self.bank.clusters[name].kill()
        time.sleep(RESTART_AFTER_S)
        self.bank.clusters[name].start()
        self.load.events.append(f"PostgreSQL {name} back")


class Verdict:
    """What the run came to: figures, and the rules that broke."""

    def __init__(self, bank, load, kills):
        self.bank = bank
        self.load = load
        self.kills = kills
        self.broken = []
        self.money = True
        self.in_doubt = 0
        self.orphans = 0
        self.inflight = 0
        self.first_commit_s = 0.0
        self.left = 0
        self.checked = 0

    def lost(self, rule):
        """A rule about money broke."""
        self.money = False
        self.broken.append(rule)

    def read_journal(self):
        """In flight at each kill, and how soon the coordinator answered again."""
        lines = [line.split("\t") for line in self.load.journal.read_text().splitlines()]
        spans = [(f[0], int(f[2]) / 1e6, int(f[3]) / 1e6) for f in lines]
        for kill in self.kills:
            self.inflight += sum(1 for _, begun, ended in spans if begun < kill.at < ended)
            if kill.launched is None:
                continue
            ends = [end for outcome, begun, end in spans
                    if outcome == "committed" and begun > kill.at and end > kill.launched]
            took = self.load.stalls.given(kill.launched, min(ends)) if ends else float("inf")
            self.first_commit_s = max(self.first_commit_s, took)
            if kill.left is not None:
                self.checked += 1
                self.left += kill.left
        if self.first_commit_s > FIRST_COMMIT_S:
            self.broken.append(f"the first new commit came {self.first_commit_s:.2f} s after the "
                               f"coordinator's restart, not within {FIRST_COMMIT_S:.0f} s")
        if self.left:
            self.broken.append(f"{self.left} branches prepared before the coordinator's kill were "
                               f"left {SETTLED_S:.0f} s after it was ready")

    def audit(self):
        """`bank audit`: ledgers, balances, and the journal of answers."""
        done = subprocess.run(self.bank.client("audit", "--journal", str(self.load.journal),
                                               "--journal_complete", "--banks",
                                               ",".join(self.bank.names)),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        lines = done.stdout.splitlines()
        if not lines or not lines[-1].startswith("audit:"):
            self.lost("the audit could not be done: " + done.stderr.strip())
            return
        say(lines[-1])
        for line in done.stderr.splitlines():
            if "rule broken: in doubt" in line:
                self.broken.append(line.partition("rule broken: ")[2])
            elif "rule broken: " in line:
                self.lost(line.partition("rule broken: ")[2])
        if done.returncode != 0 and not self.broken:
            self.lost("the audit failed: " + done.stderr.strip())

    def audit_by_sql(self, expected):
        """The same question put to the databases themselves: is all the money there?"""
        total = 0
        for name in self.bank.names:
            rows = self.bank.sql(name, "SELECT sum(balance) FROM account")
            if not rows:
                self.lost(f"the database of {name} cannot be read")
                return
            total += int(rows[0][0])
        if total != expected:
            self.lost(f"money: all accounts hold {total}, opened with {expected}")

    def count_doubt(self):
        """What is left prepared; an orphan is one whose transaction is over."""
        gids, away = self.bank.prepared()
        for name in away:
            self.broken.append(f"PostgreSQL {name} is away")
        for gid in sorted(gids):
            outcome = subprocess.run(self.bank.client("outcome", gid.split(":")[-1]),
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                     check=False)
            self.in_doubt += 1
            self.orphans += outcome.returncode != 3
        if gids:
            self.broken.append(f"{len(gids)} branches are left prepared, as {sorted(gids)[0]}")

    def check_kills(self, seconds):
        """A run that killed nothing, or did not look at what that left, proves nothing."""
        if len(self.kills) < 3:
            self.broken.append(f"only {len(self.kills)} kills happened before the load ended")
        elif not self.inflight:
            self.broken.append("no transfer was in flight at any kill")
        if seconds >= LOOKS_FROM_S and not self.checked:
            self.broken.append("nobody looked at what a coordinator's kill left prepared")

    def tell(self):
        """The closing lines; the exit code."""
        for rule in dict.fromkeys(self.broken):
            say(f"rule broken: {rule}")
        if any(k.launched for k in self.kills):
            say(f"recovery: first_commit_s={min(self.first_commit_s, 9999):.3f} "
                f"left_after_5s={self.left} checked={self.checked}")
        figures = self.load.summary
        say(f"demo: committed={figures['committed']} aborted={figures['aborted']} "
            f"unknown={figures['unknown']} tps={figures['tps']} p50_ms={figures['p50_ms']} "
            f"p99_ms={figures['p99_ms']} kills={len(self.kills)} "
            f"inflight_at_kills={self.inflight} in_doubt={self.in_doubt} orphans={self.orphans} "
            f"money={'conserved' if self.money else 'lost'}")
        return 1 if self.broken else 0


class Tamperer:
    """Changes one balance behind the bank's back, in the middle of the run. Called often."""

    def __init__(self, bank, load, options):
        self._bank = bank
        self._load = load
        self._at = load.began + options.seconds / 2
        self.done = not options.tamper

    def __call__(self):
        if self.done or now() < self._at:
            return
        name = self._bank.names[0]
        changed = self._bank.sql(name, "UPDATE account SET balance = balance + 100 "
                                       "WHERE number = 1")
        if changed is not None:  # else the server is away just now
            self.done = True
            self._load.events.append(f"tampered with {name}/1")


def run(bank, options):
    """Start, load, kill, audit. The exit code."""
    say(f"starting {len(bank.names)} PostgreSQL servers, a coordinator and {len(bank.names)} branches "
        + (f"({bank.in_python} in Python) " if bank.in_python else "") + f"in {bank.dir}")
    bank.start()
    subprocess.run(bank.client("init", "--accounts", str(options.accounts), "--balance",
                               str(BALANCE), "--banks", ",".join(bank.names), "--deadline_ms",
                               "20000"), check=True)
    load = Load(bank, options)
    try:
        tamperer = Tamperer(bank, load, options)
        killer = Killer(bank, load, options.seconds)
        if options.kill:
            killer.run(tamperer)
        while load.running():
            tamperer()
            time.sleep(0.02)
        load.wait()
    finally:
        load.stop()
    verdict = Verdict(bank, load, killer.kills)
    verdict.read_journal()
    verdict.audit()
    verdict.audit_by_sql(len(bank.names) * options.accounts * BALANCE)
    verdict.count_doubt()
    if options.kill:
        verdict.check_kills(options.seconds)
    if not tamperer.done:
        verdict.broken.append("no balance could be tampered with before the load ended")
    return verdict.tell()


def stop_kept(directory):
    """--stop: ends what --keep left, by the pids it recorded."""
    path = pathlib.Path(directory) / "addresses.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"demo: {directory} is no directory of a kept demo: {error}", file=sys.stderr)
        return 2
    for name, pid in kept["pids"].items():
        Process.stop_pid(name, pid, kept["dir"])
    for name in kept["postgres"]:
        private_cluster.Cluster(name, dir=pathlib.Path(kept["dir"]) / f"pg-{name}").stop()
    shutil.rmtree(kept["dir"], ignore_errors=True)
    say(f"stopped, and removed {kept['dir']}")
    return 0


def parse(arguments):
    """Options; wrong ones end the program with 2."""
    parser = argparse.ArgumentParser(prog="demo", allow_abbrev=False)
    parser.add_argument("--bin", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--banks", default="3")
    parser.add_argument("--accounts", type=int, default=1000)
    parser.add_argument("--early", action="store_true")
    parser.add_argument("--python-branch", action="store_true")
    parser.add_argument("--no-kill", dest="kill", action="store_false")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--tamper", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--stop", metavar="DIR")
    options = parser.parse_args(arguments)
    if options.banks.isdigit():
        options.banks = NAMES[:int(options.banks)]
    else:
        options.banks = options.banks.split(",")
    if not 2 <= len(set(options.banks)) == len(options.banks) <= len(NAMES):
        parser.error(f"--banks is a number from 2 to {len(NAMES)}, or as many different names")
    if options.seconds < 1 or options.clients < 1 or options.accounts < 2:
        parser.error("--seconds and --clients are 1 or more, --accounts 2 or more")
    return options


def main():
    """Runs it, and cleans up whatever happens."""
    options = parse(sys.argv[1:])
    if options.stop:
        return stop_kept(options.stop)

    def on_signals(handler):
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, handler)

    def interrupted(number, _frame):
        on_signals(signal.SIG_IGN)
        raise SystemExit(128 + number)

    on_signals(interrupted)
    bank = Bank(options.bin, options.banks, options.keep, options.python_branch, options.tls)
    kept = False
    try:
        code = run(bank, options)
        if options.keep:
            bank.leave()
            kept = True
        return code
    except (StartError, private_cluster.ClusterError, subprocess.CalledProcessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    finally:
        on_signals(signal.SIG_IGN)  # nothing interrupts the clean-up
        if not kept:
            bank.stop()


if __name__ == "__main__":
    sys.exit(main())
