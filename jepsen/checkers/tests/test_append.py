"""The list-append checker against brute force: all serial orders of small histories.

Whenever the checker finds an anomaly, no order of the transactions that keeps real
time explains what was read; and where a last reader saw every key, so that all
versions are known, a history without anomaly has such an order.
"""

import itertools
import os
import random
import subprocess
import tempfile
import unittest

import support
from checkers import append, generate, graph, history


def _weak_history(source, keys=3, transactions=5):
    """Overlapping transactions whose steps mix as they like, then a reader of all."""
    lists, programs, element = {}, [], itertools.count(1)
    for _ in range(transactions):
        mops = []
        for _ in range(source.randint(1, 3)):
            k = source.randrange(keys)
            mops.append([':r', k, None] if source.random() < 0.5
                        else [':append', k, next(element)])
        programs.append(mops)
    lines, state = [], [0] * transactions  # 0 not begun, 1.. step, -1 over
    while any(s >= 0 for s in state):
        t = source.choice([i for i, s in enumerate(state) if s >= 0])
        mops = programs[t]
        if state[t] == 0:
            lines.append(('invoke', t, [[f, k, v if f != ':r' else None]
                                        for f, k, v in mops]))
        elif state[t] > len(mops):
            lines.append(('info' if source.random() < 0.1 else 'ok', t, mops))
            state[t] = -1
            continue
        else:
            f, k, v = mop = mops[state[t] - 1]
            if f == ':append':
                lists.setdefault(k, []).append(v)
            else:
                mop[2] = list(lists.get(k, ()))
        state[t] += 1
        if state[t] == 1 and source.random() < 0.5:
            for mop in mops:  # All at once: many histories should be serial.
                f, k, v = mop
                if f == ':append':
                    lists.setdefault(k, []).append(v)
                else:
                    mop[2] = list(lists.get(k, ()))
            state[t] = len(mops) + 1
    last = [[':r', k, lists.get(k, [])] for k in range(keys)]
    lines += [('invoke', 99, last), ('ok', 99, last)]
    return history.History([history.Op(type_, process, 'txn', value)
                            for type_, process, value in lines])


def _serial(calls):
    """Is there an order that keeps real time and gives what the :ok ones read?"""
    for chosen in itertools.chain.from_iterable(
            itertools.combinations(range(len(calls)), n) for n in
            range(len(calls), 0, -1)):
        if any(c.type == 'ok' and i not in chosen for i, c in enumerate(calls)):
            continue
        if any(_explains(calls, order) for order in itertools.permutations(chosen)):
            return True
    return False


def _explains(calls, order):
    lists = {}
    for at, i in enumerate(order):
        call = calls[i]
        if any(calls[j].type == 'ok' and calls[j].end < call.begin for j in order[at + 1:]):
            return False
        for f, k, v in call.value:
            if f == ':append':
                lists[k] = lists.get(k, []) + [v]
            elif call.type == 'ok' and (v or []) != lists.get(k, []):
                return False
    return True


class BruteForceTest(unittest.TestCase):

    def test_agrees_with_all_serial_orders(self):
        source, verdicts = random.Random(11), []
        for number in range(600):
            made = _weak_history(source)
            report = append.check(made)
            serial = _serial(made.calls())
            self.assertEqual(report.valid, serial, f'history {number}: {made.ops}\n'
                             + report.text())
            verdicts.append(serial)
        self.assertGreater(sum(verdicts), 60)
        self.assertGreater(verdicts.count(False), 60)


class GeneratedTest(unittest.TestCase):

    def generated(self, **options):
        return history.parse(''.join(generate.Generator(**options).lines()))

    def test_serial_store_is_valid(self):
        for seed in range(5):
            report = append.check(self.generated(transactions=1000, seed=seed, info=0.05))
            self.assertEqual(report.anomalies(), [])

    def test_fractured_reads_are_found(self):
        report = append.check(self.generated(transactions=3000, snapshot_every=20))
        self.assertIn('G-single-item', report.anomalies())
        self.assertTrue(all(a.startswith('G') for a in report.anomalies()))
        weaker = append.check(self.generated(transactions=3000, snapshot_every=20),
                              model='snapshot-reads')
        self.assertTrue(weaker.valid)
        self.assertEqual(weaker.anomalies(), report.anomalies())

    def test_one_stale_read_ties_all_into_one_knot(self):
        """The plainest witness is the first that is tried: there is no time for more."""
        lines = list(generate.Generator(3000).lines())
        lines += ['{:type :invoke, :process -1, :f :txn, :value [[:r 0 nil]]}',
                  '{:type :ok, :process -1, :f :txn, :value [[:r 0 [1]]]}']
        report = append.Checker(history.parse(''.join(lines)), seconds=0).check()
        self.assertEqual(report.anomalies(), ['G-single-item-realtime'])
        self.assertEqual(report.figures['tangled groups'], 1)
        finding, = report.findings['G-single-item-realtime']
        self.assertEqual(sorted(finding['edges']), ['realtime', 'rw'])


class GraphTest(unittest.TestCase):

    def test_real_time_is_by_ticks(self):
        """A path over ticks from a to b exactly when a ended before b began."""
        source = random.Random(5)
        for _ in range(50):
            made = _weak_history(source, transactions=6)
            calls = made.calls()
            order = graph.Graph(len(calls))
            order.order(calls, sessions=False)
            out = {}
            for s, t, _ in zip(*order.edges()):
                out.setdefault(int(s), set()).add(int(t))
            for a, call in enumerate(calls):
                seen, todo = set(), [a]
                while todo:
                    for t in out.get(todo.pop(), ()):
                        if t not in seen:
                            seen.add(t)
                            todo.append(t)
                after = {b for b, other in enumerate(calls)
                         if call.type == 'ok' and call.end < other.begin}
                self.assertEqual({n for n in seen if n < len(calls)}, after)

    def test_names(self):
        ww, wr, rw, rt = graph.WW, graph.WR, graph.RW, graph.REALTIME
        for kinds, name in {(ww, ww): 'G0', (ww, wr): 'G1c', (rw, wr): 'G-single-item',
                            (rw, ww, rw, wr): 'G-nonadjacent-item', (rw, rw): 'G2-item',
                            (rw, wr, rw): 'G2-item', (ww, rt): 'G0-realtime',
                            (graph.PROCESS, rw): 'G-single-item-process',
                            (rw, rt, rw, rt): 'G-nonadjacent-item-realtime'}.items():
            self.assertEqual(graph.Cycle(list(range(len(kinds))), list(kinds)).name(), name)


class LauncherTest(unittest.TestCase):

    def test_launcher(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'history.edn')
            with open(path, 'w', encoding='utf-8') as file:
                file.writelines(generate.Generator(200).lines())
            done = subprocess.run(
                [os.path.join(support.JEPSEN, 'check'), folder, '--workload', 'append'],
                cwd=folder, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(done.stdout.endswith('check: valid=true anomalies=none\n'))


if __name__ == '__main__':
    unittest.main()
