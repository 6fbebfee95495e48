"""The wire contract as Python: modules `values`, `coordinator` and `participant`.

Their code is generated from `thrift/`, never kept in the tree: an installed package brings it
along (setup.py), in a source tree it is made at first use (troth/idl.py).
"""

import pathlib as _pathlib

from troth import idl as _idl

if not (_pathlib.Path(__file__).parent / "values").is_dir():
    __path__.append(str(_idl.contract() / "troth" / "wire"))
