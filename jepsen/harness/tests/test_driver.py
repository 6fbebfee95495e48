"""A client that crashes is told, and so is where commits succeeded."""

import time
import unittest
from unittest import mock

from support import Node, Place  # First: it sets the path.
from harness import workloads
from harness.clients import Client
from harness.driver import Driver, Worker


class DriverTest(unittest.TestCase):

    def setUp(self):
        self.place, self.cluster = Place(self), mock.Mock(clients=[])
        self.recorder = mock.Mock()
        self.recorder.now.return_value = 0

    def driver(self):
        driver = Driver(self.cluster, self.recorder, [], 0, 1)
        self.addCleanup(driver.close)
        return driver

    def buried(self, number):
        """What is told of a client that dies of this signal."""
        client = Client('k1', Node(), ['/bin/sh', '-c', 'exec sleep 60'], self.place.path / 'k1.log')
        self.addCleanup(lambda: [client.kill(), client.handle.close()])
        self.cluster.clients = [client]
        driver, end = self.driver(), time.monotonic() + 10
        client.signal(number)
        while not driver.client_deaths and time.monotonic() < end:
            driver.run(0.02)
        return driver.hung

    def test_a_client_that_crashes_is_told(self):
        self.assertEqual(self.buried(11), ['k1 ended by itself, with -11'])

    def test_one_that_was_killed_is_not(self):
        self.assertEqual(self.buried(9), [])

    def test_where_commits_succeeded(self):
        driver, worker = self.driver(), Worker(0, mock.Mock(), mock.Mock())
        for asked, where, type_ in ((5, ['p1', 'p2'], 'ok'), (7, ['p2', 'p3'], 'fail'),
                                    (8, ['p1'], 'ok')):
            worker.asked = asked
            worker.operation = workloads.Operation(
                'txn', None, ['txn'], lambda *_, where=where: {':participants': where})
            driver._complete(worker, type_, None, [], '')  # pylint: disable=protected-access
        self.assertEqual(driver.served, {'p1': 8, 'p2': 5})


if __name__ == '__main__':
    unittest.main()
