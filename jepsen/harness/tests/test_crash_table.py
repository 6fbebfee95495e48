"""The crash table, in its three places: docs/protocol.md tells it, the sweep walks it
(harness/crash_table.py), and the failpoints of the source make it happen.  They must agree.
"""

import re
import unittest

from support import ROOT  # First: it sets the path.
from harness import crash_table

FOLDERS = {'coordinator': ('coordinator', 'recovery'), 'participant': ('participant',)}
_USE = re.compile(r'^(?P<before>.*)TROTH_FAILPOINT\("(?P<name>[^"]+)"\)(?P<after>.*)$')


def points(root=ROOT):
    """{process: {name: [whether it has an error branch, ...]}} of the C++ source."""
    found = {}
    for process, folders in FOLDERS.items():
        mine = found[process] = {}
        for folder in folders:
            for path in sorted((root / folder).glob('*.cc')):
                for line in path.read_text(encoding='utf-8').splitlines():
                    use = _USE.match(line)
                    if use:
                        bare = not use['before'].strip() and use['after'].startswith(';')
                        mine.setdefault(use['name'], []).append(not bare)
    return found


class CrashTableTest(unittest.TestCase):
    """What each row needs."""

    def setUp(self):
        self.points = points()

    def test_rows_are_those_of_the_document(self):
        self.assertEqual([(r.name, r.process) for r in crash_table.ROWS],
                         crash_table.documented(ROOT))

    def test_there_are_enough(self):
        self.assertGreaterEqual(len(crash_table.ROWS), 25)
        self.assertEqual(len({r.name for r in crash_table.ROWS}), len(crash_table.ROWS))

    def test_every_row_has_its_point(self):
        for row in crash_table.ROWS:
            with self.subTest(row=row.name):
                self.assertIn(row.name, self.points[row.process],
                              'a crash window without a failpoint of its name')

    def test_every_point_has_its_row(self):
        for process, names in self.points.items():
            rows = {r.name for r in crash_table.ROWS if r.process == process}
            for name in names:
                with self.subTest(point=name):
                    self.assertTrue(name in rows or name in crash_table.NO_WINDOWS,
                                    'a failpoint that is no row of docs/protocol.md')

    def test_error_is_left_out_only_where_there_is_no_error_branch(self):
        for row in crash_table.ROWS:
            with self.subTest(row=row.name):
                self.assertEqual(row.reasons['error'] is None,
                                 any(self.points[row.process].get(row.name, ())))

    def test_kill_and_pause_are_never_left_out(self):
        for row in crash_table.ROWS:
            self.assertIsNone(row.reasons['kill'])
            self.assertIsNone(row.reasons['pause'])

    def test_the_reading_of_the_source(self):
        self.assertGreater(sum(map(len, self.points.values())), 25)
        self.assertEqual(_USE.match('  TROTH_FAILPOINT("a-b");')['name'], 'a-b')
        self.assertTrue(_USE.match('    if (TROTH_FAILPOINT("a")) return Drop(1);')['before'].strip())


if __name__ == '__main__':
    unittest.main()
