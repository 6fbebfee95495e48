"""Thrift on a socket as the contract wants it (thrift/troth.thrift): framed, compact, frames of
at most 1 MiB both ways, deadlines, listeners with limits. Knows no service."""

from __future__ import annotations

import io
import logging
import select
import socket
import struct
import threading
import time
from typing import Any

from thrift.protocol.TCompactProtocol import TCompactProtocolAccelerated
from thrift.transport.TTransport import CReadableTransport, TTransportBase, TTransportException

from troth.security import Security, TlsContext, peer_name, set_caller

log = logging.getLogger("troth")

MAX_FRAME_BYTES = 1 << 20
# Lists and maps of more elements are refused too.
MAX_ELEMENTS = 1 << 17
_SEND_TIMEOUT_S = 10.0
_FRAME_S = 10.0  # a caller's time from the first bytes of a frame to its last
# Thrift's decoder in C follows nesting, a level a byte, until the stack ends (seen: 100,000 levels
# end a process with 8 MiB of it). Larger frames are left to the one in Python, which gives up.
_FAST_FRAME_BYTES = 16 * 1024


class FramedSocket(TTransportBase, CReadableTransport):
    """One connection. A message is one frame: a message that wants more than its frame holds is
    an error, never a wait. Used by one thread at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._in = io.BytesIO()
        self.frame_bytes = 0  # of the frame that is being read
        self._replies = 0  # frames that the present message may still ask for
        self._until: float | None = None
        self.sent = False  # a frame may have gone out since somebody set this to False
        self.peer_name = peer_name(sock)

    # Time ---------------------------------------------------------------------------------

    def set_timeout(self, seconds: float | None) -> None:
        """For all that follows, together; None: no limit."""
        self._until = None if seconds is None else time.monotonic() + seconds

    def _arm(self) -> None:
        if self._until is None:
            self._socket.settimeout(None)
            return
        left = self._until - time.monotonic()
        if left <= 0:
            raise TTransportException(TTransportException.TIMED_OUT, "timed out")
        self._socket.settimeout(left)

    # Frames -------------------------------------------------------------------------------

    def _receive(self, size: int, rest_s: float | None = None) -> bytes:
        data = bytearray()
        while len(data) < size:
            if data and rest_s is not None:
                self.set_timeout(rest_s)
                rest_s = None
            self._arm()
            try:
                chunk = self._socket.recv(min(size - len(data), 1 << 16))
            except socket.timeout as error:
                raise TTransportException(TTransportException.TIMED_OUT, "timed out") from error
            except OSError as error:
                raise TTransportException(TTransportException.NOT_OPEN, str(error)) from error
            if not chunk:
                raise TTransportException(TTransportException.END_OF_FILE,
                                          "the connection was closed")
            data += chunk
        return bytes(data)

    def receive_frame(self, rest_s: float | None = None) -> None:
        """Waits for a whole frame, of which all but the first bytes must come within `rest_s`.
        TTransportException: none came, or one that is too large."""
        size = struct.unpack(">i", self._receive(4, rest_s))[0]
        if not 0 < size <= MAX_FRAME_BYTES:
            raise TTransportException(TTransportException.UNKNOWN,
                                      f"a frame of {size} bytes; at most {MAX_FRAME_BYTES} are taken")
        if rest_s is not None:
            self.set_timeout(rest_s)
        self._in = io.BytesIO(self._receive(size))
        self.frame_bytes = size

    def flush(self) -> None:
        data = b"".join(self._out)
        self._out, self._out_bytes = [], 0
        if len(data) > MAX_FRAME_BYTES:
            raise TTransportException(TTransportException.UNKNOWN,
                                      f"a frame of {len(data)} bytes; at most {MAX_FRAME_BYTES} are taken")
        self._arm()
        self.sent = True  # before: a handler of signals may throw when all is out
        try:
            self._socket.sendall(struct.pack(">i", len(data)) + data)
        except socket.timeout as error:
            raise TTransportException(TTransportException.TIMED_OUT, "timed out") from error
        except OSError as error:
            raise TTransportException(TTransportException.NOT_OPEN, str(error)) from error
        self._replies = 1

    # What Thrift asks for ----------------------------------------------------------------

    def _next_frame(self) -> None:
        if self._replies == 0:
            raise TTransportException(TTransportException.END_OF_FILE,
                                      "the message ends in the middle")
        self._replies = 0
        self.receive_frame()

    def read(self, sz: int) -> bytes:
        data = self._in.read(sz)
        if data or sz == 0:
            return data
        self._next_frame()
        return self._in.read(sz)

    @property
    def cstringio_buf(self) -> io.BytesIO:
        return self._in

    def cstringio_refill(self, partialread: bytes, reqlen: int) -> io.BytesIO:
        if partialread:
            raise TTransportException(TTransportException.END_OF_FILE,
                                      "the message ends in the middle")
        self._next_frame()
        return self._in

    def write(self, buf: bytes) -> None:
        self._out.append(bytes(buf))
        self._out_bytes += len(buf)
        if self._out_bytes > MAX_FRAME_BYTES:
            self._out, self._out_bytes = [], 0
            raise TTransportException(TTransportException.UNKNOWN,
                                      f"a message of more than {MAX_FRAME_BYTES} bytes")

    def isOpen(self) -> bool:  # noqa: N802, Thrift's name
        return self._socket.fileno() >= 0

    def open(self) -> None:
        pass

    def close(self) -> None:
        self._socket.close()

    # Beyond Thrift -----------------------------------------------------------------------

    def quiet(self) -> bool:
        """Alive and nothing on its way, as far as the socket knows: fit to be used again."""
        if self._socket.fileno() < 0:
            return False
        if getattr(self._socket, "pending", lambda: 0)():
            return False  # decrypted, and no descriptor tells
        poller = select.poll()
        poller.register(self._socket, select.POLLIN | select.POLLRDHUP)
        return not poller.poll(0)

    def fileno(self) -> int:
        return self._socket.fileno()


class _Compact(TCompactProtocolAccelerated):
    """Decodes small frames in C, large ones in Python."""

    @property
    def _fast_decode(self) -> Any:
        return self._decode_in_c if self.trans.frame_bytes <= _FAST_FRAME_BYTES else None

    @_fast_decode.setter
    def _fast_decode(self, decode: Any) -> None:
        self._decode_in_c = decode


def protocol_on(transport: FramedSocket) -> Any:
    return _Compact(transport, fallback=True, string_length_limit=MAX_FRAME_BYTES,
                    container_length_limit=MAX_ELEMENTS)


def split_address(address: str) -> tuple[str, int]:
    """`host:port`; ValueError for anything else."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"'{address}' is not host:port")
    return host.strip("[]"), int(port)


def connect(host: str, port: int, timeout_s: float, tls: TlsContext | None = None) -> FramedSocket:
    """Plain text without `tls`. Raises OSError."""
    sock = socket.create_connection((host, port), timeout=max(timeout_s, 0.001))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return FramedSocket(sock if tls is None else tls.call(sock, host, max(timeout_s, 0.001)))


class Doors:
    """Who is connected to a listener with TLS: bounds those that have not shown a certificate yet
    (one more, and the oldest is broken off), and those of one certificate, so that no caller keeps
    the others out. Thread-safe."""

    def __init__(self, max_unproven: int, max_proven: int, max_per_name: int) -> None:
        self._max_unproven = max_unproven
        self._max_proven = max_proven
        self._max_per_name = max_per_name
        self._lock = threading.Lock()
        self._last = 0
        self._unproven: dict[int, socket.socket] = {}  # oldest first; descriptors of our own
        self._names: dict[int, str] = {}

    def came(self, sock: socket.socket) -> int:
        """The guest's number. OSError: there is no descriptor for it."""
        own = sock.dup()
        with self._lock:
            self._last += 1
            self._unproven[self._last] = own
            if len(self._unproven) > self._max_unproven:
                # An honest handshake takes milliseconds: the oldest is hardly one.
                oldest = self._unproven.pop(next(iter(self._unproven)))
                _shut(oldest)
                oldest.close()
            return self._last

    def proved(self, guest: int, name: str) -> bool:
        """The handshake is done. False: too many, of that name or in all, are here."""
        with self._lock:
            self._forget(guest)
            if len(self._names) >= self._max_proven or sum(one == name for one in self._names.values()) >= self._max_per_name:
                return False
            self._names[guest] = name
            return True

    def left(self, guest: int) -> None:
        with self._lock:
            self._forget(guest)
            self._names.pop(guest, None)

    def _forget(self, guest: int) -> None:
        own = self._unproven.pop(guest, None)
        if own is not None:
            own.close()


class Listener:
    """One Thrift service on one port, a thread per connection. Beyond `max_connections` it
    stops accepting; a connection silent for `idle_ms` is closed, and so is one whose handshake or
    frame takes too long. TLS, if `security` has it: then three quarters of the connections may be
    of one certificate, and a quarter (8 at least) more without one yet."""

    def __init__(self, what: str, host: str, port: int, processor: Any, *,
                 max_connections: int = 256, idle_ms: int = 300_000,
                 security: Security | None = None) -> None:
        """SecurityError: plain text is not for that address."""
        if security is not None:
            security.check_listening(host, what)
        self._what = what
        self._address = (host, port)
        self._processor = processor
        self._idle_s = idle_ms / 1000
        self._tls = None if security is None else security.tls
        self._doors = None
        if self._tls is not None:
            unproven = max(8, max_connections // 4)
            self._doors = Doors(unproven, max_connections, max(1, max_connections // 4 * 3))
            # One more: the next must be accepted for the oldest of them to be broken off.
            max_connections += unproven + 1
        self._places = threading.Semaphore(max_connections)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._idle: set[socket.socket] = set()
        self._busy: set[socket.socket] = set()
        self._stopping = False
        self._tell_at = 0.0
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Binds, listens, serves on threads of its own. OSError: the port is taken."""
        host, port = self._address
        try:
            self._socket = socket.create_server((host, port), backlog=1024)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen for {self._what} on {host}:{port}: "
                          f"{error.strerror}. Is the port taken? Choose another, or 0") from error
        self._thread = threading.Thread(target=self._accept, name=f"troth {self._what}", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        assert self._socket is not None
        return self._socket.getsockname()[1]

    def stop(self, grace_s: float = 5.0) -> None:
        """Accepts no more, closes connections that wait for a request, lets calls under way end
        for `grace_s`, closes the rest."""
        with self._lock:
            if self._stopping or self._socket is None:
                return
            self._stopping = True
            for sock in self._idle:
                _shut(sock)
        _shut(self._socket)
        self._places.release()
        assert self._thread is not None
        self._thread.join()
        self._socket.close()
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, grace_s)
            for sock in self._busy:
                _shut(sock)

    def _accept(self) -> None:
        assert self._socket is not None
        while True:
            self._places.acquire()
            try:
                sock, _ = self._socket.accept()
            except OSError as error:
                self._places.release()
                if self._stopping:
                    return
                self._tell("listener for %s: accept: %s", self._what, error)
                time.sleep(0.05)  # out of descriptors, most likely: others must end first
                continue
            with self._lock:
                stopping = self._stopping
                self._idle.add(sock)
            if stopping:
                sock.close()
                return
            self._begin(sock)

    def _begin(self, sock: socket.socket) -> None:
        """Gives a connection a thread of its own, or closes it when there is none to be had."""
        guest = 0
        try:
            if self._doors is not None:
                guest = self._doors.came(sock)
            threading.Thread(target=self._serve, args=(sock, guest), daemon=True,
                             name=f"troth {self._what} connection").start()
        except (OSError, RuntimeError) as error:
            self._tell("listener for %s: closing a connection: %s", self._what, error)
            if self._doors is not None:
                self._doors.left(guest)
            with self._lock:
                self._idle.discard(sock)
            sock.close()
            self._places.release()

    def _tell(self, text: str, *values: Any) -> None:
        """In the log, at most once a second: callers must not be able to fill it."""
        now = time.monotonic()
        with self._lock:
            if now < self._tell_at:
                return
            self._tell_at = now + 1
        log.warning(text, *values)

    def _serve(self, raw: socket.socket, guest: int) -> None:
        transport = None
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.settimeout(self._idle_s)
            if self._tls is not None:
                raw = self._shake_hands(raw, guest)
            transport = FramedSocket(raw)
            set_caller(transport.peer_name)
            protocol = protocol_on(transport)
            while True:
                transport.set_timeout(self._idle_s)
                transport.receive_frame(min(_FRAME_S, self._idle_s))
                if not self._turn(raw, busy=True):
                    return
                transport.set_timeout(None)
                self._processor.process(protocol, _Answering(protocol, transport))
                if not self._turn(raw, busy=False):
                    return
        except TTransportException:
            pass  # ended, idle for too long, or too large a frame
        except Exception as error:  # pylint: disable=broad-except
            # What is no message of the contract ends the connection, and nothing else.
            self._tell("listener for %s: closing a connection: %s: %s", self._what,
                        type(error).__name__, error)
        finally:
            with self._changed:
                self._idle.discard(raw)
                self._busy.discard(raw)
                self._changed.notify_all()
            if self._doors is not None:
                self._doors.left(guest)
            if transport is not None:
                transport.close()
            raw.close()
            self._places.release()

    def _shake_hands(self, raw: socket.socket, guest: int) -> socket.socket:
        """TLS over `raw`, whose place it takes. TTransportException: none came about."""
        assert self._tls is not None and self._doors is not None
        peer = raw.getpeername()[0]
        with self._lock:
            self._idle.discard(raw)
        try:
            sock = self._tls.answer(raw)
        except OSError as error:
            self._tell("closing a connection from %s: %s", peer, error)
            raise TTransportException(TTransportException.NOT_OPEN, str(error)) from None
        if not self._doors.proved(guest, peer_name(sock)):
            sock.close()
            self._tell("closing a connection from %s: too many, of certificate '%s' or in all", peer,
                        peer_name(sock))
            raise TTransportException(TTransportException.NOT_OPEN, "too many connections")
        with self._lock:
            if self._stopping:
                _shut(sock)
            self._idle.add(sock)
        return sock

    def _turn(self, sock: socket.socket, *, busy: bool) -> bool:
        """Notes whether a call is under way; False: we stop."""
        with self._changed:
            (self._idle if busy else self._busy).discard(sock)
            if self._stopping:
                self._changed.notify_all()
                return False
            (self._busy if busy else self._idle).add(sock)
            return True


class _Answering:
    """The protocol of a reply: its time begins when it is sent, not when the call came."""

    def __init__(self, protocol: Any, transport: FramedSocket) -> None:
        self._protocol = protocol
        self.trans = self
        self._transport = transport

    def flush(self) -> None:
        self._transport.set_timeout(_SEND_TIMEOUT_S)
        self._transport.flush()

    def write(self, buf: bytes) -> None:
        self._transport.write(buf)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
