#!/usr/bin/python3
"""A transfer between two databases through ready-made participants: this file is all the code.

    transfer.py --coordinator 127.0.0.1:7711 --from east/1 --to west/2 --amount 12.50

Exit codes: 0 committed, 1 aborted (nothing was changed anywhere), 2 asked wrongly, 3 the outcome is
not known yet, 4 nothing was begun."""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "sdk" / "python"))

import troth  # noqa: E402  pylint: disable=wrong-import-position


def transfer(client, source, target, amount):
    """(id, balance left, balance there); numbers are PostgreSQL's text, exact to the cent."""
    with client.transaction() as tx:
        (left,), = troth.sql.run(tx, source[0], "withdraw", source[1], amount).rows
        (there,), = troth.sql.run(tx, target[0], "deposit", target[1], amount).rows
    return tx.id, left, there


def account(text):
    """`east/1` as ("east", 1)."""
    bank, slash, number = text.partition("/")
    if not (bank and slash and number.isdigit()):
        raise argparse.ArgumentTypeError(f"'{text}' is no account: east/1 is")
    return bank, int(number)


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coordinator", default="127.0.0.1:7711", metavar="HOST:PORT,...")
    parser.add_argument("--from", dest="source", type=account, required=True, metavar="BANK/NUMBER")
    parser.add_argument("--to", dest="target", type=account, required=True, metavar="BANK/NUMBER")
    parser.add_argument("--amount", required=True, help="a decimal number")
    options = parser.parse_args()
    try:
        client = troth.Client(options.coordinator.split(","), application="transfer.py")
        id_, left, there = transfer(client, options.source, options.target, options.amount)
    except troth.Aborted as error:
        print(f"transfer: aborted, nothing was changed: {error}", file=sys.stderr)
        return 1
    except troth.OutcomeUnknown as error:
        print(f"transfer: {error}", file=sys.stderr)
        return 3
    except troth.NotAnswered as error:
        print(f"transfer: nothing was begun: {error}", file=sys.stderr)
        return 4
    print(f"committed {id_}: left {left}, there {there}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
