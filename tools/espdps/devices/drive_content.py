"""What lies on the CIRCUITPY drive of a device: firmware, libraries, settings and credentials, file by file.
Reads only, and writes nothing anywhere; the order of the files is the order in which they may be copied."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

from espdps.credentials import formats
from espdps.devices import application, settings_toml, shred
from espdps.devices.folders import Device, read_json
from espdps.errors import ToolError
from espdps.files import read
from espdps.paths import FIRMWARE

FACES = "circuitpython"  # folder of firmware/ with what takes the place of files of the same name
AT_ROOT = ("boot.py", "hardware.py")  # of the faces
CODE = "/code.py"  # CircuitPython's name for main.py
SETTINGS = f"/{settings_toml.NAME}"
SLOTS = ("/identity.a", "/identity.b")
BLANK = b"\n" * 12000  # each of them as the firmware makes it (store.py)
LIBRARIES = (
    "adafruit-circuitpython-connectionmanager",
    "adafruit-circuitpython-minimqtt",
    "adafruit-circuitpython-ticks",
)
SECRET = ("/onboarding.key", "/device.key", SETTINGS)


def contents(device: Device, firmware: Path = FIRMWARE, app: Path | None = None) -> dict[str, bytes]:
    """Path on the drive -> content of every file, secrets last and after them only code.py, which starts the rest.

    Not among them: the slots for the issued identity, which are made blank where there is none (SLOTS, BLANK).
    Raises ToolError.
    """
    files = libraries() | firmware_files(firmware)
    code = files.pop(CODE)
    files["/board.json"] = json.dumps(device.profile.board_json()).encode()
    files |= application.read(app or firmware)
    for name in ("roots.pem", "device.csr", "onboarding.crt"):
        if (device.folder / name).is_file():
            files[f"/{name}"] = (device.folder / name).read_bytes()
    for name in ("onboarding.key", "device.key"):
        if (device.folder / name).is_file():
            files[f"/{name}"] = key_pem(device.folder / name)
    files[SETTINGS] = settings_toml.text(settings(device))
    return files | {CODE: code}


def settings(device: Device) -> dict[str, str | int]:
    """What settings.toml says of a device. Raises ToolError."""
    return settings_toml.entries(device.config, read_json(device.folder / "secrets.json"))


def key_pem(path: Path) -> bytes:
    """A private key (PEM or DER) as PEM, PKCS #8: CircuitPython's ssl loads no other form. Raises ToolError."""
    key = formats.private_key(read(path), lambda what: None, str(path))
    return formats.key_file(key)


def firmware_files(firmware: Path = FIRMWARE) -> dict[str, bytes]:
    """Path on the drive -> content of the firmware, without the application, as CircuitPython is to have it.

    Raises ToolError.
    """
    faces = firmware / FACES
    if not all(path.is_file() for path in (faces / "boot.py", *(firmware / name for name in application.OWN))):
        raise ToolError(f"{firmware} holds no firmware for CircuitPython", f"it has main.py and a folder {FACES}")
    # A second face takes the place of the first; what else there is are libraries that MicroPython brings along.
    sources = {f"/lib/aziot/{path.name}": path for path in (firmware / "aziot").glob("*.py")}
    sources["/hardware.py"] = firmware / "hardware.py"
    for path in faces.rglob("*.py"):
        name = path.relative_to(faces).as_posix()
        sources[f"/{name}" if name in AT_ROOT else f"/lib/{name}"] = path
    files = {name: sources[name].read_bytes() for name in sorted(sources)}
    return files | {CODE: (firmware / "main.py").read_bytes()}


def versions() -> dict[str, str]:
    """The libraries that go onto a drive and their installed versions. Raises ToolError."""
    return {name: _installed(name).version for name in LIBRARIES}


def libraries() -> dict[str, bytes]:
    """Path on the drive -> content of the libraries' modules, as PyPI has them. Raises ToolError."""
    files: dict[str, bytes] = {}
    for name in LIBRARIES:
        package = _installed(name)
        modules = [path for path in package.files or [] if path.suffix == ".py" and ".." not in path.parts]
        if not modules:
            raise ToolError(f"the package {name} holds no modules", f"pip install --no-deps --force-reinstall {name}")
        files |= {f"/lib/{path.as_posix()}": Path(str(path.locate())).read_bytes() for path in sorted(modules)}
    return files


def _installed(name: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        hint = f"pip install --no-deps {' '.join(LIBRARIES)}; in a checkout: make setup"
        raise ToolError(f"the package {name} is not installed", hint) from None


def shredding(device: Device) -> bool:
    """Whether its private values are to leave the PC, or have left it."""
    return device.on_board_only or shred.wanted(device.folder)
