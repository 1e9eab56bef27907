"""A CIRCUITPY drive to flash on: a folder with the boot_out.txt of a board, a firmware of a few lines, a device.
Nothing here judges; what is on the drive, the tests read from it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from bench import PLAN

from espdps.board import flash, flash_drive
from espdps.devices import folders

BOARD = "adafruit_feather_esp32s3_nopsram"
UID = "468E3337EEC8"
BOOT_OUT = """Adafruit CircuitPython {release} on 2026-08-31; Adafruit Feather ESP32S3 No PSRAM with ESP32S3\r
Board ID:{board}\r
UID:{uid}\r
boot.py output:\r
"""


def boot_out(release: str = "10.3.0", board: str = BOARD, uid: str = UID) -> str:
    return BOOT_OUT.format(release=release, board=board, uid=uid)


def blank_drive(folder: Path, text: str | None = None) -> Path:
    """A drive as CircuitPython makes it, with its own first program."""
    (folder / "lib").mkdir(parents=True)
    (folder / "boot_out.txt").write_text(boot_out() if text is None else text, newline="")
    (folder / "code.py").write_text("print('Hello World!')\n")
    (folder / "settings.toml").write_text("")
    return folder


def stand_in(folder: Path) -> Path:
    """A firmware of a few lines with a second face of each kind."""
    for name, text in {
        "main.py": "import app\n",
        "app.py": "NAME = 'app'\n",
        "hardware.py": "raise ImportError('of MicroPython')\n",
        "aziot/__init__.py": "",
        "aziot/one.py": "NAME = 'one'\n",
        "aziot/two.py": "NAME = 'of MicroPython'\n",
        "circuitpython/boot.py": "NAME = 'boot'\n",
        "circuitpython/hardware.py": "NAME = 'hardware'\n",
        "circuitpython/ntptime.py": "NAME = 'ntptime'\n",
        "circuitpython/aziot/two.py": "NAME = 'two'\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@dataclass
class DriveBench:
    """`said` is all that flashing told the last time."""

    root: Path
    firmware: Path
    device: folders.Device
    said: list[tuple[str, str]] = field(default_factory=list)

    def tell(self, step: str, text: str) -> None:
        self.said.append((step, text))

    def flash(self, **settings: object) -> flash.Flashed:
        self.said.clear()
        given: dict[str, object] = {"firmware": self.firmware, "tell": self.tell, **settings}
        return flash_drive.flash(self.device, self.root, **given)  # type: ignore[arg-type]

    def text(self, name: str) -> str:
        return (self.root / name).read_text()


def working(folder: Path, **plan: object) -> DriveBench:
    wanted = dataclasses.replace(PLAN, board=BOARD, **plan)  # type: ignore[arg-type]
    device = folders.load(folders.create(wanted, folder / "devices"))
    return DriveBench(blank_drive(folder / "CIRCUITPY"), stand_in(folder / "firmware"), device)
