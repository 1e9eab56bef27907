"""Locks on folders, held until the process ends, however it ends: one command at work in a folder, one simulator.
Loads no part of the simulator, which takes longer than what it is asked about here."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from espdps.errors import ToolError

_HELD = "ports.json"  # what the simulator remembers of its ports; the lock on it is the sign of life
_TICK = 0.02  # seconds between two looks
_TAKING = 0.5  # who looks whether it is held holds it for an instant
_COMING = 1.0  # from the start of a command that was typed first to its lock, less that of one typed right after it
_STARTING = 20.0  # two RSA keys are made, on a busy machine


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """No other esp-dps changes what is in this folder meanwhile. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # the folder, since its files are new ones after a change
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def held(folder: Path) -> Iterator[TextIO]:
    """Have this folder, made if there is none, for oneself; the file is for the ports. What says that a simulator
    listens there is taken away.

    Raises ToolError if another simulator has it.
    """
    new = not folder.exists()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(folder / _HELD, "a+") as file:
        if not _until(lambda: _taken(file, fcntl.LOCK_EX), _TAKING):
            raise ToolError(f"{folder}: another simulator runs in this folder", "take another --dir, or stop it")
        (folder / "sim.json").unlink(missing_ok=True)
        try:
            yield file
        finally:
            if new and not file.tell():  # it never came to have ports: wrong use leaves no folder behind
                (folder / _HELD).unlink(missing_ok=True)
                with suppress(OSError):
                    folder.rmdir()


def wait(folder: Path) -> bool:
    """Whether sim.json is there, at once or when a simulator that is starting in this folder listens."""
    info = folder / "sim.json"
    if not _until(lambda: info.is_file() or _is_held(folder), _COMING):
        return False
    _until(lambda: info.is_file() or not _is_held(folder), _STARTING)
    return info.is_file()


def _is_held(folder: Path) -> bool:
    try:
        with open(folder / _HELD) as file:
            return not _taken(file, fcntl.LOCK_SH)
    except OSError:  # no such file, or not ours: nothing to wait for
        return False


def _taken(file: TextIO, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _until(happened: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(_TICK)
    return True
