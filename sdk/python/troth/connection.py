"""Calls of a client: connections, kept while idle, and how a call ended. Knows no transaction."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any, Callable

from thrift.protocol.TProtocol import TProtocolException
from thrift.Thrift import TApplicationException, TException
from thrift.transport.TTransport import TTransportException

from troth.security import TlsContext
from troth.transport import FramedSocket, connect, protocol_on

Address = tuple[str, int]


class NotSent(Exception):
    """No byte of the call left: surely not heard."""


class Unanswered(Exception):
    """Sent, and no answer: maybe done."""


class Connection:
    """Used by one thread at a time."""

    def __init__(self, address: Address, timeout_ms: int,
                 tls: TlsContext | None = None) -> None:
        """Raises NotSent."""
        self.address = address
        self.participant = ""
        self.instance = ""
        try:
            self._transport: FramedSocket = connect(*address, timeout_ms / 1000, tls)
        except OSError as error:
            raise NotSent(f"{address[0]}:{address[1]}: {error}") from None
        self.protocol = protocol_on(self._transport)
        self.fit = True

    def call(self, timeout_ms: int, call: Callable[[Any], Any]) -> Any:
        """`call(protocol)` makes one call of a generated client. Passes on the exceptions that the
        service declares, the wire's Refused among them, and TApplicationException; raises NotSent
        or Unanswered for all else of Thrift's. Any other exception goes through. After all but an
        answer or a declared exception the connection is closed: a late answer must not be taken
        for another call's."""
        self._transport.set_timeout(timeout_ms / 1000)
        self._transport.sent = False
        self.fit = False
        try:
            result = call(self.protocol)
            self.fit = True
            return result
        except (TTransportException, TProtocolException, OSError, EOFError) as error:
            where = f"{self.address[0]}:{self.address[1]}: {error}"
            raise (Unanswered if self._transport.sent else NotSent)(where) from None
        except TApplicationException:
            raise
        except TException:  # all that are left are declared ones
            self.fit = True
            raise
        finally:
            if not self.fit:
                self.close()

    def quiet(self) -> bool:
        return self._transport.quiet()

    def close(self) -> None:
        self._transport.close()


class IdleConnections:
    """Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._idle: dict[Address, list[Connection]] = defaultdict(list)

    def take(self, address: Address) -> Connection | None:
        with self._lock:
            idle = self._idle[address]
            while idle:
                connection = idle.pop()
                if connection.quiet():
                    return connection
                connection.close()
        return None

    def give(self, connection: Connection) -> None:
        with self._lock:
            idle = self._idle[connection.address]
            if connection.fit and len(idle) < self._limit:
                idle.append(connection)
                return
        connection.close()

    def sweep(self) -> None:
        """Closes those whose other side has gone: nobody may ask for that address again."""
        with self._lock:
            for address, idle in list(self._idle.items()):
                for connection in list(idle):
                    if not connection.quiet():
                        connection.close()
                        idle.remove(connection)
                if not idle:
                    del self._idle[address]

    def close(self) -> None:
        with self._lock:
            for idle in self._idle.values():
                for connection in idle:
                    connection.close()
            self._idle.clear()
