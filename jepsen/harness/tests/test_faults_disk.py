"""Damage must hit what is part of the log (behind the last batch of a checkpoint lie bytes of an
earlier one, and nobody reads them), and it is a refusal that must follow.
"""

import random
import struct
import unittest
from unittest import mock

from support import Place  # First: it sets the path.
from harness import faults_disk

BLOCK = faults_disk.BLOCK


def batch(number, length, records):
    """As docs/wal_format.md has it, its checksums left out."""
    head = struct.pack('<4sIQQIIII', b'TRTB', 0, number, 0, length, records, 0, 0)
    content = head + b'r' * length
    return content + b'\0' * (-len(content) % BLOCK)


class EndOfCheckpoint(unittest.TestCase):

    def test_stops_at_the_batch_without_records(self):
        whole = b'H' * BLOCK + batch(1, 5000, 7) + batch(2, 0, 0)
        self.assertEqual(len(whole), 4 * BLOCK)
        stale = batch(3, 100, 2) + b'x' * BLOCK
        self.assertEqual(faults_disk.end_of_checkpoint(whole + stale), len(whole))

    def test_a_batch_that_fills_its_blocks_has_none_behind_it(self):
        whole = b'H' * BLOCK + batch(1, BLOCK - 40, 1) + batch(2, 0, 0)
        self.assertEqual(faults_disk.end_of_checkpoint(whole + b'x' * BLOCK), 3 * BLOCK)

    def test_bytes_that_are_no_batch_end_it(self):
        self.assertEqual(faults_disk.end_of_checkpoint(b'H' * BLOCK + b'x' * BLOCK), BLOCK)


class LogDamageTest(unittest.TestCase):
    """A coordinator of shell meets a damaged log."""

    REFUSAL = "echo 'wal/segment-7, offset 4096: damaged' >&2; exit 1"

    def setUp(self):
        self.place = Place(self)
        self.wal = self.place.path / 'wal'
        self.wal.mkdir()
        (self.wal / 'segment-7').write_bytes(b'x' * 5 * BLOCK)

    def problem(self, script):
        """Of a coordinator that does this when its log is damaged."""
        cluster = mock.Mock(wal=self.wal, coordinator=self.place.program('c', script))
        fault = faults_disk.LogDamage(cluster, None, random.Random(1))
        self.assertIn('segment-7:', fault.begin()[':where'])
        self.assertEqual((self.wal / 'segment-7').read_bytes(), b'x' * 5 * BLOCK)
        return fault.problem

    def test_a_refusal(self):
        self.assertIsNone(self.problem(f'echo $$ >{self.wal}/LOCK; {self.REFUSAL}'))

    def test_a_crash_is_none(self):
        self.assertIn('ended with -11', self.problem(
            self.REFUSAL.replace('exit 1', 'kill -SEGV $$')))
        self.assertIn('ended with 3', self.problem(self.REFUSAL.replace('exit 1', 'exit 3')))

    def test_it_names_the_file(self):
        self.assertIn('does not name segment-7', self.problem(self.REFUSAL.replace('-7', '-8')))

    def test_it_changes_nothing(self):
        for change in ('echo y >>', 'touch '):
            name = 'segment-7' if change.startswith('echo') else 'segment-8'
            with self.subTest(change=change):
                self.wal.joinpath('segment-7').write_bytes(b'x' * 5 * BLOCK)
                cluster = mock.Mock(wal=self.wal, coordinator=self.place.program(
                    'c', f'{change}{self.wal}/{name}; {self.REFUSAL}'))
                fault = faults_disk.LogDamage(cluster, None, random.Random(1))
                fault.begin()
                self.assertIn(f'changed {name}', fault.problem)

    def test_it_does_not_start(self):
        self.assertIn('it started', self.problem('$ready; exec sleep 60'))


if __name__ == '__main__':
    unittest.main()
