"""How much the service takes of one kind of request in some time, and when there is room again.

Counts what it let pass only: who is throttled and asks again makes nothing worse.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque

# The limits of DPS by its documentation.
REGISTRATIONS_A_MINUTE = 1000  # of all devices of one service
POLLS_IN_10_SECONDS = 5  # of one device


class Throttle:
    """``limit`` requests in ``period`` seconds for each who asks; None is no limit."""

    def __init__(self, limit: int | None, period: float) -> None:
        self._limit, self._period = limit, period
        self._passed: dict[str, deque[float]] = defaultdict(deque)

    def wait(self, who: str = "") -> int:
        """0 if the request passes, else whole seconds until one would."""
        if self._limit is None:
            return 0
        now, passed = time.monotonic(), self._passed[who]
        while passed and passed[0] <= now - self._period:
            passed.popleft()
        if len(passed) < self._limit:
            passed.append(now)
            return 0
        return max(1, math.ceil(passed[0] + self._period - now))
