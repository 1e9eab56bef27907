"""What devices there are: one entry a device folder, with the board that has it.
Reads no private value, and a damaged folder is an entry, not the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from espdps import files
from espdps.credentials import formats
from espdps.devices import bindings, folders
from espdps.errors import ToolError


@dataclass(frozen=True)
class Entry:
    """A device. Times in Unix seconds, None for never or not known; `certificate_until` is the onboarding
    certificate's; `fault`: why the folder cannot be read, and then the rest is empty."""

    registration_id: str
    board: str = ""
    auth: str = ""
    key_type: str | None = None
    chip_id: str | None = None
    flashed_at: int | None = None
    certificate_until: int | None = None
    on_board_only: bool = False
    fault: str = ""


def read(folder: Path) -> Iterator[Entry]:
    """All devices, sorted by name; none for a folder that is not there. Raises ToolError for boards.csv."""
    if not folder.is_dir():
        return
    bound = bindings.read(folder)
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            yield _entry(path, bound.get(path.name))


def _entry(path: Path, binding: bindings.Binding | None) -> Entry:
    try:
        manifest = folders.read_json(path / "manifest.json")
        config = folders.read_json(path / "device.json")
        kind = manifest.get("key_type")
        return Entry(
            registration_id=str(config.get("registration_id", path.name)),
            board=str(manifest.get("board", "")),
            auth=str(config.get("auth", "symmetric-key")),
            key_type=None if kind is None else str(kind),
            chip_id=binding.chip_id if binding else None,
            flashed_at=(binding.flashed_at or None) if binding else None,
            certificate_until=_until(path / "onboarding.crt"),
            on_board_only=bool(manifest.get("shredded")),
        )
    except ToolError as error:
        return Entry(path.name, fault=error.message)


def _until(path: Path) -> int | None:
    try:
        return int(formats.certificates(files.read(path), path.name)[0].not_valid_after_utc.timestamp())
    except ToolError:
        return None
