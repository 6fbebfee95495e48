#!/usr/bin/python3
"""Measures Troth against the bare driver and Bitronix, in interleaved rounds. bench/run starts
this after building; docs/performance.md says what the figures mean."""

import argparse
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

import rig
from rig import median

MODES = ["standard-applied", "standard-decided", "early-applied", "early-decided"]
BARE = {"local": "bare, local commits (not atomic)", "one-by-one": "bare, one by one, no log",
        "batched": "bare, batched, no log: ceiling"}
FLOOR, CEILING, PEER, HOPS = "one-by-one", "batched", "bitronix", "hops"
LABELS = {**BARE, **{mode: f"Troth, {mode}" for mode in MODES},
          PEER: "Bitronix + pgjdbc XA, in process", HOPS: "Troth's messages, early, empty"}


class Bench:
    """All that runs, and the figures so far: of a client count and a way, a list of rounds."""

    def __init__(self, options, directory):
        self.options = options
        self.directory = directory
        most = max(options.clients)
        # Every driver keeps its connections all the time.
        connections = most * (2 + options.bitronix + options.hops) + 100
        self.servers = rig.Servers(options.participants, options.rows,
                                   max_connections=connections, max_prepared_transactions=400)
        self.troth = None
        self.peer = None
        self.figures = {}

    def start(self):
        """Coordinator and participants; the peer is compiled."""
        self.troth = rig.Troth(self.options.bin, self.directory, self.servers.conninfos(),
                               pool_size=max(self.options.clients) + 2)
        if self.options.bitronix:
            self.peer = rig.compile_bitronix(self.directory)

    def stop(self):
        """Everything."""
        if self.troth:
            self.troth.stop()
        self.servers.stop()

    def drivers(self, clients):
        """One for each means, connected, for that many clients."""
        o = self.options
        conninfos = self.servers.conninfos()
        log = self.directory / "drivers.log"
        made = {"bare": rig.Driver("bench-bare", [
            f"{o.bin}/bench-bare", "--databases=" + ";".join(conninfos), f"--clients={clients}",
            f"--rows={o.rows}"], log)}
        made["troth"] = rig.Driver("bench-troth", [
            f"{o.bin}/bench-troth", f"--coordinator={self.troth.address}",
            f"--participants={len(conninfos)}", f"--clients={clients}", f"--rows={o.rows}"], log)
        if o.hops:
            made[HOPS] = rig.Driver("bench-hops", [
                f"{o.bin}/bench-hops", "--databases=" + ";".join(conninfos),
                f"--clients={clients}", f"--rows={o.rows}",
                f"--log={self.directory}/hops.{clients}.log"], log)
        if self.peer:
            home = pathlib.Path(tempfile.mkdtemp(dir=self.directory))
            databases = [f"127.0.0.1 {c.port} postgres postgres" for c in self.servers.clusters]
            made[PEER] = rig.Driver("bitronix", [
                *self.peer, str(home), str(clients), str(o.rows), *databases], log)
        return made

    def ways(self):
        """(name, driver, mode) of all that is measured, in order."""
        listed = [(mode, "bare", mode) for mode in BARE]
        listed += [(mode, "troth", mode) for mode in MODES]
        if self.options.hops:
            listed.append((HOPS, HOPS, "early"))
        if self.peer:
            listed.append((PEER, PEER, "xa"))
        return listed

    def measure(self, clients):
        """All rounds at that many clients."""
        drivers = self.drivers(clients)
        ways = self.ways()
        try:
            for name, driver, mode in ways:  # warm: plans, caches, the peer's compiler
                drivers[driver].run(mode, self.options.warm if name == PEER else
                                    self.options.warm / 4)
            self.troth.settle()
            for number in range(self.options.rounds):
                # Another order each round: nobody always follows the same neighbour.
                for name, driver, mode in random.Random(number).sample(ways, len(ways)):
                    figure = self.round(drivers[driver], mode, driver)
                    self.figures.setdefault((clients, name), []).append(figure)
                print(f"  {clients} clients, round {number + 1} of {self.options.rounds}: " +
                      " ".join(f"{name}={self.figures[clients, name][-1]['tps']:.0f}"
                               for name, _, _ in ways), file=sys.stderr, flush=True)
        finally:
            for driver in drivers.values():
                driver.stop()

    def round(self, driver, mode, means):
        """One round of one means, with what it cost."""
        groups = {"postgres": self.servers.pids(), "client": [driver.pid]}
        is_troth = means == "troth"
        if means == HOPS:
            coordinator, *participants = driver.children()
            groups |= {"coordinator": [coordinator], "participants": participants}
        if is_troth:
            groups["coordinator"] = [self.troth.coordinator.pid]
            groups["participants"] = [p.pid for p in self.troth.participants]
            before = self.troth.status()
            calls = self.troth.calls()
        cpu = {name: rig.cpu_seconds(pids) for name, pids in groups.items()}
        figure = driver.run(mode, self.options.seconds)
        done = max(figure["done"], 1)
        if is_troth:  # what is decided and not applied yet belongs to this round's cost
            after = self.troth.settle()
            # The status calls themselves go to another port.
            figure["coordinator_calls_per_tx"] = (self.troth.calls() - calls) / done
            figure["calls_per_tx"] = (figure["coordinator_calls_per_tx"] +
                                      len(self.troth.participants) + 1)
            figure["syncs_per_tx"] = (after["syncs"] - before["syncs"]) / done
        figure["cpu_us"] = {name: (rig.cpu_seconds(pids) - cpu[name]) / done * 1e6
                            for name, pids in groups.items()}
        figure["tps"] = figure["done"] / figure["seconds"]
        return figure

    # Figures ------------------------------------------------------------------------------

    def middle(self, clients, name, key):
        """Median over the rounds of one way."""
        return median([f[key] for f in self.figures[clients, name]])

    def ratio(self, clients, name, other, key):
        """Median over the rounds of the quotient within a round. 0 when the other is missing."""
        if (clients, other) not in self.figures:
            return 0
        return median([a[key] / b[key] if b[key] else 0 for a, b in
                       zip(self.figures[clients, name], self.figures[clients, other])])

    def table(self):
        """What people read."""
        lines = []
        for clients in self.options.clients:
            lines.append(f"\n{clients} client{'s' if clients > 1 else ''}")
            lines.append(f"{'':34}{'tx/s':>7} {'p50 ms':>8} {'p99 ms':>8} {'x floor':>8} "
                         f"{'x ceil':>7} {'syncs':>6} {'calls':>6}   CPU us a transaction")
            for name, driver, _ in self.ways():
                figures = self.figures[clients, name]
                cpu = ", ".join(f"{part} {median([f['cpu_us'][part] for f in figures]):.0f}"
                                for part in figures[0]["cpu_us"])
                syncs = calls = ""
                if driver == "troth":
                    syncs = f"{self.middle(clients, name, 'syncs_per_tx'):.3f}"
                    calls = f"{self.middle(clients, name, 'calls_per_tx'):.2f}"
                lines.append(
                    f"{LABELS[name]:34}{self.middle(clients, name, 'tps'):7.0f} "
                    f"{self.middle(clients, name, 'p50_ms'):8.3f} "
                    f"{self.middle(clients, name, 'p99_ms'):8.2f} "
                    f"{self.ratio(clients, name, FLOOR, 'tps'):8.2f} "
                    f"{self.ratio(clients, name, CEILING, 'tps'):7.2f} {syncs:>6} {calls:>6}   {cpu}")
        failed = sum(f["failed"] for figures in self.figures.values() for f in figures)
        lines.append(f"\ntransactions rolled back (lock timeouts and the like): {failed}")
        return "\n".join(lines)

    def closing(self):
        """The lines that checks read."""
        lines = []
        for clients in self.options.clients:
            for mode in MODES:
                def r(other, key, clients=clients, mode=mode):
                    return f"{self.ratio(clients, mode, other, key):.3f}"
                lines.append(
                    f"bench: clients={clients} mode={mode} "
                    f"troth_tps={self.middle(clients, mode, 'tps'):.0f} "
                    f"floor_tps={self.middle(clients, FLOOR, 'tps'):.0f} "
                    f"ceiling_tps={self.middle(clients, CEILING, 'tps'):.0f} "
                    f"ratio_floor={r(FLOOR, 'tps')} ratio_ceiling={r(CEILING, 'tps')} "
                    f"ratio_bitronix={r(PEER, 'tps')} "
                    f"p50_ratio_floor={r(FLOOR, 'p50_ms')} "
                    f"p50_ratio_ceiling={r(CEILING, 'p50_ms')} "
                    f"p99_ratio_floor={r(FLOOR, 'p99_ms')} "
                    f"p50_ratio_bitronix={r(PEER, 'p50_ms')} "
                    f"syncs_per_tx={self.middle(clients, mode, 'syncs_per_tx'):.3f} "
                    f"calls_per_tx={self.middle(clients, mode, 'calls_per_tx'):.3f}")
        if self.options.hops:
            for clients in self.options.clients:
                lines.append(
                    f"hops: clients={clients} tps={self.middle(clients, HOPS, 'tps'):.0f} " +
                    " ".join(f"{name}={self.ratio(clients, HOPS, other, key):.3f}"
                             for name, other, key in [
                                 ("ratio_floor", FLOOR, "tps"), ("ratio_ceiling", CEILING, "tps"),
                                 ("p50_ratio_floor", FLOOR, "p50_ms"),
                                 ("p50_ratio_ceiling", CEILING, "p50_ms"),
                                 ("p99_ratio_floor", FLOOR, "p99_ms")]) +
                    f" troth_over_hops={self.ratio(clients, 'early-applied', HOPS, 'tps'):.3f}")
        return "\n".join(lines)


def plot(bench, path):
    """Throughput over clients, and latency, of everything that was measured."""
    import matplotlib  # pylint: disable=import-outside-toplevel
    matplotlib.use("Agg")
    from matplotlib import pyplot  # pylint: disable=import-outside-toplevel
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2))
    clients = bench.options.clients
    for name, driver, _ in bench.ways():
        style = {"bare": "--", "troth": "-"}.get(driver, ":")
        for axis, key in zip(axes, ["tps", "p50_ms"]):
            axis.plot(clients, [bench.middle(c, name, key) for c in clients], style, marker="o",
                      markersize=3, label=LABELS[name])
    for axis, title in zip(axes, ["transactions a second", "median latency, ms"]):
        axis.set_xscale("log", base=2)
        axis.set_xticks(clients, [str(c) for c in clients])
        axis.set_xlabel("clients")
        axis.set_title(title)
        axis.grid(alpha=0.3)
    axes[1].set_yscale("log")
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)


def save(bench, path):
    """Every round, for programs."""
    rounds = [{"clients": clients, "way": name, "rounds": figures}
              for (clients, name), figures in bench.figures.items()]
    pathlib.Path(path).write_text(json.dumps(
        {"machine": rig.machine(), "participants": bench.options.participants,
         "seconds": bench.options.seconds, "figures": rounds}, indent=1) + "\n", encoding="utf-8")


def main():
    """See bench/run --help."""
    parser = argparse.ArgumentParser(prog="bench/run", allow_abbrev=False)
    parser.add_argument("--bin", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--clients", default="1,8,32,64")
    parser.add_argument("--participants", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--warm", type=float, default=8)
    parser.add_argument("--rows", type=int, default=10000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--hops", action="store_true")
    parser.add_argument("--without-bitronix", dest="bitronix", action="store_false")
    parser.add_argument("--json")
    parser.add_argument("--plot")
    parser.add_argument("--keep-logs", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.clients, options.rounds, options.seconds, options.warm = "1,32", 2, 1, 3
    try:
        options.clients = [int(c) for c in options.clients.split(",")]
    except ValueError:
        parser.error("--clients is numbers, with commas between them")
    if min(options.clients) < 1 or options.participants < 1 or options.rounds < 1:
        parser.error("numbers of clients, participants and rounds are at least 1")
    rig.private_cluster.stop_on_signals()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="troth-bench-"))
    bench = None
    code = 2
    try:
        bench = Bench(options, directory)
        bench.start()
        print(f"bench/run: {rig.machine()}; {options.participants} servers, rounds of "
              f"{options.seconds:g} s", file=sys.stderr, flush=True)
        for clients in options.clients:
            bench.measure(clients)
        if options.json:
            save(bench, options.json)
        if options.plot:
            plot(bench, options.plot)
        print(bench.table())
        print()
        print(bench.closing())
        code = 0
    except (rig.BenchError, rig.StartError, rig.private_cluster.ClusterError, OSError,
            subprocess.SubprocessError) as error:
        print(f"bench/run: {error}", file=sys.stderr)
    finally:
        if bench:
            bench.stop()
        if options.keep_logs:
            print(f"bench/run: logs are in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return code


if __name__ == "__main__":
    began = time.monotonic()
    exit_code = main()
    print(f"bench/run: {time.monotonic() - began:.0f} s", file=sys.stderr)
    sys.exit(exit_code)
