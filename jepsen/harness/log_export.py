"""The coordinator's log as the log audit reads it (checkers/log_audit.py), and what the databases
still show of branches.  Knows neither workload nor fault, and no times: nobody tells a harness when
a record was durable and a branch finished.
"""

import json
import re
import subprocess

_PARTICIPANT = re.compile(r"participant (\d+) '([^']*)'")
_BRANCH = re.compile(r'(\d+) xid=(\d+) ')
# Tables in which every row bears the id of its transaction, and is never changed.
_TABLES = ('marker', 'entry', 'row_order')


class LogExport:
    """The commit records seen so far.  Compaction drops records in the end: a log that lives
    longer than the retention is to be read now and then."""

    def __init__(self, cluster):
        self._cluster = cluster
        self.commits = {}         # id -> record, as log_audit takes it
        self.held = []            # Those of them that the last reading found.
        self.by_hand = []         # heuristics and hazards, in words

    def read(self):
        """Adds what the log holds now.  What went wrong, or None; a log under compaction loses
        files while it is read, and then is to be read again."""
        cluster = self._cluster
        done = subprocess.run([str(cluster.options.bin / 'trothctl'), 'wal', 'dump',
                               str(cluster.wal), '--json'], capture_output=True, text=True,
                              check=False)
        if done.returncode != 0:
            return done.stderr.strip() or f'trothctl ended with {done.returncode}'
        prefix, names, by_hand, held = cluster.coordinator_id + '.', {}, [], []
        for line in done.stdout.splitlines():
            entry = json.loads(line)
            text = entry['record']
            if entry['kind'] == 'participant':
                index, name = _PARTICIPANT.match(text).groups()
                names[index] = name
            elif entry['kind'] == 'commit':
                id_ = prefix + text.split(' ', 2)[1]
                held.append(self.commits.setdefault(id_, {
                    'type': 'commit', 'id': id_, 'at': f'{entry["file"]}:{entry["offset"]}',
                    'branches': [{'participant': names[i], 'xid': int(xid)}
                                 for i, xid in _BRANCH.findall(text)]}))
            elif entry['kind'] in ('heuristic', 'hazard'):
                by_hand.append(text)
        self.by_hand, self.held = by_hand, held
        return None

    def write(self, path):
        with open(path, 'w', encoding='utf-8') as file:
            for record in self.commits.values():
                file.write(json.dumps(record) + '\n')


def committed(cluster, participant):
    """{(id, xid)}: transactions that left a row there, and the xid under which it was written.
    All rows are written in branches, so a row that is seen has had its COMMIT PREPARED."""
    found = set()
    for table in _TABLES:
        found.update(cluster.databases[participant].query(
            f'SELECT DISTINCT id, xmin::text::bigint FROM {table}'))
    return found


def rolled_back(cluster, participant, records):
    """{(id, xid)}: branches there that `records` name and PostgreSQL says it aborted."""
    ids = {branch['xid']: record['id'] for record in records
           for branch in record['branches'] if branch['participant'] == participant}
    ends = cluster.databases[participant].query(
        'SELECT xid, pg_xact_status(xid::text::xid8) FROM unnest(%s::bigint[]) xid', (list(ids),))
    return {(ids[xid], xid) for xid, end in ends if end == 'aborted'}


def note(driver, history, cluster, told, records):
    """Writes the history that the log audit judges: every branch that is seen committed, every
    branch of `records` that was rolled back, and every id in `told`, of which a client heard that
    it was committed."""
    for participant in cluster.names():
        for command, branches in (('commit', committed(cluster, participant)),
                                  ('rollback', rolled_back(cluster, participant, records))):
            for id_, xid in sorted(branches):
                driver.note(history, 'finish', {':gid': f'troth:{participant}:{id_}', ':xid': xid,
                                                ':command': f':{command}'})
    for id_ in told:
        driver.note(history, 'commit', {':id': id_})
