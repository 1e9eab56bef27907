"""The user's application, as files of a board: app.py and the modules beside it.
Reads only. The firmware's own files never come from here."""

from __future__ import annotations

from pathlib import Path

from espdps.errors import WRONG_USE, ToolError

# Files of the firmware, which a user may read or change on the board, so they stay source there.
OWN = ("hardware.py", "main.py")
_NOT_FOR_BOARDS = "manifest.py"  # for a build of MicroPython
_RESERVED = (*OWN, "boot.py", "code.py")
_HINT = "name app.py, or a folder with app.py and the modules beside it"


def read(source: Path) -> dict[str, bytes]:
    """Path on the board -> content, as source: users edit it on the board.

    `source` is one file, which becomes /app.py, or a folder with app.py. Of the firmware's own folder, the firmware's
    files are left out. Raises ToolError.
    """
    if source.is_file():
        return {"/app.py": source.read_bytes()}
    if not source.is_dir():
        raise ToolError(f"{source} does not exist", _HINT, WRONG_USE)
    names = sorted(path.name for path in source.glob("*.py"))
    if (source / "aziot").is_dir():
        names = [name for name in names if name not in (*OWN, _NOT_FOR_BOARDS)]
    if "app.py" not in names:
        raise ToolError(f"{source} holds no application", _HINT)
    for name in _RESERVED:
        if name in names:
            raise ToolError(f"{source / name} has the name of a file of the firmware", "give it another name")
    return {f"/{name}": (source / name).read_bytes() for name in names}
