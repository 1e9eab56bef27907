"""Taking private values off the PC once a board is verified to have them, for devices made with shred_after_flash.
Never removes what no board was seen to hold, and can be ended at any moment: the next time goes on."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from espdps import files
from espdps.errors import ToolError

PRIVATE = ("secrets.json", "onboarding.key", "device.key")  # in this order: device.key tells whether it is done


def wanted(folder: Path) -> bool:
    """Whether the device was made with shred_after_flash. Raises ToolError."""
    return _manifest(folder).get("shred_after_flash") is True


def on_board(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 in hex of what was taken off the PC and lies on the board; empty before that."""
    return dict(_manifest(folder).get("shredded") or {})


def shred(folder: Path) -> list[str]:
    """Remove the private keys of a device folder, and the device key in secrets.json.

    The caller has verified that the board holds each of these files as it is here. Records `shredded_at` (Unix time,
    seconds) and the SHA-256 of each file in manifest.json. Returns the names of the files. Raises ToolError.
    """
    try:
        return _shred(folder)
    except OSError as error:
        raise ToolError(
            f"the keys in {folder} could not be removed: {error.strerror}",
            "see who owns the folder and its files (ls -la); then flash once more",
        ) from None


def _shred(folder: Path) -> list[str]:
    manifest = _manifest(folder)
    here = {name: (folder / name).read_bytes() for name in PRIVATE if (folder / name).is_file()}
    table = json.loads(here["secrets.json"])
    if "device_key" not in table:
        del here["secrets.json"]
    if here:
        # First the record: from now on these are not copied from here any more, however far this gets.
        known = dict(manifest.get("shredded") or {})
        known |= {name: hashlib.sha256(content).hexdigest() for name, content in here.items()}
        _replace(folder / "manifest.json", manifest | {"shredded_at": int(time.time()), "shredded": known})
    for name in here:
        if name == "secrets.json":
            _replace(folder / name, {key: value for key, value in table.items() if not key.endswith("device_key")})
        else:
            (folder / name).unlink()
    return list(here)


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        table = files.read_json(path)
    except ToolError:
        table = {"shredded": True}
    if not isinstance(table.get("shredded") or {}, dict):
        raise ToolError(f"{path} cannot be read", "make the device anew: esp-dps new … --force")
    return table


def _replace(path: Path, table: dict[str, Any]) -> None:
    work = path.with_name(f".{path.name}.new")
    with open(os.open(work, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(json.dumps(table, indent=2, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    work.rename(path)
