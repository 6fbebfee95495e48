#!/usr/bin/python3
"""What a bank tells over HTTP, and that it is true: two PostgreSQL servers, coordinator, two
branches, each with /metrics, /healthz and /readyz.

    monitoring.py --bin build/release/bin [unittest's arguments]
"""

import re
import subprocess
import unittest
import urllib.error
import urllib.request

import prologue
from stuck_bank import StuckBank, until

BIN = None


def get(process, path):
    """Status and text of a page."""
    url = f"http://127.0.0.1:{process.ports['http_port']}{path}"
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def metrics(process):
    """Values by name and labels, as they are written."""
    status, text = get(process, "/metrics")
    assert status == 200, text
    values = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            values[name] = float(value)
    return values


class MonitoringTest(unittest.TestCase):
    """One bank for all cases."""

    @classmethod
    def setUpClass(cls):
        cls.stuck = StuckBank(BIN)
        cls.bank = cls.stuck.bank
        cls.addClassCleanup(cls.stuck.stop)
        cls.stuck.start()

    def move(self, amount=1):
        """A transfer that is committed."""
        done = subprocess.run(self.bank.client("transfer", f"east/1=-{amount}", f"west/1={amount}"),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=30, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_counts_what_was_done(self):
        """Outcomes, latencies, syncs, calls."""
        before = metrics(self.bank.coordinator)
        for _ in range(5):
            self.move()
        after = metrics(self.bank.coordinator)

        def grew(name):
            return after[name] - before.get(name, 0)
        self.assertEqual(grew('troth_transactions_total{outcome="committed"}'), 5)
        self.assertEqual(grew('troth_commit_duration_seconds_count{outcome="committed"}'), 5)
        self.assertGreaterEqual(grew("troth_log_sync_duration_seconds_count"), 5)
        self.assertGreater(grew('troth_participant_calls_total{call="finish"}'), 0)
        self.assertEqual(after['troth_participant_up{participant="east"}'], 1)
        self.assertEqual(after["troth_transactions_in_flight"], 0)
        self.assertEqual(after["troth_ready"], 1)

    def test_is_in_the_format_of_prometheus(self):
        """Each family has a help and a type, once, and values that are numbers."""
        for process in (self.bank.coordinator, *self.bank.branches.values()):
            families = re.findall(r"^# TYPE (\S+) (counter|gauge|histogram)$",
                                  get(process, "/metrics")[1], re.MULTILINE)
            names = [name for name, _ in families]
            self.assertEqual(len(names), len(set(names)))
            self.assertGreater(len(names), 4)
            metrics(process)

    def test_unknown_pages(self):
        """A page that is not there says which are."""
        status, text = get(self.bank.coordinator, "/nothing")
        self.assertEqual(status, 404)
        self.assertIn("/metrics", text)

    def test_readiness(self):
        """Ready only when work can be done; alive all the time."""
        self.assertEqual(get(self.bank.coordinator, "/readyz"), (200, "serving\n"))
        east = self.bank.branches["east"]
        until("east is ready", lambda: get(east, "/readyz")[0] == 200)
        self.bank.coordinator.kill()
        until("east sees that no coordinator is there",
              lambda: get(east, "/readyz")[0] == 503)
        self.assertEqual(get(east, "/healthz")[0], 200)
        self.bank.coordinator.start()
        until("east is ready again", lambda: get(east, "/readyz")[0] == 200)
        until("the coordinator is ready",
              lambda: get(self.bank.coordinator, "/readyz")[0] == 200)
        self.move()

    def test_settled_by_another_hand(self):
        """ROLLBACK PREPARED in psql, behind our back: found out, recorded, counted, told."""
        transaction_id = self.stuck.stick(account=2)
        waiting = metrics(self.bank.coordinator)
        self.assertEqual(waiting["troth_transactions_unacknowledged"], 1)
        self.assertEqual(waiting['troth_participant_up{participant="east"}'], 0)

        gid = f"troth:east:{transaction_id}"
        self.assertIsNotNone(self.bank.sql("east", f"ROLLBACK PREPARED '{gid}'"))
        self.bank.branches["east"].start()
        until("the coordinator counts a heuristic",
              lambda: metrics(self.bank.coordinator)["troth_heuristics"] == 1)
        east = metrics(self.bank.branches["east"])
        self.assertEqual(east['troth_branch_heuristics{participant="east"}'], 1)
        self.assertEqual(east['troth_branches_overloaded_total{participant="east"}'], 0)
        told = subprocess.run(
            [f"{BIN}/trothctl", "--coordinator",
             f"127.0.0.1:{self.bank.coordinator.ports['admin_port']}", "heuristics"],
            stdout=subprocess.PIPE, check=True, text=True).stdout
        self.assertIn(transaction_id, told)
        self.assertIn("east", told)


if __name__ == "__main__":
    prologue.main(globals())
