"""Time as Troth counts it: CLOCK_BOOTTIME, which runs on while the machine is suspended, so
that no lease looks alive after a night in a closed laptop. Milliseconds."""

from __future__ import annotations

import random
import time


def boot_ms() -> int:
    """Milliseconds since the machine was started, suspension included. Never goes back."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Deadline:
    """A point of boot time by which something must be over. Travels as milliseconds left."""

    __slots__ = ("at_ms",)

    def __init__(self, at_ms: int) -> None:
        self.at_ms = at_ms

    @staticmethod
    def after(ms: int) -> "Deadline":
        return Deadline(boot_ms() + ms)

    def left_ms(self) -> int:
        """Never negative."""
        return max(0, self.at_ms - boot_ms())

    def passed(self) -> bool:
        return self.left_ms() == 0


class Backoff:
    """Capped exponential back-off with full jitter."""

    def __init__(self, first_ms: int, max_ms: int) -> None:
        self._bound_ms = max(1, first_ms)
        self._max_ms = max(self._bound_ms, max_ms)

    def next_ms(self) -> int:
        """A random time in [1, min(max, first * 2^n)], n counting the calls before this one."""
        wait_ms = random.randint(1, self._bound_ms)
        self._bound_ms = min(self._max_ms, self._bound_ms * 2)
        return wait_ms
