"""The virtual board as the host sees it: a port to talk to and a plug to pull.

One thread moves bytes between the port and the chip and starts the chip anew after a reset; all else asks that thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import select
import signal
import subprocess
import threading
import time
import tty
from concurrent.futures import Future
from pathlib import Path
from types import FrameType, TracebackType

from espdps.paths import SHIMS
from espdps.virtual_board.chip import START_DEADLINE, Cause, Chip, Hears, Memory, make_flash, make_unit
from espdps.virtual_board.rom import build_rom

_STAND_INS = SHIMS / "micropython"
_CTRL_C = b"\x03"
_CHUNK = 4096
# A port that nobody reads must not stop the board: after so many seconds without progress its output is dropped.
_PATIENCE = 1.0


class BoardError(Exception):
    """The virtual board could not be started; the text says what its interpreter said."""


class VirtualBoard:
    """A board in a folder: ``flash.img`` is its flash, ``chip.id`` its unique id, ``port`` leads to its serial port.

    Args:
        directory: where the board lives; made when missing. Two boards need two folders.
        micropython: executable that is, or by ``exec`` becomes, MicroPython's unix build of 1.25 or later.
        heap: size of the GC heap, as ``-X heapsize`` takes it.
        system_heap: bytes that TLS may take outside of it, 0 for no limit; Linux only.
        profile_name: type of board, shown in the banner; ``UNIX`` has no radio and needs none for a name to resolve.
        epoch: year from which the board counts time, 2000 or 1970.
        hosts: ``"name:port"`` -> (address, port): what resolves beside localhost and ``*.localhost``.
        modules: folder of the modules that count as frozen.
        flash_size: bytes, a multiple of 4096; holds for a new ``flash.img`` only.
        environment: more settings of the stand-ins (``BOARD_WIFI`` …, see ``_chip.py`` there).

    Raises ValueError for a setting that cannot be, BoardError (from ``start``) when the interpreter does not come up.
    """

    def __init__(
        self,
        directory: Path,
        micropython: Path,
        *,
        heap: str = "56k",
        system_heap: int = 0,
        profile_name: str = "ESP32_GENERIC",
        epoch: int = 2000,
        hosts: dict[str, tuple[str, int]] | None = None,
        modules: Path = _STAND_INS,
        flash_size: int = 2 * 1024 * 1024,
        environment: dict[str, str] | None = None,
    ) -> None:
        if epoch not in (1970, 2000):
            raise ValueError(f"epoch {epoch}: 1970 or 2000")
        self.directory = Path(directory).resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._command = [str(micropython), "-X", f"heapsize={heap}"]
        self._image, self._flash = self.directory / "rom.img", self.directory / "flash.img"
        self._link = self.directory / "port"
        self._rom = build_rom(modules)
        make_flash(self._flash, flash_size)
        unit = make_unit(self.directory / "chip.id")
        self._environment = {
            **{name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ},
            "BOARD_EPOCH": str(epoch),
            "BOARD_HOSTS": ";".join(f"{name}={address}:{port}" for name, (address, port) in (hosts or {}).items()),
            "BOARD_ID": unit,
            "BOARD_NAME": profile_name,
            "BOARD_RADIO": "" if profile_name == "UNIX" else "1",
            **({"BOARD_SYSTEM_HEAP": str(system_heap), "MALLOC_TOP_PAD_": "0"} if system_heap else {}),
            **(environment or {}),
        }
        self._chip: Chip | None = None
        self._thread: threading.Thread | None = None
        self._requests: queue.SimpleQueue[tuple[str, Future[None]]] = queue.SimpleQueue()
        self._port = ""
        self._keys: tuple[int, ...] = ()  # both ends of the pipe that the chip reads, while there is power

    def __enter__(self) -> VirtualBoard:  # noqa: PYI034 - Python 3.10 has no Self
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> str:
        """Path of the serial port; the same until ``stop``, whatever happens to the board."""
        return self._port

    @property
    def running(self) -> bool:
        """Whether the board has power and its interpreter has not crashed."""
        return self._chip is not None

    def start(self) -> None:
        """Open the port and switch the power on. Returns when boot.py is about to run; raises BoardError."""
        if self._thread:
            raise BoardError("the board is started already")
        self._lock = os.open(self._flash, os.O_RDWR)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise BoardError(f"{self.directory}: another virtual board runs in this folder") from error
        self._image.write_bytes(self._rom)
        self._memory = Memory(self.directory / "chip.mem")
        self._outer, self._slave = os.openpty()
        # The far end stays open here, raw: bytes that come while nobody listens must not be echoed back.
        tty.setraw(self._slave)
        os.set_blocking(self._outer, False)
        self._port = os.ttyname(self._slave)
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(self._port)
        self._bell, self._ring = os.pipe()
        self._to_chip, self._to_port, self._stalled = b"", b"", 0.0
        self._thread = threading.Thread(target=self._serve, name=f"virtual board {self.directory.name}", daemon=True)
        self._thread.start()
        try:
            self._ask("power_cycle")
        except BaseException:
            self.stop()
            raise

    def power_cycle(self) -> None:
        """Pull the plug and put it in again: the flash stays, the clock is lost. Returns as ``start`` does."""
        self._ask("power_cycle")

    def kill(self) -> None:
        """Pull the plug. The port stays; ``power_cycle`` brings the board back."""
        self._ask("kill")

    def stop(self) -> None:
        """Pull the plug and take the port away. Nothing is left but the folder. May be called twice."""
        if not self._thread:
            return
        try:
            self._ask("stop")
        finally:
            self._thread.join()
            self._thread = None
            self._link.unlink(missing_ok=True)
            self._memory.close()
            for descriptor in (self._outer, self._slave, self._bell, self._ring, self._lock):
                os.close(descriptor)

    def _ask(self, what: str) -> None:
        if not self._thread:
            raise BoardError("the board is not started")
        answer: Future[None] = Future()
        self._requests.put((what, answer))
        os.write(self._ring, b"!")
        answer.result(timeout=START_DEADLINE + 10)

    # What follows runs in the board's own thread.

    def _serve(self) -> None:
        while True:
            ready = self._wait()
            if self._bell in ready:
                os.read(self._bell, 1)
                if self._obey(*self._requests.get()) == "stop":
                    return
                continue
            if self._outer in ready and not self._to_chip:
                self._to_chip = _read(self._outer)
            if self._chip and self._chip.output in ready:
                self._hear(self._chip)
            self._feed()
            self._deliver()

    def _wait(self) -> set[int]:
        # What cannot be passed on is not taken in.
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        poll.register(self._outer, (0 if self._to_chip else select.POLLIN) | (select.POLLOUT if self._to_port else 0))
        if self._chip and self._to_chip:
            poll.register(self._keys[1], select.POLLOUT)
        if self._chip and not self._to_port:
            poll.register(self._chip.output, select.POLLIN)
        return {descriptor for descriptor, _ in poll.poll(100 if self._to_port else None)}

    def _obey(self, what: str, answer: Future[None]) -> str:
        try:
            if self._chip:
                self._chip.kill()
                self._end()
            self._close_keys()
            if what == "power_cycle":
                self._power_on()
            answer.set_result(None)
        except (BoardError, OSError, subprocess.SubprocessError) as error:
            answer.set_exception(error)
        return what

    def _hear(self, chip: Chip) -> None:
        # Text as a terminal wants it; nothing is the end of the process.
        self._to_port = os.read(chip.output, _CHUNK).replace(b"\n", b"\r\n")
        if self._to_port:
            return
        up = self._memory.who != Hears.NOBODY
        cause = self._end()
        if cause is Cause.CRASH:
            self._to_port = b"\r\nthe interpreter of this virtual board has crashed\r\n"
        if up:
            try:
                self._start(cause)
            except OSError as error:
                self._to_port += f"\r\n{error}\r\n".encode()

    def _start(self, cause: Cause) -> Chip:
        self._memory.prepare(cause)
        self._chip = Chip(self._command, self.directory, self._memory, self._keys[0], self._environment)
        return self._chip

    def _power_on(self) -> None:
        self._keys = os.pipe()
        os.set_blocking(self._keys[1], False)
        chip = self._start(Cause.POWER_ON)
        if not chip.await_start():
            chip.kill()
            words = _read(chip.output).decode(errors="replace").strip()
            self._end()
            raise BoardError(f"{self._command[0]} did not start: {words or 'no answer'}")

    def _close_keys(self) -> None:
        for descriptor in self._keys:
            os.close(descriptor)
        self._keys = ()

    def _end(self) -> Cause:
        assert self._chip
        chip, self._chip = self._chip, None
        return chip.end()

    def _feed(self) -> None:
        if not self._chip:
            self._to_chip = b""  # a board without power hears nothing
        elif not self._to_chip:
            return
        elif self._to_chip[:1] == _CTRL_C and (taken := self._chip.ctrl_c()) is not False:
            # Not taken by a program that has just ended: then it is for the next one.
            self._to_chip = self._to_chip[1:] if taken else self._to_chip
        else:
            stop = self._to_chip.find(_CTRL_C, 1)
            with contextlib.suppress(BlockingIOError):
                sent = os.write(self._keys[1], self._to_chip[: stop if stop > 0 else len(self._to_chip)])
                self._to_chip = self._to_chip[sent:]

    def _deliver(self) -> None:
        if not self._to_port:
            return
        try:
            self._to_port = self._to_port[os.write(self._outer, self._to_port) :]
            self._stalled = 0.0
        except BlockingIOError:
            self._stalled = self._stalled or time.monotonic()
            if time.monotonic() - self._stalled > _PATIENCE:
                self._to_port = b""


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _CHUNK)
    except OSError:
        return b""  # nothing there, or (EIO) nobody at the other end


def main(
    directory: Path,
    micropython: Path,
    heap: str = "56k",
    *,
    system_heap: int = 0,
    profile_name: str = "ESP32_GENERIC",
    epoch: int = 2000,
    hosts: dict[str, tuple[str, int]] | None = None,
) -> int:
    """Serve one board until SIGINT or SIGTERM; prints the port in one line. Returns the exit code, 0.

    Raises what ``VirtualBoard`` raises. Must be called in the main thread, which owns the signals.
    """
    over = threading.Event()

    def finish(number: int, frame: FrameType | None) -> None:
        over.set()

    before = {number: signal.signal(number, finish) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with VirtualBoard(
            directory,
            micropython,
            heap=heap,
            system_heap=system_heap,
            profile_name=profile_name,
            epoch=epoch,
            hosts=hosts,
        ) as board:
            print(board.port, flush=True)
            over.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0
