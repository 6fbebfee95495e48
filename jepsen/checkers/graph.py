"""Cycles among operations: dependency graphs, strong components, witnesses.

Knows nodes by number and edges by kind; not what was read or written.

Real-time order has an edge from every operation to every one invoked after its
end: far too many.  Instead each completion is a *tick*: operation -> its tick ->
the next tick -> the operations invoked then.  That is linear, and has a path
from a to b exactly when a ended before b began.
"""

import time
from collections import deque

import numpy
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from . import models

WW, WR, RW, PROCESS, REALTIME = 1, 2, 4, 8, 16
_CHAIN = 32  # tick -> tick, tick -> operation: the rest of a real-time step
NAMES = {WW: 'ww', WR: 'wr', RW: 'rw', PROCESS: 'process', REALTIME: 'realtime'}

# By level of models.LEVELS: edges that a cycle may use, edges of which it needs
# one; by order: the edges it may use besides.
_MAY = (WW, WW | WR, WW | WR, WW | WR, WW | WR | RW)
_NEEDS = (WW, WR, RW, RW, RW)
_BESIDES = (0, PROCESS, REALTIME | _CHAIN)


class Cycle:
    """nodes[i] -> nodes[i + 1] by kinds[i], and the last back to the first."""

    def __init__(self, nodes, kinds):
        self.nodes = nodes
        self.kinds = kinds

    def name(self):
        """Its anomaly, from the kinds of its edges alone."""
        rws = self.kinds.count(RW)
        beside = any(kind == RW and self.kinds[i - 1] == RW
                     for i, kind in enumerate(self.kinds)) and rws > 1
        if rws:
            level = 2 if rws == 1 else 4 if beside else 3
        else:
            level = 1 if WR in self.kinds else 0
        order = 2 if REALTIME in self.kinds else 1 if PROCESS in self.kinds else 0
        return models.cycle_name(level, order)


def components(count, sources, targets):
    """The number of each node's strong component, as an array."""
    matrix = csr_matrix((numpy.ones(len(sources), dtype=numpy.int8), (sources, targets)),
                        shape=(count, count))
    return connected_components(matrix, directed=True, connection='strong')[1]


class Graph:
    """Operations 0..n-1 with typed edges; `order` adds sessions and real time."""

    def __init__(self, count):
        self.count = count
        self.ticks = 0
        self._sources, self._targets, self._kinds = [], [], []
        self._extra = []  # (sources, targets, kind) as arrays
        self._begins = numpy.zeros(count, dtype=numpy.int64)

    def add(self, source, target, kind):
        """An edge; a node does not depend on itself, so loops are left out."""
        if source != target:
            self._sources.append(source)
            self._targets.append(target)
            self._kinds.append(kind)

    def order(self, calls, sessions=True):
        """Adds real-time order, and that of sessions; calls[i] is node i.

        Only what ended :ok comes before anything: an unknown operation may take
        effect as late as it likes.
        """
        if sessions:
            self._sessions(calls)
        begins = numpy.array([call.begin for call in calls])
        self._begins = begins
        done = [(call.end, i) for i, call in enumerate(calls) if call.type == 'ok']
        done.sort()
        self.ticks = len(done)
        if not done:
            return
        ends = numpy.array([end for end, _ in done])
        tick = numpy.arange(self.ticks) + self.count
        self._extra.append((numpy.array([i for _, i in done]), tick, REALTIME))
        self._extra.append((tick[:-1], tick[1:], _CHAIN))
        before = numpy.searchsorted(ends, begins) - 1
        follows = numpy.nonzero(before >= 0)[0]
        self._extra.append((tick[before[follows]], follows, _CHAIN))

    def _sessions(self, calls):
        last, sources, targets = {}, [], []
        for node in sorted(range(self.count), key=lambda i: calls[i].begin):
            call = calls[node]
            if call.process in last:
                sources.append(last[call.process])
                targets.append(node)
            if call.type == 'ok':
                last[call.process] = node
        self._extra.append((numpy.array(sources, dtype=numpy.int64),
                            numpy.array(targets, dtype=numpy.int64), PROCESS))

    def edges(self):
        """All edges as three arrays: sources, targets, kinds."""
        parts = [(numpy.array(self._sources, dtype=numpy.int64),
                  numpy.array(self._targets, dtype=numpy.int64),
                  numpy.array(self._kinds, dtype=numpy.int64))]
        parts += [(s, t, numpy.full(len(s), kind)) for s, t, kind in self._extra]
        return tuple(numpy.concatenate([part[i] for part in parts]) for i in range(3))

    def knots(self):
        """Each strong component with a cycle in it, smallest first, as a Knot."""
        sources, targets, kinds = self.edges()
        label = components(self.count + self.ticks, sources, targets)
        inside = label[sources] == label[targets]
        sources, targets, kinds = sources[inside], targets[inside], kinds[inside]
        order = numpy.argsort(label[sources], kind='stable')
        sources, targets, kinds = sources[order], targets[order], kinds[order]
        if not len(sources):
            return []
        cuts = numpy.nonzero(numpy.diff(label[sources]))[0] + 1
        knots = [Knot(self._begins, s, t, k) for s, t, k in zip(
            numpy.split(sources, cuts), numpy.split(targets, cuts),
            numpy.split(kinds, cuts))]
        return sorted(knots, key=lambda knot: len(knot.nodes))


class Knot:
    """One strong component: every node in it lies on a cycle."""

    def __init__(self, begins, sources, targets, kinds):
        self._ids, flat = numpy.unique(numpy.concatenate([sources, targets]),
                                       return_inverse=True)
        self._operations = operations = len(begins)
        self._begins = begins
        self._sources, self._targets = flat[:len(sources)], flat[len(sources):]
        self._kinds = kinds
        self.nodes = [int(i) for i in self._ids if i < operations]

    def cycles(self, seconds=5.0):
        """Witnesses, the worst first, none that another one here implies.

        Returns (cycles, complete): complete is False when `seconds` ran out before
        it was clear that no plainer cycle exists.
        """
        deadline = time.monotonic() + seconds
        found, witnesses, complete = [], [], True
        for order in range(len(models.ORDERS)):
            for level in range(len(models.LEVELS)):
                if any(_implies(f, (level, order)) for f in found):
                    continue
                cycle, sure = self._search(level, order, deadline)
                complete = complete and sure
                if cycle:
                    found.append((level, order))
                    witnesses.append(cycle)
        return witnesses, complete

    def _pick(self, kinds):
        chosen = (self._kinds & kinds) != 0
        return self._sources[chosen], self._targets[chosen], self._kinds[chosen]

    def _search(self, level, order, deadline):
        """The shortest cycle of that level and order, as (cycle or None, sure)."""
        size = len(self._ids)
        sources, targets, kinds = self._pick(_MAY[level] | _BESIDES[order])
        start, end, _ = self._pick(_NEEDS[level])
        alternate = level in (2, 3)
        if alternate:
            # Node v + size is v reached by an rw edge: no second one may follow.
            # Single rw cycles are looked for where non-adjacent ones exist.
            end = end + size
            sources, targets, kinds = (numpy.concatenate([sources, sources + size]),
                                       numpy.concatenate([targets, targets]),
                                       numpy.concatenate([kinds, kinds]))
            all_sources = numpy.concatenate([sources, start])
            all_targets = numpy.concatenate([targets, end])
        else:
            all_sources = numpy.concatenate([sources, start])
            all_targets = numpy.concatenate([targets, end])
        label = components(size * 2, all_sources, all_targets)
        hot = label[start] == label[end]
        if not hot.any():
            return None, True
        inside = label[sources] == label[targets]
        out = {}
        for s, t, k in zip(sources[inside].tolist(), targets[inside].tolist(),
                           kinds[inside].tolist()):
            out.setdefault(s, []).append((t, k))
        if level == 3:
            for s, t in zip(start[hot].tolist(), end[hot].tolist()):
                out.setdefault(s, []).append((t, RW))
        start, end = self._likely_first(start[hot], end[hot])
        return self._shortest(out, start.tolist(), end.tolist(), _NEEDS[level], deadline)

    def _likely_first(self, start, end):
        """The edges against time first: whoever began long after what it came before.

        Where a knot is too large to try all edges, these have the short ways back.
        """
        size = len(self._ids)
        late = self._begins[self._ids[start % size]] - self._begins[self._ids[end % size]]
        order = numpy.argsort(-late, kind='stable')
        return start[order], end[order]

    def _shortest(self, out, start, end, kind, deadline):
        """The shortest way from an edge's end back to its start, over all edges."""
        goals = {}
        for s, e in zip(start, end):
            goals.setdefault(e, set()).add(s)
        best, limit = None, float('inf')
        for number, (source, wanted) in enumerate(goals.items()):
            if number and time.monotonic() > deadline:
                return best, best is not None
            path = _walk(out, source, wanted, limit)
            if path:
                best = self._cycle(path, kind)
                limit = len(best.nodes) - 1
                if limit <= 1:
                    break
        return best, True

    def _cycle(self, path, kind):
        """path: [(node, kind of the edge to it)], from the edge's end to its start."""
        size, nodes, kinds = len(self._ids), [], []
        for node, step in path:
            real = int(self._ids[node % size])
            if real >= self._operations:
                continue
            if nodes:
                kinds.append(REALTIME if step == _CHAIN else step)
            nodes.append(real)
        return Cycle(nodes, kinds + [kind])


def _implies(found, wanted):
    """A cycle of `found` (level, order) makes one of `wanted` nothing new."""
    same_family = (found[0] < 2) == (wanted[0] < 2)
    return found[1] <= wanted[1] and found[0] <= wanted[0] and (
        same_family or found[1] < wanted[1])


def _walk(out, source, wanted, limit):
    """Shortest path from source into `wanted`, under `limit` steps, or None.

    Steps inside a real-time order cost nothing: its first one has cost one.
    """
    came = {source: (None, 0)}
    distance = {source: 0}
    queue, done = deque([source]), set()
    while queue:
        node = queue.popleft()
        if node in done:
            continue
        done.add(node)
        if node in wanted:
            path = []
            while node is not None:
                previous, kind = came[node]
                path.append((node, kind))
                node = previous
            return path[::-1]
        for target, kind in out.get(node, ()):
            far = distance[node] + (kind != _CHAIN)
            if far < distance.get(target, limit):
                distance[target] = far
                came[target] = (node, kind)
                if kind == _CHAIN:
                    queue.appendleft(target)
                else:
                    queue.append(target)
    return None
