"""100,000 list-append transactions are checked in under 60 s, valid or not.

Not found by discovery, since it takes half a minute:
  /usr/bin/python3 jepsen/checkers/tests/perf_append.py
Each run is a process of its own, started through the launcher; its seconds and its
memory include reading the file.
"""

import os
import re
import resource
import subprocess
import tempfile
import time
import unittest

import support
from checkers import generate

_TRANSACTIONS = 100_000
_LIMIT_S = 60


class PerformanceTest(unittest.TestCase):

    def check(self, **options):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'history.edn')
            with open(path, 'w', encoding='utf-8') as file:
                file.writelines(generate.Generator(_TRANSACTIONS, **options).lines())
            size = os.path.getsize(path)
            begun = time.monotonic()
            done = subprocess.run([os.path.join(support.JEPSEN, 'check'), path,
                                   '--workload', 'append', '--examples', '0'],
                                  capture_output=True, text=True, check=False)
            seconds = time.monotonic() - begun
        print(f'\n{options or "serial"}: {size / 2**20:.0f} MiB, {seconds:.1f} s, peak of '
              f'all so far {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10} '
              f'MiB\n{done.stdout.rstrip()}')
        self.assertEqual(done.stderr, '')
        self.assertLess(seconds, _LIMIT_S)
        self.assertEqual(int(re.search(r'transactions (\d+)', done.stdout).group(1)),
                         _TRANSACTIONS)
        return support.verdict(done.stdout)

    def test_serial(self):
        self.assertEqual(self.check(), (True, set()))

    def test_serial_with_long_lists(self):
        self.assertEqual(self.check(keys=5, writes_per_key=256), (True, set()))

    def test_a_few_fractured_reads(self):
        valid, anomalies = self.check(snapshot_every=1000)
        self.assertFalse(valid)
        self.assertIn('G-single-item', anomalies)

    def test_tangled_throughout(self):
        valid, anomalies = self.check(snapshot_every=2, processes=100)
        self.assertFalse(valid)
        self.assertIn('G-single-item', anomalies)


if __name__ == '__main__':
    unittest.main()
