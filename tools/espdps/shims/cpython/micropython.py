"""`micropython` for CPython, and the few functions that MicroPython has in `time`, `gc` and `sys`.

It must never change what CPython already has."""

import gc
import sys
import time
import traceback
from typing import Any

_WRAP = 1 << 30  # MicroPython's ticks wrap around; differences are right within half of that


def const(value: Any) -> Any:
    return value


def _ticks_ms() -> int:
    return time.monotonic_ns() // 1_000_000 % _WRAP


def _ticks_add(ticks: int, delta: int) -> int:
    return (ticks + delta) % _WRAP


def _ticks_diff(end: int, start: int) -> int:
    return (end - start + _WRAP // 2) % _WRAP - _WRAP // 2


def _sleep_ms(ms: int) -> None:
    time.sleep(ms / 1000)


for _module, _name, _value in (
    (time, "ticks_ms", _ticks_ms),
    (time, "ticks_add", _ticks_add),
    (time, "ticks_diff", _ticks_diff),
    (time, "sleep_ms", _sleep_ms),
    (sys, "print_exception", traceback.print_exception),
    (gc, "mem_free", lambda: 0),
    (gc, "mem_alloc", lambda: 0),
):
    if not hasattr(_module, _name):
        setattr(_module, _name, _value)
