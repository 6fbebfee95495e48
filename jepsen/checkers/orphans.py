"""Orphans: N seconds after healing no prepared transaction of ours is left.

  :prepared  {:participant "east", :gids ["troth:east:c.1.7" ...]}
             what pg_prepared_xacts of that database holds; GIDs of others don't count
  faults     by the process :nemesis; its :healed begins the time that is judged, its
             next operation, or the end, closes it

Every reading begun later than N seconds after :healed must be empty of ours, and
each participant that was ever read needs such a reading after the last healing.
"""

from .history import SECOND, HistoryError, field, word
from .report import Report

_PREFIX = 'troth:'


def check(history, within=10.0, **_):
    """The Report; `within` is the N of above, in seconds.  Raises HistoryError."""
    windows = history.quiet_windows()
    readings = [c for c in history.calls('prepared') if c.type == 'ok']
    report, judged = Report('orphans'), {}
    for call in readings:
        if call.invoke.time is None:
            raise HistoryError(f'{call.name()}: a reading without a :time')
        participant = word(field(call, 'participant'))
        judged.setdefault(participant, False)
        for number, (begin, end) in enumerate(windows):
            at = call.invoke.time
            # At the very end of a window a fault may already be under way.
            last = number == len(windows) - 1
            if not (begin + within * SECOND < at and (at <= end if last else at < end)):
                continue
            judged[participant] = judged[participant] or last
            left = [g for g in field(call, 'gids', []) if word(g).startswith(_PREFIX)]
            if left:
                report.add('orphan', f'{call.name()}: {participant} still holds {len(left)} '
                           f'prepared transaction(s) {(at - begin) / SECOND:.1f} s after '
                           f'healing: {", ".join(sorted(map(word, left))[:10])}',
                           participant=participant, gids=sorted(map(word, left)))
    unseen = sorted(p for p, seen in judged.items() if not seen)
    if unseen or not judged:
        raise HistoryError(f'no reading of {", ".join(unseen) or "any participant"} later '
                           f'than {within:g} s after the last healing')
    report.figures = {'participants': len(judged), 'readings': len(readings),
                      'healings': len(windows)}
    return report
