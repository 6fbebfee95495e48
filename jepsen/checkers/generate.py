"""Makes list-append histories of any length from a simulated serial store.

For tests of the checkers: each transaction takes effect at one instant between
its invocation and its completion, so the history is strictly serializable, with
as many transactions open at once as there are processes.  `--snapshot-every N`
lets one transaction in N read two databases at different instants, which is what
plain snapshot reads across databases do: G-single.
"""

import argparse
import random
import sys

from . import edn


class _Open:
    """A transaction under way: asked for, perhaps applied, not yet answered."""

    __slots__ = ('process', 'asked', 'seen', 'stale')

    def __init__(self, process, asked, stale):
        self.process = process
        self.asked = asked
        self.seen = None
        self.stale = stale


class Generator:
    """A store with lists, and clients that go at it in random order."""

    def __init__(self, transactions, processes=30, keys=10, writes_per_key=64,
                 seed=1, info=0.01, fail=0.02, snapshot_every=0):
        self._random = random.Random(seed)
        self._left = transactions
        self._idle = list(range(processes))
        self._fresh = processes
        self._live = list(range(keys))
        self._next_key = keys
        self._next_element = {}
        self._per_key = writes_per_key
        self._lists = {}
        self._waiting, self._applied = [], []
        self._info, self._fail, self._every = info, fail, snapshot_every
        self._count = 0

    def _ask(self):
        mops = []
        for _ in range(self._random.randint(1, 4)):
            at = self._random.randrange(len(self._live))
            k = self._live[at]
            if self._random.random() < 0.5:
                mops.append((':r', k, None))
                continue
            element = self._next_element[k] = self._next_element.get(k, 0) + 1
            mops.append((':append', k, element))
            if element >= self._per_key:
                self._live[at] = self._next_key
                self._next_key += 1
        return mops

    def _apply(self, open_):
        seen = []
        for f, k, v in open_.asked:
            if f == ':append':
                self._lists.setdefault(k, []).append(v)
                seen.append((f, k, v))
            else:
                old = open_.stale.get(k) if open_.stale else None
                value = self._lists.get(k, ()) if old is None else old
                seen.append((f, k, '[' + ' '.join(map(str, value)) + ']'))
        open_.seen = seen

    def _stale(self, asked):
        """Half of a reader's databases (odd keys) as they are now, not later."""
        return {k: list(self._lists.get(k, ())) for f, k, _ in asked
                if f == ':r' and k % 2}

    def lines(self):
        """The history, line by line."""
        index, now, take = 0, 0, self._random.random
        while self._left or self._waiting or self._applied:
            now += self._random.randint(1000, 50000)
            roll = take()
            if roll < 0.4 and self._idle and self._left:
                self._left -= 1
                self._count += 1
                asked, stale = self._ask(), None
                if self._every and self._count % self._every == 0:
                    asked = [(':r', k, None) for k in dict.fromkeys(
                        self._random.choices(self._live, k=4))]
                    stale = self._stale(asked)
                open_ = _Open(self._idle.pop(self._random.randrange(len(self._idle))),
                              asked, stale)
                self._waiting.append(open_)
                yield self._line(index, now, 'invoke', open_.process, asked)
            elif roll < 0.7 and self._waiting:
                at = self._random.randrange(len(self._waiting))
                open_ = self._waiting.pop(at)
                if take() < self._fail:
                    open_.seen = None
                else:
                    self._apply(open_)
                self._applied.append(open_)
                continue
            elif self._applied:
                open_ = self._applied.pop(self._random.randrange(len(self._applied)))
                yield self._finish(index, now, open_)
            else:
                continue
            index += 1

    def _finish(self, index, now, open_):
        if self._random.random() < self._info:
            self._idle.append(self._fresh)  # The old number is spent.
            self._fresh += 1
            return self._line(index, now, 'info', open_.process, open_.asked)
        self._idle.append(open_.process)
        if open_.seen is None:
            return self._line(index, now, 'fail', open_.process, open_.asked)
        return self._line(index, now, 'ok', open_.process, open_.seen)

    @staticmethod
    def _line(index, now, type_, process, mops):
        value = ' '.join(f'[{f} {k} {edn.write(v) if v is None else v}]'
                         for f, k, v in mops)
        return (f'{{:index {index}, :time {now}, :type :{type_}, :process {process}, '
                f':f :txn, :value [{value}]}}\n')


def main(arguments=None):
    parser = argparse.ArgumentParser(prog='generate', description=__doc__.split('\n')[0])
    parser.add_argument('--transactions', type=int, default=1000)
    parser.add_argument('--processes', type=int, default=30)
    parser.add_argument('--keys', type=int, default=10)
    parser.add_argument('--writes-per-key', type=int, default=64)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--snapshot-every', type=int, default=0)
    options = parser.parse_args(arguments)
    sys.stdout.writelines(Generator(
        options.transactions, options.processes, options.keys, options.writes_per_key,
        options.seed, snapshot_every=options.snapshot_every).lines())
    return 0


if __name__ == '__main__':
    sys.exit(main())
