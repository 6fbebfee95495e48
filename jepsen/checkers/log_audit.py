"""Log audit: every COMMIT PREPARED seen, and every "committed" told, has a commit record; an
earlier and intact one, as far as the log tells.

  any process, :f :finish   {:gid "troth:east:c.1.7", :xid 712, :command :commit}
              what PostgreSQL was seen to do (from its log, or from a proxy); :commit
              or :rollback; :time is when it was seen; the xid may be left out
  :txn, :commit             {:id "c.1.7"}   whoever was answered :ok must have a record
                            (not with :outcome :read-only or no :participants)

and, with --log FILE, the coordinator's log as JSON lines, one record each:

  {"type": "commit", "id": "c.1.7", "time": 1200000, "intact": true, "at": "wal-3:8192",
   "branches": [{"participant": "east", "xid": 712}]}
  {"type": "heuristic", "id": "c.1.7", "participant": "east", "decision": "commit"}

"time" is when the record was durable, in ns on the clock of the history; without it
only existence is judged: commit-before-record and told-before-record are never found.
damaged-record needs an "intact", both-ways and rollback-against-record a :rollback.
Other types are ignored.  The export must reach back to the beginning: records that
compaction dropped can't be told from missing ones.
"""

import json

from .history import HistoryError, word
from .report import Report


def read_log(path):
    """The records of a JSON-lines file.  Raises HistoryError."""
    records = []
    try:
        with open(path, encoding='utf-8') as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    record = json.loads(line)
                    if not isinstance(record, dict) or 'type' not in record:
                        raise ValueError('no object with a "type"')
                    if record['type'] in ('commit', 'heuristic') and 'id' not in record:
                        raise ValueError('no "id"')
                    records.append(record)
    except OSError as error:
        raise HistoryError(f'can\'t read {path}: {error.strerror}') from error
    except ValueError as error:
        raise HistoryError(f'{path}, line {number}: {error}') from error
    return records


class _Finish:
    """One COMMIT PREPARED or ROLLBACK PREPARED."""

    def __init__(self, op):
        value = op.value if isinstance(op.value, dict) else {}
        parts = word(value.get(':gid')).split(':', 2)
        self.command = word(value.get(':command'))
        if len(parts) != 3 or parts[0] != 'troth' or \
                self.command not in ('commit', 'rollback'):
            raise HistoryError(f'index {op.index}: a :finish needs a :gid of the form '
                               'troth:participant:id and a :command, :commit or :rollback')
        self.participant, self.id = parts[1], parts[2]
        self.xid = value.get(':xid')
        self.time = op.time
        self.index = op.index

    def __str__(self):
        xid = '' if self.xid is None else f' (xid {self.xid})'
        return f'index {self.index}: {self.command.upper()} PREPARED of {self.id} ' \
               f'at {self.participant}{xid}'


class _LogAudit:
    def __init__(self, records):
        self.report = Report('log')
        self.commits = {}
        self.by_hand = set()
        for record in records:
            if record['type'] == 'commit':
                known = self.commits.get(record['id'])
                if known is None or not known.get('intact', True):
                    self.commits[record['id']] = record
            elif record['type'] == 'heuristic':
                self.by_hand.add((record['id'], record.get('participant'),
                                  record.get('decision')))

    def check_finish(self, finish):
        if (finish.id, finish.participant, finish.command) in self.by_hand:
            return
        add, record = self.report.add, self.commits.get(finish.id)
        if finish.command == 'rollback':
            branch = self._branch(record, finish.participant) if record else None
            if branch is not None and finish.xid in (None, branch.get('xid')):
                add('rollback-against-record', f'{finish}, though its commit is recorded'
                    f'{self._at(record)}', id=finish.id)
            return
        if record is None:
            add('commit-without-record', f'{finish}; the log has no commit record of it',
                id=finish.id)
            return
        if not record.get('intact', True):
            add('damaged-record', f'{finish}; its commit record{self._at(record)} is '
                'damaged', id=finish.id)
        if None not in (finish.time, record.get('time')) and finish.time < record['time']:
            add('commit-before-record', f'{finish}, {record["time"] - finish.time} ns before '
                f'its record was durable{self._at(record)}', id=finish.id)
        branch = self._branch(record, finish.participant)
        if branch is None:
            add('not-in-record', f'{finish}; its record names no branch there', id=finish.id)
        elif None not in (finish.xid, branch.get('xid')) and \
                finish.xid % 2**32 != branch['xid'] % 2**32:
            add('xid-mismatch', f'{finish}; its record says xid {branch["xid"]}',
                id=finish.id)

    @staticmethod
    def _branch(record, participant):
        for branch in record.get('branches', ()):
            if branch.get('participant') == participant:
                return branch
        return None

    @staticmethod
    def _at(record):
        return f' ({record["at"]})' if 'at' in record else ''

    def check_told(self, call):
        value = call.value if isinstance(call.value, dict) else {}
        id_, outcome = value.get(':id'), word(value.get(':outcome', ':committed'))
        if id_ is None or outcome != 'committed' or value.get(':participants') == []:
            return
        record = self.commits.get(word(id_))
        if record is None or not record.get('intact', True):
            self.report.add('told-without-record', f'{call.name()}: the client was told '
                            f'that {word(id_)} committed; the log has no intact record '
                            'of it', id=word(id_))
        elif None not in (call.completion.time, record.get('time')) and \
                call.completion.time < record['time']:
            self.report.add('told-before-record', f'{call.name()}: the client was told '
                            f'that {word(id_)} committed before the record was durable',
                            id=word(id_))


def check(history, log=None, **_):
    """The Report; `log` is a path.  Raises HistoryError."""
    if log is None:
        raise HistoryError('the log audit needs --log FILE')
    audit = _LogAudit(read_log(log))
    finishes = [_Finish(op) for op in history.ops
                if op.f == 'finish' and op.type in ('ok', 'info')]
    told = [c for c in history.calls('txn', 'commit') if c.type == 'ok']
    if not told and not any(f.command == 'commit' for f in finishes):
        raise HistoryError('no COMMIT PREPARED was seen, and nobody was told of a commit: '
                           'nothing to check')
    ways = {}
    for finish in finishes:
        audit.check_finish(finish)
        key = finish.id, finish.participant, finish.xid
        other = ways.setdefault(key, finish)
        if other.command != finish.command:
            audit.report.add('both-ways', f'{other}, and {finish}', id=finish.id)
    for call in told:
        audit.check_told(call)
    audit.report.figures = {'finishes': len(finishes), 'records': len(audit.commits),
                            'clients told': len(told)}
    return audit.report
