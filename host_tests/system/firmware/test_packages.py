"""The library by other ways than flash: mip takes it from a repository, a custom build freezes it. None forgets a file."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from board_console import output

from aziot import __version__
from espdps.devices import application
from espdps.paths import FIRMWARE, ROOT
from espdps.virtual_board import VirtualBoard

MODULES = sorted(path.name for path in (FIRMWARE / "aziot").glob("*.py"))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def repository() -> Iterator[str]:
    """The firmware's folder over HTTP, on loopback."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(FIRMWARE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_package_names_every_module() -> None:
    package = json.loads((FIRMWARE / "package.json").read_bytes())
    assert package["urls"] == [[f"aziot/{name}", f"aziot/{name}"] for name in MODULES]


def test_the_version_is_the_same_everywhere() -> None:
    """The tools take the firmware's when the package is built (pyproject.toml); mip reads package.json alone."""
    package = json.loads((FIRMWARE / "package.json").read_bytes())
    assert package["version"] == __version__ == metadata.version("esp-dps")
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_mip_installs_the_library(repository: str, tmp_path: Path, micropython32: Path) -> None:
    with VirtualBoard(tmp_path / "unit", micropython32) as board:
        output(board.port, "mip", "install", f"{repository}/package.json")
        for name in MODULES:
            digest = hashlib.sha256((FIRMWARE / "aziot" / name).read_bytes()).hexdigest()
            assert digest in output(board.port, "fs", "sha256sum", f"lib/aziot/{name}")
        said = output(board.port, "exec", "from aziot.device import Device; import aziot; print(aziot.__version__)")
        assert said.strip() == __version__


def test_the_manifest_freezes_the_library() -> None:
    frozen = []

    # As tools/manifestfile.py of MicroPython 1.25, which was tried with this manifest: without files all of the
    # package's, below the manifest's own folder.
    def package(package_path: str, files: Any = None, base_path: str = ".", opt: int | None = None) -> None:
        folder = FIRMWARE / base_path / package_path
        assert opt in (None, 0, 1, 2, 3) and package_path == "aziot"  # the name by which it is imported
        frozen.extend(files if files is not None else [str(path.relative_to(folder)) for path in folder.rglob("*.py")])

    exec((FIRMWARE / "manifest.py").read_text(), {"package": package})  # it may call nothing else
    assert sorted(frozen) == MODULES


def test_the_manifest_does_not_go_to_a_board() -> None:
    assert set(application.read(FIRMWARE)) == {"/app.py"}
