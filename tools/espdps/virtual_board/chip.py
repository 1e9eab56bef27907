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
import shlex
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

from espdps.virtual_board.rom import BOUNDED_LOADER, LOADER

BLOCK = 4096
_STARTS = 3  # of a program, within one Ctrl-C
START_DEADLINE = 20.0  # seconds; a start takes a few milliseconds, on a crowded machine much longer

# What the bytes of the lasting memory mean, here and in _chip.py: clock (double), then one byte each.
_MEMORY_SIZE = 128
_CAUSE = 8
_PROMPT = 9
_WHO = 10
_RADIO = 16
_BARE_PROMPT = 2

# futex(2), where a program waits for a lock that it holds itself: on x86-64, on i386 and arm, on arm64
_FUTEX = {"202", "240", "98"}


class Cause(enum.IntEnum):
    """Why a process is started: values of machine.reset_cause() on ESP32. Other resets need no new process."""

    POWER_ON = 1
    WATCHDOG = 3
    CRASH = 0  # not a cause that a program sees: the interpreter itself ended, the next start is a bare prompt


class Hears(enum.IntEnum):
    """Who is there to hear a Ctrl-C."""

    NOBODY = 0  # the board is only starting
    PROGRAM = 1
    PROMPT = 2


class Memory:
    """What a chip remembers over a reset, shared with its process through a file."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_MEMORY_SIZE))
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), _MEMORY_SIZE)

    def prepare(self, cause: Cause) -> None:
        """Make ready for a start: at power-on the clock begins anew as well."""
        if cause is Cause.POWER_ON:
            self._bytes[:] = struct.pack("<d", time.time()).ljust(_MEMORY_SIZE, b"\0")
        if cause is Cause.CRASH:
            self._bytes[_PROMPT] = _BARE_PROMPT
        self._bytes[_RADIO] = 0
        self._bytes[_CAUSE] = cause or Cause.WATCHDOG
        self._bytes[_WHO] = Hears.NOBODY

    @property
    def who(self) -> int:
        """One of ``Hears``, as the board says it."""
        return self._bytes[_WHO]

    def close(self) -> None:
        """Give the file free."""
        self._bytes.close()


class Chip:
    """A running interpreter.

    It reads ``keys``, a pipe that outlives it as a serial port's buffer does. ``output`` is a pipe, too: when it is at
    its end the process has gone. A reset does not end the process: it runs its script once more.
    """

    def __init__(
        self, command: list[str], directory: Path, memory: Memory, keys: int, environment: dict[str, str]
    ) -> None:
        self._keys = keys
        self._memory = memory
        self.output, output = os.pipe()
        # Nothing goes through this terminal: it is there to be hung up, should we end without a word.
        self._leash = os.openpty()
        try:
            script = directory / "start.sh"
            loader = BOUNDED_LOADER if environment.get("BOARD_SYSTEM_HEAP") else LOADER
            script.write_text(f"exec {shlex.join([*command, '-c', loader])}\n")
            self._process = subprocess.Popen(
                ["/bin/sh", str(script)],
                stdin=keys,
                stdout=output,
                stderr=output,
                env={
                    **environment,
                    "BOARD_DIR": str(directory),
                    "BOARD_START": str(script),
                    "BOARD_TERMINAL": os.ttyname(self._leash[1]),
                },
                start_new_session=True,
                cwd="/",
            )
        except BaseException:
            self._close()
            raise
        finally:
            os.close(output)

    def await_start(self) -> bool:
        """Wait until boot.py is about to run; False if the process ended instead, or nothing happened in time."""
        begun = time.monotonic()
        while self._process.poll() is None and time.monotonic() - begun < START_DEADLINE:
            if self._memory.who != Hears.NOBODY:
                return True
            time.sleep(0.001)
        return False

    def ctrl_c(self) -> bool | None:
        """Interrupt the running program: True. False at a prompt, for which it is a character; None at the end.

        The unix build raises KeyboardInterrupt from within the signal handler, wherever the program stands: in the
        middle of an allocation it leaves the heap locked. So wait for a moment in which the process waits itself, as
        a prompt does and soon any program with a pause. One that only computes is interrupted after 0.1 s regardless,
        and ended if that broke it. To one that crashes and starts over and over it is lost, as on a chip.
        """
        begun = up_since = time.monotonic()
        before, starts = self._memory.who, 0
        while self._process.poll() is None and time.monotonic() - begun < START_DEADLINE:
            who, waits = self._memory.who, self._state() in ("S", "")
            if who == Hears.NOBODY:
                up_since = time.monotonic()
                starts += before != Hears.NOBODY
                if starts > _STARTS:
                    return None
            before = who
            late = time.monotonic() - up_since > 0.1
            if who == Hears.PROGRAM and (waits or late):
                self._process.send_signal(signal.SIGINT)
                if not waits:
                    self._end_if_broken()
                return True
            if who == Hears.PROMPT and (late or (waits and not self._unread())):
                # What was typed before has been read, and nothing has come of it that could be interrupted.
                return False
            time.sleep(0.0005)
        return None

    def _unread(self) -> int:
        count = array.array("i", [0])
        fcntl.ioctl(self._keys, termios.FIONREAD, count)
        return count[0]

    def _end_if_broken(self) -> None:
        # Sound are a prompt that reads, a reset, and a program that caught the exception and computes on.
        begun = time.monotonic()
        while self._process.poll() is None:
            who, waits, passed = self._memory.who, self._state() == "S", time.monotonic() - begun
            locked = waits and self._reads("syscall").split(" ")[0] in _FUTEX
            if locked or (who == Hears.PROMPT and passed > 1):
                self.kill()
            elif who == Hears.NOBODY or (who == Hears.PROMPT and waits) or passed > 0.3 and who == Hears.PROGRAM:
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
        # The shell's way to say it is for an interpreter that is no child of ours but of a script.
        return Cause.WATCHDOG if code in (-signal.SIGALRM, 128 + signal.SIGALRM) else Cause.CRASH

    def kill(self) -> int:
        """Cut the power: the process ends in the middle of whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait(timeout=5)

    def _close(self) -> None:
        for descriptor in (self.output, *self._leash):
            os.close(descriptor)


def make_flash(path: Path, size: int) -> None:
    """Create an erased flash image of ``size`` bytes, unless there is one already. Only its owner may read the keys."""
    if size < 4 * BLOCK or size % BLOCK:
        raise ValueError(f"flash size {size}: not a multiple of {BLOCK} of at least {4 * BLOCK}")
    if not path.exists():
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(b"\xff" * size)


def make_unit(path: Path) -> str:
    """The unique id of the unit in this folder, hex; drawn when it is new, the same ever after, also in another place.

    Six bytes as of a network interface, locally administered.
    """
    if not path.exists():
        work = path.with_suffix(".new")
        work.write_text("02" + os.urandom(5).hex() + "\n")
        work.rename(path)
    return path.read_text().strip()
