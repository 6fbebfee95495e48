"""jepsen/sweep: stops a process at every crash window, in every way, with transactions in flight,
and audits what became of them.

A cell is one row of the crash table (crash_table.py) and one action.  All cells share a cluster;
each has a history of its own, judged by the audit and the order of changes.
"""

import argparse
import collections
import pathlib
import random
import shutil
import sys
import time
import traceback

from checkers import edn

from . import database, isolation, log_export, points
from .cluster import Cluster, Options
from .crash_table import ACTIONS, ROWS, documented
from .driver import Driver
from .judge import judge
from .process import Process
from .recorder import Recorder
from .workloads import Audit

# Small segments, so that the log rotates and is compacted within a second.
SEGMENT_BYTES = 256 << 10
LEASE_MS = 8000
SETTLE_SECONDS = 10
HIT_SECONDS = 40
PAUSE_SECONDS = 5
_NOT_PASSED = f'not passed within {HIT_SECONDS} s'


def parser():
    made = argparse.ArgumentParser(
        prog='jepsen/sweep', formatter_class=argparse.RawDescriptionHelpFormatter,
        description='Every crash window of docs/protocol.md, times: kill (SIGKILL at the point,\n'
                    'restart), pause (the process stands still there for 5 s), cut (there all its\n'
                    'connections are broken), error (the point takes its error branch).',
        epilog='Ends with: sweep: rows=N points=N cells=N na=N empty=N violations=N\n'
               'Exit status: 0 all cells passed, 1 not, 2 it could not run.')
    made.add_argument('--rows', default='', metavar='A,..', help='failpoints; default: all')
    made.add_argument('--actions', default=','.join(ACTIONS), metavar='A,..',
                      help='default: %(default)s')
    made.add_argument('--quick', action='store_true',
                      help='one action for each row, another from row to row')
    made.add_argument('--clients', type=int, default=12, metavar='N', help='default: %(default)s')
    made.add_argument('--participants', type=int, default=3, metavar='N', help='default: %(default)s')
    made.add_argument('--seed', type=int, default=1, metavar='S', help='default: %(default)s')
    made.add_argument('--store', default='store', metavar='DIR', help='default: %(default)s')
    made.add_argument('--bin', metavar='DIR', type=pathlib.Path, help='programs that are already built')
    made.add_argument('--list', action='store_true', help='prints the table, and exits')
    return made


class Cell:
    """One row and one action; `verdict` is ok, n/a, empty or violation."""

    def __init__(self, row, action):
        self.row = row
        self.action = action
        self.verdict = None
        self.words = ''
        self.problems = []
        self.in_flight = 0
        self.seconds = 0.0
        self.target = ''

    def name(self):
        return f'{self.row.name}/{self.action}'


class Sweep:
    """The cells of one run, on one cluster."""

    def __init__(self, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.directory = (pathlib.Path(options.store).absolute() / 'sweep'
                          / time.strftime('%Y%m%dT%H%M%S'))
        self.logs = self.directory / 'logs'
        self.logs.mkdir(parents=True)
        self.cells = self._choose()
        self.cluster = self.driver = self.recorder = self.audit = self.log = None
        self.stuck = None

    def _choose(self):
        wanted = [r for r in self.options.rows.split(',') if r]
        actions = self.options.actions.split(',')
        cells = []
        for number, row in enumerate(ROWS):
            if wanted and row.name not in wanted:
                continue
            chosen = actions
            if self.options.quick:
                possible = [a for a in actions if row.reasons[a] is None]
                chosen = [possible[number % len(possible)]]
            cells += [Cell(row, action) for action in chosen]
        return cells

    def say(self, words):
        print(f'sweep: {words}', file=sys.stderr, flush=True)

    def run(self):
        failed = None
        try:
            self.cluster = Cluster(Options(
                self.options.bin, self.logs, self.options.participants, clients=2,
                coordinator_flags=[f'--lease_ms={LEASE_MS}', f'--wal_segment_bytes={SEGMENT_BYTES}']))
            self.say(f'{len(self.cells)} cells; builds a cluster; {self.directory}')
            self.cluster.start()
            self.log = log_export.LogExport(self.cluster)
            for number, cell in enumerate(self.cells):
                self._run_cell(cell)
                self.say(f'{number + 1:3}/{len(self.cells)} {cell.name():36} {cell.verdict:9} '
                         f'{cell.target:4} {cell.in_flight:3} in flight {cell.seconds:5.1f} s  '
                         f'{cell.words}')
                if self.stuck:
                    failed = f'{cell.name()} left the cluster unusable; the rest was not run'
                    break
        except KeyboardInterrupt:
            failed = 'it was interrupted'
        except Exception as error:  # pylint: disable=broad-except
            failed = f'the sweep itself failed: {error}'
            (self.logs / 'harness.log').write_text(traceback.format_exc(), encoding='utf-8')
        finally:
            if self.cluster:
                self.cluster.stop()
        return self._report(failed)

    # One cell -------------------------------------------------------------------------------

    def _run_cell(self, cell):
        cell.words = cell.row.reasons[cell.action] or ''
        if cell.words:
            cell.verdict = 'n/a'
            return
        begun = time.monotonic()
        directory = self.directory / cell.row.name / cell.action
        directory.mkdir(parents=True)
        self.recorder = Recorder(directory, ['audit'], ['log'])
        self.audit = Audit(self.cluster.names(), random.Random(f'{self.options.seed}/{cell.name()}'))
        self.driver = Driver(self.cluster, self.recorder, [self.audit], self.options.clients,
                             self.options.seed)
        try:
            self.driver.run(0.4)
            empty = {'running': self._at_running, 'opening': self._at_opening,
                     'init': self._at_init}[cell.row.when](cell)
            cell.problems += self._settle()
        finally:
            self.recorder.close()
            self.driver.close()
        cell.problems += self._judge(directory)
        cell.seconds = time.monotonic() - begun
        if not empty and not cell.in_flight:
            empty = 'nothing was in flight'
        cell.verdict = 'violation' if cell.problems else 'empty' if empty else 'ok'
        cell.words = '; '.join(cell.problems) or empty or ''

    def _process(self, cell):
        if cell.row.process == 'coordinator':
            return self.cluster.coordinator
        return self.cluster.participants[self.random.choice(self.cluster.names())]

    def _until(self, condition, seconds, step=0.02, between=None):
        """Lets the clients work until it holds; False when it never did."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            self.driver.run(step)
            if between:
                between()
        return True

    # Each returns why the cell is empty, or None.

    def _at_running(self, cell):
        process = self._process(cell)
        cell.target = process.name
        since = points.mark(process)
        process.expect(cell.row.code(cell.action))
        points.arm(self.cluster, process, cell.row.name,
                   {'kill': 'crash', 'error': 'error'}.get(cell.action, 'stop'))
        self.recorder.fault('arm', {':point': cell.row.name, ':action': ':' + cell.action,
                                    ':target': process.name})
        provoke = self._provoker(cell.row.provoke)
        flight = [0]

        def hit():
            flight[0] = self.driver.in_flight or flight[0]
            return points.hit(process, cell.row.name, since)

        found = self._until(hit, HIT_SECONDS, between=provoke)
        cell.in_flight = flight[0]
        if not found:
            points.disarm(self.cluster, process, cell.row.name)
            process.expect(None)
            return _NOT_PASSED
        return self._act(cell, process)

    def _act(self, cell, process):
        """The process is at the point: what the action does from there."""
        broken = None
        if cell.row.code(cell.action) is not None:
            self._await_end(cell, process)
            self.driver.run(0.3)
            process.launch()
        elif cell.action == 'pause':
            self.driver.run(PAUSE_SECONDS)
            process.resume()
        elif cell.action == 'cut':
            broken = self.cluster.network.reset(process.node)
            process.resume()
        else:
            self.driver.run(0.5)
        return 'no connection was cut' if broken == 0 else None

    def _await_end(self, cell, process):
        """The point was passed: the process has ended of it, as the table has it."""
        if not self._until(lambda: not process.alive, 5):
            cell.problems.append(f'{process.name} went on after {cell.action}')
            process.kill()

    def _provoker(self, what):
        """Called again and again while a point waits to be passed."""
        last = [time.monotonic() - (3.0 if what == 'in-doubt' else 3.8)]
        down = {'coordinator-restart': 0.1, 'in-doubt': 1.5}.get(what)

        def provoke():
            if what in (None, 'small-segments') or time.monotonic() < last[0] + 4:
                return
            if what == 'new-client':
                self.cluster.clients[0].signal(9)
            else:
                self.cluster.coordinator.kill()
                self.driver.run(down)
                self.cluster.coordinator.launch()
            last[0] = time.monotonic()
        return provoke

    def _at_opening(self, cell):
        process = self.cluster.coordinator
        cell.target = process.name
        action = {'kill': 'crash', 'error': 'error'}.get(cell.action, 'stop')
        cell.in_flight = self.driver.in_flight
        process.kill()
        since = points.mark(process)
        self.recorder.fault('opening', {':point': cell.row.name, ':action': ':' + cell.action})
        process.launch({'TROTH_FAILPOINTS': f'{cell.row.name}={action}'},
                       expected=cell.row.code(cell.action))
        if not self._until(lambda: points.hit(process, cell.row.name, since), HIT_SECONDS):
            return _NOT_PASSED
        if cell.action == 'pause':
            self.driver.run(PAUSE_SECONDS)
            process.resume()
            return None
        self._await_end(cell, process)
        process.launch()
        return None

    def _at_init(self, cell):
        """A log made in a directory of its own; the cluster works on meanwhile."""
        place = self.cluster.directory / f'init-{cell.action}'
        log = self.logs / f'init-{cell.action}.log'
        program = self.cluster.coordinator.argv[0]
        node = self.cluster.coordinator.node
        action = {'kill': 'crash', 'error': 'error'}.get(cell.action, 'stop')
        init = Process('init', node, [program, '--init', f'--wal_dir={place}', '--name=other',
                                      '--enable_failpoints'], log)
        init.launch({'TROTH_FAILPOINTS': f'{cell.row.name}={action}'}, watched=False)
        cell.target = 'init'
        if not self._until(lambda: points.hit(init, cell.row.name, 0), HIT_SECONDS):
            return _NOT_PASSED
        cell.in_flight = self.driver.in_flight
        if cell.action == 'pause':
            self.driver.run(PAUSE_SECONDS)
            init.resume()
            if not self._until(lambda: not init.alive, 5) or init.code != 0:
                cell.problems.append('a log that was paused while it was made was not made')
            return None
        self._await_end(cell, init)
        if init.code != cell.row.code(cell.action):
            cell.problems.append(f'init ended with {init.code} after {cell.action}')
        opened = Process('opened', node, [program, f'--wal_dir={place}', f'--host={node.address}',
                                          '--client_port=0', '--peer_port=0', '--admin_port=0',
                                          '--allow_plain_text'], log)
        opened.launch(watched=False)
        if not self._until(lambda: not opened.alive, 3):
            opened.kill()
            cell.problems.append('half a log was opened')
        elif opened.code != 1:
            cell.problems.append(f'half a log was not refused: it ended with {opened.code}')
        shutil.rmtree(place)
        init.launch(watched=False)
        if not self._until(lambda: not init.alive, 10) or init.code != 0:
            cell.problems.append('an emptied directory took no new log')
        return None

    def _revive(self):
        """Starts again what has ended; returns in words who ended by itself."""
        problems = []
        for process in self.cluster.processes():
            while (death := process.reap()) is not None:
                code, surprise = death
                if surprise:
                    problems.append(f'{process.name} ended by itself, with {code}: {process.log}')
            if not process.alive:
                process.launch()
        return problems

    def _settle(self):
        """All come back: that is healing.  Within the time from then on a commit succeeds at each
        participant, and nothing stays prepared.  Returns problems."""
        problems, names = [], self.cluster.names()

        def away():
            problems.extend(self._revive())
            return [p.name for p in self.cluster.processes() if not p.ready]

        if not self._until(lambda: not away(), SETTLE_SECONDS):
            problems.append(f'{", ".join(away())} did not come back')
        self.recorder.fault('healed')
        healed, end = self.recorder.now(), time.monotonic() + SETTLE_SECONDS

        def idle():
            return [n for n in names if self.driver.served.get(n, 0) <= healed]

        if not self._until(lambda: not idle(), SETTLE_SECONDS):
            problems += [f'no commit succeeded at {name} within {SETTLE_SECONDS} s'
                         for name in idle()]
        self.driver.drain()
        problems += self.driver.hung
        while any(self.cluster.databases[name].prepared() for name in names):
            # What the last transactions prepared is younger, and has the time from then on.
            if time.monotonic() > end and any(
                    self.cluster.databases[name].prepared(SETTLE_SECONDS) for name in names):
                problems.append(f'branches stay prepared after {SETTLE_SECONDS} s')
                break
            time.sleep(0.1)
        problems += self._revive()
        owed = self.cluster.owed(SETTLE_SECONDS)
        problems += [owed] if owed else []
        try:
            self.audit.final(self.driver)
        except RuntimeError as error:
            problems.append(str(error))
        wrong = self.log.read()
        if wrong:
            wrong = self.log.read()   # It was compacted meanwhile.
        problems += [f'the log can\'t be read: {wrong}'] if wrong else []
        problems += [f'settled against the decision: {text}' for text in self.log.by_hand]
        log_export.note(self.driver, 'log', self.cluster, self.driver.told, self.log.held)
        try:
            for name in self.cluster.names():
                self.cluster.databases[name].query('TRUNCATE marker, row_order', seconds=5)
        except database.QueryError as error:
            self.stuck = f'the tables can\'t be emptied for the next cell: {str(error).splitlines()[0]}'
            problems.append(self.stuck)
        return problems

    def _judge(self, directory):
        problems = []
        self.log.write(directory / 'log.jsonl')
        verdicts = judge(self.recorder.paths['audit'], 'audit', ['audit', 'order'],
                         'strict-serializable', SETTLE_SECONDS, self.options.participants)
        verdicts += judge(self.recorder.paths['log'], 'log', ['log'], None, SETTLE_SECONDS,
                          self.options.participants, directory / 'log.jsonl')
        for verdict in verdicts:
            if verdict.report is None and verdict.checker == 'order':
                continue      # In a cell this short no row need have been changed twice.
            if verdict.report is None:
                problems.append(f'{verdict.checker} could not judge: {verdict.error}')
            elif not verdict.valid:
                problems += verdict.report.forbidden()
                (directory / f'{verdict.checker}.txt').write_text(verdict.report.text(10),
                                                                  encoding='utf-8')
        return problems

    # The report -----------------------------------------------------------------------------

    def _matrix(self):
        """The table, for docs and for people."""
        by = collections.defaultdict(dict)
        for cell in self.cells:
            by[cell.row][cell.action] = cell
        lines = ['| failpoint | process | ' + ' | '.join(ACTIONS) + ' |',
                 '|---|---|' + '---|' * len(ACTIONS)]
        for row, cells in by.items():
            told = [f'{cells[a].verdict or "-"} ({cells[a].in_flight})'
                    if a in cells and cells[a].verdict in ('ok', 'violation')
                    else (cells[a].verdict or '-' if a in cells else '-') for a in ACTIONS]
            lines.append(f'| `{row.name}` | {row.process} | ' + ' | '.join(told) + ' |')
        reasons = sorted({(c.action, c.words) for c in self.cells if c.verdict == 'n/a'})
        lines += ['', 'ok (N): N transactions were in flight. n/a:']
        lines += [f'- {action}: {words}.' for action, words in reasons]
        return '\n'.join(lines) + '\n'

    def _report(self, failed):
        matrix = self._matrix()
        (self.directory / 'matrix.md').write_text(matrix, encoding='utf-8')
        (self.directory / 'results.edn').write_text(''.join(edn.write(
            {':point': c.row.name, ':action': ':' + c.action, ':verdict': c.verdict,
             ':target': c.target, ':in-flight': c.in_flight, ':seconds': round(c.seconds, 1),
             ':words': c.words}) + '\n' for c in self.cells), encoding='utf-8')
        print(matrix)
        problems = [f'{c.name()}: {c.words}' for c in self.cells
                    if c.verdict in ('violation', 'empty', None)]
        if failed:
            problems.append(failed)
        root = pathlib.Path(__file__).resolve().parents[2]
        written = documented(root)
        if not self.options.rows and written != [(r.name, r.process) for r in ROWS]:
            problems.append('the rows are not those of docs/protocol.md: ' + ', '.join(sorted(
                {n for n, _ in written} ^ {r.name for r in ROWS})))
        for problem in problems:
            print(f'problem: {problem}')
        count = collections.Counter(c.verdict for c in self.cells)
        passed = {c.row.name for c in self.cells if c.verdict in ('ok', 'violation')}
        print(f'sweep: rows={len({c.row.name for c in self.cells})} points={len(passed)} '
              f'cells={len(self.cells)} na={count["n/a"]} empty={count["empty"] + count[None]} '
              f'violations={count["violation"]}', flush=True)
        return 1 if problems else 0


def main():
    arguments = sys.argv[1:]
    options = parser().parse_args(arguments)
    if options.list:
        for row in ROWS:
            na = ', '.join(f'{a}: {r}' for a, r in row.reasons.items() if r)
            print(f'{row.name:26} {row.process:12} {row.when:8} {"n/a: " + na if na else ""}')
        return 0
    unknown = ({r for r in options.rows.split(',') if r} - {r.name for r in ROWS}
               | set(options.actions.split(',')) - set(ACTIONS))
    if unknown:
        print(f'sweep: there is no {", ".join(sorted(unknown))}; see --list and --help',
              file=sys.stderr)
        return 2
    if not options.bin:          # The launcher only asks whether the arguments are good.
        return 0
    reason = database.missing()
    if reason:
        print(f'sweep: {reason}', file=sys.stderr)
        return 2
    isolation.enter('harness.sweep', arguments)
    return Sweep(options).run()


if __name__ == '__main__':
    sys.exit(main())
