#!/usr/bin/python3
"""How Troth behaves with many participants, many connections, contention and a slow neighbour.
bench/scale starts this after building; docs/performance.md says what the figures mean."""

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile

import rig
from rig import median

# A prepare takes so much longer where this is: deferred triggers run at PREPARE TRANSACTION.
SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON account
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()"""


class Scale:
    """The parts share options, and each brings servers of its own."""

    def __init__(self, options):
        self.o = options

    def driver(self, troth, directory, clients, participants, *more):
        """Clients over the coordinator of `troth`."""
        return rig.Driver("bench-troth", [
            f"{self.o.bin}/bench-troth", f"--coordinator={troth.address}", f"--clients={clients}",
            f"--participants={participants}", "--rows=10000", *more], directory / "drivers.log")

    def bare(self, directory, conninfos, clients, *more):
        """Clients over libpq alone."""
        return rig.Driver("bench-bare", [
            f"{self.o.bin}/bench-bare", "--databases=" + ";".join(conninfos),
            f"--clients={clients}", *more], directory / "drivers.log")

    def many_participants(self, directory):
        """Latency of the commit call with 2 to 16 participants; ratio of 16 to 2. The control is
        PREPARE and COMMIT PREPARED by libpq alone on as many databases: what two servers on these
        cores take, without a log, a guard or a call."""
        servers = rig.Servers(2, 10000, databases=8, max_connections=300)
        troth = None
        drivers = {}
        try:
            troth = rig.Troth(self.o.bin, directory, servers.conninfos(), 4)
            counts = [2, 4, 8, 16]
            for n in counts:
                drivers["commit", n] = self.driver(troth, directory, 1, n, "--commit_only")
                drivers["libpq alone", n] = self.bare(
                    directory, servers.conninfos()[:n], 1, "--commit_only")
            modes = {"commit": "standard-applied", "libpq alone": "one-by-one"}
            rounds = {key: [] for key in drivers}
            for (way, _), driver in drivers.items():
                driver.run(modes[way], 1)
            for _ in range(self.o.rounds):
                for key, driver in drivers.items():
                    rounds[key].append(driver.run(modes[key[0]], self.o.seconds))
            for way, n in sorted(drivers):
                print(f"{n:5} participants, one client, {way:11}: p50 "
                      f"{median([r['p50_ms'] for r in rounds[way, n]]):7.3f} ms, p99 "
                      f"{median([r['p99_ms'] for r in rounds[way, n]]):7.3f} ms", flush=True)
            ratio = {way: median([b["p50_ms"] / a["p50_ms"]
                                  for a, b in zip(rounds[way, 2], rounds[way, 16])])
                     for way in modes}
            print(f"16 participants by 2: {ratio['commit']:.2f}, libpq alone "
                  f"{ratio['libpq alone']:.2f}", flush=True)
            return ratio["commit"]
        finally:
            for driver in drivers.values():
                driver.stop()
            if troth:
                troth.stop()
            servers.stop()

    def many_connections(self, directory):
        """1 to 1,000 clients; resident memory of the largest process with 1,000."""
        servers = rig.Servers(2, 10000, max_connections=120)
        troth = None
        try:
            troth = rig.Troth(self.o.bin, directory, servers.conninfos(), 64,
                              {i: ["--max_work_connections=1010"] for i in range(2)})
            rss = 0
            for clients in [1, 10, 100, 1000]:
                driver = self.driver(troth, directory, clients, 2)
                try:
                    driver.run("standard-applied", 1)
                    figure = driver.run("standard-applied", self.o.seconds)
                    sizes = [rig.rss_mib(p.pid) for p in [troth.coordinator, *troth.participants]]
                    rss = max(sizes)
                finally:
                    driver.stop()
                print(f"{clients:5} clients: {figure['done'] / figure['seconds']:6.0f} tx/s, p50 "
                      f"{figure['p50_ms']:8.2f} ms, p99 {figure['p99_ms']:8.2f} ms, rolled back "
                      f"{figure['failed']}; coordinator {sizes[0]:.0f} MiB, participants "
                      f"{max(sizes[1:]):.0f} MiB", flush=True)
            return rss
        finally:
            if troth:
                troth.stop()
            servers.stop()

    def contention(self, directory):
        """Nine of ten changes on ten rows, against the bare driver with the same order."""
        servers = rig.Servers(2, 10000, max_connections=150)
        troth = None
        drivers = []
        try:
            troth = rig.Troth(self.o.bin, directory, servers.conninfos(), 34)
            same = ["--hot_rows=10", "--in_order"]
            drivers = [self.bare(directory, servers.conninfos(), 32, *same),
                       self.driver(troth, directory, 32, 2, *same)]
            modes = ["one-by-one", "standard-applied"]
            rounds = [[], []]
            for _ in range(self.o.rounds):
                for i in range(2):
                    rounds[i].append(drivers[i].run(modes[i], self.o.seconds))
            for i, name in enumerate(["bare, one by one", "Troth, standard-applied"]):
                print(f"contention, 32 clients, {name:24}: "
                      f"{median([r['done'] / r['seconds'] for r in rounds[i]]):6.0f} tx/s, p50 "
                      f"{median([r['p50_ms'] for r in rounds[i]]):7.2f} ms, p99 "
                      f"{median([r['p99_ms'] for r in rounds[i]]):7.2f} ms, rolled back "
                      f"{sum(r['failed'] for r in rounds[i])}", flush=True)
        finally:
            for driver in drivers:
                driver.stop()
            if troth:
                troth.stop()
            servers.stop()

    def slow_neighbour(self, directory):
        """p50 of transactions that touch only the first two participants, beside others on two
        participants of which one prepares in 50 ms; by that of the same alone. The control:
        others as many, none of them slow, whose clients pause for 50 ms instead. Short rounds,
        and many: what the disk does meanwhile differs by more than what is looked for."""
        servers = rig.Servers(2, 10000, databases=3, max_connections=240)
        troth = None
        drivers = []
        try:
            troth = rig.Troth(self.o.bin, directory, servers.conninfos(), 20)
            drivers = [self.driver(troth, directory, 4, 2),
                       self.driver(troth, directory, 4, 2, "--first=2"),
                       self.driver(troth, directory, 4, 2, "--first=4", "--pause_ms=50")]
            near, slow, control = drivers
            mode, seconds = "standard-applied", self.o.seconds / 3
            for driver in drivers:
                driver.run(mode, 1)
            servers.clusters[1].psql(SLOW, servers.names[1])
            alone, others = [], {slow: [], control: []}
            beside = {slow: [], control: []}
            for _ in range(4 * self.o.rounds):
                alone.append(near.run(mode, seconds))
                for other in (slow, control):
                    other.begin(mode, seconds)
                    beside[other].append(near.run(mode, seconds))
                    others[other].append(other.end())
            ratio = {other: median([b["p50_ms"] / a["p50_ms"]
                                    for a, b in zip(alone, beside[other])])
                     for other in (slow, control)}
            print(f"slow neighbour: p50 {median([r['p50_ms'] for r in alone]):.3f} ms alone",
                  flush=True)
            for name, other in [("slow", slow), ("control", control)]:
                print(f"slow neighbour: beside {name:7} "
                      f"{median([r['p50_ms'] for r in beside[other]]):.3f} ms, x "
                      f"{ratio[other]:.2f}; others "
                      f"{median([r['done'] / r['seconds'] for r in others[other]]):.0f} tx/s, p50 "
                      f"{median([r['p50_ms'] for r in others[other]]):.1f} ms", flush=True)
            return ratio[slow]
        finally:
            for driver in drivers:
                driver.stop()
            if troth:
                troth.stop()
            servers.stop()


PARTS = ["many_participants", "slow_neighbour", "contention", "many_connections"]


def main():
    """See bench/scale --help."""
    parser = argparse.ArgumentParser(prog="bench/scale", allow_abbrev=False)
    parser.add_argument("--bin", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--only", choices=PARTS)
    options = parser.parse_args()
    rig.private_cluster.stop_on_signals()
    root = pathlib.Path(tempfile.mkdtemp(prefix="troth-bench-"))
    scale = Scale(options)
    figures = {}
    try:
        for name in [options.only] if options.only else PARTS:
            directory = root / name
            directory.mkdir()
            figures[name] = getattr(scale, name)(directory)
    except (rig.BenchError, rig.StartError, rig.private_cluster.ClusterError, OSError,
            subprocess.SubprocessError) as error:
        print(f"bench/scale: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if options.only:
        return 0
    print(f"scale: latency_16_over_2={figures['many_participants']:.2f} "
          f"slow_neighbour_p50_ratio={figures['slow_neighbour']:.2f} "
          f"conns_1000_rss_mib={figures['many_connections']:.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
