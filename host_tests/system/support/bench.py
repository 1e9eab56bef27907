"""A bench to flash on: a blank virtual board, a firmware of a few lines that stands in for the real one, a device.
Nothing here judges; what is on the board, unmodified mpremote says."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from espdps.board import flash
from espdps.board.console import Event
from espdps.credentials import roots
from espdps.devices import folders
from espdps.virtual_board import VirtualBoard

KEY = base64.b64encode(bytes(range(64))).decode()
PASSWORD = "correct horse battery"
PLAN = folders.Plan(
    registration_id="dev-1", id_scope="0ne00ABCDEF", board="ESP32_GENERIC", device_key=KEY, roots=roots.azure_roots(),
    wifi_ssid="Greenhouse", wifi_password=PASSWORD,
)  # fmt: skip
READY = "print('[   0.100] hub.ready    dev-1 on a hub')\n"
NO_TIME = "print('[   0.100] error        clock ntp no answer')\nprint('[   0.100] wait         2 s')\n"
REFUSED = "print('[   0.100] error        dps.register 401000 tracking x no')\nprint('[   0.100] wait         2 s')\n"
STARTS = "from aziot import one\nprint('[   0.001] start        %s' % one.NAME)\n"


@dataclass
class Bench:
    """A blank virtual board, a stand-in firmware, a device; `said` is all that flashing told."""

    board: VirtualBoard
    firmware: Path
    device: folders.Device
    said: list[tuple[str, str]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def flash(self, **settings: object) -> flash.Flashed:
        self.said.clear()
        self.events.clear()
        return flash.flash(
            self.device, self.board.port, firmware=self.firmware,
            tell=lambda step, text: self.said.append((step, text)), on_event=self.events.append, **settings,  # type: ignore[arg-type]
        )  # fmt: skip

    def main(self, text: str) -> None:
        (self.firmware / "main.py").write_text(text)

    def mpremote(self, *words: str) -> str:
        """What mpremote itself says, as the judge of what is on the board; without a soft reset, as it is."""
        command = [sys.executable, "-m", "mpremote", "connect", self.board.port, "resume", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def stand_in(folder: Path) -> Path:
    """A firmware of a few lines, which says at once that it is connected."""
    (folder / "aziot").mkdir(parents=True)
    (folder / "aziot" / "__init__.py").write_text("")
    (folder / "aziot" / "one.py").write_text("# a comment\nNAME = 'one'\n")
    for name in ("app.py", "hardware.py"):
        (folder / name).write_text(f"# {name}\n")
    (folder / "main.py").write_text(STARTS + READY)
    return folder


@contextmanager
def working(folder: Path, micropython: Path) -> Iterator[Bench]:
    """A bench whose board has power; 256 KB of flash."""
    device = folders.load(folders.create(PLAN, folder / "devices"))
    with VirtualBoard(folder / "board", micropython, flash_size=256 * 1024) as board:
        yield Bench(board, stand_in(folder / "firmware"), device)
