"""Writes what happened: one history for each workload, and one of all of them.  Thread-safe."""

import threading
import time

from checkers.history import HistoryWriter


class Recorder:
    """Histories below `directory`: history.edn has everything; with several workloads, whose
    operations are then named workload/f in it, each has <workload>/history.edn of its own.
    So have `apart`, which are in no other."""

    def __init__(self, directory, workloads, apart=()):
        self._began = time.monotonic_ns()
        self._lock = threading.Lock()
        self._files = []
        self.faults = []          # (ns, f, value)
        self.paths = {}
        self._single = len(workloads) == 1
        self._writers = {}
        self._apart = set(apart)
        self._instant = 0
        self._all = self._writer(directory / 'history.edn')
        for name in [*workloads, *apart]:
            if self._single and name not in self._apart:
                self.paths[name] = directory / 'history.edn'
                self._writers[name] = self._all
            else:
                (directory / name).mkdir(exist_ok=True)
                self.paths[name] = directory / name / 'history.edn'
                self._writers[name] = self._writer(self.paths[name])

    def _writer(self, path):
        file = open(path, 'w', encoding='utf-8')  # pylint: disable=consider-using-with
        self._files.append(file)
        return HistoryWriter(file, self._now)

    def now(self):
        """ns since the start."""
        return time.monotonic_ns() - self._began

    def _now(self):
        return self._instant

    def invoke(self, workload, process, f, value):
        with self._lock:
            self._instant = self.now()
            self._writers[workload].invoke(process, f, value)
            if not self._single and workload not in self._apart:
                self._all.invoke(process, f'{workload}/{f}', value)
            return self._instant

    def complete(self, workload, type_, process, f, value, error=None):
        with self._lock:
            self._instant = self.now()
            self._writers[workload].complete(type_, process, f, value, error)
            if not self._single and workload not in self._apart:
                self._all.complete(type_, process, f'{workload}/{f}', value, error)
            return self._instant

    def fault(self, f, value=None):
        """Into every history."""
        with self._lock:
            self._instant = self.now()
            self.faults.append((self._instant, f, value))
            for writer in {self._all, *self._writers.values()}:
                writer.fault(f, value)
            return self._instant

    def close(self):
        for file in self._files:
            file.close()
