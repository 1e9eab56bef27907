# Stand-in for `time` as ESP32 has it: its own clock and epoch, whole seconds, UTC, eight fields.
# Sleeping and ticks are the interpreter's own; settings are described in _chip.py.
import _chip
from utime import *

del clock  # noqa: F821 - known to the unix build only


def time():
    return int(_chip.now()) + _chip.SHIFT


def time_ns():
    return int((_chip.now() + _chip.SHIFT) * 1e9)


def gmtime(seconds=None):
    return _chip.gmtime(_chip.now() if seconds is None else seconds - _chip.SHIFT)


localtime = gmtime


def mktime(fields):
    return _chip.seconds_to(*fields[:6]) + _chip.SHIFT
