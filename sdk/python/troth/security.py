"""Who speaks, and what may they do: TLS with a certificate on both sides, and the file of roles.
Files are read again when they change. Knows no service. docs/operations.md, "Security"."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import select
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field

log = logging.getLogger("troth")

HANDSHAKE_S = 5.0
_LOOK_EVERY_S = 1.0
_ROLES = ("client", "participant", "coordinator", "administrator")


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: our certificate, its private key, the authorities that vouch for others."""

    certificate: str
    key: str
    authorities: str


@dataclass(frozen=True)
class SecurityOptions:
    """Paths only: nothing in here is secret. Without `tls` all traffic is plain text."""

    tls: TlsFiles | None = None
    roles: str = ""  # who may do what; those that serve need it with TLS
    allow_plain_text: bool = False  # on other addresses than this machine's own


class SecurityError(ValueError):
    """The files, or the address to listen on, are of no use; the text says what to do."""


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        info = os.stat(path)
        return info.st_ino, info.st_ctime_ns, info.st_size  # ctime: its mode counts too
    except OSError:
        return None


def is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
        return address.is_loopback
    except ValueError:
        return host == "localhost"


class TlsContext:
    """Thread-safe. TLS 1.2 and 1.3; no resumption, so that each connection is vouched for anew."""

    def __init__(self, files: TlsFiles) -> None:
        """Reads nothing yet."""
        self._files = files
        self._lock = threading.Lock()
        self._tried: tuple | None = None
        self._wrong = ""  # with the files as they are
        self._contexts: tuple[ssl.SSLContext, ssl.SSLContext] | None = None

    def load(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        """To call with, to be called with; read if that was not done yet, or if files have changed.
        Raises SecurityError: they are of no use, and never were. Files that turn bad later are
        logged, and what was read before serves on."""
        files = self._files
        stamps = tuple(_stamp(path) for path in (files.certificate, files.key, files.authorities))
        with self._lock:
            if self._contexts is not None and stamps == self._tried and not self._wrong:
                return self._contexts
            self._tried = stamps
            wrong, self._wrong = self._wrong, ""
            try:
                self._contexts = (self._read(ssl.PROTOCOL_TLS_CLIENT),
                                  self._read(ssl.PROTOCOL_TLS_SERVER))
            except SecurityError as error:
                if self._contexts is None:
                    raise
                # Tried again: it need not be the files, descriptors may have been short.
                self._wrong = str(error)
                if self._wrong != wrong:
                    log.error("%s; what was read before serves on", error)
            return self._contexts

    def _read(self, side: int) -> ssl.SSLContext:
        files = self._files
        context = ssl.SSLContext(side)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.options |= (ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION)
        context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
        context.hostname_checks_common_name = False  # the common name is who, not where
        if side == ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0
        try:
            mode = os.stat(files.key)
            if mode.st_mode & (0o037 if mode.st_uid == 0 else 0o077):
                raise SecurityError(f"TLS: --tls_key '{files.key}': others may read it; run: "
                                    f"chmod 600 {files.key}")
            context.load_verify_locations(files.authorities)
            # A password is not asked for: a key that has one cannot be read.
            context.load_cert_chain(files.certificate, files.key, password=lambda: "")
        except OSError as error:
            raise SecurityError(f"TLS: --tls_cert '{files.certificate}', --tls_key '{files.key}', "
                                f"--tls_ca '{files.authorities}': {error}") from None
        return context

    def call(self, sock: socket.socket, host: str, timeout_s: float) -> ssl.SSLSocket:
        """Shakes hands with `host`, whose certificate must name it. Raises OSError; the socket is
        closed then."""
        try:
            context, _ = self.load()
        except SecurityError as error:
            sock.close()
            raise OSError(str(error)) from None
        return _shake_hands(context.wrap_socket(sock, server_hostname=host,
                                                do_handshake_on_connect=False), timeout_s)

    def answer(self, sock: socket.socket) -> ssl.SSLSocket:
        """Shakes hands with whoever called. Raises OSError; the socket is closed then."""
        _, context = self.load()
        return _shake_hands(context.wrap_socket(sock, server_side=True,
                                                do_handshake_on_connect=False), HANDSHAKE_S)


def _shake_hands(sock: ssl.SSLSocket, timeout_s: float) -> ssl.SSLSocket:
    """As a whole within `timeout_s`."""
    until = time.monotonic() + timeout_s
    sock.setblocking(False)
    try:
        while True:
            try:
                sock.do_handshake()
                sock.setblocking(True)
                return sock
            except ssl.SSLWantReadError:
                event = select.POLLIN
            except ssl.SSLWantWriteError:
                event = select.POLLOUT
            poller = select.poll()
            poller.register(sock.fileno(), event)
            if not poller.poll(max(0.0, until - time.monotonic()) * 1000):
                raise OSError("the TLS handshake took too long")
    except BaseException:
        sock.close()
        raise


def peer_name(sock: socket.socket) -> str:
    """The one common name in the other side's certificate; empty in plain text, or if there is
    none that is 1 to 128 of [A-Za-z0-9._@-]."""
    if not isinstance(sock, ssl.SSLSocket):
        return ""
    subject = (sock.getpeercert() or {}).get("subject", ())
    names = [value for part in subject for key, value in part if key == "commonName"]
    fit = len(names) == 1 and re.fullmatch(r"[A-Za-z0-9._@-]{1,128}", names[0])
    return names[0] if fit else ""


@dataclass
class _Grant:
    name: str
    role: str
    objects: list[str] = field(default_factory=list)


class Roles:
    """The file of roles, read: lines of NAME ROLE [OBJECT...], # comments."""

    def __init__(self, text: str) -> None:
        """Raises SecurityError, which names the line, or says that there is none."""
        self._grants: list[_Grant] = []
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split("#")[0].split()
            if not words:
                continue
            name, role, objects = words[0], words[1] if len(words) > 1 else "", words[2:]
            if role not in _ROLES:
                raise SecurityError(f"line {number}: '{role}' is none of {', '.join(_ROLES)}")
            if role == "client" and not objects:
                raise SecurityError(f"line {number}: which participants may client '{name}' use? "
                                    "Name them, or * for all")
            if role == "administrator" and objects:
                raise SecurityError(f"line {number}: nothing follows 'administrator'")
            if role == "participant" and not objects:
                objects = [name]
            self._grants.append(_Grant(name, role, objects))
        if not self._grants:
            raise SecurityError("nobody is in it")

    def why_not(self, name: str, role: str, what: str = "") -> str | None:
        """Why `name` may not act as `role` (for `what`, unless empty); None: it may."""
        grants = [one for one in self._grants if one.name == name]
        if not grants:
            return f"certificate '{name}' stands in no line of the file of roles (--tls_roles)"
        grants = [one for one in grants if one.role == role]
        if not grants:
            return f"certificate '{name}' has not the role {role}"
        for one in grants:
            if not what or role == "administrator" or what in one.objects:
                return None
            if role == "client" and "*" in one.objects:
                return None
            if role == "coordinator" and (not one.objects or
                                          what.rpartition("-")[0] in one.objects):
                return None
        return f"certificate '{name}' is not for {'' if role == 'coordinator' else 'participant '}'{what}'"


class Security:
    """What a process needs to call and to be called. Thread-safe."""

    def __init__(self, options: SecurityOptions) -> None:
        """Of one that serves. Raises SecurityError."""
        self._options = options
        self.tls = TlsContext(options.tls) if options.tls else None
        self._lock = threading.Lock()
        self._roles: Roles | None = None
        self._stamp: tuple | None = None
        self._wrong = ""  # with the file as it is
        self._look_at = 0.0
        if self.tls is None:
            if options.roles:
                raise SecurityError("--tls_roles tells certificates apart: give --tls_cert, "
                                    "--tls_key and --tls_ca too")
            return
        if not options.roles:
            raise SecurityError("TLS needs --tls_roles, the file that says who may do what")
        self.tls.load()
        self._read_roles()

    def check_listening(self, host: str, what: str) -> None:
        """Raises SecurityError unless it is safe there."""
        if self.tls is None and not self._options.allow_plain_text and not is_loopback(host):
            raise SecurityError(
                f"will not listen for {what} in plain text on {host}, which others can reach: give "
                "--tls_cert, --tls_key, --tls_ca and --tls_roles, or --allow_plain_text on a "
                "network that is yours alone")

    def _read_roles(self) -> None:
        self._look_at = time.monotonic() + _LOOK_EVERY_S
        stamp = _stamp(self._options.roles)
        if self._roles is not None and stamp == self._stamp and not self._wrong:
            return
        self._stamp = stamp
        told, self._wrong = self._wrong, ""
        try:
            with open(self._options.roles, encoding="utf-8") as file:
                self._roles = Roles(file.read())
        except (OSError, ValueError) as error:
            wrong = SecurityError(f"--tls_roles '{self._options.roles}': {error}")
            if self._roles is None:
                raise wrong from None
            self._wrong = str(wrong)  # tried again, as descriptors may have been short
            if self._wrong != told:
                log.error("%s; what was read before holds on", wrong)

    def why_not(self, name: str, role: str, what: str = "") -> str | None:
        """Why the peer of that certificate may not act as `role`; None: it may. The file is looked
        at again each second."""
        if self.tls is None:
            return None
        with self._lock:
            if time.monotonic() >= self._look_at:
                self._read_roles()
            assert self._roles is not None
            return self._roles.why_not(name, role, what)


_this_thread = threading.local()


def caller_name() -> str:
    """The name in the certificate of the caller whose call this thread handles."""
    return getattr(_this_thread, "caller", "")


def set_caller(name: str) -> None:
    """By the listener, for its connection's thread."""
    _this_thread.caller = name
