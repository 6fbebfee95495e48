"""Decision register: an outcome, once told, never changes, over restarts too.

  :commit, :inquire   {:id "c.1.7", :outcome :committed}
                      the outcome is in the completion, :ok or :fail; one without
                      an outcome (refused, overloaded, no answer) told nothing

committed, aborted and read-only are final and exclude each other at any time.
`expired` (the coordinator remembers no more) may follow a final outcome or come
first; after it only expired may follow.  `pending` may not follow a final one, but for
aborted (`abort-unsure`, told and allowed): presumed abort keeps no record of aborts, and a
restarted coordinator says pending until it knows its log to be whole.
What follows is what was invoked after the other was told.
"""

from .history import HistoryError, field, word
from .report import Report

_FINAL = ('committed', 'aborted', 'read-only')
_OUTCOMES = _FINAL + ('pending', 'expired')


def _tellings(history):
    told = {}
    for call in history.calls('commit', 'inquire'):
        if call.type == 'info' or (call.type == 'fail' and not (
                isinstance(call.value, dict) and call.value.get(':outcome'))):
            continue
        outcome = word(field(call, 'outcome'))
        if outcome not in _OUTCOMES:
            raise HistoryError(f'{call.name()}: the outcome {outcome} is none of '
                               + ', '.join(_OUTCOMES))
        told.setdefault(word(field(call, 'id')), []).append((call, outcome))
    return told


def _say(call, outcome):
    return f'{outcome} by {call.name()} (process {call.process}, {call.f})'


def _check_one(report, id_, tellings):
    first = {}
    for call, outcome in tellings:
        if outcome in _FINAL and (outcome not in first or call.end < first[outcome].end):
            first[outcome] = call
    if len(first) > 1:
        both = ', and '.join(_say(call, o) for o, call in
                             sorted(first.items(), key=lambda item: item[1].end))
        report.add('outcome-changed', f'{id_} was told {both}', id=id_)
    settled = min(first.values(), key=lambda call: call.end, default=None)
    expired = min((c for c, o in tellings if o == 'expired'), key=lambda c: c.end,
                  default=None)
    for call, outcome in tellings:
        if outcome == 'pending' and settled and call.begin > settled.end:
            report.add('abort-unsure' if set(first) == {'aborted'} else 'outcome-forgotten',
                       f'{id_} was settled by {settled.name()}, '
                       f'and later told {_say(call, outcome)}', id=id_)
        if outcome != 'expired' and expired and call.begin > expired.end:
            report.add('outcome-after-expiry', f'{id_} was told {_say(expired, "expired")}, '
                       f'and later {_say(call, outcome)}', id=id_)


def check(history, **_):
    """The Report on what was told of each transaction.  Raises HistoryError."""
    told = _tellings(history)
    if not told:
        raise HistoryError('nobody was told an outcome: nothing to check')
    report = Report('register')
    report.allow('abort-unsure')
    for id_, tellings in told.items():
        _check_one(report, id_, tellings)
    report.figures = {'transactions': len(told),
                      'tellings': sum(map(len, told.values())),
                      'told twice or more': sum(len(t) > 1 for t in told.values())}
    return report
