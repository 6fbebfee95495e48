"""The crash windows of docs/protocol.md as the sweep takes them: which process, when its point is
passed, and which actions make no sense there, with the reason.  Decided here, not by a run.
"""

import re
import signal

ACTIONS = ('kill', 'pause', 'cut', 'error')

_NO_BRANCH = 'the point has no error branch: what follows does not depend on it'
_NO_CONNECTION = 'it serves nobody yet: there is no connection to cut'


class Row:
    """One crash window.  `when`: `running` (under load), `opening` (while the coordinator opens
    its log), `init` (while a log is made).  `provoke`: what must happen for the point to be
    passed soon, if load alone is not enough (sweep.py).  `ends`: the exit code with which its
    error ends the process, as law L15 has it; None: it goes on.  Of `pause`, `cut` and `error`
    each is None, or the reason why the cell is not applicable."""

    def __init__(self, name, process, when='running', provoke=None, ends=None, cut=None,
                 error=None):
        self.name = name
        self.process = process
        self.when = when
        self.provoke = provoke
        self.ends = ends
        self.reasons = {'kill': None, 'pause': None, 'cut': cut, 'error': error}
        self.error = error

    def code(self, action):
        """The exit code with which this action at the point ends the process; None: it goes on."""
        return {'kill': -signal.SIGKILL, 'crash': -signal.SIGKILL, 'error': self.ends}.get(action)


def _c(name, **more):
    return Row(name, 'coordinator', **more)


def _log(name, **more):
    return _c(name, ends=3, **more)


def _opening(name, when='opening'):
    return _c(name, when=when, ends=1, cut=_NO_CONNECTION)


def _p(name, **more):
    return Row(name, 'participant', **more)


ROWS = (
    _c('lease-replying', provoke='new-client'),
    _c('prepare-sending'),
    _c('vote-arrived'),
    _log('record-handed-over'),
    _log('log-batch-handed-over'),
    _log('log-batch-written'),
    _log('log-batch-durable'),
    _log('record-durable'),
    _c('finish-sending'),
    _c('acknowledgement-arrived'),
    _c('outcome-replying'),
    _log('log-segment-written', provoke='small-segments'),
    _log('log-segment-renamed', provoke='small-segments'),
    _log('checkpoint-written', provoke='small-segments'),
    _log('checkpoint-renamed', provoke='small-segments'),
    _log('checkpoint-old-removed', provoke='small-segments'),
    _opening('opening-written'),
    _opening('opening-segment-renamed'),
    _opening('opening-checkpoint-renamed'),
    _opening('opening-old-removed'),
    _opening('init-segment-renamed', when='init'),
    _p('before-enrol', provoke='coordinator-restart'),
    _p('work-done', error=_NO_BRANCH),
    _p('before-prepare'),
    _p('after-prepare', error=_NO_BRANCH),
    _p('before-commit-prepared', error=_NO_BRANCH),
    _p('after-commit-prepared', error=_NO_BRANCH),
    _p('sweep-listed', provoke='in-doubt', error=_NO_BRANCH),
    _p('sweep-answered', provoke='in-doubt', error=_NO_BRANCH),
    _p('sweep-settled', provoke='in-doubt', error=_NO_BRANCH),
)

# Failpoints that are no crash window: what they do besides an error is done elsewhere.
NO_WINDOWS = {
    'log-segment-no-space': 'stands for ENOSPC; a crash there is that of `log-segment-written`',
}


def documented(root):
    """The rows as docs/protocol.md has them: [(name, process)]."""
    text = (root / 'docs' / 'protocol.md').read_text(encoding='utf-8')
    return re.findall(r'^\| `([a-z-]+)` \| (coordinator|participant) \|', text, re.MULTILINE)
