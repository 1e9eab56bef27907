"""Files that a person names: read with a bound, written whole or not at all and never over another one by accident.
No exception text holds a file's content."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from espdps import locks
from espdps.errors import WRONG_USE, ToolError, of_system

LARGEST = 1 << 20  # bytes; a key has 4 KB at most, a bundle of all public roots a quarter of a megabyte
STDIN = Path("-")
_DRAFT, _WHOLE = ".esp-dps-draft-", ".esp-dps-whole-"  # folders with files that are on their way
_OPENED = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")  # also the <(command) of a shell


@dataclass(frozen=True)
class Output:
    """A file to be made. What is secret only its owner may read."""

    path: Path
    content: bytes = field(repr=False)
    secret: bool = False


def read(path: Path, *, may_be_empty: bool = False, largest: int = LARGEST) -> bytes:
    """The content of a file of at most `largest` bytes, or of standard input for `-`. Raises ToolError.

    Only files are read: a pipe may be silent and a device endless. What the shell has opened may be a pipe, and
    /dev/null is an empty file.
    """
    try:
        if path == STDIN:
            content = sys.stdin.buffer.read(largest + 1)
        else:
            regular = stat.S_ISREG(path.stat().st_mode) or str(path) == os.devnull or str(path).startswith(_OPENED)
            if not regular and not path.is_dir():  # for a folder the system has the words
                raise ToolError(f"{path} is a pipe or a device, not a file", "name a file")
            with path.open("rb") as file:
                content = file.read(largest + 1)
    except OSError as error:
        raise of_system(error, path) from None
    except ValueError:  # a zero byte in the name
        raise ToolError(f"{str(path)!r} is not a file name", "correct the name") from None
    if len(content) > largest:
        raise ToolError(f"{path} is larger than any key or certificate", f"{largest} bytes are the most that is read")
    if not content and not may_be_empty:
        raise ToolError(f"{path} is empty", "copy it again, and see that it is whole")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ToolError, which quotes nothing of it."""
    try:
        table = json.loads(read(path))
    except (ValueError, RecursionError):  # without the decoder's words, which may quote the file
        table = None
    if not isinstance(table, dict):
        raise ToolError(f"{path} is not a JSON object", "correct it, or have what made it make it again")
    return table


def listing(folder: Path, ending: str) -> list[Path]:
    """The files of a folder with this ending, none if there is no such folder. Raises ToolError."""
    try:
        return sorted(folder / name for name in os.listdir(folder) if name.endswith(ending))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise of_system(error, folder) from None


def refuse_existing(paths: Iterable[Path], force: bool) -> None:
    """Raises ToolError if one of them is there, unless with `force`; for a caller with a long way to its content.

    Only files are ever replaced, never a folder or a device: root could rename a file over /dev/null.
    """
    for path in paths:
        if path == STDIN:
            raise ToolError(
                "- is no name for a file to be made", "give a name: what is made goes into files", WRONG_USE
            )
        there = os.path.exists(path)  # False for what may not be looked at: then writing says why
        if there and not path.is_file():
            raise ToolError(f"{path} is a folder or a device", "name a file: only files are replaced")
        if there and not force:
            raise ToolError(f"{path} is there already", "--force replaces it")


def write(outputs: Iterable[Output], *, force: bool = False) -> None:
    """Makes the files of one folder, and the folder (0700). If one cannot be made, none is; a run that is killed leaves
    all of them or none behind, once `finish` has seen the folder. Raises ToolError."""
    outputs = list(outputs)
    paths = [output.path for output in outputs]
    refuse_existing(paths, force)
    folder = paths[0].parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locks.alone(folder):
            _finish(folder)
            refuse_existing(paths, force)
            work = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=folder))  # 0700
            try:
                for output in outputs:
                    with (work / output.path.name).open("wb") as file:
                        os.fchmod(file.fileno(), 0o600 if output.secret else 0o644)
                        file.write(output.content)
                        file.flush()
                        os.fsync(file.fileno())  # a key that signed something must not be lost with the power
                whole = work.with_name(work.name.replace(_DRAFT, _WHOLE))
                work.rename(whole)
                work = whole
                _move(whole, folder, replace=force)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        named = Path(str(error.filename2 or error.filename))
        raise of_system(error, named if named in paths else paths[0]) from None


def finish(folder: Path) -> None:
    """Complete what a run that was killed had begun to put into this folder, and remove what it had not. Raises
    ToolError."""
    try:
        if any(name.startswith((_DRAFT, _WHOLE)) for name in os.listdir(folder)):
            with locks.alone(folder):
                _finish(folder)
    except OSError as error:
        raise of_system(error, folder) from None


def _finish(folder: Path) -> None:
    for name in os.listdir(folder):
        if name.startswith(_WHOLE):
            _move(folder / name, folder, replace=True)
        if name.startswith((_DRAFT, _WHOLE)):
            shutil.rmtree(folder / name)


def _move(whole: Path, folder: Path, *, replace: bool) -> None:
    moved: list[Path] = []
    try:
        for draft in sorted(whole.iterdir()):
            path = folder / draft.name
            if replace:
                draft.replace(path)
                continue
            try:
                os.link(draft, path)  # unlike a rename, this fails if another program has made the file by now
            except FileExistsError:
                raise
            except OSError:  # a filesystem without links
                draft.rename(path)
            moved.append(path)
    except OSError:
        for path in moved:
            path.unlink(missing_ok=True)
        raise
