#!/usr/bin/python3
"""A bank's branch that is wrong on purpose, for the conformance test to find out:

  conformance_wrong.py forgets-numbers|trusts-not-found|votes-unprepared  FLAGS OF bank-branch

forgets-numbers   takes work under any number and any mark
trusts-not-found  a commit that finds no GID is taken for one done earlier
votes-unprepared  says prepared without a look at what PREPARE TRANSACTION answered; it fails
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "examples" / "bank"), str(ROOT / "sdk" / "python")]

import python_branch  # noqa: E402
from troth.participant import branch_table, finisher, postgres  # noqa: E402
from troth.participant.values import (  # noqa: E402
    Evidence, FinishKind, FinishResult, LogPoint, PrepareKind, PrepareResult)


def forgets_numbers():
    proper = branch_table.BranchTable.start_work

    def start_work(self, request):
        branch = self._branches.get(request.transaction_id)
        if branch is not None:
            request.mark, request.work = branch.mark, branch.works
        return proper(self, request)

    branch_table.BranchTable.start_work = start_work


def trusts_not_found():
    proper = finisher.Finisher._fate

    def fate(self, connection, order):
        return FinishResult(FinishKind.DONE) if order.commit else proper(self, connection, order)

    finisher.Finisher._fate = fate


def votes_unprepared():
    proper = postgres.PostgresSession.prepare

    def prepare(self):
        if self._options.read_only:
            return proper(self)
        self.connection.run("SAVEPOINT a")
        try:
            self.connection.run("SELECT 1 / 0")
        except python_branch.psycopg2.Error:
            pass
        self.connection.run(f"PREPARE TRANSACTION '{self.gid}'")  # answers ROLLBACK
        timeline = self.connection.point.timeline
        evidence = Evidence(self._xid, LogPoint(timeline, self._clean()))
        return PrepareResult(PrepareKind.PREPARED, evidence, self._generation)

    postgres.PostgresSession.prepare = prepare


WRONG = {"forgets-numbers": forgets_numbers, "trusts-not-found": trusts_not_found,
         "votes-unprepared": votes_unprepared}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in WRONG:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    WRONG[sys.argv.pop(1)]()
    sys.exit(python_branch.main())
