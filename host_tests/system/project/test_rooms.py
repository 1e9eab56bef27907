"""Rooms import downwards only: the order below is the whole rule. Nothing here runs the code it reads."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from espdps.paths import FIRMWARE, ROOT

TOOLS = ROOT / "tools"
# From the ground up. A room may import from those before it, and from itself.
ROOMS = (
    "errors", "paths", "explain", "inputs", "locks", "files", "simulator", "credentials", "devices", "board", "azure",
    "virtual_board", "demo", "bench", "commands", "cli",
)  # fmt: skip
SIMULATOR = (
    "errors", "names", "strict_json", "files", "throttle", "events", "trouble", "options", "trust", "memory", "wire",
    "registry", "dps", "hub", "service", "controls", "server",
)  # fmt: skip


def imports(path: Path) -> Iterator[str]:
    """Every module that the file imports, by its whole name; also what is taken from it, as that may be a module."""
    package = path.relative_to(TOOLS).parent.parts if TOOLS in path.parents else ()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def upwards(path: Path, root: str, rooms: tuple[str, ...]) -> list[str]:
    """What the file imports from rooms above its own."""
    parts = path.relative_to(TOOLS / root.replace(".", "/")).with_suffix("").parts
    own = rooms.index(parts[0])
    found = []
    for name in imports(path):
        if name.startswith(root + "."):
            room = name.removeprefix(root + ".").partition(".")[0]
            if room in rooms and rooms.index(room) > own:
                found.append(name)
    return found


def sources(folder: Path) -> list[Path]:
    """The package's own modules; what runs on a board or in other environments is no part of it."""
    apart = {"shims", "on_board", "peers"}
    return [path for path in folder.rglob("*.py") if not apart & set(path.relative_to(TOOLS).parts)]


@pytest.mark.parametrize(("root", "rooms"), [("espdps", ROOMS), ("espdps.simulator", SIMULATOR)])
def test_rooms_import_downwards_only(root: str, rooms: tuple[str, ...]) -> None:
    folder = TOOLS / root.replace(".", "/")
    seen = set()
    for path in sources(folder):
        room = path.relative_to(folder).with_suffix("").parts[0]
        if room == "__init__":
            continue
        assert room in rooms, f"{path}: {room} has no place in the order of rooms"
        seen.add(room)
        assert not upwards(path, root, rooms), f"{path}: imports upwards"
    assert seen == set(rooms)


def test_each_room_says_what_lives_there() -> None:
    for path in TOOLS.rglob("__init__.py"):
        if path in sources(TOOLS / "espdps"):
            assert len((ast.get_docstring(ast.parse(path.read_text())) or "").split()) >= 8, path


def test_the_tools_do_not_import_the_tests() -> None:
    helpers = {path.stem for path in (ROOT / "host_tests").rglob("*.py")} - {path.stem for path in TOOLS.rglob("*.py")}
    for path in sources(TOOLS):
        for name in imports(path):
            first = name.partition(".")[0]
            assert first not in helpers and first != "host_tests", f"{path}: {name}"


def test_the_firmware_imports_nothing_of_the_tools() -> None:
    for path in FIRMWARE.rglob("*.py"):
        assert not [name for name in imports(path) if name.partition(".")[0] == "espdps"], path


def test_an_import_upwards_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "TOOLS", tmp_path)
    path = tmp_path / "espdps" / "credentials" / "keys.py"
    path.parent.mkdir(parents=True)
    path.write_text("from espdps.devices import folders\nfrom ..board import flash\nfrom espdps import errors, cli\n")
    assert upwards(path, "espdps", ROOMS) == ["espdps.devices.folders", "espdps.board.flash", "espdps.cli"]
