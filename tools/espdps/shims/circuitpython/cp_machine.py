"""The board itself: its drive, its clock since power-on, its reset. The other modules of this folder ask it."""

from __future__ import annotations

import os
import sys
import time

drive = ""
writable = False  # for the program; storage.remount() says so
_argv: list[str] = []
_started = time.monotonic()
# What the real-time clock was set to, less the seconds since power-on then. A reload keeps it: BOARD_CLOCK=kept.
set_at = time.time() if os.environ.get("BOARD_CLOCK") == "kept" else 0.0


def start(folder: str, argv: list[str]) -> None:
    global drive
    drive = folder
    _argv[:] = argv


def uptime() -> float:
    return time.monotonic() - _started


def now() -> float:
    """Unix time by the real-time clock, which begins with 2000 at power-on."""
    return (set_at or 946684800) + uptime()


def path(name: str) -> str:
    return drive + name if name.startswith("/") and not name.startswith(drive) else name


def reset() -> None:
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *_argv])
