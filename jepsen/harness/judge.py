"""Hands the histories of a run to the checkers and gathers their verdicts."""

import importlib

from checkers import history as histories
from checkers.history import HistoryError

MODULES = {'append': 'append', 'bank': 'bank', 'audit': 'audit', 'register': 'register',
           'long-fork': 'long_fork', 'write-skew': 'write_skew', 'ledger': 'ledger',
           'orphans': 'orphans', 'order': 'order', 'liveness': 'liveness', 'log': 'log_audit'}


class Verdict:
    """Of one checker on one workload's history.  `report` is None when it could not judge."""

    def __init__(self, workload, checker, report, error=None):
        self.workload = workload
        self.checker = checker
        self.report = report
        self.error = error

    @property
    def valid(self):
        return self.report is not None and self.report.valid

    def data(self):
        if self.report is None:
            return {':valid?': ':unknown', ':error': self.error}
        return {':valid?': self.report.valid,
                ':anomalies': [':' + a for a in self.report.anomalies()],
                ':allowed': [':' + a for a in sorted(self.report.allowed)
                             if a in self.report.findings],
                ':figures': {':' + k.replace(' ', '-'): v if isinstance(v, (int, float, str))
                             else str(v) for k, v in self.report.figures.items()},
                ':findings': [f'{a}: {f["text"]}'[:1500] for a, found in
                              sorted(self.report.findings.items()) for f in found[:5]]}


def judge(path, workload, checkers, model, within, databases, log=None):
    """Verdicts of all `checkers` on the history at `path`."""
    try:
        history = histories.read(str(path))
    except HistoryError as error:
        return [Verdict(workload, c, None, str(error)) for c in checkers]
    verdicts = []
    for checker in checkers:
        module = importlib.import_module(f'checkers.{MODULES[checker]}')
        try:
            report = module.check(history, model=model, within=within, total=None,
                                  databases=databases, log=log)
            verdicts.append(Verdict(workload, checker, report))
        except HistoryError as error:
            verdicts.append(Verdict(workload, checker, None, str(error)))
    return verdicts
