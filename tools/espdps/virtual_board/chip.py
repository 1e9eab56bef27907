"""One run of the interpreter, from power-on or reset to the end of its process, and the memory that outlives it.

It must never leave a process behind: the child leads a session on its own terminal and dies with that terminal.
"""

from __future__ import annotations

import array
import contextlib
import enum
import fcntl
import os
import signal
import struct
import subprocess
import termios
import time
import tty
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

    It reads ``keys``, a pipe that outlives it as a serial port's buffer does, and writes to ``terminal``
    (non-blocking). ``ready`` becomes readable with one byte when the board is about to run boot.py, and then at its
    end, when the process has gone.
    """

    def __init__(
        self, command: list[str], image: Path, memory: Path, flash: Path, keys: int, environment: dict[str, str]
    ) -> None:
        self._keys = keys
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
                stdin=keys,
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

    def ctrl_c(self) -> bool | None:
        """Interrupt the running program: True. False at a prompt, for which it is a character; None at the end.

        The unix build raises KeyboardInterrupt from within the signal handler, wherever the program stands: in the
        middle of an allocation it leaves the heap locked. So wait for a moment in which the process waits itself, as
        a prompt does and soon any program with a pause. One that only computes is interrupted after 0.1 s regardless,
        and ended if that locked its heap.
        """
        begun = time.monotonic()
        while self._process.poll() is None:
            waits, late = self._state() in ("S", ""), time.monotonic() - begun > 0.1
            if self._interruptible():
                if waits or late:
                    self._process.send_signal(signal.SIGINT)
                    if not waits:
                        self._end_if_locked()
                    return True
            elif late or (waits and not self._unread()):
                # What was typed before has been read, and nothing has come of it that could be interrupted.
                return False
            time.sleep(0.0005)
        return None

    def _interruptible(self) -> bool:
        flags: int = termios.tcgetattr(self._inner)[3]
        return bool(flags & termios.ISIG)

    def _unread(self) -> int:
        count = array.array("i", [0])
        fcntl.ioctl(self._keys, termios.FIONREAD, count)
        return count[0]

    def _end_if_locked(self) -> None:
        begun = time.monotonic()
        while self._process.poll() is None and self._interruptible() and time.monotonic() - begun < 0.2:
            if self._reads("syscall").split(" ")[0] in _FUTEX:
                self.kill()
                return
            time.sleep(0.001)

    def _state(self) -> str:
        return self._reads("stat").rpartition(") ")[2][:1]

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
