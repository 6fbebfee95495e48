"""The message authentication code of a vote that a client carries (early prepare): made by the
participant, checked by the coordinator. The same bytes as common/vote_mac.h."""

from __future__ import annotations

import hashlib
import hmac
import struct


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">I", len(data)) + data


def make_vote_mac(secret: bytes, *, transaction_id: str, participant: str,
                  system_identifier: str, database_oid: int, xid: int, timeline: int,
                  position: int, works: int) -> bytes:
    """HMAC-SHA-256 of "troth vote 1" and each field: a text as 4 bytes of length and its bytes,
    a number as 8 bytes, big-endian all."""
    covered = b"troth vote 1" + _text(transaction_id) + _text(participant) + _text(system_identifier)
    for number in (database_oid, xid, timeline, position, works):
        covered += struct.pack(">Q", number & 0xFFFF_FFFF_FFFF_FFFF)
    return hmac.new(secret, covered, hashlib.sha256).digest()


def participant_secret(epoch_secret: bytes, participant: str) -> bytes:
    """The secret of one participant in one epoch; what a coordinator hands out at enrolment."""
    return hmac.new(epoch_secret, participant.encode(), hashlib.sha256).digest()
