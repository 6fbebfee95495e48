"""When which fault is injected: a thread that draws faults, lets up to `overlap` of them hold at
once, and heals all in the end.  Every fault that happened is kept with its times and with what
the clients had in flight when it began.
"""

import random
import threading
import time
import traceback


class Injection:
    """One fault, as it is reported."""

    def __init__(self, fault, tries, begin, in_flight, value):
        self.fault = fault
        self.tries = tries        # in this round, before it
        self.begin = begin
        self.end = None
        self.in_flight = in_flight
        self.value = value
        self.end_value = None

    def data(self):
        return {':fault': ':' + self.fault.name, ':begin': self.begin, ':end': self.end,
                ':in-flight': self.in_flight, ':value': self.value, ':end-value': self.end_value}


class Nemesis:
    """Starts at once; `stop` heals everything.  `errors` are faults of the harness itself."""

    def __init__(self, cluster, driver, recorder, faults, seed, overlap=1, calm=(1.0, 3.0),
                 begin_after=1.5):
        self.injections = []
        self.errors = []
        self._cluster = cluster
        self._driver = driver
        self._recorder = recorder
        self._faults = list(faults)
        self._random = random.Random(seed)
        self._overlap = overlap
        self._calm = calm
        self._active = []         # (end at, injection)
        self._order = []
        self._stop = threading.Event()
        self._begin_at = time.monotonic() + begin_after
        self._thread = threading.Thread(target=self._guarded, daemon=True)
        self._thread.start()

    @property
    def words(self):
        """What holds now, for people."""
        return ', '.join(i.fault.name for _, i in list(self._active)) or 'calm'

    def stop(self):
        self._stop.set()
        self._thread.join()

    def _guarded(self):
        try:
            if self._faults:
                self._run()
        except Exception:  # pylint: disable=broad-except
            self.errors.append(traceback.format_exc())
        finally:
            for _, injection in list(self._active):
                self._end(injection)
            self._cluster.network.heal()

    def _run(self):
        next_begin = self._begin_at
        while not self._stop.is_set():
            now = time.monotonic()
            for end, injection in list(self._active):
                if now >= end:
                    self._active.remove((end, injection))
                    self._end(injection)
                    next_begin = max(next_begin, time.monotonic()
                                     + self._random.uniform(*self._calm) / self._overlap)
            if now >= next_begin and len(self._active) < self._overlap:
                self._begin()
                next_begin = time.monotonic() + (self._random.uniform(0.2, 2.0)
                                                 if self._overlap > 1 else 0.2)
            self._stop.wait(0.02)

    def _draw(self):
        """Every fault in turn, in an order that is drawn anew each round."""
        if not self._order:
            self._order = [(fault, 0) for fault in self._faults]
            self._random.shuffle(self._order)
        return self._order.pop()

    def _begin(self):
        type_, tries = self._draw()
        fault = type_(self._cluster, self._driver, self._random)
        busy = {name for _, i in self._active for name in i.fault.targets}
        if not fault.choose(busy):
            self._again(type_, tries)
            return
        in_flight = self._driver.in_flight
        self._recorder.fault(fault.name)
        try:
            value = fault.begin()
        except Exception:  # pylint: disable=broad-except
            self.errors.append(traceback.format_exc())
            value = {':failed': True}   # Half begun: it is to be ended.
        if value is None:
            self._recorder.fault(fault.name, ':nothing')
            self._again(type_, tries)
            return
        at = self._recorder.fault(fault.name, value)
        injection = Injection(fault, tries, at, in_flight, value)
        self.injections.append(injection)
        self._active.append((time.monotonic() + self._random.uniform(*fault.seconds), injection))

    def _again(self, type_, tries):
        """Its turn comes again in this round, so often."""
        if tries < 5:
            self._order.insert(0, (type_, tries + 1))

    def _end(self, injection):
        name = f'{injection.fault.name}-end'
        self._recorder.fault(name)
        try:
            injection.end_value = injection.fault.end()
        except Exception:  # pylint: disable=broad-except
            self.errors.append(traceback.format_exc())
        injection.end = self._recorder.fault(name, injection.end_value or injection.value)
        if not injection.fault.happened:
            self.injections.remove(injection)
            self._again(type(injection.fault), injection.tries)
