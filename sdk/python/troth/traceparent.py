"""The `traceparent` of W3C's Trace Context, as applications hand it in: whether a text is one. What
is none is passed over in silence, as the standard wants it. docs/operations.md, "Tracing"."""

import re

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def is_traceparent(text: str) -> bool:
    """`<version>-<trace id>-<parent id>-<flags>`, in lower-case hex digits."""
    return _TRACEPARENT.fullmatch(text) is not None
