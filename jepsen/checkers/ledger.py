"""Ledger: every transfer has its entries, each once, and balances are their sum.

  :setup     {account balance, ...}                        balances before (optional)
  :transfer  {:id "c.1.7", :legs {"east/17" -5, "west/99" 5}}
  :ledger    {:participant "east", :entries [["c.1.7" "east/17" -5] ...],
              :balances {"east/17" 95, ...}}               after healing, each branch
"""

from .history import HistoryError, by_id, field, finals, word
from .report import Report


def _entries(history):
    """{id: {account: [amounts]}}, {account: sum}, {account: balance}"""
    entries, sums, balances = {}, {}, {}
    for participant, call in finals(history, 'ledger').items():
        for entry in field(call, 'entries'):
            if not isinstance(entry, (list, tuple)) or len(entry) != 3:
                raise HistoryError(f'{participant}: {entry!r} is not [id account amount]')
            id_, account, amount = word(entry[0]), word(entry[1]), entry[2]
            entries.setdefault(id_, {}).setdefault(account, []).append(amount)
            sums[account] = sums.get(account, 0) + amount
        for account, balance in (call.value.get(':balances') or {}).items():
            balances[word(account)] = balance
    return entries, sums, balances


def _check_transfer(report, id_, call, found):
    legs = {word(a): amount for a, amount in field(call, 'legs').items()}
    who = f'{id_} ({call.name()}, told {call.type})'
    missing = sorted(set(legs) - set(found))
    if found and call.type == 'fail':
        report.add('aborted-applied', f'{who} has entries at {", ".join(sorted(found))}',
                   id=id_)
    elif missing and found:
        report.add('partial-transfer', f'{who} has entries at {", ".join(sorted(found))}, '
                   f'but none at {", ".join(missing)}', id=id_)
    elif missing and call.type == 'ok':
        report.add('lost-transfer', f'{who} has no entry anywhere', id=id_)
    for account, amounts in sorted(found.items()):
        if len(amounts) > 1:
            report.add('duplicate-entry', f'{who} has {len(amounts)} entries at {account}',
                       id=id_)
        if account not in legs:
            report.add('stray-entry', f'{who} has an entry at {account}, '
                       'which it did not touch', id=id_)
        elif any(amount != legs[account] for amount in amounts):
            report.add('wrong-amount', f'{who} moved {legs[account]} at {account}; the '
                       f'ledger says {", ".join(map(str, amounts))}', id=id_)


def check(history, **_):
    """The Report on a ledger history.  Raises HistoryError."""
    transfers = by_id(history.calls('transfer'))
    entries, sums, balances = _entries(history)
    if not transfers or not finals(history, 'ledger'):
        raise HistoryError('it needs :transfer calls with ids, and an :ok :ledger')
    report = Report('ledger')
    for id_, call in transfers.items():
        _check_transfer(report, id_, call, entries.get(id_, {}))
    for id_ in sorted(set(entries) - set(transfers)):
        report.add('stray-entry', f'{id_} has entries at '
                   f'{", ".join(sorted(entries[id_]))}, and no client began it', id=id_)
    start = {word(account): balance for call in history.calls('setup') if call.type == 'ok'
             for account, balance in call.value.items()}
    for account, balance in sorted(balances.items()):
        if account in start and start[account] + sums.get(account, 0) != balance:
            report.add('wrong-balance', f'{account} holds {balance}: it began with '
                       f'{start[account]}, and its entries add up to '
                       f'{sums.get(account, 0)}')
        if balance < 0:
            report.add('negative-balance', f'{account} holds {balance}')
    report.figures = {'transfers': len(transfers), 'accounts': len(balances),
                      'entries': sum(len(amounts) for found in entries.values()
                                     for amounts in found.values())}
    return report
