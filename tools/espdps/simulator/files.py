"""Files that only their owner may read, written whole or not at all; and how many may be open.

Nothing here knows what a file holds; a reader never sees a half-written one.
"""

from __future__ import annotations

import os
import resource
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


def allow_open(count: int) -> None:
    """Lets this process have so many files and connections open, or as many as it may; a shell often allows 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 256 if hard == resource.RLIM_INFINITY else min(count + 256, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
