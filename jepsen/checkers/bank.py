"""Bank: money moves between accounts in several databases; its sum does not.

  :setup       {account balance, ...}            once, before all else (optional)
  :transfer    {:from a, :to b, :amount n}, or {:legs {a -n, b n, ...}}
  :read        {account balance, ...}            all accounts, in one transaction
  :final-read  the same, after healing, with nothing else under way

An account's name is anything ("east/17"); its database is no matter here.
A :read must show the right total, unless the model is `snapshot-reads`: plain
reads of several databases are not taken at one instant, a wrong total is then
`fractured-total`, told but allowed.  A :final-read must be right under any model,
and, with a :setup, each account must hold what the known transfers left there: this
also finds transfers lost or applied twice on both sides.
"""

from . import edn, models
from .history import HistoryError, field
from .report import Report


def _legs(call):
    value = call.value
    if isinstance(value, dict) and ':legs' in value:
        return dict(value[':legs'])
    amount, source = field(call, 'amount'), field(call, 'from')
    return {source: -amount, field(call, 'to'): amount}


def _balances(call):
    if not isinstance(call.value, dict):
        raise HistoryError(f'{call.name()} ({call.f}): :value must be a map of balances')
    return call.value


class _Bank:
    def __init__(self, history, model, total):
        self.report = Report('bank', model)
        self.transfers = history.calls('transfer')
        self.reads = [c for c in history.calls('read', 'final-read') if c.type == 'ok']
        setups = [c for c in history.calls('setup') if c.type == 'ok']
        self.start = dict(_balances(setups[0])) if setups else None
        if not self.reads:
            raise HistoryError('no :ok :read or :final-read in it: nothing to check')
        base = self.start or _balances(self.reads[0])
        self.accounts = set(base)
        self.total = sum(v or 0 for v in base.values()) if total is None else total
        self.report.figures = {
            'transfers': len(self.transfers), 'reads': len(self.reads),
            'accounts': len(self.accounts), 'total': self.total}

    def check_read(self, call):
        balances, report = _balances(call), self.report
        missing = sorted(map(str, self.accounts - set(balances)))
        extra = sorted(map(str, set(balances) - self.accounts))
        if missing:
            report.add('missing-account', f'{call.name()} read no {", ".join(missing)}')
        if extra:
            report.add('unknown-account', f'{call.name()} read {", ".join(extra)}, '
                       'which were not there before')
        unset = [a for a, v in balances.items() if v is None]
        if unset:
            report.add('nil-balance', f'{call.name()} read nil for {unset[0]}')
            return
        for account, balance in balances.items():
            if balance < 0:
                report.add('negative-balance', f'{call.name()} (process {call.process}) '
                           f'read {balance} for {account}')
        total = sum(balances.values())
        if total != self.total and not missing and not extra:
            plain = call.f == 'read' and report.model == 'snapshot-reads'
            report.add('fractured-total' if plain else 'wrong-total',
                       f'{call.name()} (process {call.process}) read {total} in all, '
                       f'which must be {self.total}: {edn.write(balances)}'[:600],
                       total=total)

    def check_final(self, call):
        """Each account: start + surely done, + what the unknown may have done."""
        balances = _balances(call)
        sure = dict.fromkeys(self.accounts, 0)
        low, high = dict(sure), dict(sure)
        for transfer in self.transfers:
            if transfer.type == 'fail' or transfer.begin > call.begin:
                continue
            done = transfer.type == 'ok' and transfer.end < call.begin
            for account, change in _legs(transfer).items():
                if account not in sure:
                    raise HistoryError(f'{transfer.name()}: {account} was not set up')
                if done:
                    sure[account] += change
                elif change < 0:
                    low[account] += change
                else:
                    high[account] += change
        for account in sorted(self.accounts, key=str):
            held = balances.get(account)
            least = self.start[account] + sure[account] + low[account]
            most = self.start[account] + sure[account] + high[account]
            if held is not None and not least <= held <= most:
                wanted = str(least) if least == most else f'{least} to {most}'
                self.report.add('wrong-balance', f'{call.name()}: {account} holds {held}; '
                                f'by the transfers that clients know of, it must be '
                                f'{wanted}')


def check(history, model=models.STRICTEST, total=None, **_):
    """The Report on a bank history.  Raises HistoryError."""
    bank = _Bank(history, model, total)
    for call in bank.reads:
        bank.check_read(call)
        if call.f == 'final-read' and bank.start is not None:
            bank.check_final(call)
    bank.report.allow('fractured-total')
    return bank.report
