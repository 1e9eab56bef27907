"""Files that only their owner may read, written whole or not at all.

Nothing here knows what a file holds; a reader never sees a half-written one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO


def _owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def open_private(path: Path) -> IO[str]:
    """Opens a text file for writing, emptied, mode 0600 also if it was there with a wider one."""
    file = open(path, "w", encoding="utf-8", opener=_owner_only)  # noqa: SIM115 - the caller closes it
    os.fchmod(file.fileno(), 0o600)
    return file


def write_private(path: Path, data: bytes) -> None:
    """Replaces a file by rename, mode 0600."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(draft, "wb", opener=_owner_only) as file:
        file.write(data)
    os.replace(draft, path)
