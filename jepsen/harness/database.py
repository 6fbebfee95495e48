"""A PostgreSQL server on a node of its own, and the harness's look into it.

The harness looks in through the socket in the server's directory: no fault of the network
touches that.  The clusters themselves are tests/postgres/private_cluster.py's.
"""

import os
import signal
import subprocess

from . import private

PORT = 5432

_SETTINGS = {
    'max_connections': 120,
    'max_prepared_transactions': 250,
    'shared_buffers': '32MB',
    'deadlock_timeout': '100ms',
    # A short write-ahead log: a crash is recovered from within a second.
    'checkpoint_timeout': '30s',
    'max_wal_size': '64MB',
    'min_wal_size': '32MB',
    'wal_init_zero': 'off',
    'log_checkpoints': 'off',
}


class QueryError(RuntimeError):
    """PostgreSQL, or the way to it, said no."""


class Database:
    """One server with one database.  Not thread-safe, except `query`."""

    def __init__(self, name, node, directory, settings=None):
        self.name = name
        self.node = node
        self.cluster = private.Cluster(
            name, dir=str(directory), port=PORT,
            **{**_SETTINGS, 'listen_addresses': node.address, **(settings or {})})

    def __repr__(self):
        return self.name

    def create(self):
        """Makes the server, open to all nodes."""
        self.start()
        with open(self.cluster.data / 'pg_hba.conf', 'a', encoding='utf-8') as file:
            file.write('host all all 10.77.0.0/16 trust\nhost replication all 10.77.0.0/16 trust\n')
        os.kill(self.cluster.pid, signal.SIGHUP)

    def make_standby(self, name, node, directory):
        """A synchronous standby of this server, on another node, as a Database."""
        standby = Database(name, node, directory)
        node.call(lambda: private.run_as_owner(
            private.BIN / 'pg_basebackup', '-D', standby.cluster.data, '-R', '-X', 'stream',
            '-c', 'fast', '-d', f'{self.conninfo()} application_name={name}'))
        standby.cluster.set(listen_addresses=node.address)
        standby.start()
        self.cluster.set(synchronous_standby_names=name)
        os.kill(self.cluster.pid, signal.SIGHUP)
        return standby

    def start(self):
        self.node.call(self.cluster.start)

    def kill(self):
        """SIGKILL to all its processes; returns when they are gone."""
        self.cluster.kill()

    def stop(self, mode='fast'):
        self.cluster.shutdown(mode)

    @property
    def up(self):
        return self.cluster.pid is not None

    def pause(self):
        """SIGSTOP to all its processes; returns their pids, for resume()."""
        pids = [self.cluster.pid, *self.cluster.children()]
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        return pids

    def resume(self, pids):
        for pid in pids:
            _signal(pid, signal.SIGCONT)

    def conninfo(self, host=None, port=PORT):
        return f'host={host or self.node.address} port={port} user=postgres dbname=postgres'

    def query(self, sql, parameters=None, seconds=30):
        """Rows of one statement, run through the socket.  QueryError."""
        import psycopg2  # Not needed for --help.  pylint: disable=import-outside-toplevel
        connection = None
        try:
            connection = psycopg2.connect(
                host=str(self.cluster.dir), port=PORT, user='postgres', dbname='postgres',
                options=f'-c statement_timeout={int(seconds * 1000)}', connect_timeout=5,
                application_name='jepsen-harness')
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql, parameters)
                return cursor.fetchall() if cursor.description else []
        except psycopg2.Error as error:
            raise QueryError(f'{self.name}: {error}') from error
        finally:
            if connection is not None:
                connection.close()

    def prepared(self, seconds=0):
        """GIDs that have stood prepared for so long at least."""
        return [row[0] for row in self.query(
            'SELECT gid FROM pg_prepared_xacts '
            'WHERE prepared <= clock_timestamp() - make_interval(secs => %s) ORDER BY 1',
            (seconds,))]

    def backends(self):
        """(pid, application's words, state) of the clients' backends, but not of ours."""
        return self.query(
            "SELECT pid, query, state FROM pg_stat_activity WHERE backend_type = 'client backend' "
            "AND application_name <> 'jepsen-harness'")


def _signal(pid, number):
    try:
        os.kill(pid, number)
    except (ProcessLookupError, TypeError):
        pass


def missing():
    """Why there can be no private server here, or None."""
    if not (private.BIN / 'initdb').exists():
        return f'there is no PostgreSQL 15 in {private.BIN}: run scripts/setup test'
    done = subprocess.run(['id', private.OWNER], capture_output=True, check=False)
    return None if done.returncode == 0 else f'there is no user {private.OWNER}'
