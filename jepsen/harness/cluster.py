"""The cluster under test: a coordinator, participants with a PostgreSQL server each, clients;
every one on a node of its own.  Knows how they are started, not what is done to them.
"""

import json
import pathlib
import shlex
import shutil
import subprocess
import tempfile
import threading
import time

from .clients import Client
from .database import PORT, Database
from .disk import Disk
from .isolation import run
from .network import Network
from .process import Process

CLIENT_PORT, PEER_PORT, ADMIN_PORT = 7711, 7712, 7713
WORK_PORT, BRANCH_PEER_PORT = 7721, 7722
PROXY_PORT = 5433
ACCOUNTS, BALANCE = 16, 100    # In each database.


class Options:
    """What a cluster is made of.  `disks`: names whose data gets a disk of its own (the
    coordinator's `c`, servers' `d1`...).  `proxied`: participants that reach their server
    through a proxy.  `standbys`: participants whose server has a synchronous standby.  `preload`:
    a library by which processes take their wall clock's offset from a file
    (`Cluster.clock_files`).  `participant`: a command line with {name}, {host}, {port},
    {peer_port}, {conninfo}, {coordinators}, {port_file}, instead of troth-jepsen-branch."""

    def __init__(self, bin_dir, logs, participants=3, clients=2, disks=(), proxied=(), standbys=(),
                 coordinator_flags=(), participant_flags=(), preload=None, participant=None):
        self.bin = pathlib.Path(bin_dir).resolve()
        self.logs = pathlib.Path(logs)
        self.participants = participants
        self.clients = clients
        self.disks = set(disks)
        self.proxied = set(proxied)
        self.standbys = set(standbys)
        self.coordinator_flags = list(coordinator_flags)
        self.participant_flags = list(participant_flags)
        self.preload = preload
        self.participant = participant


class Cluster:
    """Started by `start`, ended by `stop`, also after a failure of start."""

    def __init__(self, options):
        self.options = options
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix='troth-jepsen-', dir='/tmp'))
        self.directory.chmod(0o755)
        self.network = Network()
        self.disks = {}
        self.coordinator = None
        self.coordinator_id = None
        self.participants = {}    # name -> Process
        self.databases = {}       # participant's name -> Database
        self.standbys = {}        # participant's name -> Database, until it is promoted
        self.retired = []         # Servers that were failed over from
        self.clients = []
        self.proxies = {}         # participant's name -> Process
        self.clock_files = {}

    # Life -------------------------------------------------------------------------------

    def start(self):
        add, count = self.network.add, self.options.participants
        c = add('c', '10.77.0.1')
        for i in range(1, count + 1):
            add(f'p{i}', f'10.77.1.{i}')
            add(f'd{i}', f'10.77.2.{i}')
            if f'p{i}' in self.options.standbys:
                add(f's{i}', f'10.77.4.{i}')
        for i in range(1, self.options.clients + 1):
            add(f'k{i}', f'10.77.3.{i}')
        self._make_databases()
        self._make_coordinator(c)
        for i in range(1, count + 1):
            self._make_participant(f'p{i}')
        for participant in self.participants.values():
            participant.launch()
        for participant in self.participants.values():
            if not participant.wait_ready():
                raise RuntimeError(f'{participant.name} did not start:\n'
                                   f'{participant.last_words()}')
        for i in range(1, self.options.clients + 1):
            self.clients.append(Client(f'k{i}', self.network.nodes[f'k{i}'],
                                       [self._program('troth-jepsen-client'),
                                        f'--coordinators={c.address}:{CLIENT_PORT}'],
                                       self.options.logs / f'k{i}.log'))

    def stop(self):
        """Ends every process by its pid, and removes all data."""
        for process in self.processes():
            process.wanted = False
        self.network.heal()
        for client in self.clients:
            client.kill()
        for process in self.processes():
            if process.pid is not None:
                process.resume()
                process.kill()
        for database in {*self.databases.values(), *self.standbys.values(), *self.retired}:
            try:
                database.stop('immediate')
            except OSError:
                pass
            shutil.copy(database.cluster.log, self.options.logs / f'{database.name}.log')
        for disk in self.disks.values():
            try:
                disk.unmount()
            except RuntimeError:
                pass              # It goes with the namespace.
        shutil.rmtree(self.directory, ignore_errors=True)

    def processes(self):
        """Those that a supervisor keeps running."""
        return [p for p in (self.coordinator, *self.participants.values(), *self.proxies.values())
                if p is not None]

    def points(self, name):
        """Where failpoints of this process are switched (points.py)."""
        return str(self.directory / f'{name}.points')

    def names(self):
        return sorted(self.participants)

    # Parts ------------------------------------------------------------------------------

    def _program(self, name):
        return str(self.options.bin / name)

    def _place(self, name, megabytes):
        """The directory where `name` keeps its data."""
        place = self.directory / name
        if name in self.options.disks:
            self.disks[name] = Disk(self.directory / f'{name}.image', place, megabytes)
        else:
            place.mkdir()
        place.chmod(0o755)
        return place

    def _make_databases(self):
        errors = []

        def make(database):
            try:
                database.create()
                done = self._init(database)
                if done:
                    errors.append(done)
                self._make_standby(database)
                if database.name in self.disks:
                    run('sync', '-f', self.disks[database.name].path)  # initdb did not.
            except Exception as error:  # pylint: disable=broad-except
                errors.append(f'{database.name}: {error}')

        threads = []
        for i in range(1, self.options.participants + 1):
            node = self.network.nodes[f'd{i}']
            database = Database(node.name, node, self._place(node.name, 400) / 'postgres')
            self.databases[f'p{i}'] = database
            threads.append(threading.Thread(target=make, args=(database,)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise RuntimeError('; '.join(errors))

    def _make_standby(self, database):
        participant = 'p' + database.name[1:]
        if participant in self.options.standbys:
            name = 's' + database.name[1:]
            self.standbys[participant] = database.make_standby(
                name, self.network.nodes[name], self._place(name, 400) / 'postgres')

    def fail_over(self, participant):
        """Promotes the standby of a server that is dead; it is the participant's from now on."""
        standby = self.standbys.pop(participant)
        standby.query('SELECT pg_promote(true, 60)', seconds=70)
        self.retired.append(self.databases[participant])
        self.databases[participant] = standby

    def rebind(self, participant, seconds=10):
        """As an operator does after a failover: the name may be bound to another address."""
        end = time.monotonic() + seconds
        while True:
            done = self._trothctl('participants', 'rebind', participant)
            if done.returncode == 0 or time.monotonic() > end:
                return done.returncode == 0
            time.sleep(0.1)

    def _trothctl(self, *words):
        return subprocess.run(self.coordinator.node.command(
            self._program('trothctl'), f'--coordinator={self.coordinator.node.address}:{ADMIN_PORT}',
            *words), capture_output=True, text=True, check=False)

    def owed(self, seconds=10):
        """Decided transactions that a participant has not acknowledged, when nobody commits any
        more: waits for none so long.  In words, None when there are none."""
        end = time.monotonic() + seconds
        while True:
            done = self._trothctl('status', '--json')
            left = json.loads(done.stdout)['unacknowledged'] if done.returncode == 0 else None
            if left == 0:
                return None
            if time.monotonic() > end:
                return (f'{left} decided transactions stay unacknowledged' if left is not None
                        else f'the coordinator tells no status: {done.stderr.strip()}')
            time.sleep(0.1)

    def _init(self, database):
        """Makes the tables; returns what went wrong."""
        init = Process(f'{database.name}-init', database.node,
                       [self._program('troth-jepsen-branch'), '--init',
                        f'--conninfo={database.conninfo()}', f'--accounts={ACCOUNTS}',
                        f'--balance={BALANCE}'],
                       self.options.logs / f'{database.name}-init.log')
        init.launch()
        code = init._popen.wait()  # pylint: disable=protected-access
        return None if code == 0 else f'{init.name}: {init.last_words()}'

    def _environment(self, name):
        environment = {'TROTH_FAILPOINT_CONTROL': self.points(name)}
        if self.options.preload:
            self.clock_files[name] = self.directory / f'{name}.clock'
            self.clock_files[name].write_text('+0\n', encoding='utf-8')
            environment.update({'LD_PRELOAD': self.options.preload, 'FAKETIME_NO_CACHE': '1',
                                'FAKETIME_TIMESTAMP_FILE': str(self.clock_files[name]),
                                'FAKETIME_DONT_FAKE_MONOTONIC': '1'})
        return environment

    def _make_coordinator(self, node):
        wal = self._place('c', 256) / 'wal'
        program = self._program('troth-coordinator')
        init = Process('c-init', node, [program, '--init', f'--wal_dir={wal}', '--name=jepsen'],
                       self.options.logs / 'c-init.log')
        init.launch()
        if init._popen.wait() != 0:  # pylint: disable=protected-access
            raise RuntimeError(f'the log could not be made:\n{init.last_words()}')
        port_file = str(self.directory / 'c.ports')
        self.wal = wal
        self.coordinator = Process(
            'c', node, [program, f'--wal_dir={wal}', f'--host={node.address}', '--allow_plain_text',
                        f'--client_port={CLIENT_PORT}', f'--peer_port={PEER_PORT}',
                        f'--admin_port={ADMIN_PORT}', f'--port_file={port_file}', '--enable_failpoints',
                        *self.options.coordinator_flags],
            self.options.logs / 'c.log', port_file, self._environment('c'))
        self.coordinator.start()
        self.coordinator_id = self.coordinator.ports()['coordinator']

    def _make_participant(self, name):
        node, database = self.network.nodes[name], self.databases[name]
        conninfo = database.conninfo()
        if name in self.standbys:
            hosts = f'{database.node.address},{self.standbys[name].node.address}'
            conninfo = database.conninfo(hosts, f'{PORT},{PORT}') \
                + ' target_session_attrs=read-write connect_timeout=2'
        if name in self.options.proxied:
            conninfo = self._make_proxy(name) + ' sslmode=disable gssencmode=disable'
        port_file = str(self.directory / f'{name}.ports')
        values = {'name': name, 'host': node.address, 'port': WORK_PORT,
                  'peer_port': BRANCH_PEER_PORT, 'conninfo': conninfo, 'port_file': port_file,
                  'coordinators': f'{self.network.nodes["c"].address}:{PEER_PORT}'}
        if self.options.participant:
            argv = [word.format(**values) for word in shlex.split(self.options.participant)]
        else:
            argv = [self._program('troth-jepsen-branch'), '--enable_failpoints',
                    *(f'--{flag}={value}' for flag, value in values.items())]
        self.participants[name] = Process(name, node, argv + self.options.participant_flags,
                                          self.options.logs / f'{name}.log', port_file,
                                          self._environment(name), refusal=1)

    def _make_proxy(self, name):
        database = self.databases[name]
        control = self.directory / f'{name}.proxy'
        proxy = Process(f'{name}-proxy', database.node,
                        ['/usr/bin/python3', '-m', 'harness.proxy',
                         f'--listen={database.node.address}:{PROXY_PORT}',
                         f'--to={database.node.address}:{PORT}', f'--control={control}'],
                        self.options.logs / f'{name}-proxy.log', str(control),
                        {'PYTHONPATH': str(pathlib.Path(__file__).resolve().parents[1]),
                         'PYTHONDONTWRITEBYTECODE': '1'})
        self.proxies[name] = proxy.start()
        return database.conninfo(port=PROXY_PORT)
