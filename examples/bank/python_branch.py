#!/usr/bin/python3
"""A branch of a bank, in Python: serves bank.thrift as bank-branch does, so that both take part in
one transaction. All of two-phase commit is troth.Participant's; here is what is particular to a
bank. Tables: schema.sql.

  python_branch.py --init --conninfo DATABASE                 once: make the tables
  python_branch.py --name east --conninfo DATABASE            run until SIGTERM

Exit codes: 0 stopped, 1 cannot start, 2 wrong flags."""

import argparse
import json
import logging
import os
import pathlib
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent
if (HERE.parents[1] / "sdk" / "python" / "troth").is_dir():
    sys.path.insert(0, str(HERE.parents[1] / "sdk" / "python"))

import psycopg2  # noqa: E402
import troth  # noqa: E402
from troth.wire.values.ttypes import Reason, Refused  # noqa: E402

troth.idl.load(HERE / "bank.thrift")
from troth_bank import BankBranch  # noqa: E402
from troth_bank.ttypes import Account, ApplyReply, BalancesReply, Entry, OpenReply  # noqa: E402

MAX_LEGS = 1_000
MAX_OPENED = 10_000
MAX_PAGE = 5_000
MOST = 2**63 - 1


def invalid(message):
    return Refused(Reason.INVALID, message, False)


class Reader:
    """Reads outside any transaction: a connection of its own, made when first needed and made
    anew when it was lost. For audits, so one at a time, and none for ever: the next ones wait."""

    def __init__(self, conninfo):
        self._options = {"connect_timeout": 10, "keepalives_idle": 5, "keepalives_interval": 5,
                         "keepalives_count": 3, "tcp_user_timeout": 10_000,
                         **psycopg2.extensions.parse_dsn(conninfo)}
        self._lock = threading.Lock()
        self._connection = None

    def read(self, sql, parameters):
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = psycopg2.connect(**self._options)
                    self._connection.set_session(readonly=True)
                    with self._connection, self._connection.cursor() as cursor:
                        cursor.execute("SET statement_timeout = '10s'")
                with self._connection, self._connection.cursor() as cursor:
                    cursor.execute(sql, parameters)
                    return cursor.fetchall()
            except psycopg2.OperationalError as error:
                self._connection = None
                raise Refused(Reason.DATABASE_UNAVAILABLE,
                              f"the branch's database cannot be reached: {error}", True) from None
            except psycopg2.Error as error:
                self._connection = None
                raise Refused(Reason.DATABASE, str(error), False, error.pgcode) from None


class Bank(troth.ParticipantService):
    """bank.thrift says what each call does."""

    def __init__(self, participant, conninfo):
        super().__init__(participant)
        self._name = participant.options.name
        self._reader = Reader(conninfo)

    # In a transaction -------------------------------------------------------------------------

    def apply(self, context, legs, note):
        if not 1 <= len(legs) <= MAX_LEGS:
            raise invalid("a transfer has 1 to 1000 legs here")
        if any(leg.amount == 0 for leg in legs):
            raise invalid("the amount of a leg is not 0")
        if any(leg.amount < -MOST for leg in legs):
            raise invalid(f"a leg takes at most {MOST}")
        if len({leg.account for leg in legs}) != len(legs):
            raise invalid("an account stands in two legs")
        with self.participant.work(context) as work:
            for leg in legs:
                self._book(work, context.transaction_id, leg, note)
        return ApplyReply(work.branch)

    def _book(self, work, transaction_id, leg, note):
        """The change and its entry, in one statement."""
        account = f"{self._name}/{leg.account}"
        try:
            cursor = work.execute(
                "WITH changed AS (UPDATE account SET balance = balance + %(amount)s"
                " WHERE number = %(account)s RETURNING number)"
                " INSERT INTO entry (transaction_id, account, amount, note)"
                " SELECT %(id)s, number, %(amount)s, %(note)s FROM changed",
                {"account": leg.account, "amount": leg.amount, "id": transaction_id, "note": note})
        except psycopg2.errors.CheckViolation:
            raise troth.ApplicationRefusal(
                f"insufficient funds: account {account} has less than {-leg.amount}") from None
        except psycopg2.errors.NumericValueOutOfRange:
            raise troth.ApplicationRefusal(f"account {account} cannot hold so much") from None
        if cursor.rowcount != 1:
            raise troth.ApplicationRefusal(f"there is no account {account}")

    def open(self, context, first, count, balance):
        if not 1 <= count <= MAX_OPENED or first < 1 or balance < 0:
            raise invalid("accounts are opened from 1 up, 1 to 10000 at a time, with 0 or more in them")
        if first + count - 1 > MOST:
            raise invalid(f"the last account has a number of at most {MOST}")
        with self.participant.work(context) as work:
            opened = work.execute(
                "INSERT INTO account (number, balance, opened_with)"
                " SELECT n, %(balance)s, %(balance)s"
                " FROM pg_catalog.generate_series(%(first)s::bigint, %(end)s::bigint) n"
                " ON CONFLICT (number) DO NOTHING",
                {"first": first, "end": first + count - 1, "balance": balance}).rowcount
        return OpenReply(work.branch, opened)

    def balances(self, context, accounts):
        if len(accounts) > MAX_LEGS:
            raise invalid("at most 1000 accounts are read at a time")
        found = []
        with self.participant.work(context) as work:
            # A read-only branch may not lock rows; its snapshot is what it has.
            lock = "" if work.read_only else " FOR SHARE"
            for number in accounts:
                row = work.execute("SELECT number, balance, opened_with FROM account"
                                   f" WHERE number = %s{lock}", (number,)).fetchone()
                if row is None:
                    raise troth.ApplicationRefusal(f"there is no account {self._name}/{number}")
                found.append(Account(*row))
        return BalancesReply(work.branch, found)

    # Outside any ------------------------------------------------------------------------------

    def accounts(self, after, limit):
        return [Account(*row) for row in self._reader.read(
            "SELECT number, balance, opened_with FROM account WHERE number > %s"
            " ORDER BY number LIMIT %s", (after, max(1, min(limit, MAX_PAGE))))]

    def entries(self, after_id, after_account, limit):
        return [Entry(*row) for row in self._reader.read(
            "SELECT transaction_id, account, amount, note FROM entry"
            " WHERE (transaction_id, account) > (%s, %s) ORDER BY transaction_id, account LIMIT %s",
            (after_id, after_account, max(1, min(limit, MAX_PAGE))))]

    def in_doubt(self):
        return [row[0] for row in self._reader.read(
            "SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = current_database()"
            " AND starts_with(gid, %s) ORDER BY prepared", (self.gid_prefix(),))]


def flags(arguments):
    parser = argparse.ArgumentParser(
        prog="python_branch.py", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)

    def add(name, **options):
        parser.add_argument("--" + name, *({"--" + name.replace("_", "-")} - {"--" + name}), **options)

    add("name", default="", help="name of the branch, [a-z0-9-]: east")
    add("conninfo", default="", help="libpq connection string of its database; passwords belong "
        "into ~/.pgpass")
    add("coordinators", default="127.0.0.1:7712", help="peer addresses of the coordinator, HOST:PORT,...")
    add("host", default="127.0.0.1", help="where clients and the coordinator reach it")
    add("bind", default="127.0.0.1", help="address the listeners bind to")
    add("port", type=int, default=0, help="port for clients; 0: any free one")
    add("peer_port", type=int, default=0, help="port for the coordinator; 0: any free one")
    add("pool_size", type=int, default=32, help="connections for branches")
    add("max_in_doubt", type=int, default=200, help="branches open or in doubt at once; "
        "max_prepared_transactions must be at least this")
    add("tls_cert", default="", help="TLS: file of our certificate (PEM)")
    add("tls_key", default="", help="TLS: file of its private key (PEM, mode 600)")
    add("tls_ca", default="", help="TLS: file of the authority's certificate that vouches for others")
    add("tls_roles", default="", help="TLS: file that says which certificate may do what")
    add("allow_plain_text", action="store_true",
        help="without TLS: listen on other addresses than this machine's own, too")
    add("port_file", default="", help="written when ready: JSON with pid and ports")
    add("init", action="store_true", help="make the tables in the database of --conninfo, and exit")
    options = parser.parse_args(arguments)
    for name in ("conninfo", "name"):
        if not getattr(options, name) and not (options.init and name == "name"):
            parser.error(f"--{name} is required; see --help")
    if "password" in psycopg2.extensions.parse_dsn(options.conninfo):
        parser.error("--conninfo holds a password, which ps shows to everybody: put it into ~/.pgpass")
    return options


def init(options):
    with psycopg2.connect(options.conninfo) as connection, connection.cursor() as cursor:
        cursor.execute((HERE / "schema.sql").read_text(encoding="utf-8"))


def announce(participant, path):
    """Appears whole or not at all: readers wait for it."""
    if not participant.wait_until_serving() or not path:
        return
    try:
        with open(path + ".tmp", "w", encoding="utf-8") as out:
            json.dump({"pid": os.getpid(), "name": participant.options.name,
                       "host": participant.options.host, "port": participant.port,
                       "peer_port": participant.peer_port}, out)
            out.write("\n")
        os.rename(path + ".tmp", path)
    except OSError as error:
        logging.error("cannot write %s: %s", path, error)
        participant.stop()


def security(options):
    files = (options.tls_cert, options.tls_key, options.tls_ca)
    return troth.SecurityOptions(troth.TlsFiles(*files) if any(files) else None, options.tls_roles,
                                 options.allow_plain_text)


def run(options):
    participant = troth.Participant(troth.ParticipantOptions(
        name=options.name, conninfo=options.conninfo, coordinators=options.coordinators.split(","),
        host=options.host, port=options.port, peer_port=options.peer_port, bind=options.bind,
        pool_size=options.pool_size, max_in_doubt=options.max_in_doubt,
        security=security(options)))
    threading.Thread(target=announce, args=(participant, options.port_file), daemon=True).start()
    participant.serve(BankBranch.Processor(Bank(participant, options.conninfo)))


def main():
    options = flags(sys.argv[1:])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        init(options) if options.init else run(options)
    except (troth.ServerUnfit, troth.Unavailable, psycopg2.Error, OSError, ValueError) as error:
        print(f"python_branch.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
