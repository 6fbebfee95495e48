"""The bank that speaks TLS and is attacked by `security`, and what attackers use. An attack is a function
that returns what happened, and raises Succeeded when it was not refused."""

import contextlib
import pathlib
import re
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests" / "sdk_python"), str(ROOT / "examples" / "bank")]

import demo  # noqa: E402
import harness  # noqa: E402,F401  makes troth importable
from thrift.Thrift import TApplicationException, TException  # noqa: E402
from troth.security import TlsContext, TlsFiles  # noqa: E402
from troth.transport import connect, protocol_on  # noqa: E402
from troth.wire.coordinator import ttypes as coordinator_types  # noqa: E402
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


def tls_socket(world, name, port):
    raw = socket.create_connection(("127.0.0.1", port), timeout=20)
    return TlsContext(world.files(name)).call(raw, "127.0.0.1", 20)


def begin(world, client, last=False):
    """An id, and a branch of it at east that is open, or, with `last`, prepared: (id, claim)."""
    lease = client.lease(1)
    id_ = f"{lease.prefix}{lease.first}"
    with world.call(BankBranch, "teller") as east:
        done = east.apply(values.Context(transaction_id=id_, work=0, deadline_ms=15000, last=last),
                          [Leg(account=99, amount=1)], "attacked").branch
    return id_, coordinator_types.BranchClaim(participant=done.participant, mark=done.mark,
                                              works=done.works, instance=done.instance)
