"""The one place that knows where tests/postgres/private_cluster.py lies."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / 'tests' / 'postgres'))
from private_cluster import BIN, OWNER, Cluster, ClusterError, kill_tree, _run as run_as_owner  # pylint: disable=wrong-import-position,unused-import
