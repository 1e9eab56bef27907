"""A person at a virtual board's serial port, and mpremote at the same port.

Every wait has a deadline; what came until then is in the failure's text.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

DEADLINE = 20.0  # seconds, for a machine with much else to do
PROMPT = b">>> "


class Console:
    """Types at a port and reads what comes back."""

    def __init__(self, port: str) -> None:
        self._file = os.open(port, os.O_RDWR | os.O_NOCTTY)
        self._unread = b""

    def __enter__(self) -> Console:  # noqa: PYI034 - Python 3.10 has no Self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def type(self, keys: bytes) -> None:
        """Send the keys as they are; Enter is ``\\r``."""
        os.write(self._file, keys)

    def read_until(self, end: bytes) -> bytes:
        """All that comes up to and with ``end``. What follows is kept for the next call."""
        deadline = time.monotonic() + DEADLINE
        while end not in self._unread:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self._file], [], [], left)[0], f"no {end!r} after {self._unread!r}"
            self._unread += os.read(self._file, 4096)
        place = self._unread.index(end) + len(end)
        text, self._unread = self._unread[:place], self._unread[place:]
        return text

    def prompt(self) -> None:
        """Have the friendly prompt, whatever was there before."""
        self.type(b"\x03\r\x02print('re' + 'ady')\r")
        self.read_until(b"ready\r\n>>> ")

    def run(self, line: bytes) -> bytes:
        """Type a line at the friendly prompt; return what it printed."""
        self.type(line + b"\r")
        self.read_until(line + b"\r\n")
        return self.read_until(PROMPT)[: -len(PROMPT)]


def mpremote(port: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run the unmodified mpremote; the caller looks at ``returncode``, ``stdout`` and ``stderr``."""
    return subprocess.run(
        [sys.executable, "-m", "mpremote", "connect", port, *command],
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def output(port: str, *command: str) -> str:
    """What mpremote prints; it must succeed."""
    done = mpremote(port, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def processes(directory: Path) -> list[int]:
    """Process ids of the interpreters that run a board in this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                settings = (entry / "environ").read_bytes()
                state = (entry / "stat").read_text().rpartition(") ")[2][:1]
            except OSError:
                continue  # it ended while we looked
            if f"BOARD_DIR={directory}".encode() in settings.split(b"\0") and state != "Z":
                found.append(int(entry.name))
    return found


def wait_until(true: Callable[[], bool]) -> None:
    """Look every few milliseconds whether something outside of this process has become true."""
    deadline = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.005)
