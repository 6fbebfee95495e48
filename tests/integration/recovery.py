#!/usr/bin/python3
"""Recovery of many prepared branches after a crash of everything; started by `recovery`, which builds
first and has the help. TROTH_BIN names the programs.

The branches come about as real ones do, only faster: this program enrols as the bank, prepares in its
database, and commits with votes that it carries (early prepare), so that the coordinator decides and
has nobody to tell."""

import argparse
import contextlib
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "sdk_python"), str(HERE.parents[1] / "examples" / "bank")]

import harness  # noqa: E402
import psycopg2  # noqa: E402
from harness import troth, until  # noqa: E402
from stalls import Stalls, now  # noqa: E402
from troth.transport import connect, protocol_on  # noqa: E402
from troth.vote_mac import make_vote_mac  # noqa: E402
from troth.wire.coordinator import Coordinator, CoordinatorPeer  # noqa: E402
from troth.wire.coordinator.ttypes import (  # noqa: E402
    BranchClaim, ClientHello, CommitRequest, Enrolment, Wait)
from troth.wire.participant import ParticipantPeer  # noqa: E402
from troth.wire.values.ttypes import Ballot, Sender, Vote  # noqa: E402

ACCOUNTS = 1000            # those that transfers use; branches left behind have others
FIRST_LEFT = 1_000_000
SILENT = "silent-0123456789ab.1-00000001"  # epoch of the coordinator that never answers,
OTHERS = 50                # and its branches
MAKERS = 4
SECONDS, P99_MS = 15, 1000  # the aims, of time that was given


class Silent:
    """A coordinator that takes connections and never answers."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.heard = b""  # all that was said on the connections
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                line = self._listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._listen, args=(line,), daemon=True).start()

    def _listen(self, line):
        with line, contextlib.suppress(OSError):
            while said := line.recv(65536):
                self.heard += said

    def stop(self):
        self._listener.close()


class World:
    """Server, coordinator, banks."""

    def __init__(self, directory, branches):
        self.directory = directory
        self.most = branches + OTHERS + 400
        self.cluster = harness.private_cluster.Cluster(
            "recovery", max_connections=200, max_prepared_transactions=self.most + 400).start()
        self.conninfo = {name: harness.make_bank(
            self.cluster, name, ACCOUNTS, 1000, [harness.find_program("bank-branch")])
            for name in ("east", "west")}
        self.cluster.psql(f"INSERT INTO account SELECT n, 0, 0 FROM generate_series({FIRST_LEFT}, "
                          f"{FIRST_LEFT + branches + OTHERS}) n", "east")
        self.processes = {"coordinator": harness.start_coordinator(directory)}
        self.ports = dict(self.processes["coordinator"].ports)
        self.silent = Silent()

    def start_bank(self, name, conninfo=None, alone=True):
        coordinators = f"127.0.0.1:{self.ports['peer_port']}"
        if not alone:
            coordinators = f"127.0.0.1:{self.silent.port}," + coordinators
        self.processes[name] = harness.Process([
            harness.find_program("bank-branch"), "--name", name, "--conninfo",
            conninfo or self.conninfo[name], "--coordinators", coordinators, "--max_in_doubt",
            self.most if name == "east" else 200], self.directory)

    def start_coordinator(self):
        self.processes["coordinator"] = harness.restart_coordinator(
            self.directory, "", self.ports["peer_port"], self.ports["client_port"])

    def left(self, epoch):
        """Branches prepared in east by transactions of `epoch`."""
        return int(self.cluster.psql(
            f"SELECT count(*) FROM pg_prepared_xacts WHERE starts_with(gid, 'troth:east:{epoch}.')"))

    def stop(self):
        for process in self.processes.values():
            process.kill()
        self.silent.stop()
        self.cluster.stop(mode="immediate")


class Left:
    """What is left behind at `east`: ids that were decided, and ids that were not."""

    def __init__(self, world):
        self.decided, self.undecided = set(), set()
        self._world = world
        self._lock = threading.Lock()
        port = world.processes["east"].ports["peer_port"]
        transport = connect("127.0.0.1", port, 5.0)
        hello = ParticipantPeer.Client(protocol_on(transport)).hello(
            1, Sender("nobody-000000000000", 1, 1, 0))
        transport.close()
        self._hello = hello
        world.processes["east"].kill()
        transport = connect("127.0.0.1", world.ports["peer_port"], 5.0)
        self._secret = CoordinatorPeer.Client(protocol_on(transport)).enroll(Enrolment(
            1, "east", "left-behind", hello.system_identifier, hello.database_oid,
            hello.database_address, "127.0.0.1", 1, harness.private_cluster.free_port())).secret
        transport.close()

    def make(self, branches):
        """Prepares them, and commits every other one."""
        errors = []

        def work(numbers):
            try:
                self._make(numbers)
            except Exception as error:  # pylint: disable=broad-except
                errors.append(error)

        makers = [threading.Thread(target=work, args=(range(i, branches, MAKERS),))
                  for i in range(MAKERS)]
        for maker in makers:
            maker.start()
        for maker in makers:
            maker.join()
        if errors:
            raise AssertionError(f"branches could not be left behind: {errors[0]}")
        self._leave_others()

    def _make(self, numbers):
        transport = connect("127.0.0.1", self._world.ports["client_port"], 20.0)
        coordinator = Coordinator.Client(protocol_on(transport))
        coordinator.hello(ClientHello(1, "recovery"))
        database = psycopg2.connect(self._world.conninfo["east"])
        database.autocommit = True
        cursor = database.cursor()
        cursor.execute("SELECT timeline_id FROM pg_control_checkpoint()")
        timeline = cursor.fetchone()[0]
        ids = iter(())
        for number in numbers:
            id_ = next(ids, None)
            if id_ is None:
                lease = coordinator.lease(200)
                ids = iter([f"{lease.prefix}{lease.first + i}" for i in range(lease.count)])
                id_ = next(ids)
            cursor.execute(
                "BEGIN; UPDATE account SET balance = balance + 1 WHERE number = %(n)s;"
                " INSERT INTO entry VALUES (%(id)s, %(n)s, 1, 'left');"
                " SELECT pg_current_xact_id()::text::bigint", {"n": FIRST_LEFT + number, "id": id_})
            xid = cursor.fetchone()[0]
            cursor.execute(f"PREPARE TRANSACTION 'troth:east:{id_}'")
            if number % 2:
                with self._lock:
                    self.undecided.add(id_)
                continue
            cursor.execute("SELECT pg_current_wal_flush_lsn() - '0/0'")
            self._commit(coordinator, id_, xid, timeline, int(cursor.fetchone()[0]))
        database.close()
        transport.close()

    def _commit(self, coordinator, id_, xid, timeline, position):
        hello = self._hello
        mac = make_vote_mac(self._secret, transaction_id=id_, participant="east",
                            system_identifier=hello.system_identifier,
                            database_oid=hello.database_oid, xid=xid, timeline=timeline,
                            position=position, works=1)
        vote = Vote(Ballot.PREPARED, 1, hello.system_identifier, hello.database_oid, xid, timeline,
                    position, mac=mac)
        outcome = troth.outcome.outcome_of(coordinator.commit(CommitRequest(
            id_, [BranchClaim("east", "mark", 1, "left-behind", vote)], 20_000, Wait.DECIDED)))
        if not outcome.committed:
            raise AssertionError(f"not committed: {outcome}")
        with self._lock:
            self.decided.add(id_)

    def _leave_others(self):
        """Branches of the coordinator that never answers."""
        for number in range(OTHERS):
            self._world.cluster.psql(
                "BEGIN; INSERT INTO entry VALUES ('other', (SELECT max(number) FROM account) - "
                f"{number}, 1, 'x'); PREPARE TRANSACTION "
                f"'troth:east:{SILENT}.{number + 1}'", "east")

    def wrong(self):
        """How many did not end as decided."""
        rows = set(self._world.cluster.psql(
            "SELECT transaction_id FROM entry WHERE note = 'left'", "east").split())
        return len(rows ^ self.decided)


class Load:
    """Transfers between the banks, until stopped."""

    def __init__(self, world):
        self._journal = pathlib.Path(world.directory) / "journal"
        self._process = subprocess.Popen(
            [str(harness.find_program("bank")), "load", "--clients", "4", "--seconds", "3600",
             "--accounts", str(ACCOUNTS), "--banks", "east,west", "--coordinator",
             f"127.0.0.1:{world.ports['client_port']}", "--journal", str(self._journal)],
            stdout=subprocess.PIPE, text=True)

    def stop(self, stalls):
        """(p99 of the time given to those that committed, how many did)."""
        self._process.send_signal(signal.SIGINT)
        said, _ = self._process.communicate(timeout=60)
        print(said.strip().splitlines()[-1], flush=True)
        fields = [line.split("\t") for line in self._journal.read_text().splitlines()]
        took = sorted(1000 * stalls.given(int(f[2]) / 1e6, int(f[3]) / 1e6) for f in fields
                      if f[0] == "committed")
        return took[int(0.99 * len(took))] if took else 0.0, len(took)


def crash(world, dead):
    """Everything ends at once; the server comes back by itself."""
    for process in world.processes.values():
        process.kill()
    world.cluster.kill()
    if dead is not None:
        dead.stop(mode="immediate")
    world.cluster.start()


def recover(world, epoch):
    """(seconds until all of `epoch` is settled, p99 of transfers meanwhile, transfers)."""
    stalls, began = Stalls(), now()
    world.start_coordinator()
    world.start_bank("east", alone=False)
    world.start_bank("west")
    client = troth.Client([f"127.0.0.1:{world.ports['client_port']}"])
    until(lambda: sum(place.up for place in client.resolve()) >= 2, 20, "both banks are up")
    load, loaded = Load(world), now()
    while left := world.left(epoch):
        print(f"{now() - began:5.1f} s: {left} branches left", flush=True)
        if now() > began + 60:
            raise AssertionError(f"{left} branches are not settled after a minute: " +
                                 world.processes["east"].log() + world.processes["coordinator"].log())
        time.sleep(0.2)
    seconds = stalls.given(began, now())
    time.sleep(max(0.0, loaded + 3 - now()))  # few transfers say little
    return seconds, *load.stop(stalls)


def main():
    parser = argparse.ArgumentParser(prog="recovery", description=__doc__, allow_abbrev=False)
    parser.add_argument("--branches", type=int, default=10_000)
    parser.add_argument("--dead-database", action="store_true")
    options = parser.parse_args()
    harness.private_cluster.stop_on_signals()
    with tempfile.TemporaryDirectory(prefix="troth-recovery-") as directory:
        world, dead = World(directory, options.branches), None
        try:
            if options.dead_database:
                dead = harness.private_cluster.Cluster("dead").start()
                world.start_bank("north", harness.make_bank(dead, "north"))
            for name in ("east", "west"):
                world.start_bank(name)
            client = troth.Client([f"127.0.0.1:{world.ports['client_port']}"])
            until(lambda: sum(place.up for place in client.resolve()) == 2 + options.dead_database,
                  20, "the banks are up")
            left = Left(world)
            left.make(options.branches)
            print(f"left behind: {len(left.decided)} decided, {len(left.undecided)} not", flush=True)
            crash(world, dead)
            epoch = next(iter(left.decided)).rpartition(".")[0]
            if world.left(epoch) != options.branches:
                raise AssertionError("the server lost prepared transactions")
            seconds, p99_ms, transfers = recover(world, epoch)
            wrong, said = left.wrong(), world.processes["east"].log()
            told = len(re.findall(r"recovery: \d+ prepared branches", said))
            problems = [text for text, bad in (
                (f"{wrong} branches ended otherwise than decided", wrong),
                (f"more than {SECONDS} s", seconds > SECONDS),
                (f"transfers took more than {P99_MS} ms", p99_ms > P99_MS),
                ("next to no transfers meanwhile", transfers < 20),
                ("nothing said of its progress", not told),
                ("the silent coordinator was asked about nothing",
                 b"inquire" not in world.silent.heard),
                ("branches of the silent coordinator were settled by nobody's word",
                 world.left(SILENT) != OTHERS)) if bad]
            for problem in problems:
                print(f"recovery failed: {problem}")
            print(f"recovery: branches={options.branches} seconds={seconds:.1f} "
                  f"p99_meanwhile_ms={p99_ms:.1f}")
            return 1 if problems else 0
        except (AssertionError, subprocess.SubprocessError) as error:
            print(f"recovery: {error}", file=sys.stderr)
            return 2
        finally:
            world.stop()
            if dead is not None:
                dead.stop(mode="immediate")


if __name__ == "__main__":
    sys.exit(main())
