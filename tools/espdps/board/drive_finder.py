"""CIRCUITPY drives: where one is mounted, and what the board says of itself in its boot_out.txt.
Reads only, and only on FAT: a network's drive that hangs is never looked at."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from espdps.devices.profiles import Profile
from espdps.errors import ToolError

BOOT_OUT = "boot_out.txt"
MOUNTS = Path("/proc/self/mounts")
_FAT = {"vfat", "msdos", "exfat", "fuseblk"}
_VERSION = re.compile(r"Adafruit CircuitPython ((\d+)\.(\d+)\S*)")
_NEEDS = "press the board's reset once, so that CircuitPython writes it anew"


@dataclass(frozen=True)
class Drive:
    """One board's drive. `uid`: the chip's unique id in hex, lower case, as MicroPython has it too."""

    root: Path
    release: str
    version: tuple[int, int]
    board_id: str
    uid: str


def read(root: Path) -> Drive:
    """The drive at `root`. Raises ToolError if there is none, or if it does not say what it is."""
    path = root / BOOT_OUT
    try:
        with path.open("rb") as file:
            text = file.read(8192).decode("utf-8", "replace")
    except OSError as error:
        raise ToolError(
            f"{root} is no CIRCUITPY drive: {BOOT_OUT}: {error.strerror}",
            "findmnt -S LABEL=CIRCUITPY says where it is mounted: --drive PATH",
        ) from None
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    version = _VERSION.match(text)
    if not version:
        raise ToolError(f"{path} names no version of CircuitPython", _NEEDS)
    board_id, uid = (lines.get(key, "").strip() for key in ("Board ID", "UID"))
    if not board_id or not uid:
        raise ToolError(f"{path} names no {'Board ID' if uid else 'UID'}", _NEEDS)
    return Drive(root, version[1], (int(version[2]), int(version[3])), board_id, uid.lower())


def find() -> Drive:
    """The one drive that is mounted. Raises ToolError when there is none, or when there are several."""
    roots = mounted()
    if not roots:
        raise ToolError(
            "no CIRCUITPY drive is mounted",
            "plug the board in, wait for its drive; or --drive PATH where it is mounted",
        )
    if len(roots) > 1:
        names = []
        for root in roots:
            try:
                names.append(f"{root} ({read(root).board_id})")
            except ToolError:
                names.append(str(root))
        raise ToolError(f"several CIRCUITPY drives are mounted: {', '.join(names)}", "say which: --drive PATH")
    return read(roots[0])


def mounted() -> list[Path]:
    """Where drives with a boot_out.txt are mounted."""
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    roots = []
    for words in (line.split(" ") for line in lines):
        if len(words) > 2 and words[2] in _FAT:
            root = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), words[1]))
            if (root / BOOT_OUT).is_file():
                roots.append(root)
    return sorted(set(roots))


def check(drive: Drive, profile: Profile) -> None:
    """Raises ToolError unless the firmware runs on the board of this drive."""
    if drive.board_id != profile.name:
        raise ToolError(
            f"{drive.root} is a {drive.board_id}, and the device was made for {profile.name}",
            "take another board, or make the device anew: esp-dps new … --board … --force",
        )
    if drive.version < profile.min_version:
        oldest = "{}.{}".format(*profile.min_version)
        raise ToolError(
            f"{drive.root} has CircuitPython {drive.release}, which is too old",
            f"install CircuitPython {oldest} or newer on it",
        )


def read_only(root: Path) -> bool:
    """Whether the PC may not write to it, as when boot.py has given the drive to the board."""
    return bool(os.statvfs(root).f_flag & os.ST_RDONLY)
