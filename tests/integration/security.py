#!/usr/bin/python3
"""Attacks on a bank that speaks TLS, while it works; started by `security`, which builds first and
has the help. security_*.py are the attacks, and what they have in common."""

import argparse
import re
import resource
import subprocess
import sys

import security_certificates  # these make the others importable
import security_manners
import security_roles
from security_memory import crowd
from security_world import ROLES, Succeeded, World, begin, demo, tls_socket
from thrift.Thrift import TException
from troth.wire.coordinator import Coordinator

MAX_MIB = 256
PARTS = (security_certificates, security_roles, security_manners)


def renewed(world):
    """Certificates are replaced under the running bank: new connections get the new ones."""
    def serial():
        with tls_socket(world, "teller", world.ports()["ParticipantPeer"]) as sock:
            return sock.getpeercert()["serialNumber"]
    before = serial()
    world.make_certificates(world.certificates, world.names)
    world.write_roles(ROLES)
    return serial() != before and not world.harm()


def control(world, name, *arguments):
    """trothctl, with the certificate of `name`."""
    return subprocess.run(
        [str(world.bank.bin / "trothctl"), *arguments, "--coordinator",
         f"127.0.0.1:{world.ports()['CoordinatorAdmin']}", *world.bank.tls_flags(name)],
        capture_output=True, text=True, timeout=60, check=False)


def administered(world):
    """trothctl works with an administrator's certificate, and with no other."""
    good, bad = control(world, "admin", "status"), control(world, "teller", "status")
    return good.returncode == 0 and "serving" in good.stdout and bad.returncode == 1


def signed(world):
    """An order is kept under the name in the certificate of who gave it, whatever he says."""
    with world.call(Coordinator, "teller") as coordinator:
        id_, _ = begin(world, coordinator, last=True)
    done = control(world, "admin", "resolve", id_, "--abort", "--who", "the boss", "--reason",
                   "tried", "--yes")
    kept = control(world, "admin", "heuristics", "--json")
    return done.returncode == 0 and "ordered to abort by admin (the boss): tried" in kept.stdout


def secrets_told(world):
    """Lines of private keys in what the processes logged."""
    keys = [line for path in world.certificates.glob("*.key")
            for line in path.read_text().splitlines() if not line.startswith("-----")]
    logs = "".join(path.read_text(errors="replace") for path in world.bank.dir.glob("*.log"))
    return [key for key in keys if key in logs] + re.findall("PRIVATE KEY|hush", logs)


def run(world, options):
    total = refused = harmed = 0
    broken = []
    for what, attack in (attack for part in PARTS for attack in part.attacks()):
        total += 1
        try:
            said = attack(world)
            refused += 1
        except Succeeded as success:
            said = f"NOT REFUSED: {success}"
        except (TException, OSError, subprocess.SubprocessError, AssertionError) as error:
            said = f"NOT REFUSED, as far as can be told: {type(error).__name__}: {error}"
        harm = world.harm()
        if harm:
            harmed += 1
            said += f"; HARMED: {harm}"
        said = str(said).replace("\n", " ").strip()
        print(f"| {what} | {said} |", flush=True)
    if not renewed(world):
        broken.append("certificates were replaced, and new connections did not get the new ones")
    if not administered(world):
        broken.append("trothctl does not obey the roles")
    if not signed(world):
        broken.append("an administrator's order is kept under another name than its giver's")
    resident, requests, lost = crowd(world, options.idle, options.busy)
    if secrets_told(world):
        broken.append("a log tells secrets")
    world.load.terminate()
    world.load.wait()
    audit = subprocess.run(world.bank.client("audit", "--settle_ms", "8000"), capture_output=True,
                           text=True, timeout=120, check=False)
    if audit.returncode != 0 or "money=conserved" not in audit.stdout:
        broken.append(f"the books are wrong: {audit.stdout}{audit.stderr}")
    if lost:
        broken.append(f"{lost} requests were lost in the crowd")
    if resident > MAX_MIB:
        broken.append(f"{resident:.0f} MiB in the crowd, above {MAX_MIB}")
    for rule in broken:
        print(f"security: {rule}", file=sys.stderr)
    print(f"memory: idle={options.idle} busy={options.busy} resident_mib={resident:.1f} "
          f"requests={requests} lost={lost}")
    print(f"security: attacks={total} refused={refused} harmed={harmed}")
    return 0 if total >= 10 and refused == total and not harmed and not broken else 1


def main():
    parser = argparse.ArgumentParser(prog="security", allow_abbrev=False)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--idle", type=int, default=1000)
    parser.add_argument("--busy", type=int, default=200)
    parser.add_argument("--plant", action="store_true")
    options = parser.parse_args()
    wanted = options.idle + options.busy + 2000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, wanted), hard), hard))
    world = World(options)
    try:
        world.start()
        return run(world, options)
    except (demo.StartError, subprocess.CalledProcessError) as error:
        print(f"security: {error}", file=sys.stderr)
        return 2
    finally:
        world.stop()


if __name__ == "__main__":
    sys.exit(main())
