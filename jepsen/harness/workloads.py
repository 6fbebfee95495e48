"""What clients do, and how it is judged.  Each workload draws operations, tells the recorder's
form of them, looks at what is left in the end, and names its checkers.  Knows no fault.

Randomness comes from the generator handed in, so that a seed repeats the operations (not their
timing).
"""

import collections

from .cluster import ACCOUNTS, BALANCE

DEADLINE_MS = 3000
RECENT = 400


class Operation:
    """One invocation.  `request` is what the client program gets after the worker's number;
    `answer(type, id, results)` gives the value of the completion; `settle(type, results)`, where
    there is one, its type."""

    __slots__ = ('f', 'value', 'request', 'answer', 'settle', 'id', 'words', 'logged')

    def __init__(self, f, value, request, answer, settle=None):
        self.f = f
        self.value = value
        self.request = request
        self.answer = answer
        self.settle = settle
        self.id = None            # Once the client has drawn it.
        # A commit of it leaves a record in the coordinator's log.
        self.logged = len(request) > 4 and 'read-only' not in request[4]
        self.words = ''           # What the client said with its answer.


class Workload:
    """`locking`: reads take locks that are kept until the end (FOR SHARE); else they come from
    each database's own snapshot."""

    name = None
    checkers = ()

    def __init__(self, participants, random, locking=True, early=False):
        self.participants = participants
        self.random = random
        self.locking = locking
        self.early = early
        self.isolation = 'read-committed' if locking else 'repeatable-read'
        self.model = 'strict-serializable' if locking else 'snapshot-reads'

    def setup(self, harness):
        """Writes what must stand at the beginning of the history."""

    def next(self):
        """The next Operation."""
        raise NotImplementedError

    def final(self, harness):
        """After healing, with nothing under way: looks at what is left."""

    def final_operations(self):
        """Operations to run after healing, before final()."""
        return []

    def txn(self, works, flags=()):
        """A request of the client program; works at one participant in a row are one piece of
        work or several, at random."""
        pieces = []
        for participant, step in works:
            if (pieces and pieces[-1][0] == participant and len(pieces[-1][1]) < 50
                    and self.random.random() < 0.6):
                pieces[-1][1].append(step)
            else:
                pieces.append([participant, [step]])
        words = list(flags) + (['early'] if self.early and self.random.random() < 0.5 else [])
        wait = 'decided' if self.random.random() < 0.25 else 'applied'
        return ['txn', DEADLINE_MS, wait, self.isolation, ' '.join(words), pieces]

    def reading(self, locking):
        """Flags of a transaction that only reads.  A branch that is declared read-only can't
        lock rows, so half of the plain readers are."""
        return () if locking or self.random.random() < 0.5 else ('read-only',)

    def ordered(self, items):
        """Mostly in one order, so that deadlocks across databases stay the exception."""
        items = sorted(items)
        if self.random.random() < 0.03:
            self.random.shuffle(items)
        return items


class Bank(Workload):
    """Transfers over several banks; reads of all accounts in one transaction."""

    name = 'bank'
    checkers = ('bank', 'ledger')

    def _name(self, participant, account):
        return f'{participant}/{account}'

    def setup(self, harness):
        start = {self._name(p, a): BALANCE
                 for p in self.participants for a in range(ACCOUNTS)}
        harness.note(self.name, 'setup', start)

    def next(self):
        return self._read() if self.random.random() < 0.06 else self._transfer()

    def _transfer(self):
        random = self.random
        count = 3 if random.random() < 0.15 and len(self.participants) > 2 else 2
        local = random.random() < 0.1
        where = [random.choice(self.participants)] * 2 if local \
            else random.sample(self.participants, count)
        accounts = random.sample(range(ACCOUNTS), len(where))
        amounts = [random.randint(1, 5) for _ in where[1:]]
        amounts.insert(0, -sum(amounts))
        legs = self.ordered(zip(where, accounts, amounts))
        named = {self._name(p, a): n for p, a, n in legs}
        request = self.txn([(p, ['add', a, n]) for p, a, n in legs])
        return Operation('transfer', {':legs': named}, request,
                         lambda type_, id_, results: {':id': id_ or None, ':legs': named,
                                                      ':participants': sorted(set(where))})

    def _read(self):
        step = 'lock-balances' if self.locking else 'balances'
        works = [(p, [step, 0, 0]) for p in self.ordered(self.participants)]
        order = [p for p, _ in works]

        def answer(type_, id_, results):
            if type_ != 'ok':
                return None
            return {self._name(p, a): balance for p, balances in zip(order, results)
                    for a, balance in enumerate(balances)}

        return Operation('read', None, self.txn(works, self.reading(self.locking)), answer)

    def final(self, harness):
        seen = {}
        for p in self.participants:
            balances = {self._name(p, k): balance for k, balance in harness.query(
                p, 'SELECT k, balance FROM account ORDER BY k')}
            entries = [[id_, self._name(p, k), amount] for id_, k, amount in harness.query(
                p, 'SELECT id, account, amount FROM entry')]
            seen.update(balances)
            harness.note(self.name, 'ledger',
                         {':participant': p, ':entries': entries, ':balances': balances})
        harness.note(self.name, 'final-read', seen)


class Audit(Workload):
    """Marks at several participants, and changes of rows whose order is kept."""

    name = 'audit'
    checkers = ('audit', 'order')
    ROWS = 64

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.ids = []

    def next(self):
        random = self.random
        where = random.sample(self.participants, random.randint(2, len(self.participants)))
        works, row = [], random.randrange(self.ROWS)
        for p in self.ordered(where):
            works.append((p, ['mark', 0, 0]))
            if random.random() < 0.7:
                works.append((p, ['order', row, 0]))
        named = sorted(where)

        def answer(type_, id_, results):
            if id_:
                self.ids.append(id_)
            return {':id': id_ or None, ':participants': named}

        return Operation('txn', {':participants': named}, self.txn(works), answer)

    def final(self, harness):
        outcomes = harness.outcomes(self.ids)
        harness.note(self.name, 'decisions',
                     {':outcomes': {i: f':{o}' for i, o in outcomes.items()}})
        for p in self.participants:
            ids = [row[0] for row in harness.query(p, 'SELECT id FROM marker')]
            harness.note(self.name, 'markers', {':participant': p, ':ids': ids})
            rows = collections.defaultdict(list)
            for k, id_ in harness.query(p, 'SELECT k, id FROM row_order ORDER BY k, place'):
                rows[k].append(id_)
            harness.note(self.name, 'order', {':participant': p, ':rows': dict(rows)})


class Append(Workload):
    """Appends to and reads of lists spread over the databases: key k is in database k mod N."""

    name = 'append'
    checkers = ('append',)
    APPENDS = 24              # Of one key; then another takes its place.

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.active = list(range(12 * len(self.participants)))
        self.next_key = len(self.active)
        self.appended = collections.Counter()

    def _where(self, key):
        return self.participants[key % len(self.participants)], key // len(self.participants)

    def next(self):
        random = self.random
        mops = []
        for key in self.ordered(random.choices(self.active, k=random.randint(1, 4))):
            if random.random() < 0.5:
                self.appended[key] += 1
                mops.append([':append', key, self.appended[key]])
                if self.appended[key] == self.APPENDS:
                    self.active[self.active.index(key)] = self.next_key
                    self.next_key += 1
            else:
                mops.append([':r', key, None])
        return self._operation(mops, self.locking)

    def _operation(self, mops, locking):
        works = []
        for f, key, value in mops:
            p, k = self._where(key)
            if f == ':append':
                works.append((p, ['append', k, value]))
            else:
                works.append((p, ['lock-read' if locking else 'read', k, 0]))

        def answer(type_, id_, results):
            if type_ != 'ok':
                return mops
            return [[f, k, result if f == ':r' else v]
                    for (f, k, v), result in zip(mops, results)]

        flags = self.reading(locking) if all(f == ':r' for f, _, _ in mops) else ()
        return Operation('txn', mops, self.txn(works, flags), answer)

    def final_operations(self):
        """Every key that was appended to is read once more."""
        keys = sorted(self.appended)
        return [self._operation([[':r', key, None] for key in keys[i:i + 20]], True)
                for i in range(0, len(keys), 20)]


class Register(Workload):
    """Commits, and everybody asks for everybody's outcomes, again and again."""

    name = 'register'
    checkers = ('register',)
    FIRST, COUNT = 10_000, 10_000

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.ids = collections.deque(maxlen=RECENT)

    def next(self):
        if self.ids and self.random.random() < 0.5:
            return self._inquire(self.random.choice(self.ids))
        key = self.FIRST + self.random.randrange(self.COUNT)
        where = self.random.sample(self.participants, 2)
        request = self.txn([(p, ['write', key, 1]) for p in self.ordered(where)])

        operation = Operation('commit', None, request, None)

        def answer(type_, id_, results):
            if not id_:
                return None
            self.ids.append(id_)
            outcome = ':committed' if type_ == 'ok' else None
            if type_ == 'fail' and operation.words.startswith('aborted:'):
                outcome = ':aborted'   # The coordinator's word; else it was never asked.
            return {':id': id_, ':outcome': outcome, ':participants': sorted(where)}

        operation.answer = answer
        return operation

    def _inquire(self, id_):
        def settle(type_, results):
            return type_ if results and results[0] != 'unknown' else 'fail'

        def answer(type_, _, results):
            return {':id': id_, ':outcome': f':{results[0]}' if type_ == 'ok' else None}

        return Operation('inquire', {':id': id_}, ['outcome', 200, [id_]], answer, settle)

    def final(self, harness):
        for id_, outcome in harness.outcomes(list(self.ids)).items():
            harness.note(self.name, 'inquire', {':id': id_, ':outcome': f':{outcome}'})


class LongFork(Workload):
    """Keys written once, in groups over several databases; readers see whole groups."""

    name = 'long-fork'
    checkers = ('long-fork',)
    FIRST, GROUPS = 20_000, 20_000

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.size = len(self.participants)
        self.unwritten = []
        self.groups = -1

    def next(self):
        random = self.random
        if not self.unwritten and random.random() < 0.5:
            self.groups = (self.groups + 1) % self.GROUPS
            self.unwritten = list(range(self.size))
            random.shuffle(self.unwritten)
        if self.groups < 0 or (self.unwritten and random.random() < 0.4):
            if not self.unwritten:
                return self.next()
            place = self.unwritten.pop()
            key = self.groups * self.size + place
            request = self.txn([(self.participants[place], ['write', self.FIRST + self.groups, 1])])
            return Operation('write', [[':w', key, 1]], request,
                             lambda type_, id_, results: [[':w', key, 1]])
        return self._read(max(0, self.groups - (random.random() < 0.2)))

    def _read(self, group):
        places = list(range(self.size))
        self.random.shuffle(places)
        step = 'lock-get' if self.locking else 'get'
        request = self.txn([(self.participants[i], [step, self.FIRST + group, 0]) for i in places],
                           self.reading(self.locking))
        nil = [[':r', group * self.size + i, None] for i in places]

        def answer(type_, id_, results):
            if type_ != 'ok':
                return nil
            return [[f, k, 1 if result[0] else None] for (f, k, _), result in zip(nil, results)]

        return Operation('read', nil, request, answer)


class WriteSkew(Workload):
    """Pairs whose sides lie in two databases; at most one side may be taken."""

    name = 'write-skew'
    checkers = ('write-skew',)
    PAIRS = 10_000

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.last = -1
        self.open = []
        self.sides = {}

    def next(self):
        if len(self.open) < 4 and self.last + 1 < self.PAIRS:
            self.last += 1
            self.sides[self.last] = sorted(self.random.sample(self.participants, 2))
            self.open += [self.last] * self.random.randint(2, 6)
        pair = self.open.pop(self.random.randrange(len(self.open)))
        side = self.random.choice(self.sides[pair])
        free = 'lock-free' if self.locking else 'free'
        works = [(p, [free, pair, 0]) for p in self.ordered(self.sides[pair])]
        value = {':pair': pair, ':side': side}
        return Operation('take', value, self.txn(works + [(side, ['write', pair, 1])]),
                         lambda type_, id_, results: value)

    def final(self, harness):
        taken = collections.defaultdict(list)
        for p in self.participants:
            for (k,) in harness.query(p, 'SELECT k FROM register WHERE v <> 0 AND k < %s',
                                      (self.PAIRS,)):
                taken[k].append(p)
        for pair in self.sides:
            harness.note(self.name, 'read', {':pair': pair, ':taken': taken[pair]})


WORKLOADS = {w.name: w for w in (Bank, Audit, Append, Register, LongFork, WriteSkew)}
