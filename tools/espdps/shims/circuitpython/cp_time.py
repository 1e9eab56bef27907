"""CircuitPython's time: no ticks, no sleep_ms, no gmtime; time() follows the real-time clock."""

import calendar
from time import gmtime as _calendar
from time import monotonic, monotonic_ns, sleep, struct_time  # noqa: F401

import cp_machine


def localtime(seconds: float | None = None) -> struct_time:
    seconds = cp_machine.now() if seconds is None else seconds
    if seconds < 946684800:
        raise OverflowError("timestamp out of range for platform time_t")
    return _calendar(seconds)


def mktime(moment: struct_time) -> int:
    return calendar.timegm(moment)


def time() -> int:
    return int(cp_machine.now())
