"""Which sender a participant listens to (law L7c): keeps the highest (epoch, position) seen of
each coordinator and refuses lower epochs. The same rows as participant/epoch_fence.cc stores."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace

from troth.participant.values import (
    Refusal, Refused, ResourceManager, SeenCoordinator, ServerUnfit, Unavailable)

log = logging.getLogger("troth")

_STORE_EVERY_S = 1.0


@dataclass
class _Entry:
    seen: SeenCoordinator
    stored_epoch: int = 0
    stored_position: int = 0


class EpochFence:
    """Thread-safe."""

    def __init__(self, resource_manager: ResourceManager) -> None:
        self._rm = resource_manager
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._stored_at = 0.0

    def load(self) -> None:
        """Reads what earlier lives noted; before the first check. Raises Unavailable."""
        for seen in self._rm.load_seen():
            self._entries[seen.coordinator] = _Entry(seen, seen.epoch, seen.position)

    def check(self, sender: SeenCoordinator) -> None:
        """Takes in what a sender of the highest epoch says; a new epoch is durable on return (if
        the database can be reached: best effort). Raises Refusal(STALE_EPOCH) for a lower one."""
        with self._lock:
            entry = self._entries.setdefault(sender.coordinator,
                                             _Entry(SeenCoordinator(sender.coordinator)))
            seen = entry.seen
            if sender.epoch < seen.epoch:
                raise Refusal(Refused.STALE_EPOCH,
                              f"coordinator {sender.coordinator} has begun epoch {seen.epoch}; a "
                              f"sender of epoch {sender.epoch} must not decide any more")
            if sender.epoch == seen.epoch:
                # Two epochs with one number come of a restored log. What was seen first is kept,
                # so that the coordinator learns of it.
                if sender.epoch_random == seen.epoch_random and sender.position > seen.position:
                    seen.position = sender.position
                return
            entry.seen = replace(sender)
            entry.stored_epoch, entry.stored_position = sender.epoch, sender.position
        self._store(replace(sender))

    def seen(self, coordinator: str) -> SeenCoordinator | None:
        """What is known of a coordinator, to be told at enrolment."""
        with self._lock:
            entry = self._entries.get(coordinator)
            return replace(entry.seen) if entry is not None else None

    def only(self) -> SeenCoordinator | None:
        """What is known of the only coordinator ever met, whose name need not be known yet."""
        with self._lock:
            entries = list(self._entries.values())
            return replace(entries[0].seen) if len(entries) == 1 else None

    def tick(self) -> None:
        """At least once a second: writes down positions that have grown."""
        grown = []
        with self._lock:
            now = time.monotonic()
            if now - self._stored_at < _STORE_EVERY_S:
                return
            self._stored_at = now
            for entry in self._entries.values():
                seen = entry.seen
                if seen.epoch and (seen.position, seen.epoch) != (entry.stored_position,
                                                                  entry.stored_epoch):
                    entry.stored_position, entry.stored_epoch = seen.position, seen.epoch
                    grown.append(replace(seen))
        for seen in grown:
            self._store(seen)

    def _store(self, seen: SeenCoordinator) -> None:
        try:
            self._rm.store_seen(seen)
        except (Unavailable, ServerUnfit) as error:
            log.warning("the epoch seen of %s was not noted: %s", seen.coordinator, error)
            with self._lock:
                self._entries[seen.coordinator].stored_epoch = 0  # again at the next tick
