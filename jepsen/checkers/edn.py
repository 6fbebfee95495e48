"""EDN in and out: just what histories need, as plain Python values.

Knows nothing of operations or histories.  Vectors and lists become lists, maps
dicts, sets frozensets, nil None; a keyword is the string ":name", colon
included, so a string that itself begins with a colon can't be told from one.
A tag (#inst, #jepsen.history.Op) is dropped and its value kept.

There are two readers that give the same values: a slow one for all of EDN, and
a fast one that rewrites plain text (no strings, sets, tags or comments) to JSON
and lets Python's C parser do the work.  `read_all` takes the fast one where it
can; see jepsen/README.md.
"""

import json
import re

_TOKEN = re.compile(
    r'[\s,]+|;[^\n]*'
    r'|(?P<str>"(?:[^"\\]|\\.)*")'
    r'|(?P<open>#\{|[\[({])|(?P<close>[\])}])'
    r'|(?P<discard>#_)|(?P<special>##\w+)|(?P<tag>#[^\s,\[\](){}";]*)|(?P<meta>\^)'
    r'|(?P<char>\\(?:newline|return|space|tab|formfeed|backspace|u[0-9a-fA-F]{4}|.))'
    r'|(?P<atom>[^\s,\[\](){}"^;\\]+)', re.S)

_INTEGER = re.compile(r'[+-]?\d+N?\Z')
_FLOAT = re.compile(r'[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?M?\Z')
_RATIO = re.compile(r'[+-]?\d+/\d+\Z')
_ESCAPE = re.compile(r'\\(u[0-9a-fA-F]{4}|[0-7]{1,3}|.)', re.S)
_ESCAPES = {'n': '\n', 't': '\t', 'r': '\r', 'b': '\b', 'f': '\f',
            '"': '"', '\\': '\\', '/': '/'}
_CHARS = {'newline': '\n', 'return': '\r', 'space': ' ', 'tab': '\t',
          'formfeed': '\f', 'backspace': '\b'}
_SPECIAL = {'##Inf': float('inf'), '##-Inf': float('-inf'), '##NaN': float('nan')}
_CLOSES = {'[': ']', '(': ')', '{': '}', '#{': '}'}
_WORDS = {'nil': None, 'true': True, 'false': False}


class EdnError(ValueError):
    """The text is not EDN; `line` counts from 1 within the text given."""

    def __init__(self, message, line=1):
        super().__init__(f'line {line}: {message}')
        self.message = message
        self.line = line


def freeze(value):
    """The same value, hashable: lists become tuples, dicts sorted pairs."""
    if isinstance(value, (list, tuple)):
        return tuple(freeze(v) for v in value)
    if isinstance(value, dict):
        return tuple(sorted(((freeze(k), freeze(v)) for k, v in value.items()),
                            key=repr))
    return value


def _unescape(match):
    body = match.group(1)
    if body[0] == 'u' and len(body) == 5:
        return chr(int(body[1:], 16))
    if body.isdigit():
        return chr(int(body, 8))
    return _ESCAPES.get(body, body)


def _atom(text):
    if text in _WORDS:
        return _WORDS[text]
    if text[0] == ':':
        return text
    if text[0] in '+-0123456789':
        if _INTEGER.match(text):
            return int(text.rstrip('N'))
        if _FLOAT.match(text):
            return float(text.rstrip('M'))
        if _RATIO.match(text):
            above, below = text.split('/')
            return int(above) / int(below)
    return text


def _build(opener, items, line):
    if opener in '[(':
        return items
    if opener == '#{':
        return frozenset(freeze(item) for item in items)
    if len(items) % 2:
        raise EdnError('a map with a key and no value', line)
    return {freeze(items[i]): items[i + 1] for i in range(0, len(items), 2)}


class _Stack:
    """Open collections and prefixes (#tag, #_, ^meta), innermost last."""

    def __init__(self):
        self.top = []
        self.frames = []  # (opener, items, line)

    def push(self, opener, line):
        self.frames.append((opener, [], line))

    def add(self, value):
        """Hands a finished value to whatever waits for it."""
        while self.frames:
            opener, items, _ = self.frames[-1]
            if opener == 'tag':
                self.frames.pop()
            elif opener == 'discard':
                self.frames.pop()
                return
            elif opener == 'meta':
                items.append(value)
                if len(items) == 1:
                    return
                self.frames.pop()
            else:
                items.append(value)
                return
        self.top.append(value)

    def close(self, closer, line):
        if not self.frames or _CLOSES.get(self.frames[-1][0]) != closer:
            raise EdnError(f'unexpected "{closer}"', line)
        opener, items, start = self.frames.pop()
        self.add(_build(opener, items, start))


def read_slow(text):
    """Every value in `text`, all of EDN.  Raises EdnError."""
    stack = _Stack()
    position, line, end = 0, 1, len(text)
    while position < end:
        match = _TOKEN.match(text, position)
        if not match:
            raise EdnError(f'can\'t read {text[position:position + 20]!r}', line)
        kind, token = match.lastgroup, match.group()
        if kind == 'atom':
            stack.add(_atom(token))
        elif kind == 'open':
            stack.push(token, line)
        elif kind == 'close':
            stack.close(token, line)
        elif kind == 'str':
            body = token[1:-1]
            stack.add(_ESCAPE.sub(_unescape, body) if '\\' in body else body)
        elif kind == 'char':
            name = token[1:]
            stack.add(chr(int(name[1:], 16)) if len(name) == 5 and name[0] == 'u'
                      else _CHARS.get(name, name))
        elif kind == 'special':
            if token not in _SPECIAL:
                raise EdnError(f'unknown {token}', line)
            stack.add(_SPECIAL[token])
        elif kind in ('tag', 'discard', 'meta'):
            stack.push(kind, line)
        line += token.count('\n')
        position = match.end()
    if stack.frames:
        raise EdnError('it ends inside a value that began here', stack.frames[-1][2])
    return stack.top


# --- The fast reader.  A map travels through JSON as a list that starts with a
# mark: a control character while the text is rewritten, then a string with a
# backslash, which no plain text contains.
_MARK = '\x01'
_MAP = '\\m'
_NOT_PLAIN = re.compile(r'["#\\;^()]')
_KEYWORD = re.compile(r':[^,\[\]]+')
_NIL = re.compile(r'(?<=[,\[])nil(?=[,\]])')
_COMMAS = re.compile(r',,+')
_TO_COMMA = str.maketrans('\t\r\n ', ',,,,')


def _rebuild(value):
    """Turns marked lists back into maps, at any depth."""
    if not isinstance(value, list):
        return value
    if value and value[0] == _MAP:
        items = [_rebuild(item) for item in value[1:]]
        return {freeze(items[i]): items[i + 1] for i in range(0, len(items), 2)}
    return [_rebuild(item) for item in value]


def read_fast(text):
    """All values of a plain text, or None if only the slow reader can tell."""
    if _NOT_PLAIN.search(text) or _MARK in text:
        return None
    maps = text.count('{')
    text = text.replace(', ', ' ').translate(_TO_COMMA)
    text = text.replace('{', '[' + _MARK + ',').replace('}', ']')
    if ',,' in text:
        text = _COMMAS.sub(',', text)
    text = _NIL.sub('null', '[' + text.strip(',') + ']')
    text = _KEYWORD.sub(r'"\g<0>"', text).replace(_MARK, json.dumps(_MAP))
    text = text.replace(',]', ']').replace('[,', '[')
    try:
        values = json.loads(text)
    except ValueError:
        return None
    return _unwrap(values, maps)


def _unwrap(values, maps):
    flat = [v for v in values
            if isinstance(v, list) and v and v[0] == _MAP and len(v) % 2]
    if len(flat) != len(values) or len(flat) != maps:
        try:
            return [_rebuild(v) for v in values]
        except IndexError:
            return None
    try:
        return [dict(zip(v[1::2], v[2::2])) for v in values]
    except TypeError:  # A vector as a key.
        return [_rebuild(v) for v in values]


def read_all(text, lines_at_once=2000):
    """Every value in `text`, fast where it is plain.  Raises EdnError."""
    values, lines = [], text.split('\n')
    for start in range(0, len(lines), lines_at_once):
        part = lines[start:start + lines_at_once]
        fast = read_fast('\n'.join(part))
        if fast is not None:
            values.extend(fast)
            continue
        try:
            for line in part:
                fast = read_fast(line)
                values.extend(read_slow(line) if fast is None else fast)
        except EdnError:
            return read_slow(text)  # A value over several lines, or a real error.
    return values


_KEYWORD_OUT = re.compile(r':[A-Za-z0-9*+!_?<>=.&/\'$%|-]+\Z')


def write(value):
    """`value` as EDN on one line."""
    if value is None:
        return 'nil'
    if value is True or value is False:
        return 'true' if value else 'false'
    if isinstance(value, str):
        if _KEYWORD_OUT.match(value):
            return value
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return '[' + ' '.join(map(write, value)) + ']'
    if isinstance(value, dict):
        return '{' + ', '.join(f'{write(k)} {write(v)}' for k, v in value.items()) + '}'
    if isinstance(value, (set, frozenset)):
        return '#{' + ' '.join(sorted(map(write, value))) + '}'
    if isinstance(value, (int, float)):
        return repr(value)
    raise TypeError(f'no EDN for {type(value).__name__}: {value!r}')
