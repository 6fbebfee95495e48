"""Blocks of transaction ids leased from a coordinator (docs/protocol.md, "Leases"). A client counts
a lease from *before* it asked, and takes no id whose lease ends before its deadline. Knows no
wire and no clock. Not thread-safe."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_MAX_BLOCKS = 4
_MIN_COUNT = 16
_MAX_COUNT = 4096


@dataclass
class _Block:
    prefix: str
    next: int
    end: int
    count: int
    asked_at_ms: int
    ends_at_ms: int


class LeaseCache:
    def __init__(self) -> None:
        self._blocks: deque[_Block] = deque()
        self.next_count = _MIN_COUNT  # what to ask for

    def clear(self) -> None:
        self._blocks.clear()

    def add(self, prefix: str, first: int, count: int, ends_in_ms: int, asked_at_ms: int) -> None:
        if count <= 0 or ends_in_ms <= 0:
            return
        if len(self._blocks) == _MAX_BLOCKS:
            self._blocks.popleft()
        self._blocks.append(_Block(prefix, first, first + count, count, asked_at_ms,
                                   asked_at_ms + ends_in_ms))

    def take(self, now_ms: int, deadline_ms: int) -> str | None:
        """An id never taken before, whose lease ends at or after the deadline; or None."""
        while self._blocks and self._blocks[0].ends_at_ms <= now_ms:
            ended = self._blocks.popleft()
            if ended.end - ended.next > ended.count // 2:
                self.next_count = max(_MIN_COUNT, self.next_count // 2)
        for block in self._blocks:
            if block.ends_at_ms < deadline_ms:
                continue
            id_ = f"{block.prefix}{block.next}"
            block.next += 1
            if block.next == block.end:
                if now_ms - block.asked_at_ms < (block.ends_at_ms - block.asked_at_ms) // 2:
                    self.next_count = min(_MAX_COUNT, self.next_count * 2)
                self._blocks.remove(block)
            return id_
        return None
