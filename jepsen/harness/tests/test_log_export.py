"""What the log audit gets to see of a run whose rows bear no ids: what clients were told, and what
PostgreSQL says of the xids that the log's records name.
"""

import json
import pathlib
import stat
import sys
import tempfile
import types
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / 'jepsen'))
from harness import log_export  # pylint: disable=wrong-import-position
from harness.judge import judge  # pylint: disable=wrong-import-position
from harness.recorder import Recorder  # pylint: disable=wrong-import-position

_LOG = [('participant', "participant 0 'p1'"), ('participant', "participant 1 'p2'"),
        ('commit', 'commit 1.7 [0 xid=700 tli=1 lsn=0/1, 1 xid=900 tli=1 lsn=0/2]'),
        ('commit', 'commit 1.8 [0 xid=701 tli=1 lsn=0/3]')]


class Server:
    """A database without rows that bear ids; `ends` is what became of which xid."""

    def __init__(self, ends):
        self.ends = ends

    def query(self, sql, parameters=None):
        return [(xid, self.ends.get(xid)) for xid in parameters[0]] if 'xact_status' in sql else []


class LogAudit(unittest.TestCase):

    def judged(self, told, **ends):
        """What the log audit finds of a run with this log, when so was told and ended."""
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            trothctl = folder / 'trothctl'
            trothctl.write_text('#!/bin/sh\ncat <<E\n' + '\n'.join(json.dumps(
                {'file': 'wal-1', 'offset': 4096, 'kind': kind, 'record': text})
                for kind, text in _LOG) + '\nE\n', encoding='utf-8')
            trothctl.chmod(trothctl.stat().st_mode | stat.S_IXUSR)
            databases = {name: Server(ends.get(name, {})) for name in ('p1', 'p2')}
            cluster = types.SimpleNamespace(
                options=types.SimpleNamespace(bin=folder), wal=folder, coordinator_id='c',
                databases=databases, names=lambda: list(databases))
            log = log_export.LogExport(cluster)
            self.assertIsNone(log.read())
            log.write(folder / 'log.jsonl')
            recorder = Recorder(folder, ['register'], ['log'])

            def note(history, f, value):
                recorder.invoke(history, 1, f, None)
                recorder.complete(history, 'ok', 1, f, value)

            recorder.fault('healed')
            log_export.note(types.SimpleNamespace(note=note), 'log', cluster, told, log.held)
            recorder.close()
            verdict, = judge(recorder.paths['log'], 'log', ['log'], None, 10, 2,
                             folder / 'log.jsonl')
            return verdict.report.anomalies() if verdict.report else verdict.error

    def test_what_was_told_has_its_record(self):
        self.assertEqual(self.judged(['c.1.7', 'c.1.8']), [])
        self.assertEqual(self.judged(['c.1.7', 'c.1.9']), ['told-without-record'])

    def test_what_is_recorded_was_not_rolled_back(self):
        self.assertEqual(self.judged(['c.1.7'], p1={700: 'committed', 701: 'in progress'}), [])
        self.assertEqual(self.judged(['c.1.7'], p2={900: 'aborted'}), ['rollback-against-record'])

    def test_nothing_told_and_nothing_seen_proves_nothing(self):
        self.assertIn('nothing to check', self.judged([]))


if __name__ == '__main__':
    unittest.main()
