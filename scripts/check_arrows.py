#!/usr/bin/python3
"""Who may include whom: fails when an #include breaks an arrow of docs/architecture.md, or when two
headers give two types one name: no file includes both, but a program may link both (ODR).

Reads the sources as text and needs no build. The arrows stand in the tables below; CMake's link
lines say the same, but would let a header through that needs no linking.
"""
import argparse
import fnmatch
import os
import re
import sys

# Room -> the rooms whose headers it may include, its own aside.
ARROWS = {
    "common": [],
    "wire": ["common"],
    "recovery": ["common"],
    "coordinator": ["recovery", "wire", "common"],
    "participant": ["wire", "common"],
    "client": ["wire", "common"],
    "cli": ["recovery", "client", "participant", "wire", "common"],
    "examples": ["participant", "client", "wire", "common"],
    "jepsen": ["participant", "client", "common"],
    "tests": ["*"],
    "bench": ["*"],
}

# The pure core: values in, values out. No clock, socket, disk, thread or random number.
PURE = {
    ("coordinator/commit_protocol*", "coordinator/protocol_*", "coordinator/lease_book.*",
     "coordinator/registry.*"): [
        "common/transaction_id.h", "common/status.h", "common/check.h", "common/mark.h",
        "recovery/log_record.h", "recovery/recovered_state.h", "recovery/in_doubt.h", "recovery/heuristics.h",
        "coordinator/commit_protocol*.h", "coordinator/protocol_*.h",
        "coordinator/lease_book.h", "coordinator/registry.h"],
    ("recovery/in_doubt.*", "recovery/log_record.*", "recovery/recovered_state.*",
     "recovery/committed_set.*", "recovery/whole_records.*"): [
        "common/transaction_id.h", "common/status.h", "common/check.h", "common/mark.h", "common/codec.h",
        "recovery/log_record.h", "recovery/recovered_state.h", "recovery/in_doubt.h", "recovery/heuristics.h",
        "recovery/committed_set.h", "recovery/whole_records.h"],
}
# (<cstdio> for snprintf: there is no std::format here.)
PURE_STANDARD = set("""
    algorithm array bit cassert charconv cinttypes compare concepts cstddef cstdint cstdio cstring deque
    functional initializer_list iosfwd iterator limits list map memory new numeric optional ostream queue set
    span sstream stack stdexcept string string_view tuple type_traits unordered_map unordered_set
    utility variant vector roaring/roaring.h""".split())

# Headers from outside that only some files may know. Each entry: what is included, by whom, why.
KEPT = [
    ("the wire (generated from thrift/, or of Thrift itself)", ["<wire>", "thrift/*"],
     ["*/*_service.*", "coordinator/*_channel.*", "coordinator/wire_values.*",
      "participant/participant.*", "participant/coordinator_link.*", "wire/*", "client/*", "cli/*",
      "examples/*", "jepsen/*", "tests/*", "bench/*"],
     "wire types stop at the services, the channels and the client"),
    ("PostgreSQL's client library", ["pqxx/*", "libpq-fe.h", "libpq/*", "postgres_ext.h"],
     ["participant/*", "examples/*", "jepsen/*", "tests/*", "bench/*"],
     "a database is reached through participant/resource_manager.h"),
    ("libfiu", ["fiu.h", "fiu-*.h"], ["common/failpoint.*"],
     "failpoints go through common/failpoint.h"),
    ("gflags", ["gflags/*"],
     ["common/program.*", "*main.cc", "*/main_*", "cli/*", "examples/*", "jepsen/*", "tests/*",
      "bench/*"],
     "flags belong to main files; the rest gets options as values"),
]

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)


def matches(path, patterns):
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def sources(root):
    """Paths, relative to `root`, of the C++ files of all rooms."""
    for room in sorted(ARROWS):
        for folder, folders, names in os.walk(os.path.join(root, room)):
            folders.sort()
            for name in sorted(names):
                if name.endswith((".h", ".cc", ".inc")):
                    yield os.path.relpath(os.path.join(folder, name), root)


def generated_headers(root):
    """Names of the headers that Thrift makes of thrift/*.thrift."""
    names = set()
    folder = os.path.join(root, "thrift")
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if name.endswith(".thrift"):
            unit = name[:-len(".thrift")]
            names |= {unit + "_types.h", unit + "_constants.h"}
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                services = re.findall(r"^service (\w+)", file.read(), re.MULTILINE)
            names |= {service + ".h" for service in services}
    return names


def room_fault(path, header):
    """Why `path` may not include `header`, another room's; None if it may."""
    here, there = path.split("/")[0], header.split("/")[0]
    if there not in ARROWS or there == here:
        return None
    allowed = ARROWS[here]
    if "*" in allowed or there in allowed:
        return None
    whom = ", ".join(allowed) if allowed else "no other room"
    return f"{here}/ may include {whom}"


def pure_fault(path, header, angled, wire):
    """Why the pure file `path` may not include `header`; None if it may, or is not pure."""
    for files, allowed in PURE.items():
        if not matches(path, files):
            continue
        if angled and header in PURE_STANDARD:
            return None
        if not angled and matches(header, allowed) and header not in wire:
            return None
        kind = "no header but of values" if angled else "only " + ", ".join(allowed)
        return f"a file of the pure core may include {kind}"
    return None


def faults(root):
    """(path, line, header, reason) of every #include that breaks an arrow."""
    wire = generated_headers(root)
    for path in sources(root):
        with open(os.path.join(root, path), encoding="utf-8") as file:
            text = file.read()
        for match in INCLUDE.finditer(text):
            header, angled = match.group(2), match.group(1) == "<"
            line = text.count("\n", 0, match.start()) + 1
            reason = room_fault(path, header) or pure_fault(path, header, angled, wire)
            for what, headers, allowed, why in KEPT:
                known = matches(header, headers) or ("<wire>" in headers and header in wire)
                if known and not matches(path, allowed):
                    reason = reason or f"{what} is not for this file: {why}"
            if not angled and "/" in header and not header.startswith("thrift/") \
                    and header.split("/")[0] in ARROWS \
                    and not os.path.exists(os.path.join(root, header)) \
                    and not os.path.exists(os.path.join(root, header + ".in")):
                reason = reason or "no such file"
            if reason:
                yield path, line, header, reason


def types(text):
    """Names, with their namespaces, of the types that a header defines outside of others."""
    spaces = []
    for line in text.splitlines():
        if opened := re.match(r"(?:inline )?namespace ([\w:]+) \{$", line):
            spaces.append(opened.group(1))
        elif re.match(r"\}  // namespace", line):
            spaces.pop()
        elif defined := re.match(r"(?:struct|class|enum class) (?:TROTH_[A-Z_]+(?:\(.*?\))? )?"
                                 r"(\w+)(?: final)?(?: :[^:].*)? \{", line):
            yield "::".join((*spaces, defined.group(1)))


def twins(root):
    """(path, name, other path) of every type whose name another header's type has."""
    first = {}
    for path in sources(root):
        if path.endswith(".h") and path.split("/")[0] not in ("tests", "bench"):
            with open(os.path.join(root, path), encoding="utf-8") as file:
                for name in types(file.read()):
                    if name in first:
                        yield path, name, first[name]
                    first.setdefault(name, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    here = os.path.dirname(os.path.realpath(__file__))
    parser.add_argument("--root", default=os.path.join(here, ".."),
                        help="of the source tree to be checked (default: this one)")
    root = os.path.normpath(parser.parse_args().root)
    count = sum(1 for _ in sources(root))
    broken = list(faults(root))
    for path, line, header, reason in broken:
        print(f"{path}:{line}: includes {header}: {reason}", file=sys.stderr)
    same = list(twins(root))
    for path, name, other in same:
        print(f"{path}: defines {name}, as {other} does: give one of them another name",
              file=sys.stderr)
    print(f"arrows: files={count} broken={len(broken)} twins={len(same)}")
    return 1 if broken or same or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
