#!/usr/bin/python3
"""The demo of the SQL participant; started by `demo`, which builds first and has the help."""

import argparse
import decimal
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path += [str(ROOT / "tests" / "postgres"), str(ROOT / "examples" / "bank")]

import private_cluster  # noqa: E402  pylint: disable=wrong-import-position
from process import Process, StartError  # noqa: E402  pylint: disable=wrong-import-position
from transfer import transfer, troth  # noqa: E402  pylint: disable=wrong-import-position

NAMES = ("east", "west")
ACCOUNTS = 5
BALANCE = 100


def start_participant(bin_dir, directory, cluster, name, peer_port):
    """A database, its table, and troth-participant on it: no line of code."""
    cluster.psql("CREATE DATABASE money")
    cluster.psql((HERE / "schema.sql").read_text(encoding="utf-8"), "money")
    cluster.psql(f"INSERT INTO account SELECT n, 'owner ' || n, {BALANCE} "
                 f"FROM generate_series(1, {ACCOUNTS}) n", "money")
    return Process(f"participant-{name}", directory, False, [
        str(bin_dir / "troth-participant"), "--name", name, "--conninfo", cluster.conninfo("money"),
        "--statements", str(HERE / "statements.sql"), "--coordinators", f"127.0.0.1:{peer_port}"],
        ["port", "peer_port"]).start()


def total(clusters):
    """All the money there is."""
    return sum(decimal.Decimal(cluster.psql("SELECT sum(balance) FROM account", "money").strip())
               for cluster in clusters.values())


def move(client, source, target, amount):
    """True: committed. A refusal that may pass is repeated."""
    for _ in range(50):
        try:
            id_, left, there = transfer(client, source, target, amount)
        except troth.TransactionError as error:
            if getattr(error, "retryable", False):
                continue
            print(f"{source[0]}/{source[1]} -> {target[0]}/{target[1]} {amount}: {error}")
            return False
        print(f"{source[0]}/{source[1]} ({left}) -> {target[0]}/{target[1]} ({there}) {amount}: {id_}")
        return True
    return False


def run(bin_dir, directory, clusters, transfers):
    """The exit code."""
    wal = directory / "wal"
    coordinator_program = str(bin_dir / "troth-coordinator")
    subprocess.run([coordinator_program, "--init", "--wal_dir", str(wal), "--name", "sql"], check=True,
                   stdout=subprocess.DEVNULL)
    processes = {"coordinator": Process("coordinator", directory, False, [
        coordinator_program, "--wal_dir", str(wal)],
        ["client_port", "peer_port", "admin_port"]).start()}
    counts = [0, 0]
    try:
        ports = processes["coordinator"].ports
        for name, cluster in clusters.items():
            processes[name] = start_participant(bin_dir, directory, cluster, name,
                                                ports["peer_port"])
        client = troth.Client([f"127.0.0.1:{ports['client_port']}"], application="sql demo")
        for number in range(transfers):
            source, target = random.sample(NAMES, 2)
            done = move(client, (source, random.randint(1, ACCOUNTS)),
                        (target, random.randint(1, ACCOUNTS)),
                        f"{random.randint(1, 2000) / 100:.2f}")
            counts[0 if done else 1] += 1
            if number == transfers // 2:
                processes["west"].kill()
                processes["west"].start()
                print("killed west, and started it again")
        refused = not move(client, ("east", 1), ("west", 1), "1000000")
        counts[1] += refused
        client.close()
    finally:
        for process in processes.values():
            process.stop(timeout_s=5)
    doubt = sum(len(cluster.psql("SELECT gid FROM pg_prepared_xacts").split())
                for cluster in clusters.values())
    conserved = total(clusters) == len(NAMES) * ACCOUNTS * BALANCE
    print(f"sql: committed={counts[0]} aborted={counts[1]} in_doubt={doubt} "
          f"money={'conserved' if conserved else 'lost'}")
    return 0 if conserved and refused and not doubt and counts[0] > 0 else 1


def main():
    parser = argparse.ArgumentParser(prog="demo", allow_abbrev=False)
    parser.add_argument("--bin", required=True, type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--transfers", type=int, default=20)
    options = parser.parse_args()
    if options.transfers < 1:
        parser.error("--transfers is 1 or more")
    private_cluster.stop_on_signals()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="troth-sql-", dir="/tmp"))
    directory.chmod(0o755)
    clusters = {name: private_cluster.Cluster(name, dir=directory / f"pg-{name}") for name in NAMES}
    try:
        for cluster in clusters.values():
            cluster.start()
        return run(options.bin, directory, clusters, options.transfers)
    except (StartError, private_cluster.ClusterError, subprocess.CalledProcessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing interrupts the clean-up
        for cluster in clusters.values():
            cluster.stop(mode="immediate")
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
