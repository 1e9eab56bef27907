# Stand-in for `time` as ESP32 has it: its own clock and epoch, whole seconds, UTC, eight fields.
# Sleeping and ticks are the interpreter's own; settings are described in _chip.py.
import _chip
import utime
from _release import minor

# What a number may be at most on ESP32: up to 1.25 gmtime() takes a machine word with a sign.
_LAST = 0x7FFFFFFF if minor < 26 and not _chip.SHIFT else 0xFFFFFFFF


def time():
    return int(_chip.now()) + _chip.SHIFT


def time_ns():
    return int((_chip.now() + _chip.SHIFT) * 1e9)


def gmtime(seconds=None):
    from _calendar import gmtime

    if seconds is not None and not 0 <= seconds <= _LAST:
        raise OverflowError  # as on a port of 32 bits
    return gmtime(_chip.now() if seconds is None else seconds - _chip.SHIFT)


localtime = gmtime


def mktime(fields):
    from _calendar import seconds_to

    return seconds_to(*fields[:6]) + _chip.SHIFT


def __getattr__(name):
    if name == "clock":  # known to the unix build only
        raise AttributeError(name)
    return getattr(utime, name)
