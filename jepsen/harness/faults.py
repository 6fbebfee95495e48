"""The faults, one class each: what is done, to whom, and how it is undone.  Knows no workload.

A fault begins and ends; both return what is written into the history.  `needs` says what the
cluster must be made of for it; `missing` says why this machine can't do it.
"""

import os
import random as randoms
import signal

from . import database, network
from .clients import Client


class Fault:
    """One injection.  `targets` are the names it disturbs: no other fault takes them meanwhile.
    `choose` picks them (False: nothing to do now).  `settle` is the time to wait after it
    before the next on the same target."""

    name = None
    seconds = (1.0, 4.0)
    disks = ''                # Whose data needs a disk of its own: `c`, and `d` for all servers.
    needs_proxy = False
    needs_standby = False
    happened = True           # False: end() saw that it had no effect.
    problem = None            # What the fault itself found wrong, in words.

    def __init__(self, cluster, driver, random=randoms):
        self.cluster = cluster
        self.driver = driver
        self.random = random
        self.targets = set()

    @classmethod
    def missing(cls, options):  # pylint: disable=unused-argument
        """Why it can't be injected here, or None."""
        return None

    @classmethod
    def disks_for(cls, participants):
        """Names of the disks it needs in a cluster of so many participants."""
        servers = [f'd{i + 1}' for i in range(participants)] if 'd' in cls.disks else []
        return servers + (['c'] if 'c' in cls.disks else [])

    @classmethod
    def preload(cls):
        """A library that every process must be started with for it, or None."""
        return None

    def choose(self, busy):
        raise NotImplementedError

    def begin(self):
        """Injects it; returns a value for the history, None when nothing came of it."""
        raise NotImplementedError

    def end(self):
        """Heals it; returns a value for the history."""
        return None

    def pick(self, names, busy):
        """One of the names that is not busy, as the only target; None when all are."""
        free = sorted(set(names) - busy)
        if not free:
            return None
        chosen = self.random.choice(free)
        self.targets = {chosen}
        return chosen


class ProcessFault(Fault):
    """Of the coordinator (as often as of all others together) or a participant."""

    process = None

    def choose(self, busy):
        names = ['c'] if self.random.random() < 0.5 else self.cluster.names()
        chosen = self.pick(names, busy) or self.pick(['c', *self.cluster.names()], busy)
        if chosen is None:
            return False
        self.process = self.cluster.coordinator if chosen == 'c' \
            else self.cluster.participants[chosen]
        return self.process.ready


class Kill(ProcessFault):
    """SIGKILL to the coordinator or a participant; started again after a while."""

    name = 'kill'
    seconds = (0.0, 3.0)

    def begin(self):
        self.process.kill()
        return {':target': self.process.name}

    def end(self):
        self.process.launch()
        ready = self.process.wait_ready(15)
        return {':target': self.process.name, ':ready': ready}


class Pause(ProcessFault):
    """SIGSTOP to the coordinator or a participant, SIGCONT after a while."""

    name = 'pause'
    seconds = (0.5, 6.0)

    def begin(self):
        self.process.pause()
        return {':target': self.process.name}

    def end(self):
        self.process.resume()
        return {':target': self.process.name}


class KillClient(Fault):
    """SIGKILL to a client process: its transactions are left as they stand."""

    name = 'kill-client'
    seconds = (0.0, 1.0)
    client: Client = None

    def choose(self, busy):
        chosen = self.pick([c.name for c in self.cluster.clients], busy)
        self.client = next((c for c in self.cluster.clients if c.name == chosen), None)
        return chosen is not None

    def begin(self):
        self.client.signal(9)
        return {':target': self.client.name}


# --- The network.

class NetworkFault(Fault):
    """Has the network to itself."""

    rules = ()

    def choose(self, busy):
        self.targets = {'network'}
        return 'network' not in busy

    def end(self):
        self.cluster.network.remove(self.rules)
        return None

    def nodes(self):
        return sorted(self.cluster.network.nodes.values(), key=lambda node: node.name)


class Partition(NetworkFault):
    """A partition of any shape."""

    name = 'partition'
    seconds = (1.0, 6.0)
    shapes = ('one', 'halves', 'ring', 'asymmetric', 'link')

    @classmethod
    def missing(cls, options):
        return network.can_filter('-j', 'DROP')

    def begin(self):
        shape = self.random.choice(self.shapes)
        self.rules, words = getattr(self, '_' + shape)()
        return {':shape': ':' + shape, **words}

    def _one(self):
        """One node hears nobody, and nobody hears it."""
        nodes = self.nodes()
        alone = self.random.choice(nodes)
        rules = [rule for node in nodes if node is not alone
                 for rule in self.cluster.network.cut(alone, node)]
        return rules, {':alone': alone.name}

    def _halves(self):
        """Two halves that don't hear each other."""
        nodes = self.nodes()
        self.random.shuffle(nodes)
        left, right = nodes[:len(nodes) // 2], nodes[len(nodes) // 2:]
        rules = [rule for a in left for b in right for rule in self.cluster.network.cut(a, b)]
        return rules, {':left': sorted(n.name for n in left), ':right': sorted(n.name for n in right)}

    def _ring(self):
        """Nodes in a circle, each of which hears its neighbours only."""
        nodes = self.nodes()
        self.random.shuffle(nodes)
        count, reach, rules = len(nodes), max(1, len(nodes) // 4), []
        for i, one in enumerate(nodes):
            for j in range(i + 1, count):
                if min(j - i, count - (j - i)) > reach:
                    rules += self.cluster.network.cut(one, nodes[j])
        return rules, {':ring': [n.name for n in nodes]}

    def _asymmetric(self):
        """One node is not heard, but hears all others; or the other way round."""
        nodes = self.nodes()
        one = self.random.choice(nodes)
        deaf = self.random.random() < 0.5
        rules = [rule for node in nodes if node is not one
                 for rule in (self.cluster.network.drop(node, one) if deaf
                              else self.cluster.network.drop(one, node))]
        return rules, {':deaf' if deaf else ':mute': one.name}

    def _link(self):
        """One link that is in use: coordinator to participant, or participant to server."""
        nodes, name = self.cluster.network.nodes, self.random.choice(self.cluster.names())
        one = nodes[name]
        other = nodes['c'] if self.random.random() < 0.5 \
            else self.cluster.databases[name].node
        return self.cluster.network.cut(one, other), {':link': [one.name, other.name]}


def _shape(shape_name):
    class Shaped(Partition):
        name = f'partition-{shape_name}'
        shapes = (shape_name,)
    Shaped._shape = shape_name
    Shaped.__doc__ = getattr(Partition, '_' + shape_name).__doc__
    Shaped.__name__ = 'Partition' + shape_name.capitalize()
    return Shaped


class Reset(NetworkFault):
    """Every connection of one node is broken at once."""

    name = 'reset'
    seconds = (0.0, 0.1)

    @classmethod
    def missing(cls, options):
        return network.can_reset()

    def begin(self):
        node = self.random.choice(self.nodes())
        broken = self.cluster.network.reset(node)
        return {':target': node.name, ':connections': broken} if broken else None


class Loss(NetworkFault):
    """Of the packets that arrive at some nodes, a tenth to a third is lost."""

    name = 'loss'
    seconds = (2.0, 6.0)

    @classmethod
    def missing(cls, options):
        return network.can_filter('-m', 'statistic', '--mode', 'random', '--probability', '0.5',
                                  '-j', 'DROP')

    def begin(self):
        nodes = self.nodes()
        chosen = self.random.sample(nodes, self.random.randint(1, len(nodes)))
        probability = self.random.uniform(0.1, 0.33)
        self.rules = [rule for node in chosen
                      for rule in self.cluster.network.lose(node, probability)]
        return {':targets': sorted(n.name for n in chosen), ':probability': round(probability, 2)}


class Delay(NetworkFault):
    """Packets that arrive at a node are held, each for another time, and overtake each other."""

    name = 'delay'
    seconds = (2.0, 6.0)
    holder = None

    @classmethod
    def missing(cls, options):
        if not (options.bin / 'troth-jepsen-delay').exists():
            return 'troth-jepsen-delay was not built: libnetfilter-queue-dev is missing'
        return network.can_filter('-j', 'NFQUEUE', '--queue-num', '9')

    def begin(self):
        from .process import Process  # pylint: disable=import-outside-toplevel
        node = self.random.choice(self.nodes())
        delay, jitter = self.random.randint(5, 80), self.random.randint(0, 60)
        options = self.cluster.options
        self.holder = Process('delay', node, [
            options.bin / 'troth-jepsen-delay', '--queue=9', f'--delay_ms={delay}',
            f'--jitter_ms={jitter}', f'--seed={self.random.randrange(1 << 30)}'],
            options.logs / 'delay.log')
        self.holder.launch()
        self.rules = self.cluster.network.queue(node, 9)
        return {':target': node.name, ':delay-ms': delay, ':jitter-ms': jitter}

    def end(self):
        self.happened = self.holder.alive   # Else the packets were lost.
        super().end()
        self.holder.kill()
        return {':held': self.happened}


# --- PostgreSQL.

class DatabaseFault(Fault):
    """Of one PostgreSQL server."""

    database = None

    def choose(self, busy):
        by_name = {d.name: d for d in self.cluster.databases.values() if self.fits(d)}
        chosen = self.pick(by_name, busy)
        self.database = by_name.get(chosen)
        return self.database is not None and self.database.up

    def fits(self, database):  # pylint: disable=unused-argument
        """Whether this fault can be made at it."""
        return True


class KillPostgres(DatabaseFault):
    """SIGKILL to all processes of a PostgreSQL server; started again after a while."""

    name = 'kill-postgres'
    seconds = (0.0, 3.0)

    def begin(self):
        self.database.kill()
        return {':target': self.database.name}

    def end(self):
        self.database.start()
        return {':target': self.database.name}


class RestartPostgres(DatabaseFault):
    """A PostgreSQL server is restarted, fast or immediate."""

    name = 'restart-postgres'
    seconds = (0.0, 1.0)

    def begin(self):
        mode = self.random.choice(('fast', 'immediate'))
        self.database.stop(mode)
        return {':target': self.database.name, ':mode': ':' + mode}

    def end(self):
        self.database.start()
        return {':target': self.database.name}


class PausePostgres(DatabaseFault):
    """SIGSTOP to all processes of a PostgreSQL server."""

    name = 'pause-postgres'
    seconds = (0.5, 5.0)
    pids = ()

    def begin(self):
        self.pids = self.database.pause()
        return {':target': self.database.name}

    def end(self):
        self.database.resume(self.pids)
        return {':target': self.database.name}


class KillBackend(DatabaseFault):
    """One backend is ended: by pg_terminate_backend, or by SIGKILL, after which PostgreSQL
    restarts itself."""

    name = 'kill-backend'
    seconds = (0.0, 0.5)

    def begin(self):
        try:
            backends = self.database.backends()
            busy = [b for b in backends if b[2] != 'idle'] or backends
            if not busy:
                return None
            pid, query, state = self.random.choice(busy)
            hard = self.random.random() < 0.3
            if hard and pid in self.database.cluster.children():
                os.kill(pid, signal.SIGKILL)
            else:
                self.database.query('SELECT pg_terminate_backend(%s)', (pid,))
        except database.QueryError:
            return None           # It is still recovering from the one before.
        return {':target': self.database.name, ':hard': hard, ':state': state or '',
                ':query': (query or '')[:60]}


class Failover(DatabaseFault):
    """A PostgreSQL server dies for good, its synchronous standby is promoted, and an operator
    binds the participant's name to the new address."""

    name = 'failover'
    seconds = (0.0, 2.0)
    needs_standby = True
    participant = None

    def choose(self, busy):
        by_name = {self.cluster.databases[p].name: p for p in self.cluster.standbys}
        self.participant = by_name.get(self.pick(by_name, busy))
        if self.participant is None:
            return False
        self.database = self.cluster.databases[self.participant]
        return self.database.up

    def begin(self):
        self.database.kill()
        return {':target': self.database.name}

    def end(self):
        self.cluster.fail_over(self.participant)
        if not self.cluster.rebind(self.participant):
            self.problem = f'trothctl could not rebind {self.participant}'
        return {':target': self.participant, ':now': self.cluster.databases[self.participant].name}


FAULTS = (Kill, Pause, KillClient, Partition, *map(_shape, Partition.shapes), Reset, Loss, Delay,
          KillPostgres, RestartPostgres, PausePostgres, KillBackend, Failover)
