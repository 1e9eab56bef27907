"""One run of the interpreter, from power-on or reset to the end of its process, and the memory that outlives it.

It must never leave a process behind: the child leads a session on its own terminal and dies with that terminal.
"""

from __future__ import annotations

import contextlib
import enum
import os
import signal
import struct
import subprocess
import termios
import time
import tty
from collections.abc import Callable
from pathlib import Path

from espdps.virtual_board.rom import LOADER

MEMORY_SIZE = 16
BLOCK = 4096
START_DEADLINE = 20.0  # seconds; a start takes some 50 ms, a crowded machine much longer
_CAUSE_AT = 8
_BARE_PROMPT = 2


class Cause(enum.IntEnum):
    """Why a chip starts: mostly the values of machine.reset_cause() on ESP32."""

    POWER_ON = 1
    HARD = 2
    WATCHDOG = 3
    SOFT = 5
    CRASH = 0  # not a cause that a program sees: the interpreter itself ended, the next start is a bare prompt


# How a process ends when the chip is to start again; anything else is a crash.
_RESTARTS = {201: Cause.SOFT, 202: Cause.HARD, -signal.SIGALRM: Cause.WATCHDOG, 128 + signal.SIGALRM: Cause.WATCHDOG}


# futex(2), where a program waits for a lock that it holds itself: on x86-64, on i386 and arm, on arm64
_FUTEX = {"202", "240", "98"}


class Chip:
    """The interpreter running on a terminal of its own.

    ``terminal`` (non-blocking) carries what the program reads and writes. ``ready`` becomes readable with one byte
    when the board is about to run boot.py, and then at its end, when the process has gone.
    """

    def __init__(self, command: list[str], image: Path, memory: Path, flash: Path, environment: dict[str, str]) -> None:
        self.terminal, self._inner = os.openpty()
        self.ready, ready = os.pipe()
        try:
            tty.setraw(self._inner)
            settings = termios.tcgetattr(self._inner)
            settings[1] |= termios.OPOST | termios.ONLCR
            termios.tcsetattr(self._inner, termios.TCSANOW, settings)
            os.set_blocking(self.terminal, False)
            arguments = [image, memory, flash, os.ttyname(self._inner), ready]
            self._process = subprocess.Popen(
                [*command, "-c", LOADER, *map(str, arguments)],
                stdin=self._inner,
                stdout=self._inner,
                stderr=self._inner,
                pass_fds=(ready,),
                env=environment,
                start_new_session=True,
                cwd="/",
            )
        except BaseException:
            self._close()
            raise
        finally:
            os.close(ready)

    @property
    def pid(self) -> int:
        """Process id of the interpreter."""
        return self._process.pid

    def wants_interrupt(self) -> bool:
        """Whether Ctrl-C stops the running program now, instead of being a character for the prompt."""
        flags: int = termios.tcgetattr(self._inner)[3]
        return bool(flags & termios.ISIG)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the running program.

        The unix build raises it from within the signal handler, wherever the program stands: in the middle of an
        allocation it leaves the heap locked. So wait for a moment in which the process waits itself, as any program
        with a pause does soon. One that only computes is interrupted after 0.1 s regardless, and ended if that locked
        its heap.
        """
        safe = self._until(0.1, lambda: self._reads("stat").rpartition(") ")[2][:1] == "S")
        if self.wants_interrupt():
            self._process.send_signal(signal.SIGINT)
        if not safe and self._until(0.2, lambda: self._reads("syscall").split(" ")[0] in _FUTEX):
            self.kill()

    def _until(self, seconds: float, true: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and self.wants_interrupt() and time.monotonic() < deadline:
            if true():
                return True
            time.sleep(0.001)
        return False

    def _reads(self, name: str) -> str:
        # proc(5); empty where there is no such thing, which is outside of Linux.
        try:
            return Path(f"/proc/{self.pid}/{name}").read_text()
        except OSError:
            return ""

    def end(self) -> Cause:
        """Wait for the process, which is about to end or killed, and free what it held; return how it is to go on."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = self.kill()
        self._close()
        return _RESTARTS.get(code, Cause.CRASH)

    def kill(self) -> int:
        """Cut the power: the process ends in the middle of whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait(timeout=5)

    def _close(self) -> None:
        for descriptor in (self.terminal, self._inner, self.ready):
            os.close(descriptor)


def write_memory(path: Path, cause: Cause) -> None:
    """Put the cause of the next start into the chip's memory; at power-on the clock starts anew as well."""
    if cause is Cause.POWER_ON:
        path.write_bytes(struct.pack("<d", time.time()).ljust(MEMORY_SIZE, b"\0"))
    with path.open("r+b") as file:
        file.seek(_CAUSE_AT)
        file.write(bytes((Cause.WATCHDOG, _BARE_PROMPT)) if cause is Cause.CRASH else bytes((cause,)))


def make_flash(path: Path, size: int) -> None:
    """Create an erased flash image of ``size`` bytes, unless there is one already. Only its owner may read the keys."""
    if size < 4 * BLOCK or size % BLOCK:
        raise ValueError(f"flash size {size}: not a multiple of {BLOCK} of at least {4 * BLOCK}")
    if not path.exists():
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(b"\xff" * size)
