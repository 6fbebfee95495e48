"""Liveness: when all faults are over, a commit succeeds within N seconds.

  any :f     clients' calls; an :ok is a success.  If values are maps with
             :participants, each participant tried must be in a success of its own
  faults     by the process :nemesis; its :healed begins the time that is judged, its
             next operation, or the end, closes it

Windows shorter than N seconds say nothing.  Only calls invoked after :healed count,
and none of those that only look (_READINGS).
"""

from .history import SECOND, HistoryError, word
from .report import Report

_READINGS = {'markers', 'decisions', 'prepared', 'ledger', 'order', 'inquire',
             'final-read', 'setup', 'finish'}


def _participants(call):
    named = call.value.get(':participants') if isinstance(call.value, dict) else None
    return {word(p) for p in named or ()}


def _check_window(report, calls, begin, end, limit):
    """True when the window could be judged."""
    if end - begin < limit:
        return False
    tried = [c for c in calls if begin <= c.invoke.time < begin + limit]
    if not tried:
        return False
    done = [c for c in calls if c.type == 'ok' and c.invoke.time >= begin
            and c.completion.time <= begin + limit]
    at, seconds = f'{begin / SECOND:.1f} s', limit / SECOND
    if not done:
        report.add('no-progress', f'after healing at {at} nothing succeeded within '
                   f'{seconds:g} s, though {len(tried)} call(s) were made')
        return True
    wanted = set().union(*map(_participants, tried))
    served = set().union(*map(_participants, done))
    for participant in sorted(wanted - served):
        report.add('stuck-participant', f'after healing at {at} no commit at {participant} '
                   f'succeeded within {seconds:g} s', participant=participant)
    return True


def check(history, within=10.0, **_):
    """The Report; `within` is the N of above, in seconds.  Raises HistoryError."""
    windows, limit = history.quiet_windows(), within * SECOND
    calls = [c for c in history.calls() if c.f not in _READINGS]
    for call in calls:
        if call.invoke.time is None or (call.completion and call.completion.time is None):
            raise HistoryError(f'{call.name()}: a call without a :time')
    report = Report('liveness')
    judged = sum(_check_window(report, calls, begin, end, limit) for begin, end in windows)
    if not judged:
        raise HistoryError(f'no quiet time of {within:g} s with calls in it: '
                           'nothing can be said')
    report.figures = {'healings': len(windows), 'judged': judged, 'calls': len(calls)}
    return report
