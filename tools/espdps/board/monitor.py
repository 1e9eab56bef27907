"""Following a board's console over its serial port.
Only listens, unless asked to restart the program; the board keeps running when the listener ends."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import serial

from espdps.board import ports
from espdps.board.console import Event, Lines, parse
from espdps.errors import ToolError

SPEED = 115200
TICK = 0.1  # seconds a read waits; bounds how late a deadline is noticed
# Ctrl-C, a second one for a program that caught the first, and Ctrl-B for a board that was left in its raw REPL.
TO_PROMPT = b"\r\x03\x03\x02"
TO_RAW, RAW_PROMPT = b"\x01", b"raw REPL; CTRL-B to exit\r\n>"
# A soft reset would leave the radio as it is, on a network that has just been replaced.
HARD_RESET, TAKEN = b"import machine\nmachine.reset()\n\x04", b"OK"
PROMPT_SECONDS = 10
AWAY_SECONDS = 10.0  # a chip with USB of its own takes its port along when it resets


def open_port(port: str) -> serial.Serial:
    """The serial port, held alone. Raises ToolError that says why not."""
    port = ports.named(port)
    try:
        return serial.Serial(port, SPEED, timeout=TICK, write_timeout=10, exclusive=True)
    except (OSError, ValueError) as error:
        raise port_error(port, error) from None


def port_error(port: str, error: Exception) -> ToolError:
    """What a failure to open or to use `port` means."""
    number = getattr(error, "errno", None)
    if number == errno.EACCES:
        return ToolError(f"no right to use {port}", "join the group that owns it, often dialout, and log in anew")
    if number in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in str(error):
        return ToolError(f"{port} is in use by another program", "close the other monitor or terminal")
    if not Path(port).exists():
        return ToolError(f"{port} is not there", "is the board plugged in? mpremote connect list shows what there is")
    return ToolError(
        f"{port} cannot be used: {errno.errorcode.get(number or 0, 'no serial port')}",
        "mpremote connect list shows the ports; plug the board in again if it is one of them",
    )


class Listener:
    """Reads events off an open port. When that goes away it is opened again, if it is back within `away` seconds."""

    def __init__(self, line: serial.Serial, away: float = 0.0) -> None:
        self._line = line
        self._away = away
        self._lines = Lines()

    @property
    def at_prompt(self) -> bool:
        """Whether the board waits at its prompt, so that no program runs."""
        return self._lines.at_prompt

    def events(self, seconds: float | None = None) -> Iterator[Event | None]:
        """What the board prints, as it comes; None at every tick without a line, so that the caller may decide to end.

        Ends after `seconds`, or when the board has gone quiet at its prompt. Raises ToolError when the port goes away.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while deadline is None or time.monotonic() < deadline:
            try:
                data = self._line.read(max(1, self._line.in_waiting))
            except OSError:
                self._open_again()
                continue
            for text in self._lines.feed(data):
                yield parse(text)
            if not data:
                if self.at_prompt:
                    return
                yield None


    def _open_again(self) -> None:
        # Closed first: else the system gives the port another name when it comes back.
        with contextlib.suppress(OSError):
            self._line.close()
        deadline = time.monotonic() + self._away
        while time.monotonic() < deadline:
            time.sleep(TICK)
            with contextlib.suppress(OSError, ValueError):
                self._line.open()
                return
        raise ToolError(f"{self._line.port} went away", "was the board unplugged?")


def restart(line: serial.Serial) -> None:
    """Stop the program and reset the board as its reset button does. Raises ToolError without a prompt."""
    try:
        line.write(TO_PROMPT)
        listener = Listener(line)
        for _ in listener.events(PROMPT_SECONDS):
            pass
        if not listener.at_prompt:
            raise ToolError(f"no prompt on {line.port}", "is it a board with MicroPython? Reset it and try again")
        line.write(TO_RAW)
        if _read_until(line, RAW_PROMPT):
            line.write(HARD_RESET)
            if _read_until(line, TAKEN):
                return
        raise ToolError(f"the board on {line.port} does not reset", "press its reset button")
    except serial.SerialException:
        raise ToolError(f"{line.port} takes no input", "reset the board and try again") from None


def _read_until(line: serial.Serial, ending: bytes) -> bool:
    data, deadline = b"", time.monotonic() + PROMPT_SECONDS
    while not data.endswith(ending) and time.monotonic() < deadline:
        data += line.read(1)
    return data.endswith(ending)


def monitor(port: str, tell: Callable[[Event], None], *, reset: bool = False, seconds: float | None = None) -> None:
    """Tell every event for `seconds`, or for ever; stops quietly at Ctrl-C. Raises ToolError."""
    deadline = None if seconds is None else time.monotonic() + seconds
    try:
        with open_port(port) as line:
            if reset:
                restart(line)
            listener = Listener(line, AWAY_SECONDS if reset else 0.0)
            was_at_prompt = False
            while deadline is None or time.monotonic() < deadline:
                # In slices, since the board may sit at its prompt and be reset by hand later.
                for event in listener.events(1.0):
                    if event:
                        tell(event)
                if listener.at_prompt and not was_at_prompt:
                    tell(Event("(at its prompt: no program is running)"))
                was_at_prompt = listener.at_prompt
    except KeyboardInterrupt:
        return
