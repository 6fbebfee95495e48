"""The two EDN readers agree with each other and with what was written."""

import random
import unittest

import support  # noqa: F401  (sets the path)
from checkers import edn


class ReadTest(unittest.TestCase):

    def read(self, text):
        values = edn.read_all(text)
        self.assertEqual(len(values), 1, text)
        return values[0]

    def test_scalars(self):
        for text, value in {
                'nil': None, 'true': True, 'false': False, '0': 0, '-12': -12, '+3': 3,
                '7N': 7, '1.5': 1.5, '2.50M': 2.5, '1e3': 1000.0, '1/4': 0.25,
                ':a': ':a', ':a/b-c?': ':a/b-c?', '"a b"': 'a b', r'"q\"\n\u00e9"': 'q"\né',
                r'\a': 'a', r'\newline': '\n', r'\u0041': 'A', 'symbol': 'symbol',
                '##Inf': float('inf')}.items():
            with self.subTest(text=text):
                self.assertEqual(self.read(text), value)
                self.assertIs(type(self.read(text)), type(value))

    def test_collections(self):
        for text, value in {
                '[]': [], '{}': {}, '#{}': frozenset(), '()': [], '[ 1, 2 ]': [1, 2],
                '[nil nil]': [None, None], '[:nil nil-x]': [':nil', 'nil-x'],
                '{:a 1, :b {:c [2 {}]}}': {':a': 1, ':b': {':c': [2, {}]}},
                '{[1 2] 3}': {(1, 2): 3}, '{1 {:x 2}}': {1: {':x': 2}},
                '#{1 [2]}': frozenset({1, (2,)}), '(1 (2))': [1, [2]],
                '[[:append 1 2] [:r 3 nil]]': [[':append', 1, 2], [':r', 3, None]],
                '[1 ; one\n 2]': [1, 2], '[#_ 1 2 #_[3] 4]': [2, 4],
                '#inst "2026-01-01"': '2026-01-01', '^:private [1]': [1],
                '#jepsen.history.Op{:index 3, :value #a #b [1]}': {':index': 3, ':value': [1]},
                '#:jepsen{:a 1}': {':a': 1}}.items():
            with self.subTest(text=text):
                self.assertEqual(self.read(text), value)
                self.assertEqual(edn.read_slow(text), [value])

    def test_plain_text_takes_the_fast_way(self):
        line = '{:index 0, :type :ok, :process 1, :value [[:r 3 nil] [:append 1 2]]}'
        self.assertEqual(edn.read_fast(f'{line}\n{line}\n'), edn.read_slow(line) * 2)
        self.assertEqual(edn.read_fast('{:a {:b [nil]}, [1] 2}'),
                         [{':a': {':b': [None]}, (1,): 2}])
        self.assertIsNone(edn.read_fast('{:a "text"}'))

    def test_several_values(self):
        self.assertEqual(edn.read_all('1 2\n\n[3\n4]\n'), [1, 2, [3, 4]])
        self.assertEqual(edn.read_all(''), [])
        self.assertEqual(edn.read_all('{:a "x"}\n{:a 1}\n{:a\n 2}'),
                         [{':a': 'x'}, {':a': 1}, {':a': 2}])

    def test_errors_name_the_line(self):
        for text, line in {'[1 2': 1, '1\n2\n]': 3, '{:a}': 1, '1\n{:a 1\n:b}': 2,
                           '[1)': 1, '"open': 1, '1\n\n##Nope': 3, '[#_]': 1}.items():
            with self.subTest(text=text):
                with self.assertRaises(edn.EdnError) as raised:
                    edn.read_all(text)
                self.assertEqual(raised.exception.line, line)

    def random_value(self, source, depth=0):
        kind = source.randrange(9 if depth < 3 else 6)
        inner = [self.random_value(source, depth + 1)
                 for _ in range(source.randrange(4))] if kind > 5 else []
        if kind == 6:
            return inner
        if kind == 7:
            return {edn.freeze(k): self.random_value(source, depth + 1) for k in inner}
        if kind == 8:
            return frozenset(edn.freeze(v) for v in inner)
        return (source.randrange(-99, 99), None, source.random(),
                source.choice([':ok', ':r', ':a/b']), source.random() < 0.5,
                source.choice(['', 'two words', 'a"\\\n', 'é[{']))[kind]

    def test_written_is_read(self):
        source = random.Random(4)
        values = [self.random_value(source) for _ in range(2000)]
        text = '\n'.join(map(edn.write, values))
        self.assertEqual(edn.read_all(text), values)
        self.assertEqual(edn.read_slow(text), values)


if __name__ == '__main__':
    unittest.main()
