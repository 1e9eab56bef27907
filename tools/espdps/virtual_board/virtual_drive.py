"""A board with CircuitPython that is none: a folder for its CIRCUITPY drive, and a process of CPython that runs it.
Switched off it is killed at once, as by a plug that is pulled; nothing is tidied up on its drive."""

from __future__ import annotations

import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from espdps.board.console import Event, Lines, parse
from espdps.board.drive_finder import BOOT_OUT
from espdps.errors import ToolError
from espdps.paths import SHIMS

BOARD = "UNIX_CIRCUITPYTHON"
RELEASE = "9.2.0"  # the oldest for which the firmware is written
RUN = SHIMS / "circuitpython" / "run.py"
TICK = 0.1  # seconds
AUTO_RELOAD = 0.5  # seconds; CircuitPython waits 0.75 s after the last write
_FIRST_PROGRAM = "print('Hello World!')\n"


def make_blank(root: Path) -> None:
    """Make a drive as CircuitPython makes it at its first start, unless there is one."""
    if (root / BOOT_OUT).exists():
        return
    (root / "lib").mkdir(parents=True, exist_ok=True)
    (root / "code.py").write_text(_FIRST_PROGRAM)
    (root / "settings.toml").write_text("")
    (root / BOOT_OUT).write_text(
        f"Adafruit CircuitPython {RELEASE} on 2024-10-28; a folder of this PC with CPython\n"
        f"Board ID:{BOARD}\nUID:{secrets.token_hex(6).upper()}\n"
    )


class VirtualDrive:
    """`root`: the drive. `hosts`: "name:port" -> (address, port), what resolves beside localhost and *.localhost."""

    def __init__(self, root: Path, hosts: dict[str, tuple[str, int]] | None = None) -> None:
        self.root = root.resolve()
        make_blank(self.root)
        named = ";".join(f"{name}={address}:{port}" for name, (address, port) in (hosts or {}).items())
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        self._environment = kept | {"BOARD_HOSTS": named, "PYTHONUNBUFFERED": "1"}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> VirtualDrive:  # noqa: PYI034 - Python 3.10 has no Self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.power_off()

    def power_on(self, console: int | None = subprocess.PIPE) -> None:
        """Start it anew. `console` None: it prints where this process prints, and `events` has nothing to read."""
        self.power_off()
        self._process = subprocess.Popen(
            [sys.executable, str(RUN), str(self.root)],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            env=self._environment,
        )

    def power_off(self) -> None:
        """Kill it, in whatever it was doing."""
        if self._process:
            self._process.kill()
            self._process.wait()
            if self._process.stdout:
                self._process.stdout.close()
            self._process = None

    def events(self, seconds: float) -> Iterator[Event | None]:
        """What it prints, as it comes; None at every tick without a line. Raises ToolError when its program has ended,
        or says nothing that ends the caller's loop in so many seconds."""
        assert self._process and self._process.stdout
        console = self._process.stdout.fileno()
        lines, end = Lines(), time.monotonic() + seconds
        while time.monotonic() < end:
            if not select.select([console], [], [], TICK)[0]:
                yield None
                continue
            data = os.read(console, 4096)
            for line in lines.feed(data or b"\n"):
                yield parse(line)
            if not data:
                raise ToolError("the program on the drive has ended", "see what it printed last")
        raise ToolError(f"the board was not connected within {seconds:.0f} s", "see what it printed last")


def main(root: Path, hosts: dict[str, tuple[str, int]]) -> int:
    """Run the board of a drive until Ctrl-C, from a blank one on, anew whenever its code.py has changed."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    with VirtualDrive(root, hosts) as board:
        print(f"CIRCUITPY drive at {root}; Ctrl-C pulls the plug", flush=True)
        try:
            while True:
                program = _state(board.root)
                board.power_on(console=None)
                while _state(board.root) in (program, None):  # None: while it is being flashed
                    time.sleep(AUTO_RELOAD)
        except KeyboardInterrupt:
            return 0


def _state(root: Path) -> tuple[int, int] | None:
    try:
        found = (root / "code.py").stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size
