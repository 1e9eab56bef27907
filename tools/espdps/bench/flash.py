"""How many bytes of a board's flash the library takes, module by module, compiled as `esp-dps flash` compiles it.

Names are not charged against a budget: one on them would buy short names, and nothing else. Formats and texts are.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from espdps.bench.row import Row
from espdps.board import flash
from espdps.devices import mpy, profiles
from espdps.paths import BUILD, FIRMWARE

ALL = 18 << 10  # bytes of .mpy, names not counted: all of aziot
ALL_AIM = 14 << 10
MAIN_PATH = 12 << 10  # what a blank board needs till its first telemetry with an issued certificate, coming by X.509
MAIN_PATH_AIM = 10 << 10
MODULES = (
    "__init__", "chain", "clock", "device", "dps", "errors", "hub", "identity", "mqtt", "runtime", "store", "stream",
    "x509",
)  # fmt: skip
_ADAFRUIT = "adafruit_azureiot"
_OPTIONS = profiles.load("ESP32_GENERIC").mpy


@dataclass(frozen=True)
class Size:
    """Bytes of a .mpy, and what of them is not names."""

    raw: int
    charged: int

    def __add__(self, other: Size) -> Size:
        return Size(self.raw + other.raw, self.charged + other.charged)


def library() -> dict[str, bytes]:
    """Module of aziot -> its .mpy."""
    return {Path(name).stem: content for name, content in flash.compile_library(FIRMWARE, _OPTIONS).items()}


def sizes(compiled: dict[str, bytes]) -> dict[str, Size]:
    """Of each module."""
    found = {}
    for name, content in compiled.items():
        source = (FIRMWARE / "aziot" / f"{name}.py").read_text(encoding="utf-8")
        found[name] = Size(len(content), len(content) - mpy.names_size(content, source))
    return found


def total(found: dict[str, Size], modules: tuple[str, ...] = ()) -> Size:
    """Of all, or of some."""
    return sum((size for name, size in found.items() if not modules or name in modules), Size(0, 0))


def adafruit(packages: Path) -> dict[str, Size]:
    """The modules below site-packages that Adafruit's client imports for itself, by file. Empty if it is not there."""
    found: dict[str, Size] = {}
    waiting = sorted((packages / _ADAFRUIT).glob("*.py"))
    while waiting:
        path = waiting.pop()
        name = str(path.relative_to(packages))
        if name not in found:
            source = path.read_text(encoding="utf-8")
            content = mpy.compiled(path, _OPTIONS)
            found[name] = Size(len(content), len(content) - mpy.names_size(content, source))
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
    found = sizes(library())
    rows = []
    for name, size in found.items():
        rows += [
            Row(name, size.raw, "bytes", by="all of it"),
            Row(name, size.charged, "bytes", by="without names"),
        ]
    for what, modules, limit, aim in (
        ("what the main path loads", MODULES, MAIN_PATH, MAIN_PATH_AIM),
        ("aziot", (), ALL, ALL_AIM),
    ):
        size = total(found, modules)
        rows.append(Row(what, size.raw, "bytes", by="all of it"))
        rows.append(
            Row(what, size.charged, "bytes", f"<= {limit:,}, aim {aim:,}", size.charged <= limit, "without names")
        )
    theirs = adafruit(next((BUILD / "peers").glob("lib/python3*/site-packages"), folder))
    what = "Adafruit's AzureIoT and what it imports"
    if theirs:
        for name in ("adafruit_azureiot", "adafruit_minimqtt", ""):
            part = {file: size for file, size in theirs.items() if file.startswith(name)}
            size = total(part)
            label = f"{what}, {len(part)} modules" if not name else f"of it {name}"
            rows += [
                Row(label, size.raw, "bytes", by="all of it"), Row(label, size.charged, "bytes", by="without names")
            ]  # fmt: skip
    else:
        rows.append(Row(what, None, "bytes", by="all of it", note="not installed in build/peers; make bench does it"))
    return rows
