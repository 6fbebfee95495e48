"""The wire contract as Python: modules `values`, `coordinator`, `participant` and `sql`.

Their code is generated from `thrift/`, never kept in the tree: an installed package brings it
along (setup.py), in a source tree it is made at first use (troth/idl.py).
"""

import pathlib as _pathlib

from troth import idl as _idl

if not (_pathlib.Path(__file__).parent / "values").is_dir():
    __path__.append(str(_idl.contract() / "troth" / "wire"))

from troth.wire.values.ttypes import Refused as _Refused  # noqa: E402

_OF_PYTHON = ("__traceback__", "__cause__", "__context__", "__suppress_context__", "__notes__")


def _set_attribute(self: BaseException, name: str, value: object) -> None:
    """Thrift's exceptions refuse every assignment, also those that Python's own libraries make to
    an exception on its way (contextlib); their fields stay as they are."""
    if name not in _OF_PYTHON:
        raise TypeError("can't modify immutable instance")
    BaseException.__setattr__(self, name, value)


_Refused.__setattr__ = _set_attribute
