#!/usr/bin/python3
"""The inside of tests/packages/run: a clean Debian 12 in a memory file system, the packages
installed, used and removed there. Runs as root in mount and pid namespaces of its own, which take
mounts and processes with them. Refuses to know how packages are made. docs/testing.md."""
import argparse
import contextlib
import ctypes
import os
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
CLONE_NEWNET = 0x40000000
OURS = ["troth-coordinator", "troth-participant", "trothctl", "libtroth-dev", "python3-troth"]
# What a database, and the building of an application, take beside.
TOOLS = ["postgresql-15", "cmake", "ninja-build", "g++", "systemd", "strace"]
PG_BIN = "/usr/lib/postgresql/15/bin"
READY_SECONDS = 60


class Failed(Exception):
    """What was to be true and is not."""


def say(text):
    print(f"packages: {text}", file=sys.stderr, flush=True)


def run(*command, **how):
    """Runs a command; an error shows what it said."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          **how)
    if done.returncode != 0:
        raise Failed(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


class CleanRoot:
    """A Debian of its own, with nothing but what apt puts there."""

    def __init__(self, path):
        self.path = path
        self.env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8",
                    "DEBIAN_FRONTEND": "noninteractive"}

    def chroot(self, command, user=None):
        return ["chroot", *([f"--userspec={user}:{user}"] if user else []), str(self.path),
                *command]

    def run(self, *command, user=None):
        return run(*self.chroot(command, user), env=self.env)

    def start(self, command, user=None, env=None):
        return subprocess.Popen(self.chroot(command, user), env={**self.env, **(env or {})},
                                stdin=subprocess.DEVNULL)

    def apt(self, *arguments):
        return self.run("apt-get", "-q", "-y", "-o", "Acquire::Retries=3", *arguments)

    def make(self):
        say("makes a clean Debian 12")
        run("mmdebstrap", "--mode=root", "--variant=apt", "--include=ca-certificates", "bookworm",
            str(self.path), env=self.env)
        run("mount", "-t", "proc", "proc", str(self.path / "proc"))
        run("mount", "--rbind", "/dev", str(self.path / "dev"))
        # No service is started while packages are configured, as in any image.
        policy = self.path / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        (self.path / "etc/postgresql-common/createcluster.d").mkdir(parents=True)
        (self.path / "etc/postgresql-common/createcluster.d/none.conf").write_text(
            "create_main_cluster = off\n")

    def named_ours(self):
        """Whatever bears our name, outside of apt's and dpkg's own books."""
        found = self.run("find", "/", "-xdev", "(", "-path", "/proc", "-o", "-path", "/dev", "-o",
                         "-path", "/tmp", "-o", "-path", "/var/lib/dpkg", "-o", "-path",
                         "/var/lib/systemd", ")", "-prune", "-o", "-ipath", "*troth*", "-print")
        return set(found.split())


def unit_of(root, name):
    """Sections of an installed unit as one dictionary of lists."""
    unit = {}
    text = (root.path / "usr/lib/systemd/system" / name).read_text(encoding="utf-8")
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            unit.setdefault(key, []).append(value)
    return unit


def system_calls(root, names):
    """The names, and the members of those that are systemd's sets."""
    out = set()
    for name in names:
        if not name.startswith("@"):
            out.add(name)
            continue
        shown = root.run("systemd-analyze", "--no-pager", "syscall-filter", name).splitlines()[1:]
        out |= system_calls(root, [line.strip() for line in shown
                                   if line.strip() and not line.strip().startswith("#")])
    return out


def check_calls(root, name, unit, trace):
    """The unit's filter allows every system call that the program made."""
    allowed = set()
    for line in unit["SystemCallFilter"]:
        if line.startswith("~"):
            allowed -= system_calls(root, line[1:].split())
        else:
            allowed |= system_calls(root, line.split())
    traced = (root.path / trace.lstrip("/")).read_text(encoding="utf-8", errors="replace")
    made = set(re.findall(r"^\d+ +(\w+)\(", traced, re.M))
    if len(made) < 30 or made - allowed:
        raise Failed(f"{name} made {len(made)} system calls; forbidden are {sorted(made - allowed)}")
    if unit.get("SystemCallErrorNumber") != ["EPERM"]:
        raise Failed(f"{name}: a forbidden system call ends it")
    say(f"{name}: {len(made)} system calls, all allowed")


@contextlib.contextmanager
def started_unit(root, name, instance=""):
    """Does what systemd does: runs ExecStart as User, and waits for READY=1."""
    unit = unit_of(root, name)
    if unit["Type"] != ["notify"]:
        raise Failed(f"{name} is of Type {unit['Type']}")
    command = shlex.split(unit["ExecStart"][0].replace("%i", instance))
    if not (root.path / command[0].lstrip("/")).exists():
        raise Failed(f"{name}: there is no {command[0]}")
    place = root.path / "run/notify"
    place.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(place))
        place.chmod(0o777)
        notices.settimeout(READY_SECONDS)
        calls = f"/tmp/calls-{name}"
        process = root.start(["strace", "-D", "-f", "-qq", "-o", calls, *command],
                             unit["User"][0], {"NOTIFY_SOCKET": "/run/notify"})
        try:
            told = notices.recv(4096).decode()
            if "READY=1" not in told:
                raise Failed(f"{name} said {told!r}")
            say(f"{name}: {told.splitlines()[-1]}")
            yield process
            process.terminate()
            if process.wait(30) != 0:
                raise Failed(f"{name} did not stop as it should: {process.returncode}")
            check_calls(root, name, unit, calls)
        except socket.timeout:
            raise Failed(f"{name} did not say that it is ready within {READY_SECONDS} s") from None
        finally:
            process.kill()
            process.wait()


def install(root, packages):
    say("installs the packages, and what they depend on, through apt")
    inside = root.path / "tmp/packages"
    shutil.copytree(packages, inside)
    found = sorted(f"/tmp/packages/{file.name}" for file in inside.glob("*.deb"))
    if len(found) != len(OURS):
        raise Failed(f"the packages are {found}")
    root.apt("update")
    # Alone first: what they need must come by their own word.
    root.apt("install", "--no-install-recommends", *found)
    for program in ("troth-coordinator", "troth-participant", "trothctl", "troth-conformance"):
        root.run(program, "--help")
        section = "8" if program in ("troth-coordinator", "troth-participant") else "1"
        root.run("gzip", "-t", f"/usr/share/man/man{section}/{program}.{section}.gz")
    root.run("python3", "-c", "import troth, troth.sql")
    say("installs a database, a compiler and systemd's own tools")
    root.apt("install", "--no-install-recommends", *TOOLS)
    # The application's own words: the recommended ones.
    root.apt("install", "--no-install-recommends", "thrift-compiler", "pkg-config")


def check_units(root):
    for name in ("troth-coordinator.service", "troth-participant@.service"):
        said = root.run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no",
                        f"/usr/lib/systemd/system/{name.replace('@.', '@east.')}")
        if "troth" in said:
            raise Failed(f"systemd-analyze verify {name}: {said}")
        said = root.run("systemd-analyze", "security", "--offline=true", "--no-pager",
                        "--threshold=25", f"/usr/lib/systemd/system/{name}")
        say(said.strip().splitlines()[-1].lstrip("→ "))


def check_documents(root):
    """Where the operator's manual leads, there is something."""
    folder = root.path / "usr/share/doc/troth-coordinator"
    links = set(re.findall(r"\]\(([^)#:]+)[^):]*\)",
                           (folder / "operations.md").read_text(encoding="utf-8")))
    missing = sorted(link for link in links if not (folder / link).exists())
    if len(links) < 5 or missing:
        raise Failed(f"operations.md leads to {missing} of {len(links)}")
    if "troth-participant:" not in root.run("dpkg", "-S", "/etc/troth").replace(",", ":"):
        raise Failed("a participant alone has no /etc/troth for its flags")


def check_headers(root):
    """Each installed header compiles alone, against installed files only."""
    headers = sorted((root.path / "usr/include/troth").rglob("*.h"))
    say(f"compiles {len(headers)} headers, each alone")
    if not headers:
        raise Failed("no headers are installed")
    flags = root.run("pkg-config", "--cflags", "troth-participant").split()
    running = []
    for header in headers:
        inside = f"/{header.relative_to(root.path)}"
        running.append((inside, subprocess.Popen(
            root.chroot(["g++", "-std=c++20", "-Wall", "-Werror", "-fsyntax-only", *flags,
                         "-include", inside, "-x", "c++", "/dev/null"]),
            env=root.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)))
        if len(running) == 2:
            finish_header(*running.pop(0))
    for one in running:
        finish_header(*one)


def finish_header(name, process):
    said, _ = process.communicate()
    if process.returncode != 0:
        raise Failed(f"{name} does not compile alone:\n{said[-2000:]}")


def build_application(root):
    shutil.copytree(HERE / "application", root.path / "tmp/application")
    say("builds an application with find_package")
    root.run("cmake", "-S", "/tmp/application", "-B", "/tmp/application/build", "-G", "Ninja")
    root.run("cmake", "--build", "/tmp/application/build", "-j", "2")
    say("and with pkg-config")
    root.run("sh", "-ec", """cd /tmp/application; mkdir gen
        thrift --gen cpp:no_skeleton,moveable_types -out gen \
            -I "$(pkg-config --variable=thriftdir troth-client)" ledger.thrift
        for source in gen/Ledger.cpp gen/ledger_types.cpp; do
            g++ -std=c++20 -c $source -o ${source%.cpp}.o $(pkg-config --cflags troth-client)
        done
        g++ -std=c++20 -Igen pay.cc gen/*.o -o pay $(pkg-config --cflags --libs troth-client)
        g++ -std=c++20 -Igen ledger.cc gen/*.o -o ledger \
            $(pkg-config --cflags --libs troth-participant)""")


@contextlib.contextmanager
def database(root):
    data = "/var/lib/postgresql/data"
    root.run(f"{PG_BIN}/initdb", "-D", data, "--auth=peer", user="postgres")
    (root.path / "run/postgresql").mkdir(exist_ok=True)
    shutil.chown(root.path / "run/postgresql", 0, 0)
    root.run("chown", "postgres:", "/run/postgresql")
    options = "-c max_prepared_transactions=500 -c listen_addresses="
    root.run(f"{PG_BIN}/pg_ctl", "-D", data, "-o", options, "-l", "/tmp/postgres.log", "-w",
             "start", user="postgres")
    try:
        yield lambda name, sql: root.run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
                                         "-d", name, "-c", sql, user="postgres").strip()
    finally:
        root.run(f"{PG_BIN}/pg_ctl", "-D", data, "-m", "immediate", "stop", user="postgres")


def prepare_databases(root, sql):
    sql("postgres", "CREATE ROLE troth LOGIN")
    for name in ("east", "ledger"):
        sql("postgres", f"CREATE DATABASE {name} OWNER troth")
    sql("east", "CREATE TABLE account (id bigint, balance bigint); "
        "INSERT INTO account VALUES (1, 100); ALTER TABLE account OWNER TO troth")
    sql("ledger", "CREATE TABLE line (amount bigint); ALTER TABLE line OWNER TO troth")
    (root.path / "etc/troth/east.sql").write_text(
        "-- name: withdraw\n-- rows: 1\n-- message: not enough\n"
        "UPDATE account SET balance = balance - $2 WHERE id = $1 AND balance >= $2;\n")
    # As shipped, but for the name of the instance.
    example = root.path / "usr/share/doc/troth-participant/examples/participant-NAME.flags.example"
    shutil.copy(example, root.path / "etc/troth/participant-east.flags")


def use(root):
    """The units' own commands, with the flag files as they are shipped."""
    root.run("troth-coordinator", "--init", "--wal_dir", "/var/lib/troth/wal", "--name", "shop",
             user="troth")
    with database(root) as sql:
        prepare_databases(root, sql)
        with (started_unit(root, "troth-coordinator.service"),
              started_unit(root, "troth-participant@.service", "east")):
            ledger = root.start(["/tmp/application/build/ledger",
                                 "host=/run/postgresql dbname=ledger", "127.0.0.1:7712"], "troth")
            try:
                for command in (["/tmp/application/build/pay"], ["/tmp/application/pay"],
                                ["python3", "/tmp/application/pay.py"]):
                    pay(root, command)
                look(root)
            finally:
                ledger.terminate()
                ledger.wait(30)
        found = (sql("east", "SELECT balance FROM account"),
                 sql("ledger", "SELECT count(*), sum(amount) FROM line"),
                 sql("postgres", "SELECT count(*) FROM pg_prepared_xacts"))
        # Three payments of 5, two of them booked too; one of 1000 was refused.
        if found != ("85", "2|10", "0"):
            raise Failed(f"the databases hold {found}")
    root.run("trothctl", "wal", "verify", "/var/lib/troth/wal")


def look(root):
    """What an operator and Prometheus ask; trothctl doctor once ended the coordinator, which asked
    the kernel about its clock and was not allowed to."""
    for command in (["status"], ["list", "--in_doubt"], ["participants"], ["status"]):
        root.run("trothctl", *command)
    doctor = subprocess.run(root.chroot(["trothctl", "doctor"]), env=root.env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if "clock: " not in doctor.stdout or "participant east" not in doctor.stdout:
        raise Failed(f"trothctl doctor ended with {doctor.returncode}: {doctor.stdout}")
    root.run("trothctl", "status")
    for page in ("7714/", "7714/metrics", "7714/api/in-doubt", "7714/api/participants",
                 "7723/metrics"):
        with urllib.request.urlopen(f"http://127.0.0.1:{page}", timeout=10) as answer:
            answer.read()


def pay(root, command):
    """5 is paid; the first call may come before the service has enrolled."""
    deadline = time.monotonic() + 30
    while True:
        done = subprocess.run(root.chroot([*command, "127.0.0.1:7711", "5"]), env=root.env,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        say(f"{' '.join(command)}: {done.stdout.strip().splitlines()[-1]}")
        if done.returncode == 0:
            break
        if time.monotonic() > deadline:
            raise Failed(f"{command}: {done.stdout}")
        time.sleep(0.2)
    refused = subprocess.run(root.chroot([*command, "127.0.0.1:7711", "1000"]), env=root.env,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if refused.returncode == 0 or "not enough" not in refused.stdout:
        raise Failed(f"{command}: paid what is not there: {refused.stdout}")


def remove(root, before):
    say("removes the packages")
    # As where systemd runs and both were enabled: links to units that are gone must not be left.
    root.run("systemctl", "enable", "troth-coordinator.service", "troth-participant@east.service")
    (root.path / "run/systemd/system").mkdir(parents=True, exist_ok=True)
    enabled = {link.name for link in (root.path / "etc/systemd/system").glob("*.wants/*")}
    if "troth-participant@east.service" not in enabled:
        raise Failed(f"enabled are {sorted(enabled)}")
    log = sorted(str(file) for file in (root.path / "var/lib/troth/wal").iterdir())
    root.apt("remove", *OURS)
    left = root.named_ours() - before
    state = {path for path in left if path.startswith(("/var/lib/troth", "/etc/troth"))}
    if left != state or "/etc/troth/coordinator.flags" not in left:
        raise Failed(f"remove left {sorted(left - state)}, and of its configuration {state}")
    # Not the packages': the operator's own files.
    for name in ("participant-east.flags", "east.sql"):
        (root.path / "etc/troth" / name).unlink()
    root.apt("purge", "troth-coordinator", "troth-participant")  # those with configuration
    left = {path for path in root.named_ours() - before if not path.startswith("/var/lib/troth/")}
    if left != {"/var/lib/troth"}:
        raise Failed(f"purge left {sorted(left)}")
    if log != sorted(str(file) for file in (root.path / "var/lib/troth/wal").iterdir()):
        raise Failed("the log was touched by the removal")
    if "troth" in root.run("dpkg", "-l"):
        raise Failed("dpkg still knows the packages")


def without_network():
    """From here on nothing but a loopback of its own: the ports of the shipped files are free."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise Failed(os.strerror(ctypes.get_errno()))
    run("ip", "link", "set", "lo", "up")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--packages", type=pathlib.Path, required=True)
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args()
    asked.root.mkdir(parents=True, exist_ok=True)
    if asked.keep:
        shutil.rmtree(asked.root)
    else:
        run("mount", "-t", "tmpfs", "-o", "size=3g,mode=755", "tmpfs", str(asked.root))
    root = CleanRoot(asked.root)
    done = {"installed": False, "application_built": False, "removed": False}
    try:
        root.make()
        before = root.named_ours()
        install(root, asked.packages)
        check_units(root)
        check_documents(root)
        done["installed"] = True
        check_headers(root)
        build_application(root)
        without_network()
        use(root)
        done["application_built"] = True
        shutil.rmtree(root.path / "tmp/application")
        remove(root, before)
        done["removed"] = True
    except (Failed, OSError, subprocess.SubprocessError) as error:
        say(f"FAILED: {error}")
    print("packages: " + " ".join(f"{key}={str(value).lower()}" for key, value in done.items()))
    sys.exit(0 if all(done.values()) else 1)


if __name__ == "__main__":
    main()
