"""Following a board's console over its serial port.
Only listens, unless asked to restart the program; the board keeps running when the listener ends."""

from __future__ import annotations

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
SOFT_RESET = b"\x04"  # Ctrl-D at the prompt
PROMPT_SECONDS = 10


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
    """Reads events off an open port."""

    def __init__(self, line: serial.Serial) -> None:
        self._line = line
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
                raise ToolError(f"{self._line.port} went away", "was the board unplugged?") from None
            for text in self._lines.feed(data):
                yield parse(text)
            if not data:
                if self.at_prompt:
                    return
                yield None


def restart(line: serial.Serial) -> None:
    """Stop the program and reset the board softly, so that main.py starts anew. Raises ToolError without a prompt."""
    try:
        line.write(TO_PROMPT)
        listener = Listener(line)
        for _ in listener.events(PROMPT_SECONDS):
            pass
        if not listener.at_prompt:
            raise ToolError(f"no prompt on {line.port}", "is it a board with MicroPython? Reset it and try again")
        line.write(SOFT_RESET)
    except serial.SerialException:
        raise ToolError(f"{line.port} takes no input", "reset the board and try again") from None


def monitor(port: str, tell: Callable[[Event], None], *, reset: bool = False, seconds: float | None = None) -> None:
    """Tell every event for `seconds`, or for ever; stops quietly at Ctrl-C. Raises ToolError."""
    deadline = None if seconds is None else time.monotonic() + seconds
    try:
        with open_port(port) as line:
            if reset:
                restart(line)
            listener = Listener(line)
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
