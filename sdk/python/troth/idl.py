"""Python code from Thrift files, generated when first needed and kept in a build directory.

For the wire contract itself, and for an application's own services, which include it:

    troth.idl.load("bank.thrift")      # then: from troth_bank import BankBranch

The key of what is kept is the text of the files and the compiler's version, so a change makes
it anew. Knows no service. docs/participants.md, "Python".
"""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

_HERE = pathlib.Path(__file__).resolve().parent
CONTRACT = ("troth.thrift", "coordinator.thrift", "participant.thrift", "sql.thrift")


class IdlError(Exception):
    """Code could not be generated; the text says what to do."""


def include_dir() -> pathlib.Path:
    """The folder with the contract's files, for `thrift -I`."""
    for folder in (_HERE / "thrift", _HERE.parents[2] / "thrift"):
        if (folder / CONTRACT[0]).is_file():
            return folder
    raise IdlError(f"the wire contract ({CONTRACT[0]}) is neither beside {_HERE} nor in a source tree")


def contract() -> pathlib.Path:
    """A directory with the generated package `troth/wire`."""
    return _generated(tuple(include_dir() / name for name in CONTRACT))


def compile(path: str | os.PathLike[str]) -> pathlib.Path:  # pylint: disable=redefined-builtin
    """Generates the code of one file, which may include the contract's and files beside it.
    Returns the directory to import from. Raises IdlError."""
    return _generated((pathlib.Path(path).resolve(),))


def load(path: str | os.PathLike[str]) -> None:
    """compile(), and makes the result importable."""
    directory = str(compile(path))
    if directory not in sys.path:
        sys.path.append(directory)


def generate(files: tuple[pathlib.Path, ...], into: pathlib.Path) -> None:
    """Runs the Thrift compiler on each file. Raises IdlError with its words."""
    for file in files:
        done = subprocess.run(
            [_compiler(), "--gen", "py", "-I", str(include_dir()), "-I", str(file.parent),
             "-out", str(into), str(file)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            raise IdlError(f"thrift could not compile {file}: {done.stdout.strip()}")


def _compiler() -> str:
    found = shutil.which("thrift")
    if found is None:
        raise IdlError("there is no Thrift compiler; apt-get install thrift-compiler")
    return found


@functools.lru_cache(maxsize=None)
def _version() -> bytes:
    return subprocess.run([_compiler(), "--version"], stdout=subprocess.PIPE, check=True).stdout


def _build_dir() -> pathlib.Path:
    """TROTH_BUILD_DIR; else build/python of the source tree; else the user's cache."""
    named = os.environ.get("TROTH_BUILD_DIR")
    if named:
        return pathlib.Path(named)
    root = _HERE.parents[2]
    if (root / "thrift" / CONTRACT[0]).is_file() and os.access(root, os.W_OK):
        return root / "build" / "python"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (pathlib.Path(cache) if cache else pathlib.Path.home() / ".cache") / "troth"


def _generated(files: tuple[pathlib.Path, ...]) -> pathlib.Path:
    digest = hashlib.sha256(_version())
    folders = {include_dir(), *(file.parent for file in files)}
    for file in sorted(files) + sorted(f for folder in folders for f in folder.glob("*.thrift")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    directory = _build_dir() / f"{files[0].stem}-{digest.hexdigest()[:16]}"
    if directory.is_dir():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Appears whole or not at all; of two processes that make it, one is enough.
    fresh = pathlib.Path(tempfile.mkdtemp(prefix=".idl-", dir=directory.parent))
    try:
        generate(files, fresh)
        fresh.chmod(0o755)
        try:
            fresh.rename(directory)
        except OSError:
            if not directory.is_dir():
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return directory
