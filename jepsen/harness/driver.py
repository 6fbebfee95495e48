"""The clients' side of a test: workers that ask one operation after the other, and the
harness's own looks at what is left.  Knows no fault; a client process may vanish at any time.
"""

import random
import selectors
import signal
import time

# An answer that takes longer than this is no answer: every call of the client has a deadline.
HUNG_SECONDS = 30
# A turn of the loop that takes this much longer than it ought to: the machine gave us no time.
STALL_SECONDS = 0.5
OBSERVER = 1_000_000_000


class Worker:
    """One line of operations.  `process` is its number in histories: a fresh one after an
    operation of unknown outcome."""

    def __init__(self, index, workload, client):
        self.index = index
        self.workload = workload
        self.client = client
        self.process = index
        self.operation = None
        self.asked = 0            # ns since the start
        self.failures = 0         # in a row
        self.due = 0.0            # monotonic; no operation before


class Driver:
    """Used by one thread; `in_flight` may be read by others."""

    def __init__(self, cluster, recorder, workloads, count, seed, rate=0):
        self.cluster = cluster
        self.recorder = recorder
        self.workloads = workloads
        self.samples = []         # (asked ns, answered ns, type, workload)
        self.hung = []            # words; of clients that ended by themselves, too
        self.told = []            # ids of which a client heard that they were committed
        self.served = {}          # participant -> ns of the last call that succeeded there
        self.client_deaths = 0
        self.stalls = []          # (ns since the start, seconds) in which nobody here ran
        self._random = random.Random(seed)
        self._pause = count / rate if rate else 0
        self._workers = [Worker(i, workloads[i % len(workloads)],
                                cluster.clients[i // len(workloads) % len(cluster.clients)])
                         for i in range(count)]
        self._by_index = {w.index: w for w in self._workers}
        self._selector = selectors.DefaultSelector()
        self._waiting = {}        # index -> callback of the harness's own questions
        self._paused = set()
        for client in cluster.clients:
            self._selector.register(client.handle, selectors.EVENT_READ, client)

    @property
    def in_flight(self):
        """Operations asked and not yet answered."""
        return sum(1 for w in self._workers if w.operation is not None)

    # The clients' operations --------------------------------------------------------------

    def run(self, seconds, every=None):
        """Lets the workers work for so long; calls `every(seconds passed)` now and then."""
        begun = time.monotonic()
        end, tick = begun + seconds, begun
        turn = time.monotonic()
        while time.monotonic() < end:
            now = time.monotonic()
            if now - turn > STALL_SECONDS:
                self.stalls.append((self.recorder.now(), now - turn))
            turn = now
            for worker in self._workers:
                if worker.operation is None and now >= worker.due:
                    self._ask(worker, worker.workload.next())
            self._listen(0.02)
            if now >= tick:
                tick = now + 1
                self._look_for_hung()
                if every:
                    every(now - begun)
                    turn = time.monotonic()   # That may take a while.

    def stalled(self, since=0):
        """Seconds, in all, in which the whole test stood still."""
        return sum(seconds for at, seconds in self.stalls if at >= since)

    def drain(self, seconds=HUNG_SECONDS + 10):
        """Asks nothing more; returns when all is answered."""
        end = time.monotonic() + seconds
        while self.in_flight and time.monotonic() < end:
            self._listen(0.05)
            self._look_for_hung()

    def run_all(self, workload, operations):
        """Runs these operations, each until it is answered ok; returns those that never were."""
        left = [(operation, 0) for operation in operations]
        mine = [w for w in self._workers if w.workload is workload]
        given, lost = {}, []
        while left or given:
            for worker in mine:
                if worker.operation is None and worker.index in given:
                    operation, tries = given.pop(worker.index)
                    if worker.failures:
                        (left if tries < 20 else lost).append((operation, tries + 1))
                if worker.operation is None and left and time.monotonic() >= worker.due:
                    operation, tries = left.pop()
                    self._ask(worker, operation)
                    given[worker.index] = (operation, tries)
            self._listen(0.05)
            self._look_for_hung()
        return lost

    def _ask(self, worker, operation):
        worker.operation = operation
        operation.id = None
        worker.asked = self.recorder.invoke(worker.workload.name, worker.process, operation.f,
                                            operation.value)
        worker.client.ask(worker.index, *operation.request)

    def _complete(self, worker, type_, id_, results, words):
        operation = worker.operation
        worker.operation = None
        operation.words = words
        if operation.settle:
            type_ = operation.settle(type_, results)
        value = operation.answer(type_, id_ or operation.id, results)
        at = self.recorder.complete(worker.workload.name, type_, worker.process, operation.f,
                                    operation.value if value is None else value,
                                    words[:160] if words else None)
        self.samples.append((worker.asked, at, type_, worker.workload.name))
        worker.due = time.monotonic() + self._pause
        if type_ == 'ok':
            worker.failures = 0
            if isinstance(value, dict):
                for participant in value.get(':participants', ()):
                    self.served[participant] = max(worker.asked, self.served.get(participant, 0))
            if id_ and operation.logged:
                self.told.append(id_)
            return
        if type_ == 'info':
            worker.process += len(self._workers)
        # A server that is away answers fast: don't fill the history with that.
        worker.failures += 1
        worker.due += self._random.uniform(0.001, min(0.25, 0.004 * 2 ** worker.failures))

    def _listen(self, seconds):
        for key, _ in self._selector.select(seconds):
            client = key.data
            answers = client.answers()
            if answers is None:
                self._bury(client)
                continue
            for answer in answers:
                if answer[0] in self._waiting:
                    self._waiting.pop(answer[0])(answer)
                    continue
                worker = self._by_index.get(answer[0])
                if worker is None:
                    continue      # An answer nobody waits for any more.
                if answer[1] == 'begun':
                    if worker.operation is not None:
                        worker.operation.id = answer[2]
                elif worker.operation is not None:
                    self._complete(worker, *answer[1:])

    def _bury(self, client):
        """A client process is gone: nobody knows of what it had under way; another begins."""
        self.client_deaths += 1
        self._selector.unregister(client.handle)
        code = client.kill()
        if code != -signal.SIGKILL:   # All who end clients do it so.
            self.hung.append(f'{client} ended by itself, with {code}')
        client.start()
        self._selector.register(client.handle, selectors.EVENT_READ, client)
        for worker in self._workers:
            if worker.client is client and worker.operation is not None:
                self._complete(worker, 'info', None, [], 'the client died')

    def pause(self, client, paused):
        """Tells that a client stands still: its silence is no hang."""
        (self._paused.add if paused else self._paused.discard)(client)

    def _look_for_hung(self):
        now = self.recorder.now()
        for worker in self._workers:
            if worker.operation is None or worker.client in self._paused:
                continue
            if now - worker.asked > (HUNG_SECONDS + self.stalled(worker.asked)) * 1_000_000_000:
                self.hung.append(f'{worker.workload.name}/{worker.operation.f} '
                                 f'{worker.operation.id} had no answer for {HUNG_SECONDS} s')
                worker.client.kill()  # Its end is seen by _listen, and all of it becomes :info.

    def close(self):
        """Lets the clients go, for another driver."""
        self._selector.close()

    # The harness's own looks ---------------------------------------------------------------

    def note(self, workload, f, value):
        """An observation, as an operation that succeeded."""
        self.recorder.invoke(workload, OBSERVER, f, None)
        self.recorder.complete(workload, 'ok', OBSERVER, f, value)

    def query(self, participant, sql, parameters=None):
        return self.cluster.databases[participant].query(sql, parameters)

    def outcomes(self, ids, seconds=20):
        """{id: word} of what the coordinator says; what is pending is asked for again, so long.
        RuntimeError when it can't be asked."""
        found, left, end = {}, list(ids), time.monotonic() + seconds
        while left:
            found.update(self._ask_outcomes(left))
            left = [i for i in left if found.get(i) in (None, 'pending', 'unknown')]
            if time.monotonic() > end:
                break
        untold = [i for i in left if found.get(i) != 'pending']
        if untold:
            raise RuntimeError(f'the coordinator did not tell {len(untold)} of {len(ids)} outcomes '
                               f'after healing, {untold[0]} for one')
        return found

    def _ask_outcomes(self, ids, at_once=200, seconds=60):
        found, chunks = {}, [ids[i:i + at_once] for i in range(0, len(ids), at_once)]

        def take(chunk):
            return lambda answer: found.update(zip(chunk, answer[3]))

        for number, chunk in enumerate(chunks):
            index = OBSERVER + number
            self._waiting[index] = take(chunk)
            self.cluster.clients[number % len(self.cluster.clients)].ask(index, 'outcome', 100, chunk)
        end = time.monotonic() + seconds
        while self._waiting and time.monotonic() < end:
            self._listen(0.05)
        self._waiting.clear()
        return found
