"""What of a user's own files on a board can keep the firmware from starting: a boot.py, a module with Python's name.
Only looks, and runs none of them; what to do about it is the user's decision."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from espdps.board.repl import Board

# Run on the board after its boot.py: the folder it is in, and what lies in / beside the firmware.
_LOOK = """
import os
print(os.getcwd())
for e in os.ilistdir('/'):
 print(e[0])
"""
_ERROR = re.compile(rb"^(\w*(?:Error|Exception|Exit|Interrupt)\b[^\r\n]*)", re.M)


def find(board: Board, files: Iterable[str], sources: Mapping[str, bytes]) -> list[str]:
    """One line for each; `files` are the paths of the firmware on the board, `sources` its modules, by name."""
    folder, *names = board.exec(_LOOK).decode(errors="replace").splitlines()
    found = []
    if folder != "/":
        found.append(f"/boot.py changes the folder to {folder}, where no main.py is")
    if board.boot_interrupted:
        found.append("/boot.py had not ended after seconds and was stopped: main.py starts only after its end")
    elif b'"boot.py"' in board.boot_said or b'"/boot.py"' in board.boot_said:
        errors = _ERROR.findall(board.boot_said)
        reason = errors[-1].decode(errors="replace") if errors else "an error"
        found.append(f"/boot.py ends in {reason}: main.py may not start after that")
    own = {Path(path).parts[1].partition(".")[0] for path in files} | {"lib"}
    for name in names:
        module = name.removesuffix(".py").removesuffix(".mpy")
        if module in imported(sources) - own:
            found.append(f"/{name} takes the place of the module {module} that the firmware imports")
    return found


def imported(sources: Mapping[str, bytes]) -> set[str]:
    """The modules that these modules import, except each other."""
    names: set[str] = set()
    for content in sources.values():
        try:
            tree = ast.parse(content)
        except (SyntaxError, ValueError):
            continue  # the compiler says it better
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - sources.keys() - {"aziot", "umqtt"}
