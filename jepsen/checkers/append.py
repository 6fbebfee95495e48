"""List-append: transactions of appends and reads, checked by cycles.

The rules are Adya's, inferred from lists as Kingsbury and Alvaro describe for
Elle: every element is appended once, so a read tells the order of the appends
before it, and from that follow who wrote after whom (ww), who read from whom
(wr) and who missed whose write (rw).  A cycle of such edges, of session order and
of real time is an anomaly; what each is called stands in jepsen/README.md.

An operation of unknown outcome counts where its writes were seen; its reads are
not believed.  Values that reads return for :fail and :info are ignored.
"""

import time

from . import edn, graph, models
from .history import HistoryError
from .report import Report

_INIT = object()  # The state of a key before any append.
_KEEP = 50        # Findings kept of each anomaly; all are counted.


class Key:
    """What is known of one key."""

    __slots__ = ('writers', 'longest', 'order', 'place', 'readers', 'failed',
                 'middle', 'reads')

    def __init__(self):
        self.writers = {}  # Element -> number of the call that appended it.
        self.longest = []  # The longest read.
        self.order = []    # Elements, first appended first, as far as read.
        self.place = {}    # Element -> its place in the order.
        self.readers = {}  # Last element of a read, or _INIT -> calls.
        self.failed = {}   # Element -> call that failed.
        self.middle = {}   # Element -> call that appended to the key again later.
        self.reads = []    # (call, elements) of all that was read.

    def before(self, element):
        """The element before this one; for one never read, the last known."""
        place = self.place.get(element)
        if place is None:
            return self.order[-1] if self.order else _INIT
        return self.order[place - 1] if place else _INIT


class Index:
    """All calls, and per key who wrote and read what.  Raises HistoryError."""

    def __init__(self, calls):
        self.calls = calls
        self.keys = {}
        self.possible = [call.type != 'fail' for call in calls]
        for number, call in enumerate(calls):
            try:
                self._take(number, call)
            except TypeError:  # A key or an element that is a collection.
                call.value = edn.freeze(call.value)
                self._take(number, call)
        for key in self.keys.values():
            self._set_order(key)

    def _take(self, number, call):
        if not isinstance(call.value, (list, tuple)):
            raise HistoryError(f'{call.name()}: :value is not a list of micro-operations')
        ok, failed, last = call.type == 'ok', call.type == 'fail', {}
        for mop in call.value:
            if not isinstance(mop, (list, tuple)) or len(mop) != 3:
                raise HistoryError(f'{call.name()}: {mop!r} is not [:append k v] or [:r k v]')
            f, k, v = mop
            key = self.keys.get(k)
            if key is None:
                key = self.keys[k] = Key()
            if f == ':append':
                if key.writers.setdefault(v, number) != number or last.get(k) == v:
                    raise HistoryError(f'{call.name()}: {edn.write(v)} was appended to key '
                                       f'{edn.write(k)} before; elements must be unique')
                if k in last:
                    key.middle[last[k]] = number
                last[k] = v
                if failed:
                    key.failed[v] = number
            elif f == ':r':
                if ok:
                    key.reads.append((number, v or ()))
            else:
                raise HistoryError(f'{call.name()}: {edn.write(f)} is neither '
                                   ':append nor :r')

    def _set_order(self, key):
        longest = ()
        for _, elements in key.reads:
            if len(elements) > len(longest):
                longest = elements
        key.longest = list(longest)
        key.order = list(dict.fromkeys(longest))
        key.place = {v: i for i, v in enumerate(key.order)}
        for number, elements in key.reads:
            key.readers.setdefault(elements[-1] if elements else _INIT, []).append(number)

    def writer(self, key, element):
        """The call that appended it and may have committed, or None."""
        number = key.writers.get(element)
        return number if number is not None and self.possible[number] else None


def _show(call):
    return f'{call.name()} (process {call.process}) {edn.write(call.value)}'


class Checker:
    """One check of one history; `report` holds what it finds."""

    def __init__(self, history, model=models.STRICTEST, databases=0, seconds=20.0):
        self.report = Report('append', model)
        self._databases = databases
        self._seconds = seconds
        calls = history.calls('txn') or history.calls()
        self.index = Index(calls)
        self.calls = calls
        oks = sum(call.type == 'ok' for call in calls)
        if not oks:
            raise HistoryError('no transaction in it committed: nothing to check')
        self.report.figures = {
            'transactions': len(calls), 'committed': oks,
            'unknown': sum(call.type == 'info' for call in calls),
            'keys': len(self.index.keys)}

    def _key(self, k):
        if self._databases and isinstance(k, int):
            return f'key {k} (database {k % self._databases})'
        return f'key {edn.write(k)}'

    def _add(self, anomaly, text, **data):
        report = self.report
        report.counts[anomaly] = report.counts.get(anomaly, 0) + 1
        if report.counts[anomaly] <= _KEEP:
            report.add(anomaly, text, **data)

    def check(self):
        """Everything; the report says whether the model holds."""
        for k, key in self.index.keys.items():
            self._check_key(k, key)
        for call in self.calls:
            if call.type == 'ok':
                self._check_inside(call)
        self._check_lost_updates()
        self._check_cycles()
        self.report.ruled_out = models.weakest_ruled_out(self.report.anomalies())
        models.allow(self.report, self.report.model)
        return self.report

    # --- What one key's reads show.

    def _check_key(self, k, key):
        """Aborted, intermediate, invented and doubled elements; forks of the order."""
        longest = key.longest
        pure = len(key.order) == len(longest)
        suspect = next((i for i, v in enumerate(longest)
                        if v in key.failed or v not in key.writers), len(longest))
        for number, elements in key.reads:
            size = len(elements)
            if not size:
                continue
            straight = longest[:size] == list(elements)
            if not straight:
                self._add('incompatible-order', f'{self._key(k)} was read as\n'
                          f'  {edn.write(elements)} by {self.calls[number].name()}, and as\n'
                          f'  {edn.write(longest)}\nneither of which is the beginning '
                          'of the other: no order of appends gives both',
                          key=k, op=self.calls[number].name())
            if not (straight and pure):
                self._check_doubled(k, number, elements)
            if size > suspect or not straight:
                self._check_suspects(k, key, number, elements)
            last = elements[-1]
            if last in key.middle and key.middle[last] != number:
                self._add('G1b', f'{_show(self.calls[number])}\nread {self._key(k)} up to '
                          f'{edn.write(last)}, in the middle of\n'
                          f'{_show(self.calls[key.middle[last]])}',
                          key=k, element=last, op=self.calls[number].name())
        self._check_dirty_update(k, key)

    def _check_doubled(self, k, number, elements):
        """One append, seen twice."""
        if len(set(elements)) == len(elements):
            return
        doubled = sorted({v for v in elements if elements.count(v) > 1}, key=repr)
        self._add('duplicate-elements', f'{_show(self.calls[number])}\nsaw in '
                  f'{self._key(k)} more than once: {", ".join(map(edn.write, doubled))}',
                  key=k, op=self.calls[number].name())

    def _check_suspects(self, k, key, number, elements):
        """Elements of aborted transactions, and elements nobody appended."""
        call = self.calls[number]
        for v in elements:
            if v in key.failed:
                writer = self.calls[key.failed[v]]
                self._add('G1a', f'{_show(call)}\nread {edn.write(v)} from {self._key(k)}, '
                          f'but its writer failed:\n{_show(writer)}',
                          key=k, element=v, op=call.name(), writer=writer.name())
            elif v not in key.writers:
                self._add('unwritten-read', f'{_show(call)}\nread {edn.write(v)} from '
                          f'{self._key(k)}, which nobody appended',
                          key=k, element=v, op=call.name())

    def _check_dirty_update(self, k, key):
        """A committed append on top of one that was aborted."""
        aborted = None
        for v in key.order:
            number = key.writers.get(v)
            kind = self.calls[number].type if number is not None else 'info'
            if kind == 'fail':
                aborted = v if aborted is None else aborted
            elif kind == 'ok':
                if aborted is not None:
                    self._add('dirty-update', f'{self._key(k)}: {edn.write(v)} was appended '
                              f'and committed on top of {edn.write(aborted)}, whose writer '
                              f'failed:\n{_show(self.calls[key.failed[aborted]])}', key=k)
                aborted = None

    # --- What one transaction shows by itself.

    def _check_inside(self, call):
        """A transaction must see its own appends, its earlier reads, no later append."""
        value = call.value
        if len(value) == len({mop[1] for mop in value}):
            return
        known, mine, seen, internal = {}, {}, {}, False
        for f, k, v in value:
            if f == ':append':
                if v in seen.get(k, ()):
                    self._add('future-read', f'{_show(call)}\nread its own append of '
                              f'{edn.write(v)} to {self._key(k)} before making it', key=k)
                mine.setdefault(k, []).append(v)
                continue
            v = list(v or ())
            tail = mine.get(k, [])
            expected = known[k] + tail if k in known else None
            good = v == expected if expected is not None else (
                not tail or v[-len(tail):] == tail)
            if not good and not internal:
                internal = True  # One finding a transaction.
                wanted = edn.write(expected) if expected is not None else \
                    'a list ending with ' + edn.write(tail)
                self._add('internal', f'{_show(call)}\nread {edn.write(v)} from '
                          f'{self._key(k)}; by what it had read and appended itself, it '
                          f'must be {wanted}', key=k, op=call.name())
            known[k], mine[k] = v, []
            seen.setdefault(k, set()).update(v)

    def _check_lost_updates(self):
        """Two that read the same state of a key and both appended to it."""
        states = {}
        for call in self.calls:
            if call.type != 'ok':
                continue
            read, wrote = {}, set()
            for f, k, v in call.value:
                if f == ':r':
                    if k not in read and k not in wrote:
                        read[k] = v
                elif k not in wrote:
                    wrote.add(k)
                    if k in read:
                        v = read[k]
                        state = (k, len(v), v[-1]) if v else (k, 0, None)
                        states.setdefault(state, []).append((call, v))
        for (k, _, _), readers in states.items():
            groups = {}
            for call, v in readers if len(readers) > 1 else ():
                groups.setdefault(edn.freeze(v or ()), []).append(call)
            for v, calls in groups.items():
                if len(calls) > 1:
                    self._add('lost-update', f'{self._key(k)}: both read {edn.write(v)} and '
                              'then appended, without seeing each other:\n'
                              + '\n'.join(map(_show, calls[:4])), key=k)

    # --- What all of them show together.

    def _graph(self):
        index = self.index
        nodes = [n for n, possible in enumerate(index.possible) if possible]
        node = {n: i for i, n in enumerate(nodes)}
        dependencies = graph.Graph(len(nodes))
        add = dependencies.add
        for key in index.keys.values():
            for v, number in key.writers.items():
                if not index.possible[number]:
                    continue
                me, previous = node[number], key.before(v)
                writer = index.writer(key, previous)
                if writer is not None:
                    add(node[writer], me, graph.WW)
                for reader in key.readers.get(previous, ()):
                    add(node[reader], me, graph.RW)
            for v, readers in key.readers.items():
                writer = index.writer(key, v)
                if writer is not None:
                    for reader in readers:
                        add(node[writer], node[reader], graph.WR)
        return dependencies, nodes

    def _check_cycles(self):
        dependencies, nodes = self._graph()
        dependencies.order([self.calls[n] for n in nodes])
        knots = dependencies.knots()
        deadline, unsure = time.monotonic() + self._seconds, 0
        for knot in knots:
            left = max(0.0, deadline - time.monotonic())
            cycles, complete = knot.cycles(min(5.0, left))
            unsure += not complete
            for cycle in cycles:
                cycle.nodes = [nodes[i] for i in cycle.nodes]
                self._add(cycle.name(), self._explain(cycle),
                          cycle=[self.calls[n].name() for n in cycle.nodes],
                          edges=[graph.NAMES[kind] for kind in cycle.kinds])
        self.report.figures['tangled groups'] = len(knots)
        if unsure:
            self.report.figures['groups whose plainest cycle was not found in time'] = unsure

    def _explain(self, cycle):
        """The cycle in words: who they are, and why each came before the next."""
        name = {n: f'T{i + 1}' for i, n in enumerate(cycle.nodes)}
        lines = [f'{name[n]} = {_show(self.calls[n])}' for n in dict.fromkeys(cycle.nodes)]
        lines.append('Then:')
        following = cycle.nodes[1:] + cycle.nodes[:1]
        for a, b, kind in zip(cycle.nodes, following, cycle.kinds):
            lines.append(f'- {name[a]} came before {name[b]}, since '
                         + self._why(a, b, kind, name[a], name[b]) + '.')
        lines.append('So each of them came before itself: a contradiction.')
        return '\n'.join(lines)

    def _why(self, a, b, kind, name_a, name_b):
        if kind == graph.PROCESS:
            return f'process {self.calls[a].process} ran {name_a} first (session order)'
        if kind == graph.REALTIME:
            done, begun = self.calls[a].completion, self.calls[b].invoke
            late = (begun.time - done.time) / 1e9 if None not in (begun.time, done.time) \
                else 0
            return (f'{name_a} had ended (index {done.index}) '
                    + (f'{late:.6f} s ' if late > 0 else '')
                    + f'before {name_b} was invoked (index {begun.index}) (real time)')
        for f, k, v in self.calls[b].value:
            key = self.index.keys[k]
            if f == ':append' and kind != graph.WR:
                previous = key.before(v)
                if kind == graph.WW and self.index.writer(key, previous) == a:
                    return (f'{name_b} appended {edn.write(v)} to {self._key(k)} after '
                            f'{name_a} appended {edn.write(previous)} (ww)')
                if kind == graph.RW and a in key.readers.get(previous, ()):
                    return (f'{name_a} read {self._key(k)} and did not see '
                            f'{name_b}\'s append of {edn.write(v)} (rw)')
            elif f == ':r' and kind == graph.WR and v:
                if self.index.writer(key, v[-1]) == a:
                    return (f'{name_b} read {name_a}\'s append of {edn.write(v[-1])} '
                            f'to {self._key(k)} (wr)')
        raise AssertionError(f'no reason for {name_a} -> {name_b} by {graph.NAMES[kind]}')


def check(history, model=models.STRICTEST, databases=0, **_):
    """The Report on a list-append history.  Raises HistoryError."""
    return Checker(history, model, databases).check()
