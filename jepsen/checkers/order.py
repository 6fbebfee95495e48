"""Order agreement: participants apply conflicting transactions in one order.

  :txn    {:id "c.1.7"}                    the transactions (optional: with them the
                                           order must keep real time too)
  :order  {:participant "east", :rows {"row 1" ["c.1.7" "c.1.9" ...], ...}}
          after healing, each participant: who changed each row, in order

Two transactions that met in two places must have met in the same order
(order-disagreement), no chain of them may come round to its beginning (order-cycle),
and one that was answered before another began comes first (order-realtime).
"""

from . import edn, graph
from .history import HistoryError, by_id, field, finals, word
from .report import Report


def _rows(history, report):
    """{(participant, row): [ids]}, each id once."""
    rows = {}
    for participant, call in finals(history, 'order').items():
        for row, ids in field(call, 'rows').items():
            ids = [word(i) for i in ids]
            for id_ in sorted({i for i in ids if ids.count(i) > 1} if
                              len(set(ids)) < len(ids) else ()):
                report.add('duplicate-change', f'{id_} changed {edn.write(row)} at '
                           f'{participant} more than once', id=id_)
            rows[participant, word(row)] = list(dict.fromkeys(ids))
    return rows


class _Unknown:
    """Stands for a transaction that no client told of: it has no times."""

    type, begin, end, process = 'info', -1, None, None


def _disagreement(knot, ids, places):
    """Two of the knot that met in opposite orders, or None."""
    met = {}
    for node in knot.nodes:
        for place, at in places[node].items():
            met.setdefault(place, []).append((at, node))
    before = {}
    for place, found in met.items():
        found.sort()
        for i, (_, a) in enumerate(found[:200]):
            for _, b in found[i + 1:i + 200]:
                if (b, a) in before:
                    return ids[a], ids[b], place, before[b, a]
                before[a, b] = place
    return None


def _describe(cycle, ids, places):
    lines = []
    for i, (a, kind) in enumerate(zip(cycle.nodes, cycle.kinds)):
        b = cycle.nodes[(i + 1) % len(cycle.nodes)]
        if kind == graph.REALTIME:
            lines.append(f'- {ids[a]} was answered before {ids[b]} began')
            continue
        participant, row = next(p for p in places[a] if p in places[b]
                                and places[a][p] < places[b][p])
        lines.append(f'- {ids[a]} before {ids[b]} in {row} at {participant}')
    return '\n'.join(lines)


def check(history, **_):
    """The Report on the order of changes.  Raises HistoryError."""
    report = Report('order')
    rows = _rows(history, report)
    if not any(len(ids) > 1 for ids in rows.values()):
        raise HistoryError('no row was changed twice: nothing to check')
    known = by_id(history.calls('txn'))
    ids = list(dict.fromkeys(i for row in rows.values() for i in row))
    number = {id_: i for i, id_ in enumerate(ids)}
    places = [{} for _ in ids]
    order = graph.Graph(len(ids))
    for place, row in rows.items():
        for at, id_ in enumerate(row):
            places[number[id_]][place] = at
            if at:
                order.add(number[row[at - 1]], number[id_], graph.WW)
    order.order([known.get(id_, _Unknown) for id_ in ids], sessions=False)
    for knot in order.knots():
        pair = _disagreement(knot, ids, places)
        if pair:
            a, b, (one, row_one), (two, row_two) = pair
            report.add('order-disagreement', f'{a} changed {row_one} at {one} before {b}, '
                       f'but {row_two} at {two} after it', ids=[a, b])
            continue
        for cycle in knot.cycles()[0]:
            name = 'order-realtime' if graph.REALTIME in cycle.kinds else 'order-cycle'
            report.add(name, _describe(cycle, ids, places),
                       ids=[ids[n] for n in cycle.nodes])
    report.figures = {'transactions': len(ids), 'rows': len(rows),
                      'in several rows': sum(len(p) > 1 for p in places)}
    return report
