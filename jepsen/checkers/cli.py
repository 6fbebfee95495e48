"""The command line of jepsen/check: reads a history, checks it, says the verdict."""

import argparse
import gc
import sys
import time

from . import (append, audit, bank, history, ledger, liveness, log_audit, long_fork,
               models, order, orphans, register, write_skew)

WORKLOADS = {
    'append': append, 'bank': bank, 'audit': audit, 'register': register,
    'long-fork': long_fork, 'write-skew': write_skew, 'ledger': ledger,
    'orphans': orphans, 'order': order, 'liveness': liveness, 'log': log_audit}


def _parser():
    parser = argparse.ArgumentParser(
        prog='jepsen/check', formatter_class=argparse.RawDescriptionHelpFormatter,
        description='Checks a history in Jepsen\'s format (EDN, one map a line).',
        epilog='Ends with: check: valid=true|false anomalies=A,B|none\n'
               'Exit status: 0 valid, 1 not valid, 2 the input can\'t be judged.\n'
               'What each workload\'s operations look like: jepsen/README.md.')
    parser.add_argument('history', metavar='HISTORY.edn',
                        help='a file, or a directory with history.edn in it')
    parser.add_argument('--workload', required=True, choices=list(WORKLOADS))
    parser.add_argument('--model', default=models.STRICTEST, choices=list(models.MODELS),
                        help='what must hold (append, bank, long-fork, write-skew); what '
                             'it allows is told and leaves the history valid; default: '
                             '%(default)s')
    parser.add_argument('--within', type=float, default=10.0, metavar='SECONDS',
                        help='orphans and liveness: the time allowed after healing; '
                             'default: %(default)g')
    parser.add_argument('--total', type=int, help='bank: the total; default: that of '
                                                  ':setup, or of the first read')
    parser.add_argument('--databases', type=int, default=0, metavar='N',
                        help='append: key k lives in database k mod N (for messages)')
    parser.add_argument('--log', metavar='FILE', help='log: the coordinator\'s log, '
                                                      'exported as JSON lines')
    parser.add_argument('--json', metavar='FILE', help='write the findings there too')
    parser.add_argument('--examples', type=int, default=3, metavar='N',
                        help='print N findings of each anomaly; default: %(default)s')
    return parser


def main(arguments=None):
    """Returns the exit status; bad usage exits with 2 at once."""
    options = _parser().parse_args(arguments)
    gc.disable()  # Millions of small objects, all of which stay.
    begun = time.monotonic()
    try:
        report = WORKLOADS[options.workload].check(
            history.read(options.history), model=options.model, within=options.within,
            total=options.total, databases=options.databases, log=options.log)
    except history.HistoryError as error:
        print(f'check: {options.history}: {error}', file=sys.stderr)
        return 2
    report.figures['seconds'] = f'{time.monotonic() - begun:.1f}'
    print(report.text(options.examples))
    if options.json:
        try:
            report.write_json(options.json)
        except OSError as error:
            print(f'check: can\'t write {options.json}: {error.strerror}', file=sys.stderr)
            return 2
    print(report.closing_line())
    return 0 if report.valid else 1


if __name__ == '__main__':
    sys.exit(main())
