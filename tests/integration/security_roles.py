"""Attacks of those who have a good certificate, and ask for more than it allows."""

import contextlib
import inspect
import time

from security_world import ROLES, Succeeded, begin, forbidden
from troth.wire.coordinator import Coordinator, CoordinatorAdmin, CoordinatorPeer
from troth.wire.coordinator import ttypes as coordinator_types
from troth.wire.participant import ParticipantAdmin, ParticipantPeer
from troth.wire.participant import ttypes as participant_types
from troth.wire.values import ttypes as values
from troth_bank import BankBranch
from troth_bank.ttypes import Leg

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


def attacks():
    """(what, function) of each."""
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
