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

    from . import stream

    for host in ntp:
        stream.idle()  # a name's resolution feeds nothing
        try:
            settime(host)
            if is_set():
                return host
        except (OSError, ValueError, OverflowError, TypeError):  # no answer, or one that is not to be believed
            pass
    raise AzureError("ntp", "clock", " ".join(map(str, ntp)))


def _days(year, month):
    # From 1970 to the first of a month: a year begins in March here, so that February comes last.
    if month < 3:
        year -= 1
        month += 12
    return year * 365 + year // 4 - year // 100 + year // 400 + (month * 153 - 457) // 5 - 719468


def unix(date):
    # Unix time of (year, month, day, hour, minute, second). (time.mktime means local time on a PC and another epoch on
    # a board.)
    year, month, day, hour, minute, second = date
    return (((_days(year, month) + day - 1) * 24 + hour) * 60 + minute) * 60 + second


def iso(t):
    """Unix time as 2026-11-21T06:40:12Z. Not by time.gmtime: where that ends depends on the release of MicroPython."""
    t = max(0, t)
    days = t // 86400
    t %= 86400
    month = days * 32 // 975  # since 1970; never too many, and hardly one too few
    while _days(1970 + (month + 1) // 12, (month + 1) % 12 + 1) <= days:
        month += 1
    year = 1970 + month // 12
    month = month % 12 + 1
    return "%04d-%02d-%02dT%02d:%02d:%02dZ" % (
        year, month, days - _days(year, month) + 1, t // 3600, t // 60 % 60, t % 60,
    )  # fmt: skip
