"""By whom a planted bug was caught: a checker that could not judge, and a test that broke, have
caught nothing.
"""

import importlib.machinery
import importlib.util
import pathlib
import unittest

PATH = pathlib.Path(__file__).resolve().parents[2] / 'controls'


def load():
    loader = importlib.machinery.SourceFileLoader('controls', str(PATH))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader('controls', loader))
    loader.exec_module(module)
    return module


class Verdict(unittest.TestCase):

    def setUp(self):
        self.controls = load()

    def caught(self, number, *problems, status=1):
        text = 'run: seed 1\n' + ''.join(f'problem: {problem}\n' for problem in problems)
        return self.controls.verdict(status, text, self.controls.CONTROLS[number][1])

    def test_a_finding_catches(self):
        self.assertEqual(self.caught('22', 'orphans: orphan'), 'orphan')
        self.assertEqual(self.caught('20', 'kill was never injected', 'bank: bank-lost, lost-commit'),
                         'lost-commit')
        self.assertEqual(self.caught('06', 'finish-sending/kill: branches stay prepared after 10 s'),
                         'stay prepared')

    def test_what_broke_has_caught_nothing(self):
        for problem in ('orphans: orphans could not judge: no :ok :prepared after healing',
                        'the test itself failed: orphan', 'the nemesis failed: orphan',
                        'a/kill: no commit was seen; orphans could not judge: none; no orphan',
                        'the sweep itself failed: branches stay prepared'):
            with self.subTest(problem=problem):
                self.assertIsNone(self.caught('20', problem))
                self.assertIsNone(self.caught('22', problem))
        self.assertEqual(self.caught('22', 'a/kill: orphan; order could not judge: no rows'), 'orphan')

    def test_ids_that_come_twice_are_not_judged_and_are_caught(self):
        self.assertEqual(self.caught('05', 'audit: audit could not judge: op 9: the id c.1.7 was used '
                                           'before, by op 3'), 'was used before')

    def test_only_a_run_that_says_no_catches(self):
        self.assertIsNone(self.caught('22', 'orphans: orphan', status=2))


if __name__ == '__main__':
    unittest.main()
