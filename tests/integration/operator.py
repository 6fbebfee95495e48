#!/usr/bin/python3
"""What an operator finds out with two commands: a cluster with one branch stuck behind a lost
participant, and two sessions of an application waiting; real processes, real PostgreSQL.

    operator.py --bin build/release/bin [--transcript FILE] [unittest's arguments]

--transcript writes what was typed and printed, as docs/operations.md has it.
"""

import contextlib
import json
import pathlib
import re
import signal
import subprocess
import sys
import time
import unittest
import urllib.request

import psycopg2

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import prologue  # noqa: E402  pylint: disable=wrong-import-position
from stuck_bank import StuckBank, until  # noqa: E402  pylint: disable=wrong-import-position

BIN = None
TRANSCRIPT = None


class OperatorTest(unittest.TestCase):
    """One bank for all cases; each brings it back to health."""

    @classmethod
    def setUpClass(cls):
        cls.stuck = StuckBank(BIN)
        cls.addClassCleanup(cls.stuck.stop)
        cls.stuck.start()

    def tearDown(self):
        bank = self.stuck.bank
        for branch in bank.branches.values():
            if not branch.running():
                branch.start()
        if not bank.coordinator.running():
            bank.coordinator.start()
        until("nothing is in doubt", lambda: self.stuck.in_doubt() == [])

    def database(self):
        """What `--database` must say for a private cluster."""
        words = dict(w.split("=", 1) for w in
                     self.stuck.bank.clusters["east"].conninfo("bank").split())
        return " ".join(f"{k}={v}" for k, v in words.items() if k in ("user", "password"))

    def test_a_password_is_not_for_ps(self):
        refused = subprocess.run(
            [f"{BIN}/trothctl", "why", "troth:east:bank-0123456789ab.1-00000000.1",
             "--database", "user=x password=s3cret"],
            capture_output=True, text=True, check=False)
        self.assertEqual(refused.returncode, 2, refused.stderr)
        self.assertRegex(refused.stderr, r"^trothctl: --database holds a password, .*passfile")
        self.assertNotIn("--conninfo", refused.stderr)
        self.assertNotIn("s3cret", refused.stdout + refused.stderr)

    def test_a_hang_up_ends_nobody(self):
        """SIGHUP is ignored: a server reads its files when they change."""
        bank = self.stuck.bank
        servers = (bank.coordinator, *bank.branches.values())
        for process in servers:
            process.signal(signal.SIGHUP)
        # All of them are asked, after the signal.
        found = self.stuck.ctl_json("doctor")
        self.assertEqual([f for f in found if f["about"] == "participant"], [])
        self.assertEqual(len({f["process"] for f in found}), len(servers))
        for process in servers:
            self.assertTrue(process.running(), process.tail())

    def test_two_commands(self):
        """What is stuck, why, since when, and whom it blocks."""
        stuck = self.stuck
        identity = stuck.stick(account=1)
        first, second = stuck.wait_behind("east", 1, 2)
        if TRANSCRIPT:
            time.sleep(20)  # for ages as an operator meets them
        listed = stuck.ctl("list", "--in_doubt", code=1)
        database = self.database()
        why = stuck.ctl("why", identity, "--database", database)
        if TRANSCRIPT:
            pathlib.Path(TRANSCRIPT).write_text(
                f"$ trothctl list --in_doubt\n{listed}\n$ trothctl why {identity}\n{why}",
                encoding="utf-8")
        # What, and why, and since when.
        line = next(l for l in listed.splitlines() if l.startswith(identity))
        self.assertIn("committed", line)
        self.assertRegex(line, r"not applied at east \(down for [0-9]+ s\)")
        self.assertRegex(line, r"committed +[0-9]+ (ms|s) ")
        self.assertRegex(why, r"prepared for [0-9]+ (ms|s) in database bank, xid [0-9]+")
        self.assertIn("east could not be asked what it holds: it is down", listed)
        # Whom it blocks: the first waits for the branch, the second for the first.
        self.assertIn("2 sessions waiting", why)
        rows = {int(r.split()[0]): r for r in why.splitlines() if re.match(r"[0-9]+ ", r)}
        self.assertIn("the branch", rows[first.pid])
        self.assertRegex(rows[second.pid], rf" {first.pid} ")
        for row in rows.values():
            self.assertIn("reports", row)
            self.assertIn("UPDATE account", row)
        self.assertIn("public.account", why)
        self.assertIn("start east", why)
        # And it is so: the participant comes back, and both go on.
        stuck.bank.branches["east"].start()
        for waiter in (first, second):
            waiter.join(20)
            self.assertTrue(waiter.done)

    def test_a_server_that_cannot_tell(self):
        """Regression: what another server, or a standby, does not show was said not to be there."""
        stuck = self.stuck
        identity = stuck.stick(account=5)
        clusters = stuck.bank.clusters
        standby = clusters["east"].standby("standby")
        self.addCleanup(standby.stop, mode="immediate")
        for server, what in ((clusters["west"], "another server answers at 127.0.0.1"),
                             (standby, "is a standby")):
            why = stuck.ctl("why", identity, "--database", server.conninfo("bank"))
            self.assertRegex(why, f"branch at east .*\n +cannot be seen: .*{what}")
            self.assertNotIn("holds nothing", why)
        self.assertIn("prepared for", stuck.ctl("why", identity, "--database", self.database()))

    def test_a_statement_commands_no_terminal(self):
        """Whoever may wait for a row chooses what an operator's terminal is sent."""
        stuck = self.stuck
        identity, claims = stuck.begin(account=4)
        waiter = stuck.wait_behind("west", 4, 1, note=" /* \x1b[2J\u009b2J\x07 \u00e9 */")[0]
        why = stuck.ctl("why", identity)
        self.assertIn("/* ?[2J\u00bf2J? \u00e9 */", why)
        self.assertNotRegex(why, "[\x00-\x09\x0b-\x1f\x7f-\x9f]")
        said = subprocess.run([f"{BIN}/trothctl", "\x1b[31m"], capture_output=True, text=True,
                              check=False)
        self.assertIn("no command '?[31m'", said.stderr)
        stuck.decide(identity, claims)
        waiter.join(20)

    def test_of_a_participant_that_is_up(self):
        """Its database is asked by itself; the coordinator tells all, by one command."""
        stuck = self.stuck
        identity, claims = stuck.begin(account=2)
        waiter = stuck.wait_behind("west", 2, 1)[0]
        report = next(r for r in stuck.ctl_json("list", "--in_doubt")
                      if r["transaction_id"] == identity)
        self.assertEqual(report["state"], "pending")
        branches = {b["participant"]: b for b in report["branches"]}
        self.assertEqual([w["pid"] for w in branches["west"]["prepared"]["waiting"]], [waiter.pid])
        self.assertEqual(branches["east"]["prepared"]["waiting"], [])
        self.assertEqual(branches["west"]["state"], "unheard-of")
        self.assertGreaterEqual(branches["west"]["prepared"]["xmin_age"], 1)
        gid = branches["west"]["gid"]
        self.assertIn("1 session waiting", stuck.ctl("why", gid))
        self.assertEqual(stuck.ctl_json("list", "--in_doubt", "--older_than", "1h"), [])
        self.assertEqual(stuck.ctl_json("list", "--in_doubt", "--participant", "nobody"), [])
        self.assertEqual(len(stuck.ctl_json("list", "--in_doubt", "--participant", "west")), 1)
        stuck.decide(identity, claims)
        waiter.join(20)
        self.assertTrue(waiter.done)

    def test_what_a_commit_does_not_name(self):
        """Prepared by work of a transaction whose commit leaves it out: nobody may commit it."""
        stuck = self.stuck
        identity, claims = stuck.begin(account=5)
        stuck.lose("west")
        # It asks about what it finds prepared when it holds this, or after ten seconds.
        with contextlib.closing(psycopg2.connect(
                stuck.bank.clusters["west"].conninfo("bank"))) as other:
            other.cursor().execute(
                "SELECT pg_advisory_lock(hashtextextended('troth sweep west', 0))")
            stuck.bank.branches["west"].start()
            until("west is up", lambda: all(p["up"] for p in stuck.ctl_json("participants")))
            stuck.decide(identity, claims[:1])
            until("east has its half", lambda: stuck.ctl_json("status")["unacknowledged"] == 0)
            for report in (*stuck.in_doubt(), stuck.ctl_json("show", identity)):
                self.assertEqual((report["transaction_id"], report["state"]),
                                 (identity, "committed"))
                west = next(b for b in report["branches"] if b["participant"] == "west")
                self.assertEqual(west["state"], "left-out")
                self.assertIn("does not name west", report["why"])
            url = f"http://127.0.0.1:{stuck.bank.coordinator.ports['http_port']}/api/in-doubt"
            until("the console shows it too", lambda: identity in {
                one["transaction_id"] for one in
                json.load(urllib.request.urlopen(url, timeout=10))["transactions"]})
            self.assertIn("rolls the branch back", stuck.ctl("why", identity))
            self.assertIn("nothing to do", stuck.ctl("resolve", identity, "--commit", "--yes",
                                                     "--reason", "tried", "--who", "ops"))
            self.assertEqual(len(stuck.bank.prepared()[0]), 1)
        until("it is rolled back", lambda: not stuck.bank.prepared()[0])

    def test_timeline(self):
        """Every step of one transaction, in its order, over all branches."""
        stuck = self.stuck
        identity, claims = stuck.begin(account=3)
        stuck.decide(identity, claims)
        until("applied", lambda: stuck.ctl_json("show", identity)["in_doubt"] is False)
        report = until("its end is noted", lambda: (lambda r: r if r["timeline"][-1]["what"] ==
                       "applied everywhere" else None)(stuck.ctl_json("show", identity)))
        events = [(e["what"], e["participant"]) for e in report["timeline"]]
        order = [events.index(e) for e in (("commit asked", ""), ("decided to commit", ""),
                                           ("decision durable", ""), ("commit sent", "east"),
                                           ("acknowledged", "east"), ("applied everywhere", ""))]
        self.assertEqual(order, sorted(order))
        self.assertIn(("acknowledged", "west"), events)
        ago = [e["ago_us"] for e in report["timeline"]]
        self.assertEqual(ago, sorted(ago, reverse=True))
        drawn = stuck.ctl("trace", identity)
        self.assertRegex(drawn, r"coordinator +east +west")
        self.assertRegex(drawn, r"\|-+ commit -+>")
        self.assertRegex(drawn, r"\|<-+ acknowledged -+\|")

    def test_prepares_are_drawn_too(self):
        """A transfer in the standard flow: asked, voted, decided, finished."""
        stuck = self.stuck
        done = stuck.bank.client("transfer", "east/4=-1", "west/4=1")
        said = subprocess.run(done, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=30, check=True).stdout
        identity = re.search(r"bank-[0-9a-f]{12}\.[0-9a-f-]+\.[0-9]+", said)[0]
        events = [(e["what"], e["participant"])
                  for e in stuck.ctl_json("show", identity)["timeline"]]
        for name in ("east", "west"):
            self.assertLess(events.index(("prepare sent", name)),
                            events.index(("voted prepared", name)))

    def test_without_a_coordinator(self):
        """A branch is seen in its database also when the coordinator is the one that is lost."""
        stuck = self.stuck
        identity, _ = stuck.begin(account=5)
        waiter = stuck.wait_behind("east", 5, 1)[0]
        stuck.bank.coordinator.kill()
        words = stuck.bank.clusters["east"].conninfo("bank")
        why = stuck.ctl("why", f"troth:east:{identity}", "--database", words)
        self.assertIn("no coordinator answers", why)
        self.assertIn("1 session waiting", why)
        stuck.ctl("list", code=3)
        stuck.bank.coordinator.start()
        waiter.join(40)
        self.assertTrue(waiter.done, "a new life aborts what the old one had not decided")

    def test_asked_wrongly(self):
        """No id, no number, no such flag: 2, and what is wrong."""
        for arguments in (["show"], ["show", "nonsense"], ["why", "troth:x"], ["trace", "a", "b"],
                          ["list", "--in_doubt", "--older_than", "soon"], ["why", "other:gid"]):
            self.assertIn("trothctl: ", self.stuck.ctl(*arguments, code=2))
        unknown = "bank-000000000000.1-00000000.7"
        self.assertEqual(self.stuck.ctl_json("show", unknown)["state"], "not-mine")


if __name__ == "__main__":
    prologue.main(globals(), optional=("transcript",))
