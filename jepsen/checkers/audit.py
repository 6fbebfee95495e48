"""Atomicity audit: every transaction is in all of its participants, or in none.

  :txn        {:id "c.1.7", :participants ["east" "west"]}
                  writes a marker row with its id at each; participants may be known
                  at the completion only, and name none that only read
  :markers    {:participant "east", :ids ["c.1.7" ...]}
                  after healing, one :ok per participant: all rows, duplicates too
  :decisions  {:outcomes {"c.1.7" :committed, ...}}
                  after healing, what the coordinator says (optional)

:ok must be everywhere, :fail nowhere, :info all or nothing.
"""

from .history import HistoryError, by_id, field, finals, word
from .report import Report


class _Audit:
    def __init__(self, history):
        self.report = Report('audit')
        self.calls = by_id(history.calls('txn'))
        self.markers = {participant: [word(i) for i in field(call, 'ids')]
                        for participant, call in finals(history, 'markers').items()}
        if not self.calls or not self.markers:
            raise HistoryError('it needs :txn calls with ids, and :ok :markers after healing')
        self.where = {}  # Id -> participants that have its marker.
        for participant, ids in self.markers.items():
            for id_ in ids:
                self.where.setdefault(id_, set()).add(participant)
        self.decisions = {}
        for call in history.calls('decisions'):
            if call.type == 'ok':
                for id_, outcome in field(call, 'outcomes').items():
                    self.decisions[word(id_)] = word(outcome)
        types = [call.type for call in self.calls.values()]
        self.report.figures = {
            'transactions': len(types), 'ok': types.count('ok'),
            'fail': types.count('fail'), 'info': types.count('info'),
            'participants': len(self.markers), 'decisions': len(self.decisions)}

    def participants(self, call):
        named = {word(p) for p in field(call, 'participants')}
        silent = sorted(named - set(self.markers))
        if silent:
            raise HistoryError(f'{call.name()} took part at {silent[0]}, '
                               'which has no :ok :markers')
        return named

    def check_one(self, id_, call):
        report, at = self.report, self.where.get(id_, set())
        if not isinstance(call.value.get(':participants'), (list, tuple)):
            named = set(at)  # Failed before it named any: nothing may be there.
            if call.type == 'ok' or (call.type == 'info' and at):
                raise HistoryError(f'{call.name()}: :{call.type} without :participants'
                                   + (f', and {id_} left a marker' if at else ''))
        else:
            named = self.participants(call)
        who = f'{id_} ({call.name()}, told {call.type})'
        here, there = ', '.join(sorted(at)), ', '.join(sorted(named - at))
        if at - named:
            report.add('stray-marker', f'{who} left a marker at '
                       f'{", ".join(sorted(at - named))}, where it did no work', id=id_)
        if at and named - at:
            report.add('partial-commit', f'{who} is at {here}, but not at {there}', id=id_)
        if call.type == 'ok' and not at and named:
            report.add('lost-commit', f'{who} is nowhere', id=id_)
        if call.type == 'fail' and at:
            report.add('aborted-applied', f'{who} is at {here}', id=id_)
        self.check_decision(id_, call, who, at)

    def check_decision(self, id_, call, who, at):
        outcome = self.decisions.get(id_)
        if outcome is None:
            return
        here = ', '.join(sorted(at)) or 'nowhere'
        if outcome in ('committed', 'aborted') and (outcome == 'committed') != bool(at):
            if outcome == 'aborted' or call.value.get(':participants'):
                self.report.add('decision-mismatch', f'{who}: the coordinator says '
                                f'{outcome}, its markers are: {here}', id=id_)
        told = {'ok': ('committed', 'read-only', 'expired'), 'fail': ('aborted', 'expired')}
        if outcome == 'pending':
            self.report.add('undecided', f'{who} is still pending after healing', id=id_)
        elif outcome not in told.get(call.type, (outcome,)):
            self.report.add('decision-mismatch', f'{who}: the coordinator says {outcome}',
                            id=id_)


def check(history, **_):
    """The Report on an audited history.  Raises HistoryError."""
    audit = _Audit(history)
    for id_, call in audit.calls.items():
        audit.check_one(id_, call)
    for participant, ids in audit.markers.items():
        seen = set()
        for id_ in ids:
            if id_ in seen:
                audit.report.add('duplicate-marker', f'{participant} has {id_} twice', id=id_)
            elif id_ not in audit.calls:
                audit.report.add('stray-marker', f'{participant} has {id_}, '
                                 'which no client began', id=id_)
            seen.add(id_)
    return audit.report
