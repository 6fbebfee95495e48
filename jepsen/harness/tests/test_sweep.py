"""A cell of the sweep is red when a process ended that ought not to, when a participant serves
nobody after healing, and when a branch of before stays prepared too long.
"""

import argparse
import time
import unittest
from unittest import mock

from support import Place  # First: it sets the path.
from harness import crash_table, sweep

SERVES = '$ready; exec sleep 60'
ROW = {row.name: row for row in crash_table.ROWS}


class Database:
    """`held`: branches that stay prepared until so many seconds after the first look."""

    def __init__(self):
        self.held, self.first, self.looks = 0, None, 0

    def prepared(self, seconds=0):
        now = time.monotonic()
        self.looks += 1
        self.first = self.first or now
        age = now - self.first
        return ['troth:p1:1'] if age < self.held and age >= seconds else []

    def query(self, *_, **__):
        return []


class Cluster:
    """A coordinator and three participants, of shell."""

    def __init__(self, place):
        self.coordinator = place.program('c', SERVES)
        self.participants = {n: place.program(n, SERVES) for n in ('p1', 'p2', 'p3')}
        self.databases = {n: Database() for n in self.participants}
        for process in self.processes():
            process.start()

    def processes(self):
        return [self.coordinator, *self.participants.values()]

    def names(self):
        return sorted(self.participants)

    def owed(self, _):
        return None


class Driver:
    """Its clients succeed at those who serve."""

    def __init__(self, recorder, serving):
        self.recorder, self.serving = recorder, serving
        self.hung, self.served, self.told = [], {}, []
        self.drain_seconds = 0

    def run(self, seconds):
        asked = self.recorder.now()
        time.sleep(seconds)
        self.served.update({name: asked for name in self.serving})

    def drain(self):
        time.sleep(self.drain_seconds)


class Recorder:

    def now(self):
        return time.monotonic_ns()

    def fault(self, *_):
        return self.now()


class SweepTest(unittest.TestCase):

    def setUp(self):
        place = Place(self)
        self.sweep = sweep.Sweep(argparse.Namespace(rows='', actions='kill', quick=False, seed=1,
                                                    store=place.path))
        self.sweep.cluster = self.cluster = Cluster(place)
        self.sweep.recorder = Recorder()
        self.sweep.driver = self.driver = Driver(self.sweep.recorder, self.cluster.names())
        self.sweep.audit, self.sweep.log = mock.Mock(), mock.Mock(by_hand=[])
        self.sweep.log.read.return_value = None
        for patch in (mock.patch.object(sweep, 'SETTLE_SECONDS', 0.5),
                      mock.patch.object(sweep.log_export, 'note')):
            patch.start()
            self.addCleanup(patch.stop)

    def settle(self):
        return self.sweep._settle()  # pylint: disable=protected-access

    def act(self, point, action, process):
        cell = sweep.Cell(ROW[point], action)
        process.expect(cell.row.code(action))
        return cell, lambda: self.sweep._act(cell, process)  # pylint: disable=protected-access

    def test_all_is_well(self):
        self.assertEqual(self.settle(), [])

    def test_a_process_that_ended_by_itself_is_told_and_started_again(self):
        dead = self.cluster.participants['p2']
        dead.signal(6)
        dead.wait_death(10)
        problems = self.settle()
        self.assertEqual(len(problems), 1)
        self.assertIn('p2 ended by itself, with -6', problems[0])
        self.assertTrue(dead.ready)

    def test_who_dies_of_the_kill_is_no_surprise(self):
        process = self.cluster.participants['p1']
        cell, act = self.act('work-done', 'kill', process)
        process.signal(9)
        act()
        self.assertEqual(cell.problems + self.settle(), [])

    def test_another_death_than_the_kill_is(self):
        process = self.cluster.participants['p1']
        _, act = self.act('work-done', 'kill', process)
        process.signal(11)
        act()
        self.assertIn('p1 ended by itself, with -11', self.settle()[0])

    def test_an_error_that_ends_nobody_may_end_nobody(self):
        process = self.cluster.participants['p1']
        _, act = self.act('before-prepare', 'error', process)
        process.signal(6)
        act()
        self.assertIn('p1 ended by itself, with -6', self.settle()[0])

    def test_an_error_of_the_log_must_end_the_coordinator(self):
        """Law L15."""
        cell, act = self.act('log-batch-written', 'error', self.cluster.coordinator)
        with mock.patch.object(self.sweep, '_until', lambda *_: False):
            act()
        self.assertEqual(cell.problems, ['c went on after error'])

    def test_nothing_cut_is_an_empty_cell(self):
        self.cluster.network = mock.Mock()
        for broken in (0, 2):
            self.cluster.network.reset.return_value = broken
            _, act = self.act('work-done', 'cut', self.cluster.participants['p1'])
            self.assertEqual(act(), None if broken else 'no connection was cut')

    def test_a_participant_that_serves_nobody_is_told(self):
        self.driver.serving = ['p1', 'p3']
        self.assertEqual(self.settle(), ['no commit succeeded at p2 within 0.5 s'])

    def test_the_time_counts_from_healing(self):
        self.driver.drain_seconds = 0.7
        database = self.cluster.databases['p1']
        database.held, database.first = 60, time.monotonic()
        self.assertEqual(self.settle(), ['branches stay prepared after 0.5 s'])
        self.assertEqual(database.looks, 2)   # Is there one, and is it old: no third is granted.

    def test_what_the_last_transactions_prepared_has_the_time_too(self):
        self.driver.drain_seconds = 0.7
        self.cluster.databases['p1'].held = 0.2
        self.assertEqual(self.settle(), [])


if __name__ == '__main__':
    unittest.main()
