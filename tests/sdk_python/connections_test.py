#!/usr/bin/python3
"""How a Python participant's connections to PostgreSQL live through a failover, on a primary and
its standby behind a relay."""

import contextlib
import socket
import threading
import unittest
from unittest import mock

import psycopg2

import harness
from harness import until
from troth.participant.connections import DatabaseConnector
from troth.participant.postgres import PostgresResourceManager
from troth.participant.values import (
    BeginOptions, FinishKind, FinishOrder, Isolation, PrepareKind, Unavailable)


class Relay:
    """In front of a server; led to another one, it keeps the connections to the first open, and
    nothing passes there any more."""

    def __init__(self, port):
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._ends = []
        threading.Thread(target=self._accept, daemon=True).start()

    def lead_to(self, port):
        self._to = port

    def stop(self):
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, port = self._listener.accept()[0], self._to
                server = socket.create_connection(("127.0.0.1", port))
                self._ends += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=(*ends, port), daemon=True).start()

    def _pass(self, source, target, port):
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if port == self._to:
                    target.sendall(data)
            if port == self._to:
                target.shutdown(socket.SHUT_WR)


class Failover(unittest.TestCase):
    def setUp(self):
        self.primary = harness.private_cluster.Cluster(
            "primary", max_prepared_transactions=10).start()
        self.addCleanup(self.primary.stop)
        self.relay = Relay(self.primary.port)
        self.addCleanup(self.relay.stop)
        self.conninfo = f"host=127.0.0.1 port={self.relay.port} user=postgres dbname=postgres"

    def standby(self):
        """One to be promoted; nobody is led to it yet."""
        standby = self.primary.standby("standby")
        self.addCleanup(standby.stop)
        return standby

    # Regression: a commit waited for ever on a connection that a proxy kept open, and with it every
    # repetition of its order.
    def test_connections_of_an_older_timeline_are_lost(self):
        self.primary.psql("CREATE TABLE t (n int PRIMARY KEY, v int);"
                          "INSERT INTO t VALUES (1, 0), (2, 0)")
        rm = PostgresResourceManager(self.conninfo, "edge", pool_size=3, max_in_doubt=10)
        self.addCleanup(rm.close)
        connector = DatabaseConnector(self.conninfo, "another")
        idle, known = connector.open(), connector.generation
        self.addCleanup(idle.drop)

        def start(method, *arguments):
            results = []
            method(*arguments, results.append)
            return results

        def answer(results):
            return until(lambda: results, 10, "an answer")[0]

        def begin(n):
            session = rm.begin(BeginOptions(f"troth:edge:c-0123456789ab.1-0000abcd.{n}", f"{n:016x}",
                                            Isolation.DEFAULT, False, 5_000))
            session.connection.cursor().execute(f"UPDATE t SET v = v + 1 WHERE n = {n}")
            return session

        session = begin(1)
        gid = session.gid
        vote = answer(start(rm.start_prepare, session))
        order = FinishOrder(gid, True, vote.evidence)
        nothing = FinishOrder(gid + "0", False, None)  # opens the lane
        self.assertEqual(answer(start(rm.start_finish, nothing)).kind, FinishKind.DONE)
        working = begin(2)
        standby = self.standby()
        self.relay.lead_to(standby.port)
        standby.promote()
        results = start(rm.start_finish, order)
        preparing = start(rm.start_prepare, working)
        rm.begin(BeginOptions(gid + "1", "0", Isolation.DEFAULT, False, 5_000)).rollback()
        self.assertEqual(answer(results).kind, FinishKind.WORKING, results)
        self.assertNotEqual(answer(preparing).kind, PrepareKind.PREPARED, preparing)
        result = answer(start(rm.start_finish, order))
        self.assertEqual(result.kind, FinishKind.DONE, result)
        self.assertEqual(standby.psql("SELECT v FROM t ORDER BY n").split(), ["1", "0"])
        rm.look()
        self.assertTrue(idle.still_alive())
        self.addCleanup(connector.open().drop)
        self.assertFalse(idle.still_alive())
        self.assertNotEqual(connector.generation, known)  # no vote of before is trusted

    # Regression: it counted as good, and a commit could wait on it for ever.
    def test_a_connection_that_is_overtaken_while_it_is_opened_is_lost(self):
        connector = DatabaseConnector(self.conninfo, "edge")
        standby = self.standby()
        standby.promote()
        connect, promoted = psycopg2.connect, []

        def overtaken(**options):
            connection = connect(**options)
            self.relay.lead_to(standby.port)
            with mock.patch("psycopg2.connect", connect):
                promoted.append(connector.open())
            self.relay.lead_to(self.primary.port)  # which answers still
            return connection

        with mock.patch("psycopg2.connect", overtaken), self.assertRaises(Unavailable) as caught:
            self.addCleanup(connector.open().drop)
        self.assertIn("left behind", str(caught.exception))
        (newer,) = promoted
        self.addCleanup(newer.drop)
        self.assertTrue(newer.still_alive())
        # Asked for later, the older timeline is that of a database restored from a copy.
        restored = connector.open()
        self.addCleanup(restored.drop)
        self.assertLess(restored.point.timeline, newer.point.timeline)
        self.relay.lead_to(standby.port)
        self.addCleanup(connector.open().drop)
        self.assertFalse(restored.still_alive())


if __name__ == "__main__":
    harness.private_cluster.stop_on_signals()
    unittest.main()
