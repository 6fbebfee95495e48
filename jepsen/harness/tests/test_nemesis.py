"""A fault that had no effect is none: it is not counted, and has its turn again."""

import os
import random
import signal
import socket
import unittest
from unittest import mock

from support import Place  # First: it sets the path.
from harness import faults, network, points
from harness.faults_inside import Failpoint
from harness.nemesis import Nemesis


class Weather:
    """A fault that happens at the third time."""

    name = 'weather'
    seconds = (0.0, 0.0)
    targets = set()
    problem = None
    begun = ended = 0

    def __init__(self, *_):
        pass

    def choose(self, _):
        return True

    def begin(self):
        Weather.begun += 1
        return {}

    def end(self):
        Weather.ended += 1
        self.happened = Weather.ended >= 3
        return {':hit': self.happened}


class NemesisTest(unittest.TestCase):

    def test_a_fault_that_did_not_happen_has_its_turn_again(self):
        recorder = mock.Mock()
        recorder.fault.return_value = 1
        nemesis = Nemesis(mock.Mock(), mock.Mock(in_flight=2), recorder, [], 1)
        nemesis.stop()
        nemesis._faults = [Weather]  # pylint: disable=protected-access
        for count, turns in ((0, 1), (0, 2), (1, 3)):
            nemesis._begin()  # pylint: disable=protected-access
            nemesis._end(nemesis._active.pop()[1])  # pylint: disable=protected-access
            self.assertEqual((len(nemesis.injections), Weather.begun), (count, turns))
            self.assertEqual(nemesis._order, [] if count else [(Weather, turns)])


class FailpointTest(unittest.TestCase):
    """A participant that is armed, of which the test says what it does then."""

    def setUp(self):
        self.process = Place(self).program('p1', '$ready; exec sleep 60').start()
        self.fault = Failpoint(mock.Mock(), None, random.Random(1))
        self.fault.process = self.process
        for patch in (mock.patch.object(points, 'arm'), mock.patch.object(points, 'disarm')):
            patch.start()
            self.addCleanup(patch.stop)

    def begin(self, action):
        while self.fault.action != action:
            self.fault.begin()

    def hit(self):
        with open(self.process.log, 'a', encoding='utf-8') as log:
            log.write(f'failpoint {self.fault.point}: {self.fault.action}\n')

    def die(self, number):
        self.process.signal(number)
        self.process.wait_death(10)
        return self.process.reap()

    def test_what_was_armed_and_not_passed_is_no_fault(self):
        self.begin('crash')
        self.fault.end()
        self.assertFalse(self.fault.happened)
        self.assertEqual(self.die(signal.SIGKILL), (-9, True))

    def test_only_points_that_load_passes_are_drawn(self):
        drawn = set()
        for name in ('c', 'p1'):
            self.process.name = name
            for _ in range(200):
                self.fault.begin()
                drawn.add(self.fault.point)
        self.assertIn('work-done', drawn)
        self.assertIn('record-durable', drawn)
        self.assertFalse(drawn & {'lease-replying', 'before-enrol', 'sweep-listed',
                                  'log-segment-written', 'checkpoint-written'})

    def test_a_crash_is_expected(self):
        self.begin('crash')
        self.hit()
        self.assertEqual(self.die(signal.SIGKILL), (-9, False))
        self.fault.end()
        self.assertTrue(self.fault.happened)
        self.assertIsNone(self.fault.problem)

    def test_who_crashes_in_a_pause_or_after_it_surprises(self):
        for after in (False, True):
            self.process.start()
            self.fault.action = None
            self.begin('pause')
            self.hit()
            if after:
                self.fault.end()
            self.assertEqual(self.die(signal.SIGABRT), (-6, True))

    def test_who_goes_on_after_a_crash_is_a_problem(self):
        self.begin('crash')
        self.hit()
        with mock.patch.object(Failpoint, '_ended', lambda _: False):
            self.fault.end()
        self.assertIn('p1 went on after crash', self.fault.problem)


class DelayTest(unittest.TestCase):

    def test_needs_its_program_to_the_end(self):
        for alive in (True, False):
            fault = faults.Delay(mock.Mock(), None, random.Random(1))
            fault.holder = mock.Mock(alive=alive)
            fault.end()
            self.assertEqual(fault.happened, alive)


class ResetTest(unittest.TestCase):

    def test_counts_what_was_broken(self):
        node = mock.Mock()
        node.run.side_effect = lambda *command, **_: '' if '-K' in command else 'ESTAB\nESTAB\n'
        self.assertEqual(network.Network.reset(None, node), 0)

    def test_of_nothing_is_no_fault(self):
        cluster = mock.Mock()
        cluster.network.nodes = {'c': mock.Mock()}
        cluster.network.reset.return_value = 0
        fault = faults.Reset(cluster, None, random.Random(1))
        fault.nodes = lambda: [mock.Mock()]
        self.assertIsNone(fault.begin())

    def test_a_kernel_that_breaks_nothing_is_noticed(self):
        """Of a connection that it can't break ss -K says nothing, and is content."""
        tools = Place(self).path
        (tools / 'ss').write_text('#!/bin/sh\n', encoding='utf-8')
        (tools / 'ss').chmod(0o755)
        with mock.patch.dict(os.environ, {'PATH': f'{tools}:{os.environ["PATH"]}'}):
            self.assertIn('breaks no connection', network.can_reset())

    def test_one_that_breaks_it_is_good(self):
        with mock.patch.object(network.subprocess, 'run'), \
                mock.patch.object(socket.socket, 'send', side_effect=ConnectionAbortedError):
            self.assertIsNone(network.can_reset())


if __name__ == '__main__':
    unittest.main()
