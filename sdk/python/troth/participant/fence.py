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
    untold: SeenCoordinator | None = None  # of the epoch before

    def told(self) -> SeenCoordinator:
        return replace(self.untold or self.seen)


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
        """Takes in what a sender of the highest epoch says. Raises Refusal(STALE_EPOCH) for a
        lower one. What was seen in the epoch before stays what seen() says, and what is stored,
        until that has been told to the new one: a coordinator that begins an epoch on a log cut
        short must hear of what it lost, whoever speaks first (law L7d)."""
        with self._lock:
            entry = self._entries.setdefault(sender.coordinator,
                                             _Entry(SeenCoordinator(sender.coordinator)))
            first = not entry.seen.epoch
            self._take(entry, sender)
            if not first:
                return
            entry.stored_epoch, entry.stored_position = entry.seen.epoch, entry.seen.position
        self._store(replace(sender))  # once; phase two does not wait for a database that takes no notes

    @staticmethod
    def _take(entry: _Entry, sender: SeenCoordinator) -> None:
        seen = entry.seen
        if sender.epoch < seen.epoch:
            raise Refusal(Refused.STALE_EPOCH,
                          f"coordinator {sender.coordinator} has begun epoch {seen.epoch}; a sender "
                          f"of epoch {sender.epoch} must not decide any more")
        if sender.epoch == seen.epoch:
            # Two epochs with one number come of a restored log. What was seen first is kept, so
            # that the coordinator learns of it.
            if sender.epoch_random == seen.epoch_random and sender.position > seen.position:
                seen.position = sender.position
            return
        if entry.untold is None and seen.epoch:
            entry.untold = seen
        entry.seen = replace(sender)

    def told(self, sender: SeenCoordinator) -> None:
        """The coordinator took what seen() said into account, and goes on: it answered an
        enrolment. The new epoch is durable on return (if the database can be reached)."""
        with self._lock:
            entry = self._entries[sender.coordinator]
            seen = entry.seen
            if (seen.epoch, seen.epoch_random) != (sender.epoch, sender.epoch_random):
                return
            if entry.untold is None and entry.stored_epoch == seen.epoch:
                return
            entry.untold = None
            entry.stored_epoch, entry.stored_position = seen.epoch, seen.position
            now = replace(seen)
        self._store(now)

    def seen(self, coordinator: str) -> SeenCoordinator | None:
        """What is to be told at enrolment and with inquiries."""
        with self._lock:
            entry = self._entries.get(coordinator)
            return entry.told() if entry is not None else None

    def all(self) -> list[SeenCoordinator]:
        """Of all coordinators ever met."""
        with self._lock:
            return [entry.told() for entry in self._entries.values()]

    def tick(self) -> None:
        """At least once a second: writes down positions that have grown, and takes in what other
        instances of this participant wrote: an epoch begun at one ends the old at all."""
        grown = []
        with self._lock:
            now = time.monotonic()
            if now - self._stored_at < _STORE_EVERY_S:
                return
            self._stored_at = now
            for entry in self._entries.values():
                seen = entry.seen
                if entry.untold is None and seen.epoch and \
                        (seen.position, seen.epoch) != (entry.stored_position, entry.stored_epoch):
                    entry.stored_position, entry.stored_epoch = seen.position, seen.epoch
                    grown.append(replace(seen))
        for seen in grown:
            self._store(seen)
        self._take_in_notes()

    def _take_in_notes(self) -> None:
        try:
            rows = self._rm.load_seen()
        except (Unavailable, ServerUnfit):
            return  # best effort, and again in a second
        with self._lock:
            for row in rows:
                entry = self._entries.setdefault(row.coordinator,
                                                 _Entry(SeenCoordinator(row.coordinator)))
                if row.epoch >= entry.seen.epoch:
                    # Of a new epoch: what we saw of the one before stays to be told by us. Of the
                    # same: what the other saw is told by us too, should it die before (law L7d).
                    self._take(entry, row)
                    if entry.seen.position == row.position:
                        entry.stored_epoch, entry.stored_position = row.epoch, row.position

    def _store(self, seen: SeenCoordinator) -> None:
        try:
            self._rm.store_seen(seen)
        except (Unavailable, ServerUnfit) as error:
            log.warning("the epoch seen of %s was not noted: %s", seen.coordinator, error)
            with self._lock:
                self._entries[seen.coordinator].stored_epoch = 0  # again at the next tick
