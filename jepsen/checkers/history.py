"""Histories: what clients asked, when, and what they were told.

Reads and writes Jepsen's form: one EDN map a line (or one vector of maps), as
jepsen/README.md describes.  Knows no workload.  A `Call` is an invocation with
its completion; where the completion is missing the outcome is unknown, as with
:info.  Order is the order of lines; times are only used where seconds matter.
"""

import os

from . import edn

TYPES = ('invoke', 'ok', 'fail', 'info')
SECOND = 1_000_000_000


class HistoryError(ValueError):
    """The input can't be judged: malformed, or what a checker needs is missing."""


class Op:
    """One line of a history.  `type` and `f` come without their colons."""

    __slots__ = ('index', 'time', 'type', 'process', 'f', 'value', 'error', 'position')

    def __init__(self, type, process, f, value=None, time=None, index=None,
                 error=None, position=None):
        self.type = type
        self.process = process
        self.f = f
        self.value = value
        self.time = time
        self.index = index
        self.error = error
        self.position = position  # Its place in the history, from 0.

    def __repr__(self):
        return f'Op({self.index}, {self.type}, {self.process}, {self.f}, {self.value!r})'


class Call:
    """An invocation and its completion (None when there was none)."""

    __slots__ = ('invoke', 'completion', 'type', 'value', 'f', 'process', 'begin', 'end')

    def __init__(self, invoke, completion):
        self.invoke = invoke
        self.completion = completion
        self.type = completion.type if completion else 'info'
        value = completion.value if completion else None
        self.value = invoke.value if value is None else value
        self.f = invoke.f
        self.process = invoke.process
        self.begin = invoke.position
        self.end = completion.position if completion else None

    def name(self):
        """How messages call it: by the index of its last line."""
        op = self.completion or self.invoke
        return f'op {op.index}'


def word(value):
    """A keyword without its colon; anything else as text."""
    text = value if isinstance(value, str) else str(value)
    return text[1:] if text.startswith(':') else text


def field(call, name, default=None):
    """`:name` of a call's map; HistoryError without it, unless there is a default."""
    value = call.value
    if not isinstance(value, dict):
        raise HistoryError(f'{call.name()} ({call.f}): :value must be a map, '
                           f'not {edn.write(value)}'[:200])
    found = value.get(':' + name, default)
    if found is None and default is None:
        raise HistoryError(f'{call.name()} ({call.f}): :value has no :{name}')
    return found


def finals(history, f, name='participant'):
    """Of the :ok calls of `f`, the last for each participant: {participant: call}."""
    return {word(field(call, name)): call
            for call in sorted((c for c in history.calls(f) if c.type == 'ok'),
                               key=lambda c: c.end)}


def by_id(calls):
    """Calls by their transaction's :id; one without an id was never begun.

    The id may be drawn after the invocation: the completion's counts.  Two calls of
    one id are refused: a retry of a commit is one call.
    """
    found = {}
    for call in calls:
        if not isinstance(call.value, dict):
            raise HistoryError(f'{call.name()} ({call.f}): :value must be a map')
        id_ = call.value.get(':id')
        if id_ is None:
            if call.type == 'ok':
                raise HistoryError(f'{call.name()} ({call.f}): :ok without an :id')
            continue
        if word(id_) in found:
            raise HistoryError(f'{call.name()}: the id {word(id_)} was used before, '
                               f'by {found[word(id_)].name()}')
        found[word(id_)] = call
    return found


def _op(raw, position):
    if not isinstance(raw, dict):
        raise HistoryError(f'entry {position + 1} is not a map: {raw!r}'[:200])
    type_ = word(raw.get(':type'))
    if type_ not in TYPES:
        raise HistoryError(f'entry {position + 1}: :type is {raw.get(":type")!r}, '
                           'not one of :invoke :ok :fail :info')
    process = raw.get(':process')
    if process is None:
        raise HistoryError(f'entry {position + 1} has no :process')
    index = raw.get(':index')
    f = raw.get(':f')
    return Op(type_, process, None if f is None else word(f), raw.get(':value'),
              raw.get(':time'), position if index is None else index,
              raw.get(':error'), position)


class History:
    """All operations in order, and the clients' among them as calls."""

    def __init__(self, ops):
        self.ops = list(ops)
        for position, op in enumerate(self.ops):
            op.position = position
            if op.index is None:
                op.index = position
        self._calls = None

    def calls(self, *names):
        """Clients' calls in order of invocation, of these :f if any are named."""
        if self._calls is None:
            self._calls = self._pair()
        if not names:
            return self._calls
        return [call for call in self._calls if call.f in names]

    def _pair(self):
        calls, open_, invokes = [], {}, []
        for op in self.ops:
            if type(op.process) is not int:
                continue
            if op.type == 'invoke':
                if op.process in open_:
                    raise HistoryError(
                        f'process {op.process} invokes at index {op.index} while its '
                        f'operation of index {open_[op.process].index} is open')
                open_[op.process] = op
                invokes.append(op)
            else:
                invoke = open_.pop(op.process, None)
                if invoke is None:
                    raise HistoryError(f'index {op.index}: a completion of process '
                                       f'{op.process}, which had invoked nothing')
                calls.append(Call(invoke, op))
        calls.extend(Call(op, None) for op in open_.values())
        calls.sort(key=lambda call: call.begin)
        return calls

    def faults(self):
        """Operations of processes that are no clients: faults, and their end."""
        return [op for op in self.ops if type(op.process) is not int]

    def quiet_windows(self):
        """[(begin, end)] in ns: from each :healed to the next fault, or the end.

        Raises HistoryError when nothing was marked as healed, or without times.
        """
        windows, begin = [], None
        for op in self.faults():
            if op.f == 'healed' and op.type == 'info':
                if op.time is None:
                    raise HistoryError(f'index {op.index}: :healed without a :time')
                begin = op.time if begin is None else begin
            elif begin is not None:
                windows.append((begin, op.time))
                begin = None
        if begin is not None:
            windows.append((begin, max((op.time or 0) for op in self.ops)))
        if not windows:
            raise HistoryError('no {:process :nemesis, :type :info, :f :healed} in it: '
                               'nothing can be said of the time after healing')
        return windows


def parse(text):
    """A History from its text.  Raises HistoryError."""
    body = text.strip()
    if body.startswith('[') and body.endswith(']'):
        body = body[1:-1]
    try:
        raw = edn.read_all(body)
    except edn.EdnError as error:
        raise HistoryError(f'not EDN: {error}') from error
    if not raw:
        raise HistoryError('the history is empty')
    return History([_op(value, position) for position, value in enumerate(raw)])


def read(path):
    """A History from a file, or from history.edn in a directory."""
    if os.path.isdir(path):
        path = os.path.join(path, 'history.edn')
    try:
        with open(path, encoding='utf-8') as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise HistoryError(f'can\'t read {path}: {reason}') from error
    return parse(text)


class HistoryWriter:
    """Appends operations to a file as they happen, numbered from 0.

    Not synchronised: the caller serialises, since the order of lines is the
    order of events.  Each line is flushed to the kernel, so that a killed
    harness loses nothing; it is not synced.
    """

    def __init__(self, file, clock):
        """`clock()` gives ns since the start of the test."""
        self._file = file
        self._clock = clock
        self._index = 0
        self._open = set()

    def _write(self, type_, process, f, value, error):
        fields = [f':index {self._index}', f':time {int(self._clock())}',
                  f':type :{type_}', f':process {edn.write(process)}', f':f :{f}',
                  f':value {edn.write(value)}']
        if error is not None:
            fields.append(f':error {edn.write(error)}')
        self._file.write('{' + ', '.join(fields) + '}\n')
        self._file.flush()
        self._index += 1

    def invoke(self, process, f, value):
        """A client asks.  A process has one operation open at a time."""
        assert process not in self._open, f'process {process} has an operation open'
        self._open.add(process)
        self._write('invoke', process, f, value, None)

    def complete(self, type_, process, f, value, error=None):
        """The answer: ok, fail (surely not done) or info (nobody knows).

        After info the process number is spent: go on under a fresh one.
        """
        assert type_ in ('ok', 'fail', 'info'), type_
        assert process in self._open, f'process {process} has no operation open'
        if type_ != 'info':
            self._open.remove(process)
        self._write(type_, process, f, value, error)

    def fault(self, f, value=None):
        """What the nemesis does; f is 'healed' when all faults are over."""
        self._write('info', ':nemesis', f, value, None)
