"""Which chip carries which registration id: .esp-dps/boards.csv in the folder of the device folders, one row a chip.
Never gives one identity to two chips or two identities to one chip unless it is told to, and never loses a row."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from espdps import files, inputs, locks
from espdps.errors import ToolError, of_system

FILE = ".esp-dps/boards.csv"  # apart from the devices: a device may be called boards.csv
_BEFORE = "boards.csv"  # where it was up to version 0.1
LARGEST = 64 << 20  # bytes: a million boards
_CHIP_ID = re.compile(r"(?:[0-9a-f]{2}){1,16}")


@dataclass(frozen=True)
class Binding:
    """`chip_id` is machine.unique_id() in hex, lower case. `flashed_at` is Unix time, in seconds, of the moment the
    board was last seen to hold all its files; 0 while that has not been."""

    chip_id: str
    registration_id: str
    flashed_at: int = 0


_COLUMNS = [field.name for field in fields(Binding)]


def read(devices: Path) -> dict[str, Binding]:
    """Registration id -> its binding; empty when nothing was ever flashed. Raises ToolError that names the line."""
    for path in (devices / FILE, devices / _BEFORE):
        if path.is_file():
            return _parse(path, inputs.decode(files.read(path, largest=LARGEST, may_be_empty=True), str(path)))
    return {}


def bind(devices: Path, chip_id: str, registration_id: str, *, rebind: bool = False) -> Binding:
    """Bind a chip to a registration id, before the first secret goes onto it. Bound to each other already: no change.

    A chip with another registration id, or a registration id on another chip, is a ToolError; `rebind` makes the old
    binding give way.
    """
    if not _CHIP_ID.fullmatch(chip_id):
        raise ToolError(f"the board names {chip_id!r} as its unique id", "esp-dps needs a chip with one of its own")
    with _locked(devices):
        bindings = read(devices)
        for other in _others(bindings, chip_id, registration_id):
            if not rebind:
                raise _refusal(other, chip_id, registration_id)
            del bindings[other.registration_id]
        binding = bindings.setdefault(registration_id, Binding(chip_id, registration_id))
        _write(devices, bindings)
    return binding


def check(bindings: dict[str, Binding], chip_id: str, registration_id: str) -> None:
    """Raise the ToolError that `bind` would raise without `rebind`."""
    for other in _others(bindings, chip_id, registration_id):
        raise _refusal(other, chip_id, registration_id)


def complete(devices: Path, binding: Binding) -> Binding:
    """Record that the board holds all its files, as of now. Raises ToolError when the binding was changed meanwhile."""
    with _locked(devices):
        bindings = read(devices)
        check(bindings, binding.chip_id, binding.registration_id)
        done = replace(binding, flashed_at=int(time.time()))
        _write(devices, bindings | {done.registration_id: done})
    return done


def forget(devices: Path, chip_id: str) -> None:
    """Free a chip that holds no identity any more, and the registration id it had."""
    with _locked(devices):
        bindings = read(devices)
        kept = {name: binding for name, binding in bindings.items() if binding.chip_id != chip_id}
        if kept != bindings:
            _write(devices, kept)


def _others(bindings: dict[str, Binding], chip_id: str, registration_id: str) -> list[Binding]:
    # For DPS, ids that differ in case only are one device.
    name = registration_id.lower()
    return [
        binding
        for binding in bindings.values()
        if (binding.chip_id == chip_id) != (binding.registration_id.lower() == name)
    ]


def _refusal(other: Binding, chip_id: str, registration_id: str) -> ToolError:
    if other.chip_id == chip_id:
        message = f"chip {chip_id} already carries {other.registration_id}"
        hint = f"flash {other.registration_id} onto it, or --rebind makes it {registration_id}"
    else:
        message = f"{other.registration_id} is already on chip {other.chip_id}, and this board is chip {chip_id}"
        hint = "take that board or another device; --rebind if that board is gone for good or erased"
    return ToolError(message, hint)


def _parse(path: Path, text: str) -> dict[str, Binding]:
    rows = csv.reader(io.StringIO(text, newline=""))
    if next(rows, None) != _COLUMNS:
        raise ToolError(
            f"{path}, line 1: the columns are not {','.join(_COLUMNS)}",
            "put that line back, or restore the file from a backup",
        )
    found: dict[str, Binding] = {}
    chips: set[str] = set()
    for row in rows:
        if not row:
            continue
        if len(row) != len(_COLUMNS) or not _CHIP_ID.fullmatch(row[0]) or not row[1] or not row[2].isdecimal():
            raise ToolError(f"{path}, line {rows.line_num}: not {','.join(_COLUMNS)}", "correct or remove the line")
        if row[0] in chips or row[1] in found:
            raise ToolError(f"{path}, line {rows.line_num}: chip or device for the second time", "remove one line")
        chips.add(row[0])
        found[row[1]] = Binding(row[0], row[1], int(row[2]))
    return found


def _write(devices: Path, bindings: dict[str, Binding]) -> None:
    # A kill at any moment leaves the old file or the new one; what lies beside is overwritten the next time.
    path = devices / FILE
    path.parent.mkdir(mode=0o700, exist_ok=True)
    work = path.with_name(f".{path.name}.new")
    with open(os.open(work, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(astuple(binding) for binding in bindings.values())
        file.flush()
        os.fsync(file.fileno())
    work.rename(path)
    if (before := devices / _BEFORE).is_file():
        before.unlink()


@contextlib.contextmanager
def _locked(devices: Path) -> Iterator[None]:
    try:
        with locks.alone(devices):
            yield
    except OSError as error:
        raise of_system(error, error.filename or devices / FILE, after="nothing was flashed") from None
