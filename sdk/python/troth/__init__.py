"""Troth for Python: a client, and all that a service needs to take part in transactions.

    Client                     one transaction over several services
    Participant, ParticipantService, ParticipantOptions, ApplicationRefusal
                               lets others' transactions into a PostgreSQL database
    sql                        statements at a ready-made participant (troth-participant)
    idl                        code for services of one's own
    TlsFiles, SecurityOptions  certificates, and who may do what

docs/participants.md has both step by step."""

from troth import idl, sql
from troth.client import Client
from troth.outcome import (
    Aborted, Failure, Kind, NotAnswered, Outcome, OutcomeUnknown, TransactionError, WorkFailed)
from troth.security import SecurityError, SecurityOptions, TlsFiles
from troth.transaction import Transaction, Wait
from troth.participant.engine import (
    ApplicationRefusal, Participant, ParticipantOptions, ParticipantService, WorkScope)
from troth.participant.values import Refusal, ServerUnfit, Unavailable

__version__ = "0.1.0"

__all__ = [
    "Aborted", "ApplicationRefusal", "Client", "Failure", "Kind", "NotAnswered", "Outcome",
    "OutcomeUnknown", "Participant", "ParticipantOptions", "ParticipantService", "Refusal",
    "SecurityError", "SecurityOptions", "ServerUnfit", "TlsFiles", "Transaction",
    "TransactionError", "Unavailable", "Wait", "WorkFailed", "WorkScope", "idl", "sql"]
