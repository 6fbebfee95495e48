"""Time that the machine did not give: a limit on how long something takes counts only what was given.
Knows no test."""

import threading
import time

TURN_S = 0.02   # the watcher wants to run so often,
STALL_S = 0.1   # and did not get to it when it runs so much later


def now():
    """Seconds of boot time."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Stalls:
    """Watches from its making, in a thread that ends with the process."""

    def __init__(self):
        self._stalls = []  # (from, to)
        self._turn = now()
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self):
        while True:
            time.sleep(TURN_S)
            with self._lock:
                turn = now()
                self._stalls += self._late(turn)
                self._turn = turn

    def _late(self, at):
        """The stall that has lasted until `at`, if there is one."""
        due = self._turn + TURN_S
        return [(due, at)] if at - due > STALL_S else []

    def given(self, begun, ended):
        """Seconds between these two, without the stalls."""
        with self._lock:
            stalls = self._stalls + self._late(ended)
        lost = sum(max(0.0, min(ended, to) - max(begun, since)) for since, to in stalls)
        return max(0.0, ended - begun) - lost
