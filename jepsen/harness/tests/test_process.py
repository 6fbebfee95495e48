"""Every death of a process is told, and is a surprise unless somebody expected just that one."""

import signal
import unittest

from support import Place  # First: it sets the path.
from harness.process import Supervisor

SERVES = '$ready; exec sleep 60'


class ProcessTest(unittest.TestCase):

    def setUp(self):
        self.place = Place(self)

    def launched(self, script, expected=None, **more):
        process = self.place.program('p1', script, **more)
        process.launch(expected=expected)
        return process

    def death(self, process):
        self.assertTrue(process.wait_death(10))
        return process.reap()

    def test_who_ends_by_itself_surprises(self):
        self.assertEqual(self.death(self.launched('$ready; kill -ABRT $$')), (-6, True))
        self.assertEqual(self.death(self.launched('$ready; exit 3')), (3, True))

    def test_whom_we_kill_does_not(self):
        process = self.launched(SERVES)
        self.assertTrue(process.wait_ready())
        process.kill()
        self.assertEqual(process.reap(), (-9, False))
        self.assertIsNone(process.reap())

    def test_only_the_expected_code_is_none(self):
        self.assertEqual(self.death(self.launched('kill -KILL $$', -9)), (-9, False))
        self.assertEqual(self.death(self.launched('kill -SEGV $$', -9)), (-11, True))

    def test_what_is_no_more_expected_surprises(self):
        process = self.launched(SERVES, 3)
        process.expect(None)
        process.signal(signal.SIGKILL)
        self.assertEqual(self.death(process), (-9, True))

    def test_is_expected_in_one_life_only(self):
        process = self.launched('exit 3', 3)
        self.assertEqual(self.death(process), (3, False))
        process.launch()
        self.assertEqual(self.death(process), (3, True))

    def test_no_death_is_lost(self):
        """Of a process that was killed, or started again, when it had already died."""
        process = self.launched('kill -ABRT $$')
        process.wait_death(10)
        process.kill()
        self.assertEqual(process.reap(), (-6, True))
        process.launch()
        process.wait_death(10)
        process.launch()
        self.assertEqual(self.death(process), (-6, True))
        self.assertEqual(process.reap(), (-6, True))

    def test_a_refusal_is_before_it_was_ready(self):
        self.assertEqual(self.death(self.launched('exit 1', refusal=1)), (1, False))
        self.assertEqual(self.death(self.launched('exit 2', refusal=1)), (2, True))
        self.assertEqual(self.death(self.launched('exit 1')), (1, True))
        self.assertEqual(self.death(self.launched('$ready; exit 1', refusal=1)), (1, True))

    def test_the_supervisor_tells_of_the_last_death_too(self):
        process, told = self.place.program('p1', 'exit 3'), []
        supervisor = Supervisor([process], lambda *death: told.append(death))
        supervisor._stop.set()  # Its thread looks no more.  pylint: disable=protected-access
        supervisor._thread.join()  # pylint: disable=protected-access
        process.launch()
        process.wait_death(10)
        supervisor.stop()
        self.assertEqual(told, [('p1', 3, True)])


if __name__ == '__main__':
    unittest.main()
