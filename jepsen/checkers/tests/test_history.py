"""Histories: pairing, unknown outcomes, healing, and what is refused."""

import io
import json
import os
import tempfile
import unittest

import support
from checkers import history

_BANK = '{:process 0, :type :invoke, :f :read, :value nil}\n'


class HistoryTest(unittest.TestCase):

    def test_pairs(self):
        calls = history.parse('''
            {:type :invoke, :f :a, :value 1, :process 0, :time 5, :index 0}
            {:type :invoke, :f :b, :value 2, :process 1}
            {:type :info, :f :kill, :value nil, :process :nemesis}
            {:type :ok, :f :b, :value 3, :process 1, :extra "x"}
            {:type :info, :f :a, :process 0, :error [:timeout "lost"]}
            {:type :invoke, :f :c, :process 7}''').calls()
        self.assertEqual([(c.f, c.type, c.value, c.begin, c.end) for c in calls],
                         [('a', 'info', 1, 0, 4), ('b', 'ok', 3, 1, 3),
                          ('c', 'info', None, 5, None)])

    def test_one_vector_of_maps(self):
        lines = '{:type :invoke, :f :a, :process 0} {:type :ok, :f :a, :process 0}'
        for text in (f'[{lines}]', f'[#jepsen.history.Op{lines.replace("} {", "}{")}]'
                     .replace('}{', '} #jepsen.history.Op{')):
            self.assertEqual(len(history.parse(text).calls()), 1)

    def test_what_is_refused(self):
        for text, words in {
                '': 'empty', '[]': 'empty', '7': 'not a map', '{:a': 'not EDN',
                '{:type :done, :process 0}': ':type is', '{:type :ok, :f :a}': 'no :process',
                _BANK + _BANK: 'is open',
                '{:process 0, :type :ok, :f :a}': 'had invoked nothing'}.items():
            with self.subTest(text=text), self.assertRaisesRegex(history.HistoryError, words):
                history.parse(text).calls()

    def test_quiet_windows(self):
        parsed = history.parse('''
            {:time 1, :type :info, :process :nemesis, :f :kill}
            {:time 2, :type :info, :process :nemesis, :f :healed}
            {:time 3, :type :info, :process :nemesis, :f :healed}
            {:time 4, :type :info, :process :nemesis, :f :kill}
            {:time 6, :type :info, :process :nemesis, :f :healed}
            {:time 9, :type :invoke, :process 0, :f :read}''')
        self.assertEqual(parsed.quiet_windows(), [(2, 4), (6, 9)])

    def test_writer(self):
        file, times = io.StringIO(), iter(range(0, 100, 10))
        writer = history.HistoryWriter(file, lambda: next(times))
        writer.invoke(0, 'txn', [[':append', 1, 1]])
        writer.fault('kill', {':node': 'east'})
        writer.complete('info', 0, 'txn', None, error='no "answer"')
        writer.fault('healed')
        writer.invoke(1, 'txn', {})
        writer.complete('ok', 1, 'txn', {':id': 'c.1.1'})
        ops = history.parse(file.getvalue()).ops
        self.assertEqual([op.index for op in ops], [0, 1, 2, 3, 4, 5])
        self.assertEqual([op.time for op in ops], [0, 10, 20, 30, 40, 50])
        self.assertEqual(ops[2].error, 'no "answer"')
        self.assertEqual(ops[5].value, {':id': 'c.1.1'})
        with self.assertRaises(AssertionError):
            writer.invoke(0, 'txn', [])  # The process died with its unknown outcome.


class CommandTest(unittest.TestCase):
    """Exit statuses and messages of jepsen/check."""

    def refused(self, text, workload, words, *options):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'h.edn')
            with open(path, 'w', encoding='utf-8') as file:
                file.write(text)
            status, out, err = support.run(path, '--workload', workload, *options)
        self.assertEqual((status, out), (2, ''), err)
        self.assertRegex(err, words)

    def pair(self, f, value, type_='ok'):
        return (f'{{:process 0, :type :invoke, :f :{f}, :value {value}, :time 1}}\n'
                f'{{:process 0, :type :{type_}, :f :{f}, :value {value}, :time 2}}\n')

    def test_unusable_input(self):
        refused, pair = self.refused, self.pair
        refused('{:nonsense', 'append', 'not EDN')
        refused(pair('txn', '[[:append 1 1] [:append 1 1]]'), 'append', 'must be unique')
        refused(pair('txn', '[[:w 1 1]]'), 'append', 'neither :append nor :r')
        refused(pair('txn', '[[:append 1 1]]', 'fail'), 'append', 'nothing to check')
        refused(pair('read', '7'), 'bank', 'map of balances')
        refused(pair('transfer', '{}'), 'bank', 'nothing to check')
        refused(pair('txn', '{:id 1, :participants ["a"]}'), 'audit', 'markers')
        refused(pair('txn', '{:id 1, :participants ["a"]}')
                + pair('markers', '{:participant "b", :ids []}'), 'audit', 'no :ok :markers')
        refused(pair('txn', '{:id 1}', 'info') + pair('markers', '{:participant "a", :ids [1]}')
                + pair('markers', '{:participant "b", :ids []}'),
                'audit', ':info without :participants, and 1 left a marker')
        refused(pair('txn', '{:id 1}') * 2, 'order', 'nothing to check')
        refused(pair('commit', '{:id 1, :outcome :maybe}'), 'register', 'is none of')
        refused(pair('write', '[[:w 1 1]]'), 'long-fork', 'nothing to check')
        refused(pair('take', '{:pair 1, :side 2}', 'fail'), 'write-skew', 'nothing')
        refused(pair('transfer', '{:id 1, :legs {"a" 1}}'), 'ledger', ':ledger')
        refused(pair('prepared', '{:participant "a", :gids []}'), 'orphans', ':healed')
        refused(pair('txn', '{}'), 'liveness', ':healed')
        refused('{:process :nemesis, :type :info, :f :healed, :time 1}\n'
                + pair('txn', '{}'), 'liveness', 'nothing can be said')
        refused('{:process :nemesis, :type :info, :f :healed, :time 1}\n'
                + pair('prepared', '{:participant "a", :gids []}'), 'orphans', 'no reading')
        refused(pair('txn', '{:id 1}'), 'log', 'needs --log')
        refused(pair('txn', '{:id 1}'), 'log', 'can\'t read', '--log', '/nowhere.jsonl')
        refused(pair('txn', '{:id 1}', 'info'), 'log', 'nothing to check',
                '--log', os.path.join(support.HISTORIES, 'log', 'log.jsonl'))

    def test_missing_file(self):
        status, out, err = support.run('/nowhere.edn', '--workload', 'bank')
        self.assertEqual((status, out), (2, ''))
        self.assertIn('/nowhere.edn', err)

    def test_usage(self):
        self.assertEqual(support.run('--help')[0], 0)
        self.assertEqual(support.run('x.edn')[0], 2)
        self.assertEqual(support.run('x.edn', '--workload', 'nonsense')[0], 2)

    def test_json_and_words(self):
        path = os.path.join(support.HISTORIES, 'append', 'bad-fractured.edn')
        with tempfile.TemporaryDirectory() as folder:
            target = os.path.join(folder, 'out.json')
            status, out, _ = support.run(path, '--workload', 'append', '--json', target)
            with open(target, encoding='utf-8') as file:
                data = json.load(file)
        self.assertEqual(status, 1)
        self.assertFalse(data['valid'])
        self.assertEqual(data['anomalies'], ['G-single-item'])
        finding, = data['findings']['G-single-item']
        self.assertEqual(sorted(finding['edges']), ['rw', 'wr'])
        self.assertIn('did not see', out)
        self.assertIn('came before itself', out)


