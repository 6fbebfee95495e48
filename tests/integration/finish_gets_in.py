#!/usr/bin/python3
"""A finish must get in while a participant has as many applications as it takes, and work of them
waits for the row that only this finish releases. (Design: applications and coordinators have
listeners of their own; finishing has connections to PostgreSQL of its own.)

The last line: finish_gets_in: connections=N waiting=N finished=true|false ms=N"""

import argparse
import pathlib
import secrets
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests" / "sdk_python"))

import harness  # noqa: E402
from thrift.Thrift import TException  # noqa: E402
from troth.conformance.subject import Subject  # noqa: E402
from troth.conformance.work import Work  # noqa: E402
from troth.wire.participant.ttypes import Finished  # noqa: E402
from troth.wire.values.ttypes import Refused, Sender  # noqa: E402

CONNECTIONS = 256  # what bank-branch takes from applications (participant/options.h)
WAITING = 12       # pieces of work that wait for the row: more than connections to finish with
SECONDS = 5.0      # a finish takes milliseconds


def wait_for_row(subject, results):
    try:
        results.append(subject.work(subject.new_id(), 0))
    except (Refused, TException, OSError) as error:
        results.append(error)


def threads(pid):
    """Of a process; the listener has one for each connection."""
    return len(list(pathlib.Path(f"/proc/{pid}/task").iterdir()))


def try_it(cluster, directory, program):
    conninfo = harness.make_bank(cluster, "east", program=(program,))
    port = harness.private_cluster.free_port()
    command = [program, "--name", "east", "--conninfo", conninfo, "--coordinators",
               f"127.0.0.1:{port}"]
    with harness.Process(command, directory) as process:
        work = Work(str(ROOT / "examples" / "bank" / "bank.thrift"), "BankBranch", "apply",
                    '[[{"account": 1, "amount": 1}], "finish gets in"]')
        sender = Sender(f"finish-{secrets.token_hex(6)}", 2, secrets.randbits(32), 1)
        subject = Subject(("127.0.0.1", process.ports["peer_port"]),
                          ("127.0.0.1", process.ports["port"]), work, None, None, None, sender,
                          None)
        id_, _, vote = subject.prepared()
        results = []
        workers = [threading.Thread(target=wait_for_row, args=(subject, results), daemon=True)
                   for _ in range(WAITING)]
        for worker in workers:
            worker.start()
        harness.until(lambda: int(cluster.psql(
            "SELECT count(*) FROM pg_locks WHERE NOT granted", "east")) >= WAITING,
            20, "work waits for the row")
        others = [subject.work_transport() for _ in range(CONNECTIONS - WAITING)]
        harness.until(lambda: threads(process.ports["pid"]) >= CONNECTIONS, 20,
                      "the participant accepts all it takes")
        began = time.monotonic()
        finished = []

        def finish():
            try:
                finished.append(subject.finish(id_, vote) == Finished.DONE)
            except (TException, OSError) as error:
                finished.append(False)
                print(f"finish: {error}")

        finisher = threading.Thread(target=finish, daemon=True)
        finisher.start()
        finisher.join(SECONDS)
        took = time.monotonic() - began
        done = finished == [True]
        if done:
            harness.until(lambda: any(not isinstance(result, Exception) for result in results), 10,
                          "work goes on when the row is free")
        for other in others:
            other.close()
        print(f"finish_gets_in: connections={len(others) + WAITING} waiting={WAITING} "
              f"finished={str(done).lower()} ms={int(took * 1000)}")
        return done


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, help="directory of the built programs")
    options = parser.parse_args()
    harness.private_cluster.stop_on_signals()
    program = pathlib.Path(options.bin) / "bank-branch"
    with tempfile.TemporaryDirectory(prefix="troth-finish-") as directory, \
            harness.private_cluster.Cluster("finish", max_prepared_transactions=300) as cluster:
        return 0 if try_it(cluster, directory, program) else 1


if __name__ == "__main__":
    sys.exit(main())
