"""Identifiers: transaction, GID, names. The same rules as common/transaction_id.h."""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_TRANSACTION_ID_BYTES = 64
_MAX_SEQUENCE = 99_999_999_999_999
_ID = re.compile(
    r"([a-z0-9](?:[a-z0-9-]{0,14}[a-z0-9])?-[0-9a-f]{12})"
    r"\.(0|[1-9][0-9]{0,9})-([0-9a-f]{8})\.(0|[1-9][0-9]{0,13})", re.ASCII)
_PARTICIPANT = re.compile(r"[a-z0-9-]{1,120}", re.ASCII)
_COORDINATOR = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,14}[a-z0-9])?-[0-9a-f]{12}", re.ASCII)


class TransactionId(NamedTuple):
    """`<coordinator>.<epoch>-<random>.<sequence>`."""

    coordinator: str
    epoch: int
    epoch_random: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.coordinator}.{self.epoch}-{self.epoch_random:08x}.{self.sequence}"

    @staticmethod
    def parse(text: object) -> "TransactionId | None":
        """Accepts exactly what str() gives; None for anything else."""
        if not isinstance(text, str) or len(text) > MAX_TRANSACTION_ID_BYTES:
            return None
        match = _ID.fullmatch(text)
        if match is None or int(match[2]) >= 1 << 32 or int(match[4]) > _MAX_SEQUENCE:
            return None
        return TransactionId(match[1], int(match[2]), int(match[3], 16), int(match[4]))


def is_participant_name(name: object) -> bool:
    """[a-z0-9-], 1 to 120 bytes."""
    return isinstance(name, str) and _PARTICIPANT.fullmatch(name) is not None


def is_coordinator_id(name: object) -> bool:
    """`<name>-<12 hex digits>`, the name 1 to 16 of [a-z0-9-]."""
    return isinstance(name, str) and _COORDINATOR.fullmatch(name) is not None


def gid_prefix(participant: str) -> str:
    """Every GID of the participant starts so, and no other's does."""
    return f"troth:{participant}:"


def make_gid(participant: str, transaction_id: str) -> str:
    return gid_prefix(participant) + transaction_id


def parse_gid(participant: str, gid: str) -> TransactionId | None:
    """The transaction of a GID of this participant, None for any other text."""
    prefix = gid_prefix(participant)
    return TransactionId.parse(gid[len(prefix):]) if gid.startswith(prefix) else None
