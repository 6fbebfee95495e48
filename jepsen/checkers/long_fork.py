"""Long fork: two readers that see two independent writes in opposite orders.

  any :f   [[:w k v]]                     one write; each key is written at most once
  any :f   [[:r k v] [:r k' nil] ...]     reads; nil is "not there yet"

Since each key goes from nil to its value once, what one read saw of a group of keys
must include what another saw, or be included in it.  Values of failed writes must
not be seen (aborted-read), nor any that nobody wrote (unwritten-read).
"""

from . import edn, models
from .history import HistoryError
from .report import Report


def _collect(history):
    """({key: (value, writing call)}, {keys: [(present keys, call)]}, ok reads)"""
    written, groups, reads = {}, {}, []
    for call in history.calls():
        mops = edn.freeze(call.value)
        if not isinstance(mops, tuple):
            raise HistoryError(f'{call.name()}: :value is not a list of micro-operations')
        for mop in mops:
            if not isinstance(mop, tuple) or len(mop) != 3 or mop[0] not in (':w', ':r'):
                raise HistoryError(f'{call.name()}: {edn.write(mop)} is not [:w k v] '
                                   'or [:r k v]')
            if mop[0] == ':w':
                if mop[1] in written:
                    raise HistoryError(f'{call.name()}: key {edn.write(mop[1])} was '
                                       'written before; each is written once')
                written[mop[1]] = (mop[2], call)
        if call.type == 'ok' and len(mops) > 1 and all(m[0] == ':r' for m in mops):
            keys = frozenset(m[1] for m in mops)
            present = frozenset(m[1] for m in mops if m[2] is not None)
            groups.setdefault(keys, []).append((present, call))
        if call.type == 'ok':
            reads.extend((call, k, v) for f, k, v in mops if f == ':r' and v is not None)
    return written, groups, reads


def _check_group(report, reads):
    """Sorted by size, each must include the one before."""
    reads.sort(key=lambda read: (len(read[0]), read[1].begin))
    for (less, a), (more, b) in zip(reads, reads[1:]):
        if less <= more:
            continue
        report.add('long-fork', f'{a.name()} (process {a.process}) saw '
                   f'{edn.write(sorted(less - more, key=str))} but not '
                   f'{edn.write(sorted(more - less, key=str))}; {b.name()} (process '
                   f'{b.process}) saw it the other way round:\n'
                   f'{edn.write(a.value)}\n{edn.write(b.value)}')


def check(history, model=models.STRICTEST, **_):
    """The Report on a long-fork history.  Raises HistoryError."""
    written, groups, reads = _collect(history)
    if not groups:
        raise HistoryError('no :ok read of several keys in it: nothing to check')
    report = Report('long-fork', model)
    for call, k, v in reads:
        value, writer = written.get(k, (None, None))
        if writer is None or value != v:
            report.add('unwritten-read', f'{call.name()} read {edn.write(v)} for key '
                       f'{edn.write(k)}, which nobody wrote')
        elif writer.type == 'fail':
            report.add('aborted-read', f'{call.name()} read {edn.write(v)} for key '
                       f'{edn.write(k)}, written by {writer.name()}, which failed')
    for group in groups.values():
        _check_group(report, group)
    models.allow(report, model)
    report.figures = {'writes': len(written), 'groups': len(groups),
                      'reads': sum(map(len, groups.values()))}
    return report
