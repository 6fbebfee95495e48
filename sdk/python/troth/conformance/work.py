"""The harmless piece of work that a user names for the conformance test, from JSON to a call of
the service: the method's first argument is the context, its reply bears a Branch."""

from __future__ import annotations

import importlib
import json
import pathlib
import re
from typing import Any

from thrift.Thrift import TType

from troth import idl
from troth.wire.values import ttypes as values


class WorkError(Exception):
    """The work was named wrongly; the text says how."""


class Work:
    """`method` of `service` in the Thrift file, with `arguments` (a JSON array: the arguments
    behind the context; structs as objects by field name)."""

    def __init__(self, file: str, service: str, method: str, arguments: str) -> None:
        path = pathlib.Path(file)
        try:
            idl.load(path)
            namespace = re.search(r"^\s*namespace\s+py\s+(\S+)", path.read_text("utf-8"), re.M)
            name = namespace[1] if namespace else path.stem
            self._module = importlib.import_module(f"{name}.{service}")
            spec = getattr(self._module, f"{method}_args").thrift_spec
            given = json.loads(arguments)
        except (OSError, ImportError, AttributeError, ValueError, idl.IdlError) as error:
            raise WorkError(f"{file}, {service}.{method}({arguments}): {error}") from error
        fields = [field for field in spec if field is not None]
        if not fields or len(given) != len(fields) - 1:
            raise WorkError(f"{method} takes the context and {len(fields) - 1} more arguments, not "
                            f"{len(given)}")
        self._method = method
        self._arguments = [_value(field[1], field[3], one) for field, one in zip(fields[1:], given)]

    def do(self, protocol: Any, context: Any) -> Any:
        """One call; the Branch of its reply. Lets the wire's exceptions through."""
        client = self._module.Client(protocol)
        reply = getattr(client, self._method)(context, *self._arguments)
        if isinstance(reply, values.Branch):
            return reply
        for one in vars(reply).values():
            if isinstance(one, values.Branch):
                return one
        raise WorkError(f"the reply of {self._method} bears no troth.Branch")


def _value(kind: int, details: Any, given: Any) -> Any:
    """JSON as a value of a Thrift type."""
    if kind == TType.STRUCT:
        made = details[0]()
        for field in details[1] or details[0].thrift_spec:
            if field is not None and field[2] in given:
                setattr(made, field[2], _value(field[1], field[3], given[field[2]]))
        return made
    if kind in (TType.LIST, TType.SET):
        return [_value(details[0], details[1], one) for one in given]
    if kind == TType.MAP:
        return {_value(details[0], details[1], key): _value(details[2], details[3], one)
                for key, one in given.items()}
    if kind in (TType.BYTE, TType.I16, TType.I32, TType.I64):
        return int(given)
    return given
