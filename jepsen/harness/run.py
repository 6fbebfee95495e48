"""jepsen/run: builds a cluster, lets clients work, injects faults, heals, checks, reports."""

import argparse
import gc
import pathlib
import random
import re
import signal
import subprocess
import sys
import time
import traceback

from checkers import edn

from . import database, isolation, log_export
from .cluster import Cluster, Options
from .driver import Driver
from .catalogue import FAULTS
from .judge import judge
from .nemesis import Nemesis
from .process import Supervisor
from .recorder import Recorder
from .workloads import WORKLOADS

# Seconds after healing in which all must be settled, and a commit must have succeeded.
WITHIN = 10
# Seconds between two looks at the coordinator's log; records are kept for ten minutes.
LOG_EVERY = 120
# Shorter than the default, so that what a vanished client left is settled within WITHIN.
LEASE_MS = 8000
_SECOND = 1_000_000_000


# Checkers that judge what another workload leaves behind.
JUDGED_WITH = {'ledger': 'bank', 'order': 'audit', 'orphans': 'audit', 'liveness': 'audit',
               'log': 'audit'}


def parser():
    made = argparse.ArgumentParser(
        prog='jepsen/run', formatter_class=argparse.RawDescriptionHelpFormatter,
        description='Tests Troth with real processes, real PostgreSQL servers and real faults,\n'
                    'all inside namespaces of their own, and checks the histories.',
        epilog='Ends with: jepsen: valid=true|false ops=N ok=N faults=N inflight_at_faults=N\n'
               'Exit status: 0 valid, 1 not valid, 2 it could not run. What was seen is kept in\n'
               'STORE/<test>/<time>/. jepsen/README.md says how to read it.')
    made.add_argument('--workload', default='bank,audit,append', metavar='W,..',
                      help='at once; default: %(default)s')
    made.add_argument('--nemesis', default='kill,pause,partition', metavar='A,..',
                      help='faults, `all`, or `none`; default: %(default)s')
    made.add_argument('--each', action='store_true',
                      help='a test for each of the faults, one after the other, with seeds S, S+1..')
    made.add_argument('--seconds', type=float, default=60, metavar='N',
                      help='how long faults are injected, twice that where not all had a '
                           'turn; default: %(default)g')
    made.add_argument('--seed', type=int, metavar='S', help='of operations and faults; default: drawn')
    made.add_argument('--clients', type=int, default=16, metavar='N',
                      help='operations at once, shared by the workloads; default: %(default)s')
    made.add_argument('--participants', type=int, default=3, metavar='N', help='default: %(default)s')
    made.add_argument('--overlap', type=int, default=1, metavar='N',
                      help='faults that may hold at once; default: %(default)s')
    made.add_argument('--reads', choices=('locking', 'snapshot'), default='locking',
                      help='FOR SHARE, kept to the end; or plain, at repeatable read. '
                           'default: %(default)s')
    made.add_argument('--early', action=argparse.BooleanOptionalAction, default=True,
                      help='half of the transactions use early prepare; default: they do')
    made.add_argument('--rate', type=float, default=0, metavar='N',
                      help='operations a second at most; default: no limit')
    made.add_argument('--store', default='store', metavar='DIR', help='default: %(default)s')
    made.add_argument('--bin', metavar='DIR', type=pathlib.Path, help='programs that are already built')
    made.add_argument('--participant', metavar='COMMAND',
                      help='instead of troth-jepsen-branch: a program that serves '
                           'jepsen/workload.thrift; {name}, {host}, {port}, {peer_port}, '
                           '{conninfo}, {coordinators}, {port_file} are filled in')
    made.add_argument('--coordinator_flag', action='append', default=[], metavar='FLAG',
                      help='for the coordinator; may be repeated')
    made.add_argument('--participant_flag', action='append', default=[], metavar='FLAG',
                      help='for the participants; may be repeated')
    made.add_argument('--list', action='store_true', help='lists workloads and faults, and exits')
    return made


def list_all():
    print('Workloads:')
    for workload in WORKLOADS.values():
        print(f'  {workload.name:20} {workload.__doc__.split(chr(10))[0]}')
    for name, workload in JUDGED_WITH.items():
        print(f'  {name:20} A checker; its workload is {workload}.')
    print('Faults:')
    for fault in FAULTS.values():
        print(f'  {fault.name:20} {" ".join(fault.__doc__.split())}')


def chosen(words, known, what):
    names = list(known) if words == 'all' else [w for w in words.split(',') if w and w != 'none']
    if known is WORKLOADS:
        names = [JUDGED_WITH.get(name, name) for name in names]
    for name in names:
        if name not in known:
            print(f'run: there is no {what} "{name}"; jepsen/run --list names them',
                  file=sys.stderr)
            sys.exit(2)
    return [known[name] for name in dict.fromkeys(names)]


class Run:
    """One test.  `problems` are reasons why it is not valid, in words."""

    def __init__(self, options):
        self.options = options
        self.seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 31)
        self.workload_types = chosen(options.workload, WORKLOADS, 'workload')
        self.fault_types = chosen(options.nemesis, FAULTS, 'fault')
        names = '-'.join(w.name for w in self.workload_types)
        faults = '-'.join(f.name for f in self.fault_types) or 'none'
        stamp = time.strftime('%Y%m%dT%H%M%S')
        self.directory = pathlib.Path(options.store).absolute() / f'{names}_{faults}'[:100] / stamp
        self.logs = self.directory / 'logs'
        self.logs.mkdir(parents=True)
        (self.directory / 'seed').write_text(f'{self.seed}\n', encoding='utf-8')
        self.problems, self.skipped, self.deaths = [], {}, []
        self.verdicts, self.injections = [], []
        self.cluster = self.driver = self.recorder = self.log = None
        self.log_read_at = self.healed_at = 0

    def say(self, words):
        print(f'run: {words}', file=sys.stderr, flush=True)
        with open(self.directory / 'jepsen.log', 'a', encoding='utf-8') as file:
            file.write(f'{time.strftime("%H:%M:%S")} {words}\n')

    # The phases -----------------------------------------------------------------------------

    def run(self):
        self.say(f'seed {self.seed}; {self.directory}')
        supervisor = nemesis = None
        try:
            cluster = self.cluster = self._build()
            workloads = self.workloads = self._workloads()
            self.recorder = Recorder(self.directory, [w.name for w in workloads], ['orphans', 'log'])
            self.log = log_export.LogExport(cluster)
            supervisor = Supervisor(cluster.processes(), self._on_death)
            self.driver = Driver(cluster, self.recorder, workloads, self.options.clients,
                                 self.seed, self.options.rate)
            for workload in workloads:
                workload.setup(self.driver)
            nemesis = Nemesis(cluster, self.driver, self.recorder, self.fault_types, self.seed + 1,
                              self.options.overlap)
            self.driver.run(self.options.seconds, lambda s: self._progress(s, nemesis))
            self._let_all_have_a_turn(nemesis)
            self._heal(nemesis, supervisor)
            self._look_at_what_is_left()
        except KeyboardInterrupt:
            self.problems.append('it was interrupted')
        except Exception as error:  # pylint: disable=broad-except
            self.problems.append(f'the test itself failed: {error}')
            (self.logs / 'harness.log').write_text(traceback.format_exc(), encoding='utf-8')
        finally:
            if nemesis:
                nemesis.stop()
                self.injections = nemesis.injections
                self.problems += [f'the nemesis failed: {e}' for e in nemesis.errors]
            if supervisor:
                supervisor.stop()
            if self.cluster:
                self.cluster.stop()
            if self.recorder:
                self.recorder.close()
        self._judge()
        return self._report()

    def _build(self):
        options = Options(
            self.options.bin, self.logs, self.options.participants,
            coordinator_flags=[f'--lease_ms={LEASE_MS}', *self.options.coordinator_flag],
            participant_flags=self.options.participant_flag,
            participant=self.options.participant)
        available = []
        for fault in self.fault_types:
            reason = fault.missing(options)
            if reason:
                self.skipped[fault.name] = reason
                self.say(f'skips {fault.name}: {reason}')
                continue
            available.append(fault)
            options.disks.update(fault.disks_for(self.options.participants))
            options.preload = options.preload or fault.preload()
            everyone = {f'p{i + 1}' for i in range(self.options.participants)}
            options.proxied |= everyone if fault.needs_proxy else set()
            options.standbys |= everyone if fault.needs_standby else set()
        if options.proxied and options.standbys:   # A proxy leads to one server only.
            options.standbys = {max(options.standbys)}
            options.proxied -= options.standbys
        if self.fault_types and not available:
            raise RuntimeError('no fault can be injected on this machine')
        self.fault_types = available
        self.say(f'builds a cluster of {self.options.participants} participants')
        cluster = Cluster(options)
        try:
            cluster.start()
        except BaseException:
            cluster.stop()
            raise
        return cluster

    def _workloads(self):
        return [type_(self.cluster.names(), random.Random(f'{self.seed}/{type_.name}'),
                      self.options.reads == 'locking', self.options.early)
                for type_ in self.workload_types]

    def _on_death(self, name, code, surprise):
        if surprise:
            self.deaths.append((name, code))
            self.recorder.fault('death', {':target': name, ':code': code})
            self.say(f'{name} ended by itself, with {code}')

    def _progress(self, seconds, nemesis):
        if int(seconds) >= self.log_read_at + LOG_EVERY:
            self.log_read_at = int(seconds)
            self.log.read()       # Not while the log is away; the next time will do.
        if int(seconds) % 5:
            return
        samples = self.driver.samples
        now = self.recorder.now()
        recent = sum(1 for s in samples[-20000:] if s[1] > now - 5 * _SECOND)
        counts = {t: sum(1 for s in samples if s[2] == t) for t in ('ok', 'fail', 'info')}
        self.say(f'{seconds:4.0f} s  {recent / 5:5.0f} operations/s  {counts["ok"]} ok  '
                 f'{counts["fail"]} fail  {counts["info"]} info  '
                 f'{len(nemesis.injections)} faults, now: {nemesis.words}')

    def _let_all_have_a_turn(self, nemesis):
        """On a slow machine, with many faults: up to as long again."""
        end = time.monotonic() + self.options.seconds
        wanted = {fault.name for fault in self.fault_types}
        while time.monotonic() < end and not nemesis.errors \
                and wanted - {i.fault.name for i in nemesis.injections if i.end is not None}:
            self.driver.run(0.5)

    def _heal(self, nemesis, supervisor):
        """Ends all faults, then lets the clients work until everything must be settled."""
        nemesis.stop()
        end = time.monotonic() + 20
        while not all(p.ready for p in self.cluster.processes()):
            if time.monotonic() > end:
                away = [p.name for p in self.cluster.processes() if not p.ready]
                self.problems.append(f'after healing {", ".join(away)} did not come back')
                break
            self.driver.run(0.1)
        self.recorder.fault('healed')
        self.say(f'healed; {WITHIN} s to settle')
        self.healed_at = self.recorder.now()
        self.driver.run(WITHIN + 0.5)
        if late := self.driver.stalled(self.healed_at):
            self.driver.run(late)
        # Before the last reads, which give what stays behind more time: what is as old as this.
        self._note_prepared((self.recorder.now() - self.healed_at) / _SECOND)
        self.driver.drain()
        for workload in self.workloads:
            lost = self.driver.run_all(workload, workload.final_operations())
            if lost:
                self.problems.append(f'{workload.name}: {len(lost)} last operations failed')
        self.driver.drain()

    def _look_at_what_is_left(self):
        within = WITHIN + self.driver.stalled(self.healed_at)
        while self.recorder.now() < self.healed_at + (within + 0.1) * _SECOND:
            time.sleep(0.05)
        self._note_prepared()
        owed = self.cluster.owed()
        if owed:
            self.problems.append(owed)
        for workload in self.workloads:
            workload.final(self.driver)
        self._export_the_log()

    def _note_prepared(self, seconds=0):
        """What stands prepared, so long at least, for the history of orphans."""
        for participant in self.cluster.names():
            self.driver.note('orphans', 'prepared', {
                ':participant': participant,
                ':gids': self.cluster.databases[participant].prepared(seconds)})

    def _export_the_log(self):
        end = time.monotonic() + 10
        while (wrong := self.log.read()) and time.monotonic() < end:
            time.sleep(0.5)
        if wrong:
            self.problems.append(f'the log can\'t be read: {wrong}')
        self.problems += [f'settled against the decision, or not known how: {text}'
                          for text in self.log.by_hand]
        self.log.write(self.directory / 'log' / 'log.jsonl')
        log_export.note(self.driver, 'log', self.cluster, self.driver.told, self.log.held)

    # The verdict ----------------------------------------------------------------------------

    def _judge(self):
        if self.recorder is None:
            return
        self.say('checks the histories')
        gc.collect()
        # Where the machine gave nobody here any time, nobody can have done anything in it.
        within = WITHIN + (self.driver.stalled(self.healed_at) if self.driver else 0)
        for workload in self.workloads:
            self.verdicts += judge(self.recorder.paths[workload.name], workload.name,
                                   [*workload.checkers, 'liveness'], workload.model, within,
                                   self.options.participants)
        self.verdicts += judge(self.recorder.paths['orphans'], 'orphans', ['orphans'], None, within,
                               self.options.participants)
        self.verdicts += judge(self.recorder.paths['log'], 'log', ['log'], None, within,
                               self.options.participants, self.directory / 'log' / 'log.jsonl')

    def _find_problems(self):
        if self.driver:
            self.problems += self.driver.hung[:5]
        self.problems += [f'{name} ended by itself, with {code}: {self.logs / name}.log'
                          for name, code in self.deaths]
        self.problems += [f'{i.fault.name}: {i.fault.problem}' for i in self.injections
                          if i.fault.problem]
        injected = {i.fault.name for i in self.injections}
        for fault in self.fault_types:
            if fault.name not in injected:
                self.problems.append(f'{fault.name} was never injected')
        if self.injections and not sum(i.in_flight for i in self.injections):
            self.problems.append('no fault found a transaction in flight')
        for verdict in self.verdicts:
            if verdict.report is None:
                self.problems.append(f'{verdict.workload}: {verdict.checker} could not judge: '
                                     f'{verdict.error}')
            elif not verdict.valid:
                self.problems.append(f'{verdict.workload}: {", ".join(verdict.report.forbidden())}')

    def _report(self):
        self._find_problems()
        samples = self.driver.samples if self.driver else []
        valid = not self.problems
        self._write_results(valid, samples)
        if samples:
            from . import plots  # pylint: disable=import-outside-toplevel
            plots.draw(self.directory, samples, self.injections)
        self._summary(samples)
        ok = sum(1 for s in samples if s[2] == 'ok')
        print(f'jepsen: valid={"true" if valid else "false"} ops={len(samples)} ok={ok} '
              f'faults={len(self.injections)} '
              f'inflight_at_faults={sum(i.in_flight for i in self.injections)}', flush=True)
        return 0 if valid else 1

    def _write_results(self, valid, samples):
        counts = {':' + t: sum(1 for s in samples if s[2] == t) for t in ('ok', 'fail', 'info')}
        results = {':valid?': valid, ':seed': self.seed, ':operations': counts,
                   ':problems': self.problems, ':skipped': self.skipped,
                   ':checks': {f':{v.workload}/{v.checker}': v.data() for v in self.verdicts}}
        (self.directory / 'results.edn').write_text(
            '{' + '\n '.join(f'{edn.write(k)} {edn.write(v)}' for k, v in results.items()) + '}\n',
            encoding='utf-8')
        (self.directory / 'nemesis.edn').write_text(
            ''.join(edn.write(i.data()) + '\n' for i in self.injections), encoding='utf-8')
        latest = self.directory.parent.parent / 'latest'
        latest.unlink(missing_ok=True)
        latest.symlink_to(self.directory)

    def _summary(self, samples):
        print(f'\nseed {self.seed}, {self.directory}\n')
        print(f'{"workload":12} {"ok":>8} {"fail":>8} {"info":>8} {"p50 ms":>8} {"p99 ms":>8}')
        for type_ in self.workload_types:
            mine = [s for s in samples if s[3] == type_.name]
            times = sorted((s[1] - s[0]) / 1e6 for s in mine if s[2] == 'ok')
            tell = [times[int(len(times) * q)] if times else 0 for q in (0.5, 0.99)]
            print(f'{type_.name:12} ' + ' '.join(
                f'{sum(1 for s in mine if s[2] == t):>8}' for t in ('ok', 'fail', 'info'))
                + f' {tell[0]:>8.1f} {tell[1]:>8.1f}')
        print(f'\n{"fault":20} {"times":>6} {"in flight":>10}')
        for name in sorted({i.fault.name for i in self.injections}):
            mine = [i for i in self.injections if i.fault.name == name]
            print(f'{name:20} {len(mine):>6} {sum(i.in_flight for i in mine):>10}')
        for name, reason in self.skipped.items():
            print(f'{name:20} skipped: {reason}')
        if self.driver and self.driver.stalls:
            print(f'the machine gave the test no time for {self.driver.stalled():.0f} s of it')
        print()
        for verdict in self.verdicts:
            words = 'could not judge' if verdict.report is None else (
                'valid' if verdict.valid else 'NOT VALID: ' + ', '.join(verdict.report.forbidden()))
            if verdict.report and verdict.valid and verdict.report.findings:
                words += ' (allowed: ' + ', '.join(verdict.report.anomalies()) + ')'
            print(f'{verdict.workload + " " + verdict.checker:24} {words}')
            if verdict.report and not verdict.valid:
                print('  ' + verdict.report.text(2).replace('\n', '\n  '))
        for problem in self.problems:
            print(f'problem: {problem}')
        print(flush=True)


def run_each(options, arguments):
    """A test for each fault, in namespaces of its own; the figures of all, added up."""
    faults = chosen(options.nemesis, FAULTS, 'fault')
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 30)
    sums, valid, table, stopped = [0, 0, 0, 0], True, [], []
    for number, fault in enumerate(faults):
        child = subprocess.Popen(
            [sys.executable, '-m', 'harness.run', *(a for a in arguments if a != '--each'),
             '--nemesis', fault.name, '--seed', str(seed + number)],
            stdout=subprocess.PIPE, text=True)
        for signal_number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signal_number, lambda number_, _: (child.send_signal(number_),
                                                             stopped.append(number_)))
        out = child.communicate()[0]
        if stopped:
            return 128 + stopped[0]
        last = (out.splitlines() or [''])[-1]
        figures = re.fullmatch(r'jepsen: valid=(true|false) ops=(\d+) ok=(\d+) faults=(\d+) '
                               r'inflight_at_faults=(\d+)', last)
        skipped = re.search(rf'^{fault.name} +(skipped: .*)$', out, re.MULTILINE)
        words = 'valid' if child.returncode == 0 else 'NOT VALID'
        if skipped:
            words = skipped.group(1)
        elif child.returncode != 0 or not figures:
            valid = False
            print(out, flush=True)
        counts = [int(f) for f in figures.groups()[1:]] if figures else [0, 0, 0, 0]
        sums = [a + b for a, b in zip(sums, counts)]
        table.append((fault.name, seed + number, *counts, words))
    print(f'{"fault":22} {"seed":>10} {"ops":>7} {"ok":>7} {"faults":>7} {"in flight":>10}')
    for name, seed_, ops, ok, count, in_flight, words in table:
        print(f'{name:22} {seed_:>10} {ops:>7} {ok:>7} {count:>7} {in_flight:>10}  {words}')
    print('jepsen: valid={} ops={} ok={} faults={} inflight_at_faults={}'.format(
        'true' if valid and sums[2] else 'false', *sums), flush=True)
    return 0 if valid and sums[2] else 1


def main():
    arguments = sys.argv[1:]
    options = parser().parse_args(arguments)
    if options.list:
        list_all()
        return 0
    chosen(options.workload, WORKLOADS, 'workload')
    chosen(options.nemesis, FAULTS, 'fault')
    if not options.bin:          # The launcher only asks whether the arguments are good.
        return 0
    reason = database.missing()
    if reason:
        print(f'run: {reason}', file=sys.stderr)
        return 2
    if options.each:
        return run_each(options, arguments)
    isolation.enter('harness.run', arguments)
    return Run(options).run()


if __name__ == '__main__':
    sys.exit(main())
