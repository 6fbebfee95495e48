"""Every checker on its golden histories: good ones pass, bad ones go red by name."""

import os
import unittest

import support
from checkers import cli


class GoldenTest(unittest.TestCase):
    """jepsen/histories/<workload>/expected.jsonl says what each history must give."""

    def check(self, workload, expected):
        options = [os.path.join(support.HISTORIES, workload, o) if o.endswith('.jsonl')
                   else o for o in expected.get('options', ())]
        path = os.path.join(support.HISTORIES, workload, expected['history'])
        status, out, err = support.run(path, '--workload', workload, *options)
        self.assertEqual(err, '')
        valid, anomalies = support.verdict(out)
        self.assertEqual(anomalies, set(expected['anomalies']), out)
        self.assertEqual(valid, expected['valid'], out)
        self.assertEqual(status, 0 if valid else 1)

    def test_each_history(self):
        for workload in cli.WORKLOADS:
            for expected in support.expectations(f'{workload}/expected.jsonl'):
                with self.subTest(workload=workload, history=expected['history']):
                    self.check(workload, expected)

    def test_each_workload_has_good_and_bad(self):
        for workload in cli.WORKLOADS:
            valid = {e['valid'] for e in support.expectations(f'{workload}/expected.jsonl')}
            self.assertEqual(valid, {True, False}, workload)

    def test_no_history_is_left_out(self):
        for workload in cli.WORKLOADS:
            there = {f for f in os.listdir(os.path.join(support.HISTORIES, workload))
                     if f.endswith('.edn')}
            listed = {e['history'] for e in
                      support.expectations(f'{workload}/expected.jsonl')}
            self.assertEqual(there, listed, workload)


if __name__ == '__main__':
    unittest.main()
