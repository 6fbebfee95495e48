"""What a crowd of clients over TLS costs the coordinator."""

import threading
import time

import security_world  # noqa: F401  makes the others importable
from thrift.Thrift import TException
from troth.security import TlsContext
from troth.transport import connect, protocol_on
from troth.wire.coordinator import Coordinator
from troth.wire.coordinator import ttypes as coordinator_types


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
