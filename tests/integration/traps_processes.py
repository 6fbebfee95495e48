#!/usr/bin/python3
"""PostgreSQL's traps that take real processes: connections cut at a chosen message, physical clones
under an old name, threads that cannot be had. Banks, their coordinator, and `bank` as the client.

    traps_processes.py [--report FILE] [unittest's arguments]

TROTH_BIN names the programs. The last line: traps_processes: tried=N passed=N"""

import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests" / "sdk_python"))

import harness  # noqa: E402
from harness import troth, until  # noqa: E402
from troth.transport import connect, protocol_on  # noqa: E402
from troth.wire.coordinator import CoordinatorAdmin  # noqa: E402

COMMITTED, ABORTED = 0, 1  # exit codes of `bank`
BALANCE = 1000


class World:
    """A server with a database for each bank, and a coordinator. Banks are started by the tests,
    but for west, which is in every transfer."""

    NAMES = ("near", "east", "west", "limited", "south")

    def __init__(self):
        self._directory = tempfile.TemporaryDirectory(prefix="troth-traps-")
        self.directory = self._directory.name
        self.server = harness.private_cluster.Cluster("traps", max_prepared_transactions=1000).start()
        self.clone = None
        self.conninfo = {name: harness.make_bank(self.server, name, 5, BALANCE,
                                                 [harness.find_program("bank-branch")])
                         for name in self.NAMES}
        self.processes = {}
        self.coordinator = harness.start_coordinator(self.directory)
        self.start("west")

    CPP = (harness.find_program("bank-branch"), "--enable_failpoints")
    PYTHON = (sys.executable, harness.PYTHON_BRANCH)

    def start(self, name, conninfo=None, failpoints="", ports=None, enrols=True, program=CPP):
        """The bank's process; at the given ports, if any."""
        command = [*program, "--name", name,
                   "--conninfo", conninfo or self.conninfo[name], "--coordinators",
                   f"127.0.0.1:{self.coordinator.ports['peer_port']}"]
        for flag in ("port", "peer_port") if ports else ():
            command += [f"--{flag}", ports[flag]]
        process = harness.Process(command, self.directory, failpoints)
        self.processes[name] = process
        if enrols:
            client = troth.Client([f"127.0.0.1:{self.coordinator.ports['client_port']}"])
            until(lambda: any(place.up for place in client.resolve([name])), 20, f"{name} is up")
            client.close()
        return process

    def transfer(self, name, deadline_ms=10_000):
        """One unit from that bank to west: the process of `bank`."""
        return subprocess.Popen(
            [str(harness.find_program("bank")), "transfer", f"{name}/1=-1", "west/1=1",
             "--deadline_ms", str(deadline_ms), "--coordinator",
             f"127.0.0.1:{self.coordinator.ports['client_port']}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def move(self, name, deadline_ms=10_000):
        """The same; its exit code."""
        with self.transfer(name, deadline_ms) as process:
            process.communicate(timeout=60)
            return process.returncode

    def balance(self, name, server=None):
        """Of the account that transfers use, from where it began."""
        return int((server or self.server).psql("SELECT balance FROM account WHERE number = 1",
                                                name)) - BALANCE

    def prepared(self, *names, server=None):
        """How many branches of these banks are prepared."""
        return sum(int((server or self.server).psql(
            f"SELECT count(*) FROM pg_prepared_xacts WHERE starts_with(gid, 'troth:{name}:')"))
            for name in names)

    def status(self):
        """As trothctl's."""
        transport = connect("127.0.0.1", self.coordinator.ports["admin_port"], 5.0)
        try:
            return CoordinatorAdmin.Client(protocol_on(transport)).status()
        finally:
            transport.close()

    def stop(self):
        for process in (*self.processes.values(), self.coordinator):
            process.kill()
        for server in (self.server, self.clone):
            if server is not None:
                server.stop(mode="immediate")
        self._directory.cleanup()


WORLD = None


def rebind(name):
    """As an operator does."""
    subprocess.run([str(harness.find_program("trothctl")), "--coordinator",
                    f"127.0.0.1:{WORLD.coordinator.ports['admin_port']}", "participants", "rebind",
                    name], check=True, stdout=subprocess.DEVNULL)


def setUpModule():
    global WORLD  # pylint: disable=global-statement
    WORLD = World()
    unittest.addModuleCleanup(WORLD.stop)


class Proxy:
    """jepsen/harness/proxy.py in front of a server."""

    def __init__(self, directory, cluster):
        self.port = harness.private_cluster.free_port()
        self._control = os.path.join(directory, "proxy")
        self._process = subprocess.Popen(
            ["/usr/bin/python3", str(ROOT / "jepsen" / "harness" / "proxy.py"), "--listen",
             f"127.0.0.1:{self.port}", "--to", f"127.0.0.1:{cluster.port}", "--control",
             self._control], preexec_fn=harness._die_with_parent)  # pylint: disable=protected-access
        until(self._listens, 20, "the proxy listens")

    def _listens(self):
        with socket.socket() as probe:
            return os.path.exists(self._control) and not probe.connect_ex(("127.0.0.1", self.port))

    def order(self, point, action):
        """What is to be done at the next message of that kind."""
        return Order(self._control, f"{point} {action}\n")

    def stop(self):
        self._process.kill()
        self._process.wait()


class Order:
    """Stands from its making; a message that is held waits until the order is let go."""

    def __init__(self, control, text):
        self._line = socket.socket(socket.AF_UNIX)
        self._line.connect(control)
        self._line.sendall(text.encode())

    def await_met(self):
        """Until that message came; AssertionError when it does not: nothing was tried."""
        self._line.settimeout(20)
        try:
            if self._line.recv(16) != b"done\n":
                raise AssertionError("the proxy gave the order up")
        except TimeoutError:
            raise AssertionError("the message never came: the test tried nothing") from None

    def let_go(self):
        self._line.close()


class CutTrap(unittest.TestCase):
    """The connections of bank `near` go through a proxy, which cuts at a message, or holds it."""

    @classmethod
    def setUpClass(cls):
        cls.proxy = Proxy(WORLD.directory, WORLD.server)
        cls.addClassCleanup(cls.proxy.stop)
        near = WORLD.start("near", WORLD.conninfo["near"].replace(
            f"port={WORLD.server.port}", f"port={cls.proxy.port}") + " sslmode=disable")
        cls.addClassCleanup(near.kill)

    def try_it(self, point, action, code, meanwhile=None, deadline_ms=10_000, repeats=True):
        """One transfer with that order standing. COMMITTED: it is. ABORTED: its first attempt is, and
        `bank` repeats it, as the client's library does with all that may pass the next time, if its
        deadline allows (`repeats`)."""
        near, west, aborted = WORLD.balance("near"), WORLD.balance("west"), WORLD.status().aborted
        order = self.proxy.order(point, action)
        with WORLD.transfer("near", deadline_ms) as transfer:
            try:
                order.await_met()
                if meanwhile is not None:
                    meanwhile()
            finally:
                order.let_go()
            said, _ = transfer.communicate(timeout=60)
        done = int(code == COMMITTED or repeats)
        self.assertEqual(transfer.returncode, COMMITTED if done else ABORTED, said)
        self.assertEqual(WORLD.status().aborted - aborted, int(code == ABORTED))
        until(lambda: not WORLD.prepared("near", "west"), 30, "nothing is left prepared")
        until(lambda: WORLD.balance("near") == near - done, 10, "near is as told")
        until(lambda: WORLD.balance("west") == west + done, 10, "west is as told")
        status = WORLD.status()
        self.assertEqual((status.heuristics, status.unacknowledged), (0, 0))
        self.assertEqual(WORLD.move("near"), COMMITTED, "the bank is in order afterwards")

    def terminate(self):
        """Every backend of the bank gets 57P01, while the message is held."""
        self.assertGreater(WORLD.status().unacknowledged, 0, "the message has passed")
        WORLD.server.psql("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                          " WHERE application_name = 'troth near'")

    def test_prepare_is_lost(self):
        self.try_it("prepare", "cut", ABORTED)

    def test_answer_to_prepare_is_lost(self):
        """Prepared, and nobody heard: no vote, and what is prepared is rolled back."""
        self.try_it("prepare-answer", "cut", ABORTED)

    def test_prepare_comes_after_the_deadline(self):
        self.try_it("prepare", "hold:2500", ABORTED, deadline_ms=1500, repeats=False)

    def test_commit_prepared_is_lost(self):
        self.try_it("commit", "cut", COMMITTED)

    def test_answer_to_commit_prepared_is_lost(self):
        """Done, and nobody heard: "not found" afterwards is judged by the evidence."""
        self.try_it("commit-answer", "cut", COMMITTED)

    def test_terminated_before_commit_prepared_arrives(self):
        self.try_it("commit", "hold", COMMITTED, self.terminate)

    def test_terminated_while_the_answer_to_commit_prepared_is_on_its_way(self):
        self.try_it("commit-answer", "hold", COMMITTED, self.terminate)


class CloneTrap(unittest.TestCase):
    """A physical clone of east's server, made while a decided branch is prepared there: of the same
    system identifier, timeline and GIDs, only its address differs. One story, told in order."""

    @classmethod
    def setUpClass(cls):
        east = WORLD.start("east", failpoints="before-commit-prepared=crash@1")
        cls.ports = east.ports
        cls.west = WORLD.balance("west")
        assert WORLD.move("east", deadline_ms=2_000) == COMMITTED
        east.wait_for_death()
        cls.clone = WORLD.clone = WORLD.server.clone("clone")
        assert WORLD.prepared("east", server=cls.clone) == 1, "the clone does not bear the GID"

    def start_clone(self, ports=None):
        """The bank over the clone, under the old name, which is refused."""
        clone = WORLD.start("east", self.clone.conninfo("east"), ports=ports, enrols=False)
        self.addCleanup(clone.kill)
        until(lambda: "is bound to" in clone.log(), 20, "the clone is refused")
        self.assertIn("trothctl participants rebind east", clone.log())
        return clone

    def test_1_clone_registers_under_the_old_name(self):
        self.start_clone()
        self.assertEqual(WORLD.move("east", deadline_ms=1_000), ABORTED, "work went to it")
        self.assertEqual(WORLD.status().unacknowledged, 1)

    def test_2_clone_answers_at_the_old_address(self):
        """Regression: a process is judged by its hello, not only when it enrols."""
        self.start_clone(self.ports)
        until(lambda: "has another database than the one its name is bound to" in
              WORLD.coordinator.log(), 20, "the coordinator sees whose hello that is")
        self.assertEqual(WORLD.status().unacknowledged, 1, "the clone was taken for east")

    def test_3_original_comes_back_and_is_settled(self):
        east = WORLD.start("east")
        until(lambda: not WORLD.prepared("east"), 20, "it is settled")
        until(lambda: WORLD.status().unacknowledged == 0, 20, "it has acknowledged")
        self.assertEqual((WORLD.balance("east"), WORLD.balance("west")), (-1, self.west + 1))
        east.kill()

    def test_4_clone_takes_over_when_an_operator_says_so(self):
        self.start_clone()
        rebind("east")
        until(lambda: WORLD.move("east") == COMMITTED, 20, "work goes to it")
        self.assertEqual(WORLD.balance("east"), -1, "the original is left alone")
        until(lambda: WORLD.balance("east", self.clone) == -2, 10, "the clone has both transfers")


class MachineTrap(unittest.TestCase):
    """A physical clone of south's server on another machine, where its socket has the same path. A
    machine is a mount namespace with an id of its own. One story, told in order."""

    @classmethod
    def setUpClass(cls):
        cls.machine = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "-rm"]
        try:
            subprocess.run([*cls.machine, "mount", "--bind", "/dev/null", "/etc/machine-id"],
                           check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise unittest.SkipTest(f"no machine of our own is to be had: {error}") from None
        cls.conninfo = WORLD.server.conninfo("south", host=WORLD.server.dir)
        # As one of a release that told no machine, or on a machine without an id.
        WORLD.start("south", cls.conninfo, program=cls.on("/dev/null", World.CPP)).kill()
        south = WORLD.start("south", cls.conninfo, "before-commit-prepared=crash@1")
        assert WORLD.move("south", deadline_ms=2_000) == COMMITTED
        south.wait_for_death()
        cls.clone = WORLD.server.clone("south")
        cls.addClassCleanup(cls.clone.stop, mode="immediate")
        assert WORLD.prepared("south", server=cls.clone) == 1, "the clone does not bear the GID"
        cls.identity = pathlib.Path(WORLD.directory, "machine-id")
        cls.identity.write_text("0123456789abcdef" * 2 + "\n", encoding="ascii")

    @classmethod
    def on(cls, identity, command, *mounts):
        """The command on a machine with that file as its id, and with these mounts."""
        binds = [str(path) for path in (identity, "/etc/machine-id", *mounts)]
        script = "".join(f"mount --bind '{what}' '{where}' && "
                         for what, where in zip(binds[::2], binds[1::2])) + 'exec "$0" "$@"'
        return [*cls.machine, "sh", "-c", script, *command]

    def on_the_clones(self, command):
        """On the machine of the clone."""
        return self.on(self.identity, command, *(
            server.dir / f".s.PGSQL.{server.port}" for server in (self.clone, WORLD.server)))

    def check_refused(self):
        """Whatever the clone's participant is written in."""
        for program in (World.CPP, World.PYTHON):
            clone = WORLD.start("south", self.conninfo, program=self.on_the_clones(program),
                                enrols=False)
            self.addCleanup(clone.kill)
            until(lambda: "is bound to" in clone.log(), 20, "the clone is refused")
            self.assertRegex(clone.log(), "on machine [0-9a-f]{12}; this one is .* on machine ")
            clone.kill()

    def test_1_clone_enrols_while_the_original_is_down(self):
        """Regression: it was taken for south, was sent the finish, and acknowledged it."""
        self.check_refused()
        self.assertEqual(WORLD.status().unacknowledged, 1)
        self.assertEqual(WORLD.prepared("south", server=WORLD.server), 1)

    def test_2_nobody_looks_into_the_clone(self):
        """Regression: `why` looked into whatever has that path, and said that nothing is held."""
        gid = WORLD.server.psql("SELECT gid FROM pg_prepared_xacts"
                                " WHERE starts_with(gid, 'troth:south:')").strip()
        self.clone.psql(f"ROLLBACK PREPARED '{gid}'", "south")
        why = [harness.find_program("trothctl"), "--coordinator",
               f"127.0.0.1:{WORLD.coordinator.ports['admin_port']}", "why", gid,
               "--database", f"user={harness.private_cluster.OWNER}"]
        def told(command):
            return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        self.assertIn("prepared for", told(why))
        there = told(self.on_the_clones(why))
        self.assertIn("an address of another machine", there)
        self.assertNotIn("holds nothing", there)

    def test_3_original_comes_back_and_is_alone(self):
        """In another language: it says the same machine."""
        south = WORLD.start("south", self.conninfo, program=World.PYTHON)
        self.addCleanup(south.kill)
        until(lambda: WORLD.status().unacknowledged == 0, 20, "it has acknowledged")
        self.assertEqual(WORLD.prepared("south"), 0)
        self.check_refused()
        self.assertEqual(WORLD.move("south"), COMMITTED)


class MovedTrap(unittest.TestCase):
    """A database that is met at another address while its participant lives, as after a failover."""

    def test_database_moves_and_an_operator_rebinds(self):
        """Regression: a hello tells the address of now, else nobody speaks to it ever again."""
        proxy = Proxy(WORLD.directory, WORLD.server)
        self.addCleanup(proxy.stop)
        moving = WORLD.start("limited", WORLD.conninfo["limited"].replace(
            "host=127.0.0.1", "host=127.0.0.1,127.0.0.1").replace(
                f"port={WORLD.server.port}", f"port={proxy.port},{WORLD.server.port}")
            + " sslmode=disable")
        self.addCleanup(moving.kill)
        self.assertEqual(WORLD.move("limited"), COMMITTED)
        proxy.stop()
        until(lambda: "is bound to" in moving.log(), 20, "the new address is refused")
        rebind("limited")
        until(lambda: WORLD.move("limited", deadline_ms=2_000) == COMMITTED, 20, "work goes on")
        until(lambda: not WORLD.prepared("limited"), 10, "nothing is left prepared")


class LimitTrap(unittest.TestCase):
    """What the machine refuses."""

    UID, THREADS = 54321, 60  # nobody's; all that it may have

    def become(self):
        """The beginning of a command that is to run as that user."""
        return ["setpriv", f"--reuid={self.UID}", "--clear-groups"]

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to become somebody whose threads are limited")
    def test_no_thread_for_recovery(self):
        """Recovery asks when there are threads again; the process goes on meanwhile."""
        with tempfile.TemporaryDirectory(prefix="troth-threads-") as directory:
            os.chown(directory, self.UID, self.UID)
            nobody = harness.private_cluster.free_port()
            with harness.Process(
                    ["prlimit", f"--nproc={self.THREADS}", *self.become(),
                     harness.find_program("bank-branch"), "--name", "limited", "--conninfo",
                     WORLD.conninfo["limited"], "--coordinators", f"127.0.0.1:{nobody}"],
                    directory) as process, contextlib.ExitStack() as others:
                task = pathlib.Path(f"/proc/{process.ports['pid']}/task")
                for _ in range(self.THREADS - len(list(task.iterdir()))):
                    other = subprocess.Popen([*self.become(), "sleep", "300"])
                    others.callback(other.wait)
                    others.callback(other.kill)
                gid = "troth:limited:main-0123456789ab.1-00000001.1"
                WORLD.server.psql(f"BEGIN; PREPARE TRANSACTION '{gid}'", "limited")
                self.addCleanup(WORLD.server.psql, f"ROLLBACK PREPARED '{gid}'", "limited")
                until(lambda: "recovery cannot ask coordinator" in process.log(), 20,
                      f"the thread is missed; the process says: {process.log()}")
                self.assertIsNone(process.process.poll(), "the process has ended")
                others.close()
                until(lambda: "prepared branches wait for coordinator" in process.log(), 20,
                      "recovery asks")


class Result(unittest.TextTestResult):
    """Notes what became of each test."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.passed = []

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed.append(test.id())


def main():
    arguments, report = sys.argv[1:], None
    if "--help" in arguments or "-h" in arguments:
        print(__doc__)
        return 0
    if arguments[:1] == ["--report"]:
        report, arguments = arguments[1], arguments[2:]
    harness.private_cluster.stop_on_signals()
    began = time.monotonic()
    result = unittest.main(argv=[sys.argv[0], "-v", *arguments], exit=False, warnings="ignore",
                           testRunner=unittest.TextTestRunner(
                               verbosity=2, resultclass=Result)).result
    tried, passed = result.testsRun - len(result.skipped), len(result.passed)
    if report:
        pathlib.Path(report).write_text(json.dumps({
            "tried": tried, "passed": passed,
            "skipped": [f"{re.sub('^__main__.', '', test.id())}: {why}"
                        for test, why in result.skipped]}), encoding="utf-8")
    print(f"took {time.monotonic() - began:.0f} s")
    print(f"traps_processes: tried={tried} passed={passed}")
    return 0 if tried and tried == passed and result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
