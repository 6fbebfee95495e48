"""Write skew: two transactions each see the other's place empty, and both go on.

  :take   {:pair 7, :side "east"}
          reads every side of the pair (each in its database), and takes its own only
          if none is taken; :fail when one is, or when the transaction aborted
  :read   {:pair 7, :taken ["east"]}    which sides are taken; the last word on a pair
          is read after healing

At most one side of a pair may be taken, an :ok take stays, a :fail leaves nothing.
With `--model snapshot-reads` both sides taken is `write-skew`, told but allowed: each
database sees only its own rows change.
"""

from . import models
from .history import HistoryError, field, word
from .report import Report


def _sides(calls):
    return ', '.join(f'{word(field(c, "side"))} by {c.name()} (process {c.process}, '
                     f'{c.type})' for c in calls)


def _check_pair(report, pair, takes, reads):
    done = [c for c in takes if c.type == 'ok']
    final = max(reads, key=lambda c: c.end, default=None)
    seen = {word(side) for side in field(final, 'taken')} if final else set()
    tried = {}
    for call in takes:
        tried.setdefault(word(field(call, 'side')), []).append(call)
    sides = {word(field(c, 'side')) for c in done} | seen
    if len(sides) > 1 or len(done) > 1:
        report.add('write-skew', f'pair {pair} was taken on {len(sides)} side(s): '
                   + (_sides(done) or 'by nobody who knows') + (
                       f'; {final.name()} sees {", ".join(sorted(seen))}' if final else ''),
                   pair=str(pair))
    if final is None:
        return
    for call in done:
        if word(field(call, 'side')) not in seen and call.end < final.begin:
            report.add('lost-take', f'pair {pair}: {_sides([call])} is not there for '
                       f'{final.name()}', pair=str(pair))
    for side in sorted(seen):
        types = {call.type for call in tried.get(side, ())}
        if types == {'fail'}:
            report.add('aborted-applied', f'pair {pair}: {final.name()} sees {side}, but '
                       f'whoever tried failed: {_sides(tried[side])}', pair=str(pair))
        elif not types:
            report.add('unwritten-read', f'pair {pair}: {final.name()} sees {side}, '
                       'which nobody tried', pair=str(pair))


def check(history, model=models.STRICTEST, **_):
    """The Report on a write-skew history.  Raises HistoryError."""
    takes, reads = {}, {}
    for call in history.calls('take'):
        takes.setdefault(field(call, 'pair'), []).append(call)
    for call in history.calls('read'):
        if call.type == 'ok':
            reads.setdefault(field(call, 'pair'), []).append(call)
    if not any(c.type == 'ok' for calls in takes.values() for c in calls):
        raise HistoryError('no :ok :take in it: nothing to check')
    report = Report('write-skew', model)
    for pair, calls in takes.items():
        _check_pair(report, pair, calls, reads.get(pair, ()))
    models.allow(report, model)
    report.figures = {'pairs': len(takes), 'takes': sum(map(len, takes.values())),
                      'contested pairs': sum(len(c) > 1 for c in takes.values()),
                      'reads': sum(map(len, reads.values()))}
    return report
