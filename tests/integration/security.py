#!/usr/bin/python3
"""Attacks on a bank that speaks TLS, while it works; started by `security`, which builds first and
has the help. An attack is a function that returns what happened, and raises Succeeded when it was
not refused."""

import argparse
import contextlib
import inspect
import os
import pathlib
import re
import resource
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests" / "sdk_python"), str(ROOT / "examples" / "bank")]

import demo  # noqa: E402
import harness  # noqa: E402,F401  makes troth importable
from thrift.Thrift import TApplicationException, TException  # noqa: E402
from troth.security import TlsContext, TlsFiles  # noqa: E402
from troth.transport import connect, protocol_on  # noqa: E402
from troth.wire.coordinator import Coordinator, CoordinatorAdmin, CoordinatorPeer  # noqa: E402
from troth.wire.coordinator import ttypes as coordinator_types  # noqa: E402
from troth.wire.participant import ParticipantAdmin, ParticipantPeer  # noqa: E402
from troth.wire.participant import ttypes as participant_types  # noqa: E402
from troth.wire.values import ttypes as values  # noqa: E402
from troth_bank import BankBranch  # noqa: E402
from troth_bank.ttypes import Leg  # noqa: E402

BANKS = ["east", "west"]
CLIENTS = ["teller", "eastonly", "idle-a", "idle-b", "busy", "hoarder"]
ROLES = """\
coordinator coordinator bank
stranger    coordinator stranger   # a coordinator, of another bank
east        participant
west        participant
teller      client *
eastonly    client east
idle-a      client *
idle-b      client *
busy        client *
hoarder     client *
admin       administrator
"""
MAX_MIB = 256
PROBE_S = 20       # an honest transfer is done within this, also on a busy machine
SLOW_S = 25        # a slow caller is gone within this (handshake 5 s, frame 10 s)


class Succeeded(Exception):
    """An attack did."""


class World:
    """The bank under attack."""

    def __init__(self, options):
        self.bank = demo.Bank(options.bin, BANKS, keep=False, tls=True)
        self.certificates = self.bank.certificates
        self.bank.coordinator_flags = ["--max_clients", str(options.idle + options.busy + 100)]
        names = [word for kind, list_ in (("participant", BANKS), ("client", CLIENTS),
                                          ("coordinator", ["coordinator", "stranger"]))
                 for name in list_ for word in (f"--{kind}", name)]
        self.make_certificates(self.certificates, names)
        self.write_roles(ROLES + ("teller administrator\n" if options.plant else ""))
        self.names = names
        self.load = None

    @staticmethod
    def make_certificates(directory, names, *more):
        subprocess.run([str(ROOT / "scripts" / "dev-certs"), str(directory), *names, *more], check=True,
                       stderr=subprocess.DEVNULL)

    def write_roles(self, text):
        fresh = self.certificates / "roles.new"
        fresh.write_text(text, encoding="utf-8")
        fresh.rename(self.certificates / "roles")

    def start(self):
        self.bank.start()
        subprocess.run(self.bank.client("init", "--accounts", "100"), check=True,
                       stdout=subprocess.DEVNULL)
        # The books as they were before the first attack.
        self.load = subprocess.Popen(
            self.bank.client("load", "--clients", "2", "--seconds", "600", "--accounts", "90", "--banks",
                             ",".join(BANKS)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def stop(self):
        if self.load is not None:
            self.load.kill()
            self.load.wait()
        self.bank.stop()

    # Ports, certificates, calls.

    def ports(self):
        """By what listens there."""
        coordinator = self.bank.coordinator.ports
        return {"Coordinator": coordinator["client_port"], "CoordinatorPeer": coordinator["peer_port"],
                "CoordinatorAdmin": coordinator["admin_port"],
                "BankBranch": self.bank.branches["east"].ports["port"],
                "ParticipantPeer": self.bank.branches["east"].ports["peer_port"],
                "ParticipantAdmin": self.bank.branches["east"].ports["peer_port"]}

    def files(self, name, directory=None, ca=None):
        at = directory or self.certificates
        return TlsFiles(f"{at}/{name}.pem", f"{at}/{name}.key", str(ca or at / "ca.pem"))

    @contextlib.contextmanager
    def call(self, service, name, port=None, files=None):
        """A generated client of `service`, called with the certificate of `name`."""
        port = port or self.ports()[service.__name__.rpartition(".")[2]]
        transport = connect("127.0.0.1", port, 10, TlsContext(files or self.files(name)))
        transport.set_timeout(10)
        try:
            yield service.Client(protocol_on(transport))
        finally:
            transport.close()

    def west(self, name):
        return self.call(BankBranch, name, self.bank.branches["west"].ports["port"])

    def resident_mib(self):
        status = pathlib.Path(f"/proc/{self.bank.coordinator.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def harm(self):
        """What has become of the honest; empty: nothing."""
        for process in (self.bank.coordinator, *self.bank.branches.values()):
            if not process.running():
                return f"{process.name} died: {process.tail()}"
        if self.load.poll() is not None:
            return "the load has ended"
        try:
            done = subprocess.run(
                self.bank.client("transfer", "east/95=-1", "west/95=1", "--deadline_ms",
                                 str(PROBE_S * 1000)), capture_output=True, text=True,
                timeout=2 * PROBE_S, check=False)
        except subprocess.TimeoutExpired:
            return f"a transfer took more than {2 * PROBE_S} s"
        return "" if done.returncode == 0 else f"a transfer failed: {done.stdout}{done.stderr}"


def forbidden(call, *arguments):
    """The call must be answered with Refused(FORBIDDEN); its message."""
    try:
        call(*arguments)
    except values.Refused as refused:
        if refused.reason == values.Reason.FORBIDDEN:
            return "FORBIDDEN: " + refused.message
        raise Succeeded(f"refused, but for another reason: {refused.message}") from None
    except TApplicationException as error:
        if str(error.message).startswith("forbidden: "):
            return error.message
        raise Succeeded(f"not refused: {error.message}") from None
    except (TException, OSError, EOFError) as error:
        raise Succeeded(f"not refused, only broken off: {error}") from None
    raise Succeeded("it was answered")


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


def closed(sock, seconds, what, words=False):
    """The other side must close it within this, and (unless `words`) without any of the
    application's; how long it took."""
    began = time.monotonic()
    sock.settimeout(seconds)
    try:
        while True:
            got = sock.recv(4096)
            if not got:
                break
            if not words and got[:1] not in (b"\x15", b"\x16"):  # a TLS alert, or more of the handshake
                raise Succeeded(f"{what} was answered: {got[:40]!r}")
    except socket.timeout:
        raise Succeeded(f"{what} was not closed within {seconds} s") from None
    except OSError:
        pass  # reset
    return time.monotonic() - began


# Who are you? -------------------------------------------------------------------------------------

def wrong_authority(world):
    other = world.bank.dir / "other"
    world.make_certificates(other, ["--client", "teller", "--participant", "east"])
    return no_handshake(world, world.files("teller", other, world.certificates / "ca.pem"))


def expired(world):
    at = world.bank.dir / "expired"
    at.mkdir()
    for name in ("ca.pem", "ca.key"):
        (at / name).write_bytes((world.certificates / name).read_bytes())
    # Without the program faketime: its semaphore's name is a pid, which namespaces have in common.
    library = next(pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    subprocess.run([str(ROOT / "scripts" / "dev-certs"), str(at), "--days", "1", "--client", "teller",
                    "--participant", "east"], check=True, stderr=subprocess.DEVNULL,
                   env=dict(os.environ, LD_PRELOAD=str(library), FAKETIME="-3d"))
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


# What is that you speak? --------------------------------------------------------------------------

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


# May you? -----------------------------------------------------------------------------------------

SERVICES = {Coordinator: "client", CoordinatorPeer: "participant", CoordinatorAdmin: "administrator",
            ParticipantPeer: "coordinator", ParticipantAdmin: "administrator", BankBranch: "client"}
ONE_OF = {"client": "teller", "participant": "west", "coordinator": "coordinator",
          "administrator": "admin"}


# Beside those of its own role, for an administrator who asks it.
ALLOWED = {(ParticipantAdmin, "coordinator"): ["prepared", "settle", "diagnose"]}


def calls_of(service, role):
    """Names, and numbers of arguments, of those that are not for `role`."""
    return [(name, len(inspect.signature(function).parameters) - 1)
            for name, function in inspect.getmembers(service.Iface, inspect.isfunction)
            if name not in ALLOWED.get((service, role), [])]


def wrong_role(service, role):
    def attack(world):
        said = ""
        with world.call(service, ONE_OF[role]) as client:
            for name, count in calls_of(service, role):
                said = forbidden(getattr(client, name), *([None] * count))
        return said
    return attack


def enrolment(world, participant):
    return coordinator_types.Enrolment(
        version=1, participant=participant, instance="evil", system_identifier="1", database_oid=1,
        database_address="127.0.0.1:1", host="127.0.0.1", port=1, peer_port=1)


def another_participants_name(world):
    with world.call(CoordinatorPeer, "west") as client:
        return forbidden(client.enroll, enrolment(world, "east"))


def another_participants_branches(world):
    with world.call(CoordinatorPeer, "west") as client:
        return forbidden(client.inquire, "east", [], coordinator_types.Seen(0, 0, 0))


def begin(world, client, last=False):
    """An id, and a branch of it at east that is open, or, with `last`, prepared: (id, claim)."""
    lease = client.lease(1)
    id_ = f"{lease.prefix}{lease.first}"
    with world.call(BankBranch, "teller") as east:
        done = east.apply(values.Context(transaction_id=id_, work=0, deadline_ms=15000, last=last),
                          [Leg(account=99, amount=1)], "attacked").branch
    return id_, coordinator_types.BranchClaim(participant=done.participant, mark=done.mark,
                                              works=done.works, instance=done.instance)


def sender(client):
    return client.hello(coordinator_types.ClientHello(1)).sender


def another_participants_finish(world):
    with world.call(Coordinator, "teller") as coordinator:
        id_, claim = begin(world, coordinator)
        with world.call(ParticipantPeer, "west") as client:
            said = forbidden(client.finish, sender(coordinator),
                             [participant_types.FinishRequest(id_, False)])
        coordinator.abort(coordinator_types.AbortRequest(id_, [claim]))
    return said


def another_coordinators_finish(world):
    """With a coordinator's certificate, under this coordinator's name."""
    with world.call(Coordinator, "teller") as coordinator:
        id_, claim = begin(world, coordinator)
        with world.call(ParticipantPeer, "stranger") as client:
            said = forbidden(client.finish, sender(coordinator),
                             [participant_types.FinishRequest(id_, False)])
            forbidden(client.prepare, sender(coordinator), [participant_types.PrepareRequest(
                id_, claim.mark, claim.works, 1000, claim.instance)])
            forbidden(client.hello, 1, sender(coordinator))
        coordinator.abort(coordinator_types.AbortRequest(id_, [claim]))
    return said


def finish_of_anothers_transaction(world):
    """With a coordinator's certificate, under its own name: it is nobody's coordinator here."""
    with world.call(Coordinator, "teller") as coordinator:
        id_, claim = begin(world, coordinator, last=True)
        itself = values.Sender("stranger-0123456789ab", 1, 1, 1)
        with world.call(ParticipantPeer, "stranger") as client:
            said = forbidden(client.finish, itself, [participant_types.FinishRequest(id_, False)])
            forbidden(client.prepare, itself, [participant_types.PrepareRequest(
                id_, claim.mark, claim.works, 1000, claim.instance)])
        coordinator.abort(coordinator_types.AbortRequest(id_, [claim]))
    return said


def strangers_look(world):
    """What coordinators may ask of a participant when an administrator asked them."""
    with world.call(ParticipantAdmin, "stranger") as client:
        forbidden(client.prepared, [], 10)
        forbidden(client.diagnose)
        return forbidden(client.settle, "gone-0123456789ab.1-00000001.1", 700, False, "tried")


def settled_ahead(world):
    """By an administrator, at the participant, while the coordinator has not decided."""
    with world.call(Coordinator, "teller") as coordinator:
        id_, claim = begin(world, coordinator, last=True)
        with world.call(ParticipantAdmin, "admin") as client:
            xid = client.prepared([id_], 1)[0].xid
            for commit in (True, False):
                try:
                    client.settle(id_, xid, commit, "ordered by nobody")
                    raise Succeeded(f"it was settled (commit={commit})")
                except values.Refused as refused:
                    said = refused.message
            if len(client.prepared([id_], 1)) != 1:
                raise Succeeded("the branch is gone")
        coordinator.abort(coordinator_types.AbortRequest(id_, [claim]))
    if "not decided yet" not in said:
        raise Succeeded(f"refused for another reason: {said}")
    return said.partition(":")[0]


def commit_of_what_is_not_allowed(world):
    with world.call(Coordinator, "teller") as coordinator:
        lease = coordinator.lease(1)
    claims = [coordinator_types.BranchClaim("west", "0" * 16, 1, "x")]
    with world.call(Coordinator, "eastonly") as coordinator:
        said = forbidden(coordinator.commit, coordinator_types.CommitRequest(
            f"{lease.prefix}{lease.first}", claims, 1000, 1))
        forbidden(coordinator.abort, coordinator_types.AbortRequest(
            f"{lease.prefix}{lease.first}", claims))
    return said


def work_where_it_is_not_allowed(world):
    with world.west("eastonly") as client:
        forbidden(client.hello, 1)
        return forbidden(client.apply, values.Context(transaction_id="x", work=0, deadline_ms=1000),
                         [Leg(1, 1)], "")


def struck_off(world):
    """A client is taken out of the file of roles while it is connected."""
    with world.call(Coordinator, "hoarder") as client:
        client.lease(1)
        world.write_roles("\n".join(line for line in ROLES.splitlines()
                                    if not line.startswith("hoarder")) + "\n")
        try:
            end = time.monotonic() + 10
            while time.monotonic() < end:
                with contextlib.suppress(Succeeded):
                    return "within 2 s, on its open connection, " + forbidden(client.lease, 1)
        finally:
            world.write_roles(ROLES)
    raise Succeeded("it goes on being served")


# Hold still! --------------------------------------------------------------------------------------

def tls_socket(world, name, port):
    raw = socket.create_connection(("127.0.0.1", port), timeout=20)
    return TlsContext(world.files(name)).call(raw, "127.0.0.1", 20)


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
    hello = bytes.fromhex("1603010200010001fc0303")
    places = [world.ports()[name] for name in ("Coordinator", "CoordinatorPeer", "ParticipantPeer")]
    waiting = {}
    for port in places:
        half = socket.create_connection(("127.0.0.1", port))
        half.sendall(hello)
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
                    sock.send(b"\x82" if tls else (hello + b"\x00" * 999)[sent:sent + 1])
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
    """All connections that a listener of a participant has, with one good certificate."""
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
        harm = world.harm()
        if harm or not refused:
            raise Succeeded(f"{len(hoarded)} connections of one certificate: {harm}")
    finally:
        for sock in hoarded:
            sock.close()
    return "closed beyond three quarters of the places; an honest transfer goes through"


# Once more? ---------------------------------------------------------------------------------------

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


# --------------------------------------------------------------------------------------------------

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
    for service, wanted in SERVICES.items():
        for role, name in ONE_OF.items():
            if role != wanted:
                an = "an" if role == "administrator" else "a"
                count = len(calls_of(service, role))
                yield (f"{service.__name__.rpartition('.')[2]}, each of {count} calls, with the "
                       f"certificate of {an} {role} ({name})"), wrong_role(service, role)
    yield "a participant enrols under another's name", another_participants_name
    yield "a participant inquires about another's branches", another_participants_branches
    yield "a participant finishes another's branch", another_participants_finish
    yield "a stranger's coordinator finishes and prepares our branch", another_coordinators_finish
    yield "a stranger's coordinator does so under its own name", finish_of_anothers_transaction
    yield "a stranger's coordinator looks at what is prepared, and settles it", strangers_look
    yield "an administrator settles at a participant, ahead of the coordinator", settled_ahead
    yield "a client commits and aborts at a participant it may not use", commit_of_what_is_not_allowed
    yield "a client works at a participant it may not use", work_where_it_is_not_allowed
    yield "a client that is struck off the file of roles goes on", struck_off
    yield "frames of 1 MiB and a byte, 2 GiB, 4 GiB", oversized_frame
    yield "a list of 258,692,781 elements in five bytes", huge_list
    yield "half and slow handshakes and frames", slow_ones
    yield "1,500 connections that never shake hands", flood_of_strangers
    yield "all connections of a listener with one certificate", hoard
    yield "an old commit once more", replayed_commit
    yield "a recorded connection once more", replayed_bytes


def renewed(world):
    """Certificates are replaced under the running bank: new connections get the new ones."""
    def serial():
        with tls_socket(world, "teller", world.ports()["ParticipantPeer"]) as sock:
            return sock.getpeercert()["serialNumber"]
    before = serial()
    world.make_certificates(world.certificates, world.names)
    world.write_roles(ROLES)
    return serial() != before and not world.harm()


def control(world, name, *arguments):
    """trothctl, with the certificate of `name`."""
    return subprocess.run(
        [str(world.bank.bin / "trothctl"), *arguments, "--coordinator",
         f"127.0.0.1:{world.ports()['CoordinatorAdmin']}", *world.bank.tls_flags(name)],
        capture_output=True, text=True, timeout=60, check=False)


def administered(world):
    """trothctl works with an administrator's certificate, and with no other."""
    good, bad = control(world, "admin", "status"), control(world, "teller", "status")
    return good.returncode == 0 and "serving" in good.stdout and bad.returncode == 1


def signed(world):
    """An order is kept under the name in the certificate of who gave it, whatever he says."""
    with world.call(Coordinator, "teller") as coordinator:
        id_, _ = begin(world, coordinator, last=True)
    done = control(world, "admin", "resolve", id_, "--abort", "--who", "the boss", "--reason",
                   "tried", "--yes")
    kept = control(world, "admin", "heuristics", "--json")
    return done.returncode == 0 and "ordered to abort by admin (the boss): tried" in kept.stdout


def crowd(world, idle_count, busy_count):
    """Idle and busy connections of clients. (resident MiB at most, requests, lost)."""
    port = world.ports()["Coordinator"]
    contexts = {name: TlsContext(world.files(name)) for name in ("idle-a", "idle-b", "busy")}
    idle = []

    def open_one(name):
        transport = connect("127.0.0.1", port, 60, contexts[name])
        transport.set_timeout(60)
        client = Coordinator.Client(protocol_on(transport))
        client.hello(coordinator_types.ClientHello(1))
        return transport, client

    for i in range(idle_count):
        idle.append(open_one("idle-a" if i % 2 else "idle-b"))
    answered, lost, most = [0] * busy_count, [0] * busy_count, [0.0]
    ready = threading.Barrier(busy_count + 1)
    stop = threading.Event()

    def work(number):
        transport, client = open_one("busy")
        ready.wait(120)
        while not stop.is_set():
            try:
                lease = client.lease(1)
                client.abort(coordinator_types.AbortRequest(f"{lease.prefix}{lease.first}", []))
                answered[number] += 2
            except (TException, OSError):
                lost[number] += 1
                break
        transport.close()

    workers = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(busy_count)]
    for worker in workers:
        worker.start()
    ready.wait(120)
    end = time.monotonic() + 5
    while time.monotonic() < end or min(answered) < 2 and time.monotonic() < end + 60:
        most[0] = max(most[0], world.resident_mib())
        if any(lost):
            break
        time.sleep(0.1)  # a sample of the memory each
    stop.set()
    for worker in workers:
        worker.join(60)
    for transport, client in idle:  # each still there, and served
        try:
            client.lease(1)
        except (TException, OSError):
            lost[0] += 1
        transport.close()
    return most[0], sum(answered) + idle_count, sum(lost)


def secrets_told(world):
    """Lines of private keys in what the processes logged."""
    keys = [line for path in world.certificates.glob("*.key")
            for line in path.read_text().splitlines() if not line.startswith("-----")]
    logs = "".join(path.read_text(errors="replace") for path in world.bank.dir.glob("*.log"))
    return [key for key in keys if key in logs] + re.findall("PRIVATE KEY|hush", logs)


def run(world, options):
    total = refused = harmed = 0
    broken = []
    for what, attack in attacks():
        total += 1
        try:
            said = attack(world)
            refused += 1
        except Succeeded as success:
            said = f"NOT REFUSED: {success}"
        except (TException, OSError, subprocess.SubprocessError, AssertionError) as error:
            said = f"NOT REFUSED, as far as can be told: {type(error).__name__}: {error}"
        harm = world.harm()
        if harm:
            harmed += 1
            said += f"; HARMED: {harm}"
        said = str(said).replace("\n", " ").strip()
        print(f"| {what} | {said} |", flush=True)
    if not renewed(world):
        broken.append("certificates were replaced, and new connections did not get the new ones")
    if not administered(world):
        broken.append("trothctl does not obey the roles")
    if not signed(world):
        broken.append("an administrator's order is kept under another name than its giver's")
    resident, requests, lost = crowd(world, options.idle, options.busy)
    if secrets_told(world):
        broken.append("a log tells secrets")
    world.load.terminate()
    world.load.wait()
    audit = subprocess.run(world.bank.client("audit", "--settle_ms", "8000"), capture_output=True,
                           text=True, timeout=120, check=False)
    if audit.returncode != 0 or "money=conserved" not in audit.stdout:
        broken.append(f"the books are wrong: {audit.stdout}{audit.stderr}")
    if lost:
        broken.append(f"{lost} requests were lost in the crowd")
    if resident > MAX_MIB:
        broken.append(f"{resident:.0f} MiB in the crowd, above {MAX_MIB}")
    for rule in broken:
        print(f"security: {rule}", file=sys.stderr)
    print(f"memory: idle={options.idle} busy={options.busy} resident_mib={resident:.1f} "
          f"requests={requests} lost={lost}")
    print(f"security: attacks={total} refused={refused} harmed={harmed}")
    return 0 if total >= 10 and refused == total and not harmed and not broken else 1


def main():
    parser = argparse.ArgumentParser(prog="security", allow_abbrev=False)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--idle", type=int, default=1000)
    parser.add_argument("--busy", type=int, default=200)
    parser.add_argument("--plant", action="store_true")
    options = parser.parse_args()
    wanted = options.idle + options.busy + 2000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, wanted), hard), hard))
    world = World(options)
    try:
        world.start()
        return run(world, options)
    except (demo.StartError, subprocess.CalledProcessError) as error:
        print(f"security: {error}", file=sys.stderr)
        return 2
    finally:
        world.stop()


if __name__ == "__main__":
    sys.exit(main())
