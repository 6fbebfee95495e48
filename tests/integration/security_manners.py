"""Attacks by what is too large, too slow, too much, or said once already."""

import contextlib
import socket
import ssl
import struct
import threading
import time

from security_world import BANKS, SLOW_S, Succeeded, begin, closed, tls_socket
from troth.wire.coordinator import Coordinator
from troth.wire.coordinator import ttypes as coordinator_types
from troth.wire.values import ttypes as values
from troth_bank import BankBranch
from troth_bank.ttypes import Leg

HALF_HELLO = bytes.fromhex("1603010200010001fc0303")  # of a handshake of TLS


def oversized_frame(world):
    for length in (0x7fffffff, (1 << 20) + 1, 0xffffffff):
        for port in set(world.ports().values()):
            with tls_socket(world, "teller", port) as sock:
                sock.sendall(struct.pack(">I", length) + b"\x82\x21" * 100)
                closed(sock, SLOW_S, f"a frame of {length} bytes")
    return "closed"


def huge_list(world):
    """resolve(names), of which 258,692,781 are said to come."""
    before = world.resident_mib()
    size, varint = 258692781, b""
    while size >= 0x80:
        varint, size = varint + bytes([size & 0x7f | 0x80]), size >> 7
    body = b"\x82\x21\x01\x07resolve" + b"\x19\xf8" + varint + bytes([size])
    with tls_socket(world, "teller", world.ports()["Coordinator"]) as sock:
        sock.sendall(struct.pack(">I", len(body)) + body)
        sock.settimeout(SLOW_S)
        try:
            sock.recv(4096)
        except socket.timeout:
            raise Succeeded("it is being worked on") from None
        except OSError:
            pass
    grown = world.resident_mib() - before
    if grown > 64:
        raise Succeeded(f"memory grew by {grown:.0f} MiB")
    return "closed; memory did not grow"


def slow_ones(world):
    """Half a handshake, a handshake byte by byte, half a frame, a frame byte by byte: at once, at
    the coordinator's and a participant's doors."""
    from_ = time.monotonic()
    places = [world.ports()[name] for name in ("Coordinator", "CoordinatorPeer", "ParticipantPeer")]
    waiting = {}
    for port in places:
        half = socket.create_connection(("127.0.0.1", port))
        half.sendall(HALF_HELLO)
        waiting[half] = ("half a handshake", False)
        drip = socket.create_connection(("127.0.0.1", port))
        waiting[drip] = ("a handshake byte by byte", True)
        frame = tls_socket(world, "teller", port)
        frame.sendall(struct.pack(">I", 1000) + b"\x82\x21")
        waiting[frame] = ("half a frame", False)
        trickle = tls_socket(world, "teller", port)
        trickle.sendall(struct.pack(">I", 1000))
        waiting[trickle] = ("a frame byte by byte", True)
    for sock in waiting:
        sock.setblocking(False)
    sent = 0
    took = {}
    while waiting and time.monotonic() < from_ + SLOW_S:
        time.sleep(0.25)  # the pace of the slow ones
        for sock, (what, drips) in list(waiting.items()):
            try:
                if drips:
                    tls = isinstance(sock, ssl.SSLSocket)
                    sock.send(b"\x82" if tls else (HALF_HELLO + b"\x00" * 999)[sent:sent + 1])
                if sock.recv(1) == b"":
                    raise ConnectionError
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                continue
            except OSError:
                took[what] = time.monotonic() - from_
                del waiting[sock]
                sock.close()
        sent += 1
    if waiting:
        raise Succeeded(f"after {SLOW_S} s still connected: "
                        + ", ".join(what for what, _ in waiting.values()))
    return "closed: " + ", ".join(f"{what} after {s:.0f} s" for what, s in sorted(took.items()))


def flood_of_strangers(world):
    """Connections that never begin the handshake, more than there are places."""
    port = world.ports()["Coordinator"]
    flood = []
    try:
        for _ in range(1500):
            flood.append(socket.create_connection(("127.0.0.1", port), timeout=20))
        harm = world.harm()  # while they are there
        if harm:
            raise Succeeded(f"{len(flood)} silent connections: {harm}")
    finally:
        for sock in flood:
            sock.close()
    return f"{len(flood)} silent connections: the oldest are broken off, an honest transfer goes through"


def hoard(world):
    """All connections that a listener of a participant has, with one good certificate; and half
    handshakes for those that it may not have so."""
    port = world.ports()["BankBranch"]
    hoarded = []
    refused = 0
    try:
        for _ in range(256):
            sock = tls_socket(world, "hoarder", port)
            sock.settimeout(0.001)
            hoarded.append(sock)
        end = time.monotonic() + 20
        while refused == 0 and time.monotonic() < end:
            for sock in hoarded:
                try:
                    refused += sock.recv(1) == b""
                except (ssl.SSLWantReadError, socket.timeout):
                    pass
                except OSError:
                    refused += 1
        for _ in range(400):
            half = socket.create_connection(("127.0.0.1", port), timeout=20)
            hoarded.append(half)
            half.sendall(HALF_HELLO)
        harm = world.harm()
        if harm or not refused:
            raise Succeeded(f"{len(hoarded)} connections of one certificate: {harm}")
    finally:
        for sock in hoarded:
            sock.close()
    return "closed beyond three quarters of the places; an honest transfer goes through"


def committed(world, coordinator):
    """A transaction that committed: (request, outcome)."""
    id_, claim = begin(world, coordinator)
    with world.west("teller") as west:
        done = west.apply(values.Context(transaction_id=id_, work=0, deadline_ms=15000),
                          [Leg(account=99, amount=-1)], "attacked").branch
    claims = [claim, coordinator_types.BranchClaim(done.participant, done.mark, done.works, done.instance)]
    request = coordinator_types.CommitRequest(id_, claims, 15000, coordinator_types.Wait.APPLIED)
    outcome = coordinator.commit(request)
    if outcome.kind != coordinator_types.OutcomeKind.COMMITTED:
        raise Succeeded(f"an honest commit failed: {outcome}")
    return request, outcome


def balances(world):
    return [world.bank.sql(name, "SELECT balance FROM account WHERE number = 99")[0][0]
            for name in BANKS]


def replayed_commit(world):
    with world.call(Coordinator, "teller") as coordinator:
        request, outcome = committed(world, coordinator)
    before = balances(world)
    with world.call(Coordinator, "hoarder") as coordinator:
        if coordinator.commit(request).kind != outcome.kind:
            raise Succeeded("the outcome changed")
        request.branches = request.branches[:1]
        try:
            coordinator.commit(request)
            raise Succeeded("another list was accepted")
        except values.Refused as refused:
            said = refused.message
    with world.call(BankBranch, "hoarder") as east:
        try:
            east.apply(values.Context(transaction_id=request.transaction_id, work=0, deadline_ms=5000),
                       [Leg(account=99, amount=1)], "again")
            raise Succeeded("work under an old id was done")
        except values.Refused:
            pass
    if balances(world) != before:
        raise Succeeded("money moved")
    return f"the same answer, no money moved; another list: {said.partition(' is bound')[0]} is bound"


def replayed_bytes(world):
    """All that a client sent over a connection on which it committed, once more."""
    port = world.ports()["Coordinator"]
    sent = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as relay:
        def pump(source, sink, record):
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    if record:
                        sent.extend(data)
                    sink.sendall(data)

        def serve():
            near, far = relay.accept()[0], socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=pump, args=(far, near, False), daemon=True).start()
            pump(near, far, True)
        threading.Thread(target=serve, daemon=True).start()
        with world.call(Coordinator, "teller", relay.getsockname()[1]) as coordinator:
            committed(world, coordinator)
    before = balances(world)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(bytes(sent))
        closed(sock, SLOW_S, "the recording", words=True)
    if balances(world) != before:
        raise Succeeded("money moved")
    return f"{len(sent)} bytes: closed in the handshake, no money moved"


def attacks():
    """(what, function) of each."""
    yield "frames of 1 MiB and a byte, 2 GiB, 4 GiB", oversized_frame
    yield "a list of 258,692,781 elements in five bytes", huge_list
    yield "half and slow handshakes and frames", slow_ones
    yield "1,500 connections that never shake hands", flood_of_strangers
    yield "all connections of a listener with one certificate, and half handshakes for the rest", hoard
    yield "an old commit once more", replayed_commit
    yield "a recorded connection once more", replayed_bytes
