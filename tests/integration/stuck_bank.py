"""A bank with a branch that is stuck, made by real processes: for tests of what operators see.

Knows no expectation; `operator.py`, `resolve.py` and `alerts.py` have those.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import psycopg2

ROOT = pathlib.Path(__file__).resolve().parents[2]
ACCOUNTS = 50  # at each bank
sys.path.insert(0, str(ROOT / "examples" / "bank"))
import demo  # noqa: E402  pylint: disable=wrong-import-position
import transfer  # noqa: E402  pylint: disable=wrong-import-position


def until(what, condition, seconds=20):
    """Waits, looking, until it is so; what it came to."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "never came true: " + what
        time.sleep(0.05)


class Waiter(threading.Thread):
    """A session of an application that updates one account, and waits for whoever has it."""

    def __init__(self, conninfo, account, note=""):
        super().__init__(daemon=True)
        self.connection = psycopg2.connect(conninfo + " application_name=reports")
        self.pid = self.connection.info.backend_pid
        self.account = account
        self.note = note
        self.done = False
        self.start()

    def run(self):
        try:
            with self.connection, self.connection.cursor() as cursor:
                cursor.execute(f"UPDATE account{self.note} SET balance = balance + 0 "
                               "WHERE number = %s", (self.account,))
            self.done = True
        except psycopg2.Error:
            pass  # the server was stopped
        finally:
            self.connection.close()


class StuckBank:
    """Two banks, east and west."""

    def __init__(self, bin_dir):
        self.bin = pathlib.Path(bin_dir)
        self.generated = tempfile.TemporaryDirectory(prefix="troth-idl-")
        transfer.generate(self.generated.name)
        self.bank = demo.Bank(bin_dir, ["east", "west"], keep=False)

    def start(self):
        """From nothing; returns when transfers can be made."""
        self.bank.start()
        subprocess.run(self.bank.client("init", "--accounts", str(ACCOUNTS)), check=True,
                       stdout=subprocess.DEVNULL)

    def stop(self):
        """Ends all of it."""
        self.bank.stop()
        self.generated.cleanup()

    def ctl(self, *arguments, code=0, command=None):
        """What trothctl prints; it must end with `code`."""
        line = [str(self.bin / "trothctl"), "--coordinator",
                f"127.0.0.1:{self.bank.coordinator.ports['admin_port']}", *arguments]
        done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=60, check=False, input=command)
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stdout + done.stderr

    def ctl_json(self, *arguments):
        """As ctl, with --json."""
        return json.loads(self.ctl(*arguments, "--json"))

    def ctl_json_code(self, code, *arguments):
        """As ctl_json, of a command that ends with `code` and says nothing on stderr."""
        return json.loads(self.ctl(*arguments, "--json", code=code))

    def in_doubt(self):
        """What `list --in_doubt` tells; None when a participant could not be asked."""
        line = [str(self.bin / "trothctl"), "--coordinator",
                f"127.0.0.1:{self.bank.coordinator.ports['admin_port']}", "list", "--in_doubt",
                "--json"]
        done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=60, check=False)
        assert done.returncode == (1 if done.stderr else 0), (done.returncode, done.stderr)
        return None if done.stderr else json.loads(done.stdout)

    def connect(self):
        """A client's connection."""
        return transfer.connect_coordinator(
            f"127.0.0.1:{self.bank.coordinator.ports['client_port']}", 10)

    def prepare(self, coordinator, transaction_id, name, account):
        """Work with an early prepare: the branch is prepared on return."""
        from troth.wire.coordinator.ttypes import BranchClaim
        from troth.wire.values.ttypes import Context
        from troth_bank import BankBranch
        from troth_bank.ttypes import Leg
        place = until(f"{name} is up", lambda: next(
            (p for p in coordinator.resolve([name]) if p.up), None))
        branch = transfer.call_service(BankBranch.Client, place.host, place.port, 10)
        done = branch.apply(Context(transaction_id=transaction_id, work=0, deadline_ms=20_000,
                                    last=True),
                            [Leg(account=account, amount=-1 if name == "east" else 1)],
                            "test").branch
        return BranchClaim(participant=done.participant, mark=done.mark, works=done.works,
                           instance=done.instance, vote=done.vote)

    def begin(self, account, names=("east", "west")):
        """A transaction prepared at all of `names`, its commit not asked. Its id, its claims."""
        coordinator = self.connect()
        lease = coordinator.lease(1)
        transaction_id = f"{lease.prefix}{lease.first}"
        return transaction_id, [self.prepare(coordinator, transaction_id, name, account)
                                for name in names]

    def decide(self, transaction_id, claims):
        """Asks for the commit; returns when it is decided."""
        from troth.wire.coordinator.ttypes import CommitRequest, OutcomeKind, Wait
        outcome = self.connect().commit(CommitRequest(
            transaction_id=transaction_id, branches=claims, deadline_ms=10_000, wait=Wait.DECIDED))
        assert outcome.kind == OutcomeKind.COMMITTED, outcome
        return outcome

    def lose(self, name):
        """Kills a participant's process; its database lives. Returns when that was noticed."""
        self.bank.branches[name].kill()
        until(f"{name} is seen to be down", lambda: not next(
            p for p in self.ctl_json("participants") if p["participant"] == name)["up"])

    def stick(self, account):
        """A transaction decided to commit, and not applied at east, whose process is lost."""
        transaction_id, claims = self.begin(account)
        self.lose("east")
        self.decide(transaction_id, claims)
        return transaction_id

    def wait_behind(self, name, account, count, note=""):
        """Sessions that wait for the account, one behind the other; returns when all do. `note`
        stands in their statements."""
        waiters = []
        for _ in range(count):
            waiters.append(Waiter(self.bank.clusters[name].conninfo("bank"), account, note))
            until("the session waits", lambda: self.bank.sql(
                name, "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = "
                f"{waiters[-1].pid}")[0][0] == 1)
        return waiters
