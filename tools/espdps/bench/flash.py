"""How many bytes of a board's flash the library takes, module by module, compiled as `esp-dps flash` compiles it.

All bytes of a .mpy file count, so a file listing on a board shows the same figures.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from pathlib import Path

from espdps.bench.row import Row
from espdps.board import flash
from espdps.devices import mpy, profiles
from espdps.paths import BUILD, FIRMWARE

ALL = 33 << 10  # bytes of .mpy: all of aziot. The aim is 28: what may happen to a board takes modules that few load
MAIN_PATH = 18 << 10  # what a blank board loads up to telemetry with an issued certificate, onboarded by X.509
MODULES = (
    "__init__", "chain", "clock", "device", "dps", "errors", "hub", "identity", "mqtt", "packets", "runtime",
    "settings", "store", "stream", "x509",
)  # fmt: skip
_ADAFRUIT = "adafruit_azureiot"
_OPTIONS = profiles.load("ESP32_GENERIC").mpy


def library() -> dict[str, bytes]:
    """Module of aziot -> its .mpy."""
    return {Path(name).stem: content for name, content in flash.compile_library(FIRMWARE, _OPTIONS).items()}


def total(sizes: Mapping[str, int], modules: Collection[str] = ()) -> int:
    """Bytes of all modules, or of the named ones."""
    return sum(size for name, size in sizes.items() if not modules or name in modules)


def adafruit(packages: Path) -> dict[str, int]:
    """The modules below site-packages that Adafruit's client imports for itself, by file. Empty if it is not there."""
    found: dict[str, int] = {}
    waiting = sorted((packages / _ADAFRUIT).glob("*.py"))
    while waiting:
        path = waiting.pop()
        name = str(path.relative_to(packages))
        if name not in found:
            source = path.read_text(encoding="utf-8")
            found[name] = len(mpy.compiled(path, _OPTIONS))
            waiting += [target for module in _imports(source) for target in _files(packages, path, module)]
    return found


def _imports(source: str) -> list[str]:
    """What a module imports, at any place but for type checkers and in functions, where it is for other boards."""
    found = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append("." * node.level + (node.module or ""))
    return found


def _files(packages: Path, importer: Path, module: str) -> list[Path]:
    folder = importer.parent if module.startswith(".") else packages
    target = folder.joinpath(*module.lstrip(".").split("."))
    if not module.lstrip(".") or not (module.startswith((".", "adafruit_"))):
        return []
    inits = [packages / module.split(".")[0] / "__init__.py"]
    return [path for path in (target.with_suffix(".py"), target / "__init__.py", *inits) if path.is_file()]


def measure(folder: Path) -> list[Row]:
    found = {name: len(content) for name, content in library().items()}
    rows = [Row(name, size, "bytes") for name, size in found.items()]
    for what, modules, limit in ("what the main path loads", MODULES, MAIN_PATH), ("aziot", (), ALL):
        size = total(found, modules)
        rows.append(Row(what, size, "bytes", f"<= {limit:,}", size <= limit))
    theirs = adafruit(next((BUILD / "peers").glob("lib/python3*/site-packages"), folder))
    what = "Adafruit's AzureIoT and what it imports"
    if theirs:
        for name in ("adafruit_azureiot", "adafruit_minimqtt", ""):
            part = {file: size for file, size in theirs.items() if file.startswith(name)}
            rows.append(Row(f"of it {name}" if name else f"{what}, {len(part)} modules", total(part), "bytes"))
    else:
        rows.append(Row(what, None, "bytes", note="not installed in build/peers; make bench does it"))
    return rows
