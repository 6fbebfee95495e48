"""Named points at which a test stops, kills or misleads this process; names and syntax are those
of common/failpoint.h. Nothing happens unless TROTH_FAILPOINTS says so:
`name=action[@n]`, separated by ';', actions crash, stop, pause:MS, error, off."""

from __future__ import annotations

import os
import signal
import threading
import time

_lock = threading.Lock()
_points: dict[str, list] = {}  # name -> [action, passings until it acts]


def enable(spec: str) -> None:
    """Raises ValueError naming the part that is not understood."""
    for part in filter(None, spec.split(";")):
        name, equals, action = part.partition("=")
        action, at, count = action.partition("@")
        known = action in ("crash", "stop", "error", "off") or (
            action.startswith("pause:") and action[6:].isdigit())
        if not equals or not known or (at and not count.isdigit()):
            raise ValueError(f"failpoint '{part}' is not name=action[@n]")
        with _lock:
            _points.pop(name, None)
            if action != "off":
                _points[name] = [action, int(count or 1)]


def enable_from_environment() -> None:
    enable(os.environ.get("TROTH_FAILPOINTS", ""))


def passing(name: str) -> bool:
    """Passes the point. True when the caller is to take its error branch."""
    if not _points:
        return False
    with _lock:
        point = _points.get(name)
        if point is None:
            return False
        point[1] -= 1
        if point[1] > 0:
            return False
        action = point[0]
    if action == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action.startswith("pause:"):
        time.sleep(int(action[6:]) / 1000)
    return action == "error"
