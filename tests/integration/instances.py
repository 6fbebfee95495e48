#!/usr/bin/python3
"""Three participants with two instances each, of which one is killed every two seconds, under a load
of transfers; started by `instances`, which builds first and has the help. TROTH_BIN names the programs.
"""

import argparse
import collections
import contextlib
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "sdk_python"))

import harness  # noqa: E402
from harness import troth, until  # noqa: E402
from troth.transport import connect, protocol_on  # noqa: E402
from troth.wire.participant import ParticipantAdmin  # noqa: E402

NAMES = ("east", "west", "north")
SLOTS = (0, 1)
ACCOUNTS = 1000
BALANCE = 1000
KILL_EVERY_S = 2.0
LONGEST_PAUSE_S = 10      # of all transfers together: a client's deadline, and the start of an instance
LEAST_SHARE = 0.1         # of the work seen, for each slot of a bank
FINISH_CONNECTIONS = 8    # of an instance, and one for the rest
POOL = 12


class World:
    """Server, coordinator and instances."""

    def __init__(self, directory):
        self.directory = directory
        self.cluster = harness.private_cluster.Cluster(
            "instances", max_connections=400, max_prepared_transactions=2400).start()
        for name in NAMES:
            self.cluster.psql(f"CREATE DATABASE {name}")
            subprocess.run([harness.find_program("bank-branch"), "--init", "--conninfo",
                            self.cluster.conninfo(name)], check=True, stdout=subprocess.DEVNULL)
            self.cluster.psql(f"INSERT INTO account SELECT n, {BALANCE}, {BALANCE} "
                              f"FROM generate_series(1, {ACCOUNTS}) n", name)
        self.before = self.connections()
        self.coordinator = harness.start_coordinator(directory)
        self.instances = {}

    def start(self, name, slot):
        self.instances[name, slot] = harness.Process([
            harness.find_program("bank-branch"), "--name", name, "--conninfo",
            self.cluster.conninfo(name), "--coordinators",
            f"127.0.0.1:{self.coordinator.ports['peer_port']}", "--pool_size", POOL],
            self.directory)

    def bank(self, *arguments):
        """The command line of `bank`."""
        return [str(harness.find_program("bank")), *arguments, "--coordinator",
                f"127.0.0.1:{self.coordinator.ports['client_port']}", "--banks", ",".join(NAMES)]

    def connections(self):
        """Client backends at the server, ours for this question aside."""
        return int(self.cluster.psql(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' "
            "AND pid <> pg_backend_pid()").strip())

    def prepared(self):
        """Prepared transactions at the server."""
        return int(self.cluster.psql("SELECT count(*) FROM pg_prepared_xacts").strip())

    def stop(self):
        for process in self.instances.values():
            process.kill()
        self.coordinator.kill()
        self.cluster.stop()


class Load:
    """`bank load`, and what it says each second."""

    def __init__(self, world, clients):
        self.journal = pathlib.Path(world.directory) / "journal"
        self.process = subprocess.Popen(
            world.bank("load", "--clients", str(clients), "--seconds", "86400", "--accounts",
                       str(ACCOUNTS), "--journal", str(self.journal)),
            stdout=subprocess.PIPE, text=True)
        self.last = {"committed": 0}
        self.longest_pause = 0
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        pause = 0
        for line in self.process.stdout:
            if not line.startswith("{"):
                print(line.strip(), flush=True)
                continue
            self.last = json.loads(line)
            pause = pause + 1 if self.last["tps"] == 0 else 0
            self.longest_pause = max(self.longest_pause, pause)
            if self.last["second"] % 10 == 0:
                print(line.strip(), flush=True)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        self._reader.join()


class Watch:
    """Which instances have branches, asked of them while they live."""

    def __init__(self, world):
        self.seen = collections.Counter()
        self._world = world

    def look(self):
        for place, process in list(self._world.instances.items()):
            try:
                transport = connect("127.0.0.1", process.ports["peer_port"], 1.0)
                try:
                    report = ParticipantAdmin.Client(protocol_on(transport)).status()
                finally:
                    transport.close()
            except Exception:  # pylint: disable=broad-except
                continue  # just killed
            self.seen[place] += report.active

    def idle(self):
        """Slots that did next to nothing."""
        return [f"{name}/{slot}" for name in NAMES for slot in SLOTS
                if self.seen[name, slot] <
                LEAST_SHARE * max(1, sum(self.seen[name, s] for s in SLOTS))]


def run_load(world, watch, transactions, clients):
    """Kills while it runs. (the load, kills)."""
    load, kills, next_kill = Load(world, clients), 0, time.monotonic() + KILL_EVERY_S
    try:
        while load.last["committed"] < transactions or kills < 2:
            if load.process.poll() is not None:
                raise AssertionError(f"bank load ended with {load.process.returncode}")
            watch.look()
            if time.monotonic() >= next_kill:
                next_kill += KILL_EVERY_S
                name, slot = random.choice(NAMES), random.choice(SLOTS)
                world.instances[name, slot].kill()
                kills += 1
                world.start(name, slot)
            time.sleep(0.05)
    finally:
        load.stop()
    return load, kills


def audit(world, load):
    """Rules that are broken."""
    done = subprocess.run(
        world.bank("audit", "--journal", str(load.journal), "--journal_complete", "--settle_ms",
                   "30000"), capture_output=True, text=True, check=False)
    print(done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "no audit")
    broken = [line for line in done.stderr.splitlines() if "rule broken" in line]
    if done.returncode != 0 and not broken:
        broken = [f"the audit failed: {done.stderr.strip()}"]
    total = sum(int(world.cluster.psql("SELECT sum(balance) FROM account", name)) for name in NAMES)
    if total != len(NAMES) * ACCOUNTS * BALANCE:
        broken.append(f"money: {total}")
    return broken


def main():
    parser = argparse.ArgumentParser(prog="instances", description=__doc__, allow_abbrev=False)
    parser.add_argument("--transactions", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    harness.private_cluster.stop_on_signals()
    with tempfile.TemporaryDirectory(prefix="troth-instances-") as directory:
        world = World(directory)
        try:
            for name in NAMES:
                for slot in SLOTS:
                    world.start(name, slot)
            client = troth.Client([f"127.0.0.1:{world.coordinator.ports['client_port']}"])
            until(lambda: sum(p.up for p in client.resolve()) == len(NAMES) * len(SLOTS), 20,
                  "all instances are up")
            watch = Watch(world)
            load, kills = run_load(world, watch, options.transactions, options.clients)
            broken = audit(world, load)
            if load.longest_pause > LONGEST_PAUSE_S:
                broken.append(f"no transfer at all for {load.longest_pause} s")
            broken += [f"{place} did next to nothing" for place in watch.idle()]
            until(lambda: sum(p.up for p in client.resolve()) == len(NAMES) * len(SLOTS), 20,
                  "all instances are up")
            most = len(NAMES) * len(SLOTS) * (POOL + FINISH_CONNECTIONS + 1)
            excess = max(0, world.connections() - world.before - most)
            for process in world.instances.values():
                if process.stop() != 0:
                    broken.append(f"an instance did not stop in order: {process.log()[-300:]}")
            with contextlib.suppress(AssertionError):  # a session outlives its process for a moment
                until(lambda: world.connections() <= world.before, 20)
            leaked = world.prepared() + excess + max(0, world.connections() - world.before)
            for rule in broken:
                print(f"violated: {rule}")
            print(f"server: connections before={world.before} after={world.connections()} "
                  f"prepared after={world.prepared()}")
            print(f"instances: transactions={load.last['committed']} kills={kills} "
                  f"violations={len(broken)} leaked={leaked}")
            return 1 if broken or leaked or not kills else 0
        except (AssertionError, subprocess.SubprocessError) as error:
            print(f"instances: {error}", file=sys.stderr)
            return 2
        finally:
            world.stop()


if __name__ == "__main__":
    sys.exit(main())
