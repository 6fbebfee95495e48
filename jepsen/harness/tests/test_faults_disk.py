"""Damage must hit what is part of the log: behind the last batch of a checkpoint lie bytes of an
earlier one, and nobody reads them.
"""

import pathlib
import struct
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / 'jepsen'))
from harness import faults_disk  # pylint: disable=wrong-import-position

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


if __name__ == '__main__':
    unittest.main()
