"""SQL at a ready-made participant (troth-participant), by the names of its operator's statements:

    with client.transaction() as tx:
        troth.sql.run(tx, "east", "withdraw", 17, 100)
        (balance,), = troth.sql.run(tx, "west", "deposit", 23, 100).rows

Refuses to know what the statements do. docs/participants.md, "No code at all"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence, Union

from troth.transaction import Transaction
from troth.wire.sql import SqlParticipant
from troth.wire.sql import ttypes as wire

Parameter = Union[None, bool, int, float, str, bytes]


@dataclass(frozen=True)
class Result:
    """What one statement came to."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]  # None, bool, int, float, bytes, or PostgreSQL's text
    affected: int  # rows changed; of a query: rows given back
    more: bool  # there were rows beyond max_rows


@dataclass(frozen=True)
class Statement:
    """One of several for run_all: a name, or `sql` where the participant allows it."""

    name: str = ""
    parameters: Sequence[Parameter] = ()
    sql: str = ""
    max_rows: int | None = None


def run(tx: Transaction, participant: str, name: str, *parameters: Parameter,
        max_rows: int | None = None, read_only: bool = False, last: bool = False) -> Result:
    """Executes a statement of the participant's file as one piece of work of `tx`. `read_only` and
    `last` as in Transaction.call. Raises WorkFailed: the transaction can only be aborted."""
    statement = Statement(name, parameters, max_rows=max_rows)
    return run_all(tx, participant, [statement], read_only=read_only, last=last)[0]


def run_all(tx: Transaction, participant: str, statements: Sequence[Statement], *,
            read_only: bool = False, last: bool = False) -> list[Result]:
    """Several statements in one piece of work, in order: one call instead of many."""
    reply = tx.call(participant, SqlParticipant, "execute", [_statement(s) for s in statements],
                    read_only=read_only, last=last)
    return [_result(one) for one in reply.results]


def _statement(statement: Statement) -> Any:
    return wire.Statement(statement.name or None, statement.sql or None,
                          [_value(one) for one in statement.parameters], statement.max_rows)


def _value(parameter: Parameter) -> Any:
    if parameter is None:
        return wire.Value()
    if isinstance(parameter, bool):  # before int: a bool is one
        return wire.Value(boolean=parameter)
    if isinstance(parameter, int) and -2**63 <= parameter < 2**63:
        return wire.Value(integer=parameter)
    if isinstance(parameter, float):
        return wire.Value(real=parameter)
    if isinstance(parameter, (bytes, bytearray)):
        return wire.Value(bytes=bytes(parameter))
    return wire.Value(text=str(parameter))


def _plain(value: Any) -> Any:
    for one in (value.text, value.integer, value.real, value.boolean, value.bytes):
        if one is not None:
            return one
    return None


def _result(result: Any) -> Result:
    return Result(tuple(column.name for column in result.columns),
                  [tuple(_plain(value) for value in row) for row in result.rows],
                  result.affected, result.more)
