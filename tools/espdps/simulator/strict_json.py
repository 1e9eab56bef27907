"""JSON as the services take and send it: UTF-8, and nothing beyond RFC 8259."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


def read(data: bytes) -> Any:
    """The value of a JSON text.

    Raises ValueError for what is not JSON, which Python's own reader partly takes: NaN, Infinity, UTF-16, half of a
    surrogate pair, a number too large for a double, or more levels than can be read.
    """
    try:
        value = json.loads(data.decode(), parse_constant=_refused, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if b"\\u" in data:
        write(value)  # an escape may be half of a surrogate pair, which no UTF-8 has
    return value


def write(value: Any) -> bytes:
    """Without spaces, and letters as they are. Raises ValueError for a value that JSON does not have."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _refused(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number too large for a double")
    return value
