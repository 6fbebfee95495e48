#!/usr/bin/python3
"""A transfer between two banks with nothing but the IDL and Debian's python3-thrift.

    transfer.py --from east/17 --to west/99 --amount 5

Everything that a client with one piece of work at each place must do is below: lease an id, do the
work before the lease ends, commit with the list of branches or abort all that may have begun, and
tell an outcome that is never guessed. The classes are generated from thrift/ and bank.thrift when
it starts, by the Thrift compiler.
Exit codes: 0 committed, 1 aborted, 2 asked wrongly, 3 outcome unknown, 4 nothing was begun.
"""

import argparse
import logging
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
CONTRACT = HERE.parent.parent / "thrift"


def now():
    """Seconds on a clock that runs on in suspension, as leases do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def left_ms(deadline):
    """At least 1."""
    return max(1, int((deadline - now()) * 1000))


def generate(directory):
    """Python classes of the contract and the bank, importable on return."""
    for idl in (CONTRACT / "troth.thrift", CONTRACT / "coordinator.thrift",
                CONTRACT / "participant.thrift", HERE / "bank.thrift"):
        subprocess.run(["thrift", "--gen", "py", "-I", str(CONTRACT), "-out", directory, str(idl)],
                       check=True)
    sys.path.insert(0, directory)


def call_service(client_class, host, port, timeout_s):
    """A connection (framed, compact) and its generated client."""
    from thrift.protocol import TCompactProtocol
    from thrift.transport import TSocket, TTransport
    socket = TSocket.TSocket(host, port)
    socket.setTimeout(max(1, int(timeout_s * 1000)))
    transport = TTransport.TFramedTransport(socket)
    transport.open()
    return client_class(TCompactProtocol.TCompactProtocol(transport))


def connect_coordinator(address, timeout_s):
    """The coordinator, after the first call that a connection begins with."""
    from troth.wire.coordinator import Coordinator
    from troth.wire.coordinator.ttypes import ClientHello
    from troth.wire.values.constants import PROTOCOL_VERSION
    host, _, port = address.rpartition(":")
    coordinator = call_service(Coordinator.Client, host, int(port), timeout_s)
    coordinator.hello(ClientHello(version=PROTOCOL_VERSION, application="transfer.py"))
    return coordinator


def apply_legs(coordinator, transaction_id, bank, legs, deadline, claims):
    """The transaction's only work at `bank`, number 0. Adds the branch's claim."""
    from troth.wire.coordinator.ttypes import BranchClaim
    from troth.wire.values.constants import PROTOCOL_VERSION
    from troth.wire.values.ttypes import Context
    from troth_bank import BankBranch
    from troth_bank.ttypes import Leg
    place = next((p for p in coordinator.resolve([bank]) if p.up), None)
    if place is None:
        raise LookupError(f"no instance of bank {bank} is up")
    branch = call_service(BankBranch.Client, place.host, place.port, deadline - now())
    branch.hello(PROTOCOL_VERSION)
    context = Context(transaction_id=transaction_id, work=0, deadline_ms=left_ms(deadline))
    # Should the reply be lost, the abort names this branch too: it may be there.
    claims[bank] = BranchClaim(participant=bank, mark="", works=0, instance="")
    reply = branch.apply(context, [Leg(account=a, amount=m) for a, m in legs], "transfer.py")
    done = reply.branch
    claims[bank] = BranchClaim(participant=done.participant, mark=done.mark, works=done.works,
                               instance=done.instance)


def abort(coordinator, transaction_id, claims):
    """Releases the branches at once; without it they end at their deadline."""
    from thrift.Thrift import TException
    from troth.wire.coordinator.ttypes import AbortRequest
    try:
        coordinator.abort(AbortRequest(transaction_id=transaction_id, branches=claims))
    except (TException, OSError):
        pass


def commit(coordinator, address, transaction_id, claims, deadline):
    """Commits; repeats the call, which is safe, until the deadline. Returns (exit code, text)."""
    from thrift.Thrift import TException
    from troth.wire.coordinator.ttypes import CommitRequest, OutcomeKind, Wait
    from troth.wire.values.ttypes import Reason, Refused
    heard = False  # a call may have reached the coordinator, and its answer did not reach us
    while True:
        try:
            coordinator = coordinator or connect_coordinator(address, left_ms(deadline) / 1000)
            outcome = coordinator.commit(CommitRequest(
                transaction_id=transaction_id, branches=claims, deadline_ms=left_ms(deadline),
                wait=Wait.APPLIED))
            if outcome.kind == OutcomeKind.COMMITTED:
                return 0, f"committed {transaction_id}"
            if outcome.kind == OutcomeKind.ABORTED:
                return 1, f"aborted {transaction_id}: {outcome.message}"
            heard, over = True, outcome.kind != OutcomeKind.PENDING
            why = "it is pending" if not over else "the coordinator can't tell any more"
        except Refused as refused:
            why = refused.message
            over = refused.reason not in (Reason.OVERLOADED, Reason.NOT_SERVING)  # these pass
            # Surely not done; but of an earlier call, or another's under this id, it says nothing.
            sure = not heard and refused.reason != Reason.OTHER_PARTICIPANTS
            if sure and (over or now() >= deadline):
                abort(coordinator, transaction_id, claims)
                return 1, f"aborted {transaction_id}: {why}"
        except (TException, OSError) as error:
            # Maybe done: only the coordinator can tell, on a new connection.
            heard, over, why, coordinator = True, False, error, None
        if over or now() >= deadline:
            return 3, f"unknown {transaction_id}: {why}; ask the coordinator for its outcome"
        time.sleep(0.05)


def transfer(address, from_account, to_account, amount, deadline_s):
    """Moves the amount. Returns (exit code, text)."""
    from thrift.Thrift import TException
    from troth.wire.values.ttypes import Refused
    deadline = now() + deadline_s
    try:
        coordinator = connect_coordinator(address, deadline_s)
        asked_at = now()
        lease = coordinator.lease(1)
    except (TException, OSError) as error:
        return 4, f"nothing was begun: {error}"
    # The id ends with its lease, counted from before it was asked for.
    deadline = min(deadline, asked_at + lease.ends_in_ms / 1000)
    transaction_id = f"{lease.prefix}{lease.first}"
    legs = {}
    for (bank, number), change in ((from_account, -amount), (to_account, amount)):
        legs.setdefault(bank, []).append((number, change))
    claims = {}
    try:
        for bank in sorted(legs):
            apply_legs(coordinator, transaction_id, bank, legs[bank], deadline, claims)
    except (LookupError, TException, OSError) as error:
        why = error.message if isinstance(error, Refused) else str(error)
        abort(coordinator, transaction_id, list(claims.values()))
        return 1, f"aborted {transaction_id}: {why}"
    return commit(coordinator, address, transaction_id, list(claims.values()), deadline)


def account(text):
    """`east/17` as (bank, number)."""
    match = re.fullmatch(r"([a-z0-9-]{1,120})/([1-9][0-9]{0,17})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is no account: BANK/NUMBER is, as in east/17")
    return match[1], int(match[2])


def positive(text):
    """A whole number above 0."""
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no amount: a whole number above 0 is (cents)")
    return int(text)


def main():
    """Parses flags, transfers, says what became of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--coordinator", default="127.0.0.1:7711", metavar="HOST:PORT")
    parser.add_argument("--from", dest="source", type=account, required=True, metavar="BANK/NUMBER")
    parser.add_argument("--to", dest="target", type=account, required=True, metavar="BANK/NUMBER")
    parser.add_argument("--amount", type=positive, required=True, metavar="CENTS")
    parser.add_argument("--deadline", type=float, default=5.0, metavar="SECONDS")
    options = parser.parse_args()
    logging.getLogger("thrift").addHandler(logging.NullHandler())  # errors are told below
    if options.source == options.target:
        parser.error("--from and --to are the same account")
    with tempfile.TemporaryDirectory(prefix="troth-transfer-") as directory:
        generate(directory)
        code, text = transfer(options.coordinator, options.source, options.target,
                              options.amount, options.deadline)
    print(text, file=sys.stdout if code == 0 else sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
