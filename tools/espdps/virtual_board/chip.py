"""One run of the interpreter, from power-on or reset to the end of its process, and the memory that outlives it.

It must never leave a process behind: the child leads a session on a terminal of ours and dies with that terminal.
"""

from __future__ import annotations

import array
import contextlib
import enum
import fcntl
import mmap
import os
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

from espdps.virtual_board.rom import LOADER

BLOCK = 4096
START_DEADLINE = 20.0  # seconds; a start takes a few milliseconds, on a crowded machine much longer

# What the bytes of the lasting memory mean, here and in _chip.py: clock (double), then one byte each.
_MEMORY_SIZE = 16
_CAUSE = 8
_PROMPT = 9
_INTERRUPTIBLE = 10
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


class Memory:
    """What a chip remembers over a reset, shared with its process through a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(_MEMORY_SIZE))
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), _MEMORY_SIZE)

    def prepare(self, cause: Cause) -> None:
        """Make ready for a start: at power-on the clock begins anew as well."""
        if cause is Cause.POWER_ON:
            self._bytes[:] = struct.pack("<d", time.time()).ljust(_MEMORY_SIZE, b"\0")
        if cause is Cause.CRASH:
            self._bytes[_PROMPT] = _BARE_PROMPT
        self._bytes[_CAUSE] = cause or Cause.WATCHDOG
        self._bytes[_INTERRUPTIBLE] = 0

    @property
    def interruptible(self) -> bool:
        """Whether Ctrl-C stops what runs now, instead of being a character for the prompt."""
        return bool(self._bytes[_INTERRUPTIBLE])

    def close(self) -> None:
        """Give the file free."""
        self._bytes.close()


class Chip:
    """A running interpreter.

    It reads ``keys``, a pipe that outlives it as a serial port's buffer does. ``output`` is a pipe, too: when it is at
    its end the process has gone. ``ready`` becomes readable when the board is about to run boot.py.
    """

    def __init__(
        self, command: list[str], image: Path, memory: Memory, flash: Path, keys: int, environment: dict[str, str]
    ) -> None:
        self._keys = keys
        self._memory = memory
        self.output, output = os.pipe()
        self.ready, ready = os.pipe()
        # Nothing goes through this terminal: it is there to be hung up, should we end without a word.
        self._leash = os.openpty()
        try:
            arguments = [image, memory.path, flash, os.ttyname(self._leash[1]), ready]
            self._process = subprocess.Popen(
                [*command, "-c", LOADER, *map(str, arguments)],
                stdin=keys,
                stdout=output,
                stderr=output,
                pass_fds=(ready,),
                env=environment,
                start_new_session=True,
                cwd="/",
            )
        except BaseException:
            self._close()
            raise
        finally:
            os.close(output)
            os.close(ready)

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
            if self._memory.interruptible:
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

    def _unread(self) -> int:
        count = array.array("i", [0])
        fcntl.ioctl(self._keys, termios.FIONREAD, count)
        return count[0]

    def _end_if_locked(self) -> None:
        begun = time.monotonic()
        while self._process.poll() is None and time.monotonic() - begun < 0.3:
            if self._state() == "S":
                if self._reads("syscall").split(" ")[0] in _FUTEX:
                    self.kill()
                return
            time.sleep(0.001)

    def _state(self) -> str:
        return self._reads("stat").rpartition(") ")[2][:1]

    def _reads(self, name: str) -> str:
        # proc(5); empty where there is no such thing, which is outside of Linux.
        try:
            return Path(f"/proc/{self._process.pid}/{name}").read_text()
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
            os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait(timeout=5)

    def _close(self) -> None:
        for descriptor in (self.output, self.ready, *self._leash):
            os.close(descriptor)


def make_flash(path: Path, size: int) -> None:
    """Create an erased flash image of ``size`` bytes, unless there is one already. Only its owner may read the keys."""
    if size < 4 * BLOCK or size % BLOCK:
        raise ValueError(f"flash size {size}: not a multiple of {BLOCK} of at least {4 * BLOCK}")
    if not path.exists():
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(b"\xff" * size)
