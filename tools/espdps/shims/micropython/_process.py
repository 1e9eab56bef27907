# How a chip's program ends: at once, by a reset, or when its watchdog starves.
# Apart from _chip.py because a program seldom needs it and heap is short.
from array import array

import _chip
import ffi
from micropython import const
from uos import getenv

_CAUSE = const(8)
_WHO = const(10)
_RADIO = const(16)
_SOFT_RESET = const(5)


def leave(cause):
    # Ends the program at once, no handler of its own may stop a reset. A virtual board has a script that starts the
    # interpreter anew in the same process; without one the process ends with 200 + cause.
    libc = ffi.open(None)
    start, end = libc.func("i", "execl", "sssp"), libc.func("v", "_exit", "i")
    script = getenv("BOARD_START")
    # Nothing that needs heap may follow: who finds this process dead now takes the new start for failed.
    if cause != _SOFT_RESET:
        _chip.memory[_RADIO] = 0
    _chip.memory[_CAUSE] = cause
    _chip.memory[_WHO] = 0
    if script:
        start("/bin/sh", "sh", script, None)
    end(200 + cause)


def starve_in(ms):
    # The process dies of SIGALRM after so many milliseconds, however busy; each call starts the time anew, 0 ends it.
    ffi.open(None).func("i", "setitimer", "ipp")(0, array("l", (0, 0, ms // 1000, ms % 1000 * 1000)), None)
