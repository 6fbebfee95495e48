#!/usr/bin/python3
"""Points troth-conformance at participants that are right (the bank's branches in C++ and Python,
the SQL participant) and at three that are wrong on purpose, each against a database of its own. What is wrong must be
found by the rule that names it.

The last line: conformance: right=N right_passed=N wrong=N wrong_failed=N rules=N"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests" / "sdk_python"))

import harness  # noqa: E402

TOOL = ROOT / "cli" / "troth-conformance"
WORK = ["--idl", ROOT / "examples" / "bank" / "bank.thrift", "--service", "BankBranch",
        "--method", "apply", "--arguments", '[[{"account": 1, "amount": 1}], "conformance"]',
        "--failing_arguments", '[[{"account": 1, "amount": -1000000}], "too much"]',
        "--read_method", "balances", "--read_arguments", "[[1, 2]]"]
SQL_WORK = ["--idl", ROOT / "thrift" / "sql.thrift", "--service", "SqlParticipant",
            "--method", "execute", "--arguments",
            '[[{"name": "change", "parameters": [{"integer": 1}, {"integer": 1}]}]]',
            "--failing_arguments",
            '[[{"name": "change", "parameters": [{"integer": 1}, {"integer": -1000000}]}]]',
            "--read_method", "execute", "--read_arguments",
            '[[{"name": "look", "parameters": [{"integer": 1}, {"integer": 2}]}]]']
# What is wrong, and a rule that must be seen broken.
WRONG = {"forgets-numbers": "work-wrong-mark", "trusts-not-found": "commit-unknown-is-no-commit",
         "votes-unprepared": "commit-done"}


def examine(cluster, directory, name, command, work, verbose):
    """(rules, failed, names of the rules broken)."""
    conninfo = harness.make_bank(cluster, name)
    port = harness.private_cluster.free_port()
    command = [*command, "--name", name, "--conninfo", conninfo, "--coordinators",
               f"127.0.0.1:{port}", "--max_in_doubt", 40]
    with harness.Process(command, directory) as process:
        done = subprocess.run(
            [str(part) for part in (
                TOOL, f"127.0.0.1:{process.ports['peer_port']}", "--work",
                f"127.0.0.1:{process.ports['port']}", *work, "--coordinator_port", port,
                "--conninfo", conninfo)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=300)
        left = cluster.psql("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()",
                            name).strip()
        log = process.log()
        if process.process.poll() is not None:
            print(f"{name}: the participant ended: {log}")
            return 0, 1, set()
    closing = re.search(r"^conformance: rules=(\d+) failed=(\d+)$", done.stdout, re.M)
    broken = set(re.findall(r"^BROKEN +([a-z0-9-]+):", done.stdout, re.M))
    if verbose or closing is None:
        print(done.stdout)
    if closing is None:
        print(f"{name}: troth-conformance ended with {done.returncode}; the participant said: {log}")
        return 0, 1, broken
    rules, failed = int(closing[1]), int(closing[2])
    print(f"{name}: rules={rules} failed={failed} {' '.join(sorted(broken))}", flush=True)
    if left:
        print(f"{name}: left prepared: {left}")
        failed += 1
    return rules, failed, broken


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", help="directory of the built programs")
    parser.add_argument("--verbose", action="store_true", help="print every rule")
    parser.add_argument("--only", help="one participant by name, as this program prints it")
    options = parser.parse_args()
    harness.private_cluster.stop_on_signals()
    if options.bin:
        os.environ["TROTH_BIN"] = options.bin
    subjects = [("python-branch", [sys.executable, harness.PYTHON_BRANCH], WORK, None)]
    if harness.find_program("bank-branch") is not None:
        subjects.append(("cpp-branch", [harness.find_program("bank-branch")], WORK, None))
    if harness.find_program("troth-participant") is not None:
        subjects.append(("sql-participant", [
            harness.find_program("troth-participant"), "--statements",
            HERE / "conformance_statements.sql"], SQL_WORK, None))
    subjects += [(name, [sys.executable, HERE / "conformance_wrong.py", name], WORK, rule)
                 for name, rule in WRONG.items()]
    counts = {True: [0, 0], False: [0, 0]}
    most = 0
    with tempfile.TemporaryDirectory(prefix="troth-conformance-") as directory, \
            harness.private_cluster.Cluster("conformance", max_prepared_transactions=300) as cluster:
        for name, command, work, rule in subjects:
            if options.only not in (None, name):
                continue
            rules, failed, broken = examine(cluster, directory, name, command, work,
                                            options.verbose)
            as_due = rule in broken if rule else failed == 0
            if not as_due:
                print(f"{name}: expected {'rule ' + rule + ' broken' if rule else 'all rules kept'}")
            counts[rule is None][0] += 1
            counts[rule is None][1] += as_due
            most = max(most, rules)
    (right_n, passed), (wrong_n, found) = counts[True], counts[False]
    print(f"conformance: right={right_n} right_passed={passed} wrong={wrong_n} wrong_failed={found} "
          f"rules={most}")
    return 0 if (right_n, wrong_n) == (passed, found) else 1


if __name__ == "__main__":
    sys.exit(main())
