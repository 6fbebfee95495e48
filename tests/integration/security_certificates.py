"""Attacks of those whose certificate, or whose way to speak, is not good enough."""

import contextlib
import os
import re
import socket
import ssl
import struct
import subprocess
import threading
import time

from security_world import SLOW_S, Succeeded, closed
from thrift.Thrift import TException
from troth.security import TlsContext
from troth.transport import connect, protocol_on
from troth.wire.coordinator import Coordinator
from troth.wire.coordinator import ttypes as coordinator_types


def no_handshake(world, files=None, context=None, name="teller"):
    """No listener may answer a call over this connection."""
    said = ""
    for service, port in world.ports().items():
        try:
            if context is None:
                transport = connect("127.0.0.1", port, 10, TlsContext(files))
                transport.set_timeout(10)
                Coordinator.Client(protocol_on(transport)).hello(coordinator_types.ClientHello(1))
            else:
                with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
                    with context.wrap_socket(raw, server_hostname="127.0.0.1") as sock:
                        sock.sendall(struct.pack(">i", 1) + b"\x82")
                        if sock.recv(1):
                            raise Succeeded(f"{service} answered")
                        said = "closed"
                continue
        except (TException, OSError) as error:
            said = str(error)
            if re.search(r"timed out|refused", said):
                raise Succeeded(f"{service}: {error}") from None
            continue
        raise Succeeded(f"{service} answered")
    return re.sub(r"\[SSL: \w+\] |\s*\(_ssl.c:\d+\)", "", said)


def wrong_authority(world):
    other = world.bank.dir / "other"
    world.make_certificates(other, ["--client", "teller", "--participant", "east"])
    return no_handshake(world, world.files("teller", other, world.certificates / "ca.pem"))


def expired(world):
    at = world.bank.dir / "expired"
    at.mkdir()
    for name in ("ca.pem", "ca.key"):
        (at / name).write_bytes((world.certificates / name).read_bytes())
    world.make_certificates(at, ["--days", "0", "--client", "teller", "--participant", "east"])
    while subprocess.run(["openssl", "verify", "-CAfile", at / "ca.pem", at / "teller.pem"],
                         capture_output=True, check=False).returncode == 0:
        time.sleep(0.1)  # until its second is over
    return no_handshake(world, world.files("teller", at))


def no_certificate(world):
    context = ssl.create_default_context(cafile=world.certificates / "ca.pem")
    return no_handshake(world, context=context)


def self_signed(world):
    at = world.bank.dir / "self"
    at.mkdir()
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-nodes", "-days", "9", "-subj", "/CN=teller", "-keyout", at / "teller.key", "-out",
                    at / "teller.pem"], check=True, stderr=subprocess.DEVNULL)
    return no_handshake(world, world.files("teller", at, world.certificates / "ca.pem"))


def clients_certificate_serves(world):
    """A client's certificate, shown by one that plays the coordinator."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(world.certificates / "hoarder.pem", world.certificates / "hoarder.key")
    context.load_verify_locations(world.certificates / "ca.pem")
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve():
            with contextlib.suppress(OSError):
                while True:
                    with contextlib.suppress(ssl.SSLError):
                        context.wrap_socket(server.accept()[0], server_side=True).recv(100)
        threading.Thread(target=serve, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        done = subprocess.run(
            [str(world.bank.bin / "bank"), "balance", "east/1", "--coordinator", address,
             "--deadline_ms", "1000", *world.bank.tls_flags("teller")], capture_output=True, text=True,
            timeout=60, check=False)
    if done.returncode == 0 or "purpose" not in done.stderr:
        raise Succeeded(done.stdout + done.stderr)
    return done.stderr.strip().rpartition("no TLS: ")[2]


def told_so(said):
    """It was the other side that refused (by an alert), not our own library."""
    if "alert" not in said.lower():
        raise Succeeded(f"not tried: {said}")
    return said


def old_protocol(world, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_verify_locations(world.certificates / "ca.pem")
    context.load_cert_chain(world.certificates / "teller.pem", world.certificates / "teller.key")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = version
    return told_so(no_handshake(world, context=context))


def weak_cipher(world):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0")
    context.load_verify_locations(world.certificates / "ca.pem")
    context.load_cert_chain(world.certificates / "teller.pem", world.certificates / "teller.key")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return told_so(no_handshake(world, context=context))


def plain_text(world):
    took = 0.0
    for service, port in world.ports().items():
        transport = connect("127.0.0.1", port, 10)
        transport.set_timeout(10)
        try:
            Coordinator.Client(protocol_on(transport)).hello(coordinator_types.ClientHello(1))
        except (TException, OSError) as error:
            if "timed out" in str(error):
                raise Succeeded(f"{service}: {error}") from None
            continue
        raise Succeeded(f"{service} answered in plain text")
    return f"closed at once, by all of {len(world.ports())} services"


def garbage(world):
    for service, port in world.ports().items():
        for bytes_ in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096), b"\x00" * 4096):
            with socket.create_connection(("127.0.0.1", port)) as sock:
                with contextlib.suppress(OSError):
                    sock.sendall(bytes_)
                closed(sock, SLOW_S, f"garbage to {service}")
    return "closed"


def plain_beyond_loopback(world):
    done = subprocess.run([str(world.bank.bin / "troth-coordinator"), "--wal_dir",
                           str(world.bank.dir / "none"), "--host", "0.0.0.0"], capture_output=True,
                          text=True, timeout=30, check=False)
    if done.returncode != 1 or "--allow_plain_text" not in done.stderr:
        raise Succeeded(f"{done.returncode}: {done.stderr}")
    return "does not start; names --allow_plain_text"


def password_in_ps(world):
    done = subprocess.run([str(world.bank.bin / "bank-branch"), "--name", "x", "--conninfo",
                           "host=127.0.0.1 password=hush"], capture_output=True, text=True, timeout=30,
                          check=False)
    if done.returncode != 2 or "pgpass" not in done.stderr or "hush" in done.stderr:
        raise Succeeded(f"{done.returncode}: {done.stderr}")
    return "does not start; names ~/.pgpass"


def attacks():
    """(what, function) of each."""
    yield "a certificate of another authority", wrong_authority
    yield "an expired certificate", expired
    yield "no certificate", no_certificate
    yield "a self-signed certificate with a client's name", self_signed
    yield "a client's certificate plays the coordinator", clients_certificate_serves
    yield "downgrade to TLS 1.0", lambda world: old_protocol(world, ssl.TLSVersion.TLSv1)
    yield "downgrade to TLS 1.1", lambda world: old_protocol(world, ssl.TLSVersion.TLSv1_1)
    yield "TLS 1.2 with a cipher that does not authenticate what it encrypts", weak_cipher
    yield "plain text to the TLS ports", plain_text
    yield "garbage before the handshake", garbage
    yield "plain text on an address that others reach", plain_beyond_loopback
    yield "a password where ps shows it", password_in_ps
