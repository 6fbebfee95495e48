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

    def many_participants(self, directory):
        """Latency of the commit call with 2 to 16 participants; ratio of 16 to 2."""
        servers = rig.Servers(2, 10000, databases=8, max_connections=300)
        troth = None
        drivers = {}
        try:
            troth = rig.Troth(self.o.bin, directory, servers.conninfos(), 4)
            counts = [2, 4, 8, 16]
            drivers = {n: self.driver(troth, directory, 1, n, "--commit_only") for n in counts}
            rounds = {n: [] for n in counts}
            for driver in drivers.values():
                driver.run("standard-applied", 1)
            for _ in range(self.o.rounds):
                for n, driver in drivers.items():
                    rounds[n].append(driver.run("standard-applied", self.o.seconds))
            for n in counts:
                print(f"{n:5} participants, one client: commit p50 "
                      f"{median([r['p50_ms'] for r in rounds[n]]):7.3f} ms, p99 "
                      f"{median([r['p99_ms'] for r in rounds[n]]):7.3f} ms", flush=True)
            return median([b["p50_ms"] / a["p50_ms"] for a, b in zip(rounds[2], rounds[16])])
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
            drivers = [
                rig.Driver("bench-bare", [
                    f"{self.o.bin}/bench-bare", "--databases=" + ";".join(servers.conninfos()),
                    "--clients=32", *same], directory / "drivers.log"),
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
        """Four participants, the last prepares in 50 ms: p50 of transactions that touch only
        the first two, while others touch the last two; by that of the same alone."""
        servers = rig.Servers(2, 10000, databases=2, max_connections=150)
        troth = None
        drivers = []
        try:
            troth = rig.Troth(self.o.bin, directory, servers.conninfos(), 20)
            last = servers.clusters[1]
            drivers = [self.driver(troth, directory, 4, 2),
                       self.driver(troth, directory, 4, 2, "--first=2")]
            near, far = drivers
            alone, beside = [], []
            for driver in drivers:
                driver.run("standard-applied", 1)
            last.psql(SLOW, servers.names[1])
            for _ in range(self.o.rounds):
                alone.append(near.run("standard-applied", self.o.seconds))
                far.begin("standard-applied", self.o.seconds)
                beside.append(near.run("standard-applied", self.o.seconds))
                other = far.end()
            print(f"slow neighbour: p50 {median([r['p50_ms'] for r in alone]):.3f} ms alone, "
                  f"{median([r['p50_ms'] for r in beside]):.3f} ms beside transactions whose p50 "
                  f"is {other['p50_ms']:.1f} ms", flush=True)
            return median([b["p50_ms"] / a["p50_ms"] for a, b in zip(alone, beside)])
        finally:
            for driver in drivers:
                driver.stop()
            if troth:
                troth.stop()
            servers.stop()


def main():
    """See bench/scale --help."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    options = parser.parse_args()
    rig.private_cluster.stop_on_signals()
    root = pathlib.Path(tempfile.mkdtemp(prefix="troth-bench-"))
    scale = Scale(options)
    figures = {}
    try:
        for name in ["many_participants", "slow_neighbour", "contention", "many_connections"]:
            directory = root / name
            directory.mkdir()
            figures[name] = getattr(scale, name)(directory)
    except (rig.BenchError, rig.StartError, rig.private_cluster.ClusterError, OSError,
            subprocess.SubprocessError) as error:
        print(f"bench/scale: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(f"scale: latency_16_over_2={figures['many_participants']:.2f} "
          f"slow_neighbour_p50_ratio={figures['slow_neighbour']:.2f} "
          f"conns_1000_rss_mib={figures['many_connections']:.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
