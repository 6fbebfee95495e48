#!/usr/bin/python3
"""Settling by hand, and the other tools of an operator: trothctl resolve, doctor, audit, drain, and
the completion; real processes, real PostgreSQL.

    resolve.py --bin build/release/bin [unittest's arguments]
"""

import json
import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(ROOT / "tests" / "postgres"))
import private_cluster  # noqa: E402  pylint: disable=wrong-import-position
import prologue  # noqa: E402  pylint: disable=wrong-import-position
from stuck_bank import StuckBank, until  # noqa: E402  pylint: disable=wrong-import-position

BIN = None
ORDER = ("--reason", "its client is gone", "--who", "ops on call")


class ResolveTest(unittest.TestCase):
    """One bank for all cases; each brings it back to health."""

    @classmethod
    def setUpClass(cls):
        cls.stuck = StuckBank(BIN)
        cls.addClassCleanup(cls.stuck.stop)
        cls.stuck.start()

    def tearDown(self):
        bank = self.stuck.bank
        for process in (bank.coordinator, *bank.branches.values()):
            if not process.running():
                process.start()
        until("nothing is in doubt", lambda: self.stuck.in_doubt() == [], 40)

    def balance(self, name, account):
        """Of one account."""
        return self.stuck.bank.sql(name, f"SELECT balance FROM account WHERE number = {account}"
                                   )[0][0]

    def heuristics(self, identity):
        """What is recorded of a transaction."""
        return [h for h in self.stuck.ctl_json("heuristics") if h["transaction_id"] == identity]

    def test_abort_in_two_steps(self):
        """Shown, then done; it binds, and it is kept who ordered it and why."""
        from troth.wire.coordinator.ttypes import CommitRequest, OutcomeKind, Wait
        stuck = self.stuck
        before = self.balance("east", 6)
        identity, claims = stuck.begin(account=6)
        shown = stuck.ctl("resolve", identity, "--abort", *ORDER, code=1)
        self.assertIn("this would be done", shown)
        self.assertEqual(len(stuck.bank.prepared()[0]), 2, "the first step does nothing")
        self.assertEqual(self.heuristics(identity), [])
        token = re.search(r"--token ([0-9a-f]{8})", shown)[1]
        wrong = "00000000" if token != "00000000" else "00000001"
        self.assertIn("has changed", stuck.ctl("resolve", identity, "--abort", *ORDER, "--token",
                                               wrong, code=1))
        self.assertIn("done:", stuck.ctl("resolve", identity, "--abort", *ORDER, "--token", token))
        until("both are rolled back", lambda: not stuck.bank.prepared()[0])
        outcome = stuck.connect().commit(CommitRequest(
            transaction_id=identity, branches=claims, deadline_ms=5_000, wait=Wait.APPLIED))
        self.assertEqual(outcome.kind, OutcomeKind.ABORTED, "an abort binds (law L11)")
        self.assertEqual(self.balance("east", 6), before)
        kept = self.heuristics(identity)
        self.assertEqual({h["participant"] for h in kept}, {"east", "west"})
        for one in kept:
            self.assertEqual(one["kind"], "heuristic")
            self.assertIn("ordered to abort by ops on call: its client is gone", one["what"])
            self.assertGreater(one["at_unix_ms"], 1_600_000_000_000)

    def test_never_against_a_recorded_decision(self):
        """Decided to commit: no abort, whatever is said; a commit needs no order."""
        stuck = self.stuck
        before = self.balance("east", 7)
        identity = stuck.stick(account=7)
        for more in ([], ["--yes"], ["--decision_lost", "--yes"]):
            said = stuck.ctl("resolve", identity, "--abort", *ORDER, *more, code=1)
            self.assertIn("decided to commit", said)
        self.assertIn("nothing to do", stuck.ctl("resolve", identity, "--commit", *ORDER))
        self.assertEqual(self.heuristics(identity), [])
        stuck.bank.branches["east"].start()
        until("it is committed", lambda: self.balance("east", 7) == before - 1)

    def test_no_commit_ahead_of_the_coordinator(self):
        """Not decided: only the coordinator may commit it; a token is of one situation."""
        stuck = self.stuck
        identity, claims = stuck.begin(account=8)
        for more in ([], ["--yes"], ["--decision_lost", "--yes"]):
            self.assertIn("not decided", stuck.ctl("resolve", identity, "--commit", *ORDER, *more,
                                                   code=1))
        token = stuck.ctl_json_code(1, "resolve", identity, "--abort", *ORDER)["token"]
        stuck.decide(identity, claims)
        stuck.ctl("resolve", identity, "--abort", *ORDER, "--token", token, code=1)
        until("it is applied", lambda: not stuck.bank.prepared()[0])
        self.assertEqual(self.heuristics(identity), [])

    def test_decision_lost(self):
        """Branches of a coordinator whose log is lost: a person decides, when she says so."""
        stuck = self.stuck
        before = self.balance("east", 9)
        for sequence, what, change in ((1, "--commit", -5), (2, "--abort", -7)):
            identity = f"gone-0123456789ab.1-00000001.{sequence}"
            gid = f"troth:east:{identity}"
            stuck.bank.sql("east", f"BEGIN; UPDATE account SET balance = balance + {change} WHERE "
                           f"number = 9; PREPARE TRANSACTION '{gid}'")
            listed = until("it is listed", stuck.in_doubt)
            self.assertEqual([(r["transaction_id"], r["state"]) for r in listed],
                             [(identity, "not-mine")])
            said = stuck.ctl("resolve", identity, what, *ORDER, "--yes", code=1)
            self.assertIn("--decision_lost", said)
            self.assertEqual(stuck.bank.prepared()[0], {gid})
            done = stuck.ctl("resolve", identity, what, *ORDER, "--decision_lost", "--yes")
            self.assertIn("PREPARED", done)
            self.assertEqual(stuck.bank.prepared()[0], set(), "it is settled on return")
        self.assertEqual(self.balance("east", 9), before - 5)
        orders = [h["what"] for h in stuck.ctl_json("heuristics")]
        self.assertTrue(any("ordered to commit by ops on call" in what for what in orders))

    def test_who_could_not_be_asked(self):
        """A branch of a participant that is down: nobody says that there is nothing to do."""
        stuck = self.stuck
        identity = "gone-0123456789ab.1-00000001.3"
        order = ("resolve", f"troth:east:{identity}", "--abort", *ORDER, "--decision_lost", "--yes")
        for name in ("east", "west"):
            stuck.bank.sql(name, "BEGIN; UPDATE account SET balance = balance WHERE number = 15; "
                           f"PREPARE TRANSACTION 'troth:{name}:{identity}'")
        gids = {name: f"troth:{name}:{identity}" for name in ("east", "west")}
        stuck.lose("east")
        done = stuck.ctl(*order, code=1)
        self.assertIn("ROLLBACK PREPARED '" + gids["west"], done)
        self.assertIn("east could not be asked what it holds: it is down", done)
        self.assertEqual(stuck.bank.prepared()[0], {gids["east"]})
        said = stuck.ctl(*order, code=1)
        self.assertIn("nobody knows what is held by east (it is down", said)
        self.assertNotIn("nothing to do", said)
        listed = stuck.ctl("list", "--in_doubt", code=1)
        self.assertNotIn(identity, listed)
        self.assertIn("east could not be asked what it holds: it is down", listed)
        self.assertNotIn("east", stuck.ctl("list", "--in_doubt", "--participant", "west"))
        shown = stuck.ctl_json("show", identity)
        self.assertEqual([(b["participant"], b["state"]) for b in shown["branches"]],
                         [("east", "unknown")])
        words = stuck.bank.clusters["east"].conninfo("bank")
        self.assertIn("prepared for", stuck.ctl("why", identity, "--database", words))
        stuck.bank.branches["east"].start()
        until("all can be asked", lambda: stuck.in_doubt() is not None)
        self.assertIn("ROLLBACK PREPARED '" + gids["east"], stuck.ctl(*order))
        self.assertEqual(stuck.bank.prepared()[0], set())
        self.assertIn("nothing to do", stuck.ctl(*order))

    def test_an_order_about_another_coordinators(self):
        """It is shown with that transaction, not with ours of the same epoch and sequence."""
        stuck = self.stuck
        ours, claims = stuck.begin(account=13)
        theirs = "gone-0123456789ab." + ours.partition(".")[2]
        stuck.decide(ours, claims)
        until("it is applied", lambda: not stuck.bank.prepared()[0])
        stuck.bank.sql("east", "BEGIN; UPDATE account SET balance = balance WHERE number = 13; "
                       f"PREPARE TRANSACTION 'troth:east:{theirs}'")
        stuck.ctl("resolve", theirs, "--abort", *ORDER, "--decision_lost", "--yes")
        self.assertEqual(stuck.ctl_json("show", ours)["heuristics"], [])
        shown = stuck.ctl_json("show", theirs)["heuristics"]
        self.assertEqual([(h["transaction_id"], h["participant"]) for h in shown],
                         [(theirs, "east")])
        self.assertIn("ordered to abort by ops on call", shown[0]["what"])
        self.assertEqual(self.heuristics(ours), [])
        self.assertEqual(len(self.heuristics(theirs)), 1)
        wal = str(stuck.bank.dir / "wal")
        kept = [l for l in map(json.loads, stuck.ctl("audit", wal).splitlines())
                if l["kind"] == "heuristic" and l["participant"] == "east"]
        self.assertIn(theirs, [l["transaction_id"] for l in kept])
        self.assertNotIn(ours, [l["transaction_id"] for l in kept])
        self.assertNotIn("heuristic", stuck.ctl("wal", "dump", wal, "--transaction", ours))

    def test_doctor(self):
        """Says what is wrong, and what to do; good when all is."""
        stuck = self.stuck
        findings = stuck.ctl_json("doctor")
        wrong = [f for f in findings if f["verdict"] == "wrong"]
        self.assertEqual(wrong, [])
        about = {(f["process"].split()[0], f["about"]) for f in findings}
        for one in (("coordinator", "disk"), ("coordinator", "log"), ("coordinator", "flags"),
                    ("participant", "postgres"), ("participant", "clock")):
            self.assertIn(one, about)
        self.assertRegex(stuck.ctl("doctor"), r"doctor: wrong=0 warnings=[0-9]+\n$")
        stuck.lose("west")
        stuck.bank.sql("east", "ALTER SYSTEM SET full_page_writes = off")
        stuck.bank.sql("east", "SELECT pg_reload_conf()")
        until("the setting is taken",
              lambda: stuck.bank.sql("east", "SHOW full_page_writes") == [("off",)])
        said = stuck.ctl("doctor", code=1)
        self.assertIn("full_page_writes = on; SELECT pg_reload_conf()", said)
        self.assertRegex(said, r"participant west\n +WRONG +participant: down for")
        self.assertIn("doctor: wrong=2", said)
        stuck.bank.sql("east", "ALTER SYSTEM RESET full_page_writes")
        stuck.bank.sql("east", "SELECT pg_reload_conf()")

    def test_a_reason_in_any_language_and_encoding(self):
        """A long one is cut within a letter, and stays readable by programs; so does Latin-1."""
        stuck = self.stuck
        wal = str(stuck.bank.dir / "wal")
        for reason in ("x" + "\u00e9" * 400, b"gestr\xe4ubt"):
            identity, _ = stuck.begin(account=14)
            stuck.ctl("resolve", identity, "--abort", "--reason", reason, "--yes")
            self.assertEqual(len(self.heuristics(identity)), 2)
            self.assertEqual(len(stuck.ctl_json("show", identity)["heuristics"]), 2)
            self.assertIn(identity, stuck.ctl("audit", wal))
            stuck.ctl("wal", "dump", wal, "--json", "--transaction", identity)

    def test_audit(self):
        """Decisions with participants and xids, every heuristic; a line of JSON each."""
        stuck = self.stuck
        identity, claims = stuck.begin(account=10)
        stuck.decide(identity, claims)
        until("it is applied", lambda: not stuck.bank.prepared()[0])
        other, _ = stuck.begin(account=11)
        stuck.ctl("resolve", other, "--abort", *ORDER, "--yes")
        lines = [json.loads(line) for line in
                 stuck.ctl("audit", str(stuck.bank.dir / "wal")).splitlines()]
        decision = next(l for l in lines if l.get("transaction_id") == identity)
        self.assertEqual(decision["decision"], "commit")
        votes = {c.participant: c.vote.xid for c in claims}
        self.assertEqual({b["participant"]: b["xid"] for b in decision["branches"]}, votes)
        kept = [l for l in lines if l["kind"] == "heuristic" and l["transaction_id"] == other]
        self.assertEqual(len(kept), 2)
        self.assertEqual({l["participant"] for l in lines if l["kind"] == "participant"},
                         {"east", "west"})

    def test_drain(self):
        """Waits, says for whom, and ends when nothing is under way."""
        stuck = self.stuck
        stuck.stick(account=12)
        said = stuck.ctl("drain", "--wait_s", "0", code=1)
        self.assertRegex(said, r"1 decided and not applied everywhere; east is DOWN")
        waiting = subprocess.Popen(
            [f"{BIN}/trothctl", "--coordinator",
             f"127.0.0.1:{stuck.bank.coordinator.ports['admin_port']}", "drain"],
            stdout=subprocess.PIPE, text=True)
        self.assertIn("draining", waiting.stdout.readline())
        self.assertIn("1 decided", waiting.stdout.readline())
        stuck.bank.branches["east"].start()
        rest = waiting.communicate(timeout=30)[0]
        self.assertEqual(waiting.returncode, 0)
        self.assertIn("drained", rest)
        stuck.bank.coordinator.stop()

    def test_completion(self):
        """What bash offers: commands, flags, names that the coordinator knows."""
        at = f"--coordinator=127.0.0.1:{self.stuck.bank.coordinator.ports['admin_port']}"

        def offered(*words):
            script = ('PATH="$1:$PATH"; . "$2"; shift 2; COMP_WORDS=("$@"); '
                      'COMP_CWORD=$(($# - 1)); _trothctl; echo "${COMPREPLY[@]}"')
            return subprocess.run(
                ["bash", "-c", script, "bash", str(pathlib.Path(BIN).resolve()),
                 str(ROOT / "cli" / "trothctl.bash"), "trothctl", at, *words],
                stdout=subprocess.PIPE, text=True, check=True, timeout=30).stdout.split()
        self.assertEqual(offered("sh"), ["show"])
        self.assertIn("--in_doubt", offered("list", "--"))
        self.assertEqual(offered("participants", "forget", "e"), ["east"])
        self.assertEqual(offered("wal", "d"), ["dump"])
        identity, claims = self.stuck.begin(account=16)
        self.stuck.lose("east")
        self.stuck.decide(identity, claims)
        self.assertEqual(offered("show", "ba"), [identity])

    def test_asked_wrongly(self):
        """An order without its reason, or without a direction, is none."""
        unknown = "bank-000000000000.1-00000000.7"
        for arguments in (["resolve", unknown, "--abort"], ["resolve", unknown, "--reason", "x"],
                          ["resolve", unknown, "--abort", "--commit", "--reason", "x"],
                          ["resolve", "nonsense", "--abort", "--reason", "x"], ["audit"],
                          ["doctor", "now"]):
            self.stuck.ctl(*arguments, code=2)


class GoneForGoodTest(unittest.TestCase):
    """A participant is lost with its database, and owes the end of a commit."""

    def test_an_empty_database_takes_its_place(self):
        """docs/operations.md, "Move or replace a participant's database"."""
        stuck = StuckBank(BIN)
        self.addCleanup(stuck.stop)
        stuck.start()
        identity = stuck.stick(account=1)
        stuck.bank.clusters["east"].stop(mode="immediate")
        self.assertIn("owes 1 ack", stuck.ctl("participants", "forget", "east", code=1))
        self.assertIn("rebind", stuck.ctl("doctor", code=1))
        stuck.ctl("participants", "rebind", "east")
        anew = private_cluster.Cluster("east", dir=stuck.bank.dir / "pg-anew")
        stuck.bank.clusters["east"] = anew
        anew.start()
        stuck.bank.start_branch("east")
        until("nothing is owed", lambda: stuck.ctl_json("status")["unacknowledged"] == 0)
        told = [h for h in stuck.ctl_json("heuristics") if h["transaction_id"] == identity]
        self.assertEqual([(h["participant"], h["kind"]) for h in told], [("east", "hazard")])
        stuck.bank.branches["east"].stop()
        stuck.ctl("participants", "forget", "east")
        self.assertEqual([p["participant"] for p in stuck.ctl_json("participants")], ["west"])


if __name__ == "__main__":
    prologue.main(globals())
