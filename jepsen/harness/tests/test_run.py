"""A run looks for orphans before its last reads, and counts as injected what has happened."""

import unittest
from unittest import mock

import support  # First: it sets the path.  pylint: disable=unused-import
from harness import run

_SECOND = 1_000_000_000


class RunTest(unittest.TestCase):

    def setUp(self):
        self.ran = run.Run.__new__(run.Run)
        self.ran.say = lambda _: None
        self.ran.problems, self.ran.workloads = [], [mock.Mock()]
        self.ran.recorder, self.ran.cluster, self.ran.driver = mock.Mock(), mock.Mock(), mock.Mock()
        self.ran.recorder.now = lambda: int(self.now * _SECOND)
        self.ran.cluster.processes.return_value = []
        self.ran.cluster.names.return_value = ['p1']
        self.ran.driver.run = self.pass_time
        self.ran.driver.stalled.return_value = 0
        self.ran.driver.run_all.side_effect = lambda *_: self.pass_time(7)
        self.ran.driver.note.side_effect = lambda *note: self.noted.append((self.now, *note))
        self.now, self.noted = 100, []

    def pass_time(self, seconds, *_):
        self.now += seconds

    def test_who_is_settled_late_is_seen(self):
        """It was prepared before healing, which is at 100, and is settled at 115: in the last
        reads.  The other one is of the clients, who are still at work."""
        branches = {'troth:p1:late': (95, 115), 'troth:p1:young': (110, 111)}
        database = mock.Mock()
        database.prepared = lambda seconds: [
            gid for gid, (begin, end) in branches.items()
            if begin <= self.now - seconds and self.now < end]
        self.ran.cluster.databases = {'p1': database}
        self.ran._heal(mock.Mock(), None)  # pylint: disable=protected-access
        self.assertEqual(self.noted, [(100 + run.WITHIN + 0.5, 'orphans', 'prepared',
                                       {':participant': 'p1', ':gids': ['troth:p1:late']})])

    def test_what_has_not_ended_has_not_had_its_turn(self):
        fault = mock.Mock()
        fault.name = 'failpoint'
        injection = mock.Mock(fault=fault, end=None)
        self.ran.fault_types, self.ran.options = [fault], mock.Mock(seconds=60)
        nemesis = mock.Mock(injections=[injection], errors=[])

        def end(_):
            injection.end = 1

        self.ran.driver.run = mock.Mock(side_effect=end)
        self.ran._let_all_have_a_turn(nemesis)  # pylint: disable=protected-access
        self.ran.driver.run.assert_called_once()


if __name__ == '__main__':
    unittest.main()
