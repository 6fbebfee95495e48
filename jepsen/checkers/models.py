"""Consistency models, and which anomalies each one rules out.

A table, no checking.  Sources: Adya's levels for cycles, Cerone and Gotsman for
reads inside a transaction and for snapshot isolation, Bailis for lost updates.

A cycle has a level (what edges it needs) and an order (whether it needs the
order of a session, or real time, besides what was read and written); a model
that forbids a level and an order forbids all cycles that need no more.
"""

LEVELS = ('G0', 'G1c', 'G-single-item', 'G-nonadjacent-item', 'G2-item')
ORDERS = ('', '-process', '-realtime')


def cycle_name(level, order):
    return LEVELS[level] + ORDERS[order]


_CYCLES = {cycle_name(l, o): (l, o) for l in range(len(LEVELS)) for o in range(len(ORDERS))}

# What no store may do, whatever it promises.
_ANY = {'duplicate-elements', 'unwritten-read'}
_COMMITTED = _ANY | {'G1a', 'G1b', 'incompatible-order', 'dirty-update', 'future-read'}
_ATOMIC = _COMMITTED | {'internal'}
# G-single of predicates: no checker here sees it, but it sets repeatable read,
# which is about items, apart from consistent view.
_VIEW = _COMMITTED | {'lost-update', 'G-single'}
_SNAPSHOT = _VIEW | _ATOMIC | {'aborted-read', 'long-fork'}


class Model:
    """cycles: the strongest (level, order) forbidden; others: anomalies by name."""

    def __init__(self, cycles, others):
        self.cycles = cycles
        self.others = frozenset(others)

    def forbids(self, anomaly):
        if anomaly in _CYCLES:
            level, order = _CYCLES[anomaly]
            return any(level <= l and order <= o for l, o in self.cycles)
        return anomaly in self.others


MODELS = {
    'read-uncommitted': Model([(0, 0)], _ANY),
    'read-committed': Model([(1, 0)], _COMMITTED),
    'read-atomic': Model([(1, 0)], _ATOMIC),
    'strong-read-uncommitted': Model([(0, 2)], _ANY),
    'strong-read-committed': Model([(1, 2)], _COMMITTED),
    # What atomic commitment over databases with snapshot isolation of their own
    # gives without a common snapshot (jepsen/README.md has the reason).
    'snapshot-reads': Model([(1, 2)], _ATOMIC | {'lost-update', 'aborted-read'}),
    'consistent-view': Model([(2, 0)], _VIEW),
    'snapshot-isolation': Model([(3, 0)], _SNAPSHOT),
    'strong-session-snapshot-isolation': Model([(3, 1)], _SNAPSHOT),
    'strong-snapshot-isolation': Model([(3, 2)], _SNAPSHOT),
    'repeatable-read': Model([(4, 0)], _COMMITTED | {'lost-update'}),
    'serializable': Model([(4, 0)], _SNAPSHOT | {'write-skew'}),
    'strong-session-serializable': Model([(4, 1)], _SNAPSHOT | {'write-skew'}),
    'strict-serializable': Model([(4, 2)], _SNAPSHOT | {'write-skew'}),
}
STRICTEST = 'strict-serializable'


def _stronger(a, b):
    """True when all that b forbids a forbids too, and more."""
    names = list(_CYCLES) + sorted(_SNAPSHOT | {'write-skew'})
    forbidden_a = {n for n in names if MODELS[a].forbids(n)}
    forbidden_b = {n for n in names if MODELS[b].forbids(n)}
    return forbidden_b < forbidden_a


def weakest_ruled_out(anomalies):
    """The weakest models that a history with these anomalies breaks."""
    broken = [m for m in MODELS if any(MODELS[m].forbids(a) for a in anomalies)]
    return [m for m in broken if not any(_stronger(m, other) for other in broken)]


def allow(report, model):
    """Marks as allowed whatever the model does not forbid."""
    for anomaly in report.anomalies():
        if anomaly in _CYCLES or anomaly in MODELS[STRICTEST].others:
            if not MODELS[model].forbids(anomaly):
                report.allow(anomaly)
