"""Adds to what pyproject.toml says: the wire contract and the code generated from it become part of
the package that is built, so that an installed one needs neither a Thrift compiler nor this tree.
Built from a checkout: the contract is in ../../thrift."""

import importlib.util
import pathlib
import shutil
import tempfile

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).resolve().parent


def load_idl():
    """troth/idl.py by itself: the package as a whole needs what is made here."""
    spec = importlib.util.spec_from_file_location("troth_idl", HERE / "troth" / "idl.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildWithContract(build_py):
    def run(self):
        super().run()
        idl = load_idl()
        files = [idl.include_dir() / name for name in idl.CONTRACT]
        package = pathlib.Path(self.build_lib) / "troth"
        (package / "thrift").mkdir(exist_ok=True)
        for file in files:
            shutil.copy(file, package / "thrift")
        with tempfile.TemporaryDirectory() as made:
            idl.generate(files, pathlib.Path(made))
            for unit in ("values", "coordinator", "participant", "sql"):
                shutil.copytree(pathlib.Path(made) / "troth" / "wire" / unit,
                                package / "wire" / unit, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithContract})
