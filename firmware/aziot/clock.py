# Unix time on any epoch, and deadlines. Nothing here guesses: a clock that was never set is an error, not a date.
from micropython import const

from .errors import AzureError
from .runtime import time

# MicroPython counts from 2000 on most boards and from 1970 on a PC.
EPOCH = 946684800 if time.gmtime(0)[0] == 2000 else 0
_RELEASE = const(1767225600)  # 2026-01-01: this code did not exist before, so an earlier clock is not set


def due(ms):
    """The moment in ms milliseconds from now, for left(). No later than in 5 days: ticks go round."""
    return time.ticks_add(time.ticks_ms(), min(int(ms), 500000000))


def left(end):
    """Milliseconds until end, below zero after it."""
    return time.ticks_diff(end, time.ticks_ms())


def now():
    """Unix time in whole seconds, whatever epoch the runtime has."""
    return int(time.time()) + EPOCH


def is_set():
    return now() >= _RELEASE


def sync(ntp):
    """Set the clock from the first host of ntp that answers; AzureError "ntp" if none does."""
    from .ntp import settime

    for host in ntp:
        try:
            settime(host)
            if is_set():
                return host
        except (OSError, ValueError, OverflowError, TypeError):  # no answer, or one that is not to be believed
            pass
    raise AzureError("ntp", "clock", " ".join(map(str, ntp)))


def unix(date):
    # Unix time of (year, month, day, hour, minute, second): days since 1970 of a Gregorian date, counting years from
    # March so that February comes last. (time.mktime means local time on a PC and another epoch on a board.)
    year, month, day, hour, minute, second = date
    if month < 3:
        year -= 1
        month += 12
    days = year * 365 + year // 4 - year // 100 + year // 400 + (month * 153 - 457) // 5 + day - 719469
    return ((days * 24 + hour) * 60 + minute) * 60 + second


def iso(t):
    """Unix time as 2026-11-21T06:40:12Z. Where the runtime's calendar ends (32 bits), the last moment that it knows."""
    return "%04d-%02d-%02dT%02d:%02d:%02dZ" % tuple(time.gmtime(max(0, min(t - EPOCH, 0xFFFFFFFF)))[:6])
