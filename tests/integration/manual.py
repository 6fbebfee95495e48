#!/usr/bin/python3
"""Runs the commands of docs/operations.md, in the order in which they stand there, against a
coordinator, a participant and a PostgreSQL of its own, on the ports of the document (in a network
namespace of its own; needs root).

A block that is marked `sh` is run, `sh manual` is not (another host, systemctl, a situation that is
not here), `text` and `conf` are no commands. A block without a mark fails: nobody would know that
its commands rot. Each command must end with 0; a program that serves is started and must come up.

The last line is `manual: commands=N manual=N failed=N`."""
import argparse
import os
import pathlib
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "sdk_python"))
BLOCK = re.compile(r"^```(.*?)\n(.*?)^```$", re.M | re.S)
MARKS = ("sh", "sh manual", "text", "conf")
SERVERS = {"troth-coordinator": 7711, "troth-participant": 7721}
READY_S, COMMAND_S = 30, 60


def blocks(text):
    """(line number, mark, body) of each block."""
    for match in BLOCK.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match[1].strip(), match[2]


def commands_of(body):
    """One a line, continued behind a backslash."""
    return [line for line in re.sub(r"\\\n\s*", "", body).splitlines()
            if line.strip() and not line.startswith("#")]


class Place:
    """Where the document's commands are run: its paths and names stand for real ones."""

    def __init__(self, directory, folder, cluster):
        import harness  # here: it needs the environment of main()
        self.harness, self.directory, self.cluster = harness, directory, cluster
        self.servers = []
        for name in ("state", "config"):
            (directory / name).mkdir()
        (directory / "config" / "east.sql").write_text(
            "-- name: put\nINSERT INTO thing VALUES ($1);\n", encoding="utf-8")
        cluster.psql("CREATE DATABASE east")
        cluster.psql("CREATE TABLE thing (number bigint)", "east")
        self.env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        self.id = ""

    def real(self, command):
        for stands, real in (("/var/lib/troth", str(self.directory / "state")),
                             ("/etc/troth", str(self.directory / "config")),
                             ("host=/var/run/postgresql dbname=east", self.cluster.conninfo("east"))):
            command = command.replace(stands, real)
        command = re.sub(r"\bNAME\b", "east", command)
        if re.search(r"\bID\b", command):
            command = re.sub(r"\bID\b", self.transaction(), command)
        return command

    def transaction(self):
        """The id of one that was committed."""
        if not self.id:
            troth = self.harness.troth
            with troth.Client(["127.0.0.1:7711"]) as client, client.transaction() as tx:
                troth.sql.run(tx, "east", "put", 1)
            self.id = tx.id
        return self.id

    def await_up(self):
        """Until the coordinator is connected to the participant, which listens before that."""
        with self.harness.troth.Client(["127.0.0.1:7711"]) as client:
            self.harness.until(lambda: any(p.up for p in client.resolve()), READY_S, "east is up")

    def run(self, command):
        """What went wrong, or nothing."""
        words = shlex.split(command, comments=True)
        serves = words[0] in SERVERS and not {"--init", "--check", "--help"} & set(words)
        if serves:
            return self.serve(command, SERVERS[words[0]])
        try:
            done = subprocess.run(["bash", "-ec", command], env=self.env, timeout=COMMAND_S,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, check=False)
        except subprocess.TimeoutExpired:
            return f"did not end within {COMMAND_S} s"
        return "" if done.returncode == 0 else f"ended with {done.returncode}: {done.stdout[-1500:]}"

    def serve(self, command, port):
        log = open(self.directory / f"{port}.log", "w", encoding="utf-8")
        process = subprocess.Popen(["bash", "-ec", f"exec {command}"], env=self.env, stdout=log,
                                   stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        self.servers.append(process)
        deadline = time.monotonic() + READY_S
        while process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    if port == SERVERS["troth-participant"]:
                        self.await_up()
                    return ""
            time.sleep(0.05)  # until it listens: another program's port tells nobody
        log.flush()
        return f"did not come up: {pathlib.Path(log.name).read_text(encoding='utf-8')[-1500:]}"

    def stop(self):
        for process in reversed(self.servers):
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bin", default=str(ROOT / "build" / "release" / "bin"))
    parser.add_argument("--document", type=pathlib.Path, default=ROOT / "docs" / "operations.md")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if not asked.inside:
        inside = ["unshare", "--net", sys.executable, "-W", "ignore", __file__, *sys.argv[1:],
                  "--inside"]
        os.execvp(inside[0], inside)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    os.environ.setdefault("TROTH_BUILD_DIR", str(pathlib.Path(asked.bin).parent / "python"))
    import harness  # pylint: disable=import-outside-toplevel
    ran = by_hand = failed = 0
    with (tempfile.TemporaryDirectory(prefix="troth-manual-") as directory,
          harness.private_cluster.Cluster("manual", max_prepared_transactions=200) as cluster):
        place = Place(pathlib.Path(directory), asked.bin, cluster)
        try:
            for line, mark, body in blocks(asked.document.read_text(encoding="utf-8")):
                wrong = "" if mark in MARKS else f"a block is marked '{mark}', not one of {MARKS}"
                if mark == "sh manual":
                    by_hand += len(commands_of(body))
                for command in commands_of(body) if mark == "sh" else []:
                    if wrong:
                        break
                    ran += 1
                    wrong = place.run(place.real(command))
                    print(f"{'FAILED' if wrong else 'good  '} {command}", flush=True)
                if wrong:
                    failed += 1
                    print(f"{asked.document.name}:{line}: {wrong}", file=sys.stderr, flush=True)
        finally:
            place.stop()
    print(f"manual: commands={ran} manual={by_hand} failed={failed}")
    return 1 if failed or ran == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
