"""The list-append checker agrees with Elle on the 72 histories it has judged."""

import os
import unittest

import support
from checkers import append, history

# Cycles may be classed more finely or coarsely; these may not.
_EXACT = {'G1a', 'G1b', 'duplicate-elements', 'incompatible-order', 'internal'}


class ElleTest(unittest.TestCase):

    def test_verdicts(self):
        verdicts = support.expectations('elle/verdicts.jsonl')
        self.assertEqual(len(verdicts), 72)
        for elle in verdicts:
            with self.subTest(history=elle['history']):
                report = append.check(history.read(
                    os.path.join(support.HISTORIES, 'elle', elle['history'])))
                self.assertEqual(report.valid, elle['valid'])
                self.assertEqual(set(report.anomalies()) & _EXACT,
                                 set(elle['anomalies']) & _EXACT)

    def test_cycles_are_of_elles_kind(self):
        """Whatever model Elle rules out by a cycle, a cycle of ours rules out too."""
        for elle in support.expectations('elle/verdicts.jsonl'):
            report = append.check(history.read(
                os.path.join(support.HISTORIES, 'elle', elle['history'])))
            if 'strong-snapshot-isolation' in elle['not']:
                continue  # By a session here, by real time there: finer.
            with self.subTest(history=elle['history']):
                self.assertEqual(set(report.ruled_out), set(elle['not']))


if __name__ == '__main__':
    unittest.main()
