"""Board profiles: what a type of board is like, read from boards/*.toml and checked key by key.
A profile never holds anything of a single unit, and nothing secret."""

from __future__ import annotations

import difflib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espdps import files, inputs
from espdps.errors import WRONG_USE, ToolError
from espdps.paths import BOARDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OLDEST = (1, 24)  # MicroPython that the firmware runs on: 1.23 refuses keys in DER (docs/releases.md)
SHORTEST_WATCHDOG = 60  # seconds; it keeps counting while `flash` has the program stopped


# ESP32-C3FH4, ESP32C3, ESP32-S3-PICO-1: a letter with a number names the family, whatever follows. Without one a chip
# is of the first family: ESP32-PICO-D4, ESP32-D2WD, ESP32-S0WD, ESP32-UNICORE.
_FAMILY = re.compile(r"ESP32-?([CHPS][1-9]\d*)").match

MICROPYTHON, CIRCUITPYTHON = "micropython", "circuitpython"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One type of board. boards/README.md says what each field means; the last four are MicroPython's alone.

    `chips`: all that a board of this type may have, `chip` is the first of them.
    """

    name: str
    chips: tuple[str, ...]
    runtime: str
    min_version: tuple[int, int]
    network: str
    led: int | str | None  # CircuitPython's pins have names
    led_on: int | None
    watchdog: int
    button: str | None = None
    heap: str = ""
    epoch: int = 1970
    mpy: tuple[str, ...] = ()

    @property
    def chip(self) -> str:
        """The chip that it usually has."""
        return self.chips[0]

    @property
    def circuitpython(self) -> bool:
        """Whether its files go to a CIRCUITPY drive, not through a serial port."""
        return self.runtime == CIRCUITPYTHON

    def board_json(self) -> dict[str, str | int | None]:
        """What the firmware needs to know of the board it runs on: the content of /board.json."""
        table: dict[str, str | int | None] = {
            "board": self.name,
            "network": self.network,
            "led": self.led,
            "led_on": self.led_on,
            "watchdog": self.watchdog,
        }
        return table | ({"button": self.button} if self.circuitpython else {})


def family(chip: str) -> str:
    """The family of a chip by any of its names: ESP32-C3FH4 -> ESP32C3. What is no ESP32's name stays as it is."""
    if found := _FAMILY(chip):
        return f"ESP32{found[1]}"
    return "ESP32" if chip.startswith("ESP32") else chip


def _is_chip(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str) and _CHIP(name) for name in names)


_Key = tuple[tuple[type, ...], bool, str, Any]
_CHIP = re.compile(r"ESP32[\w-]*|unix").fullmatch
_PIN = re.compile(r"[A-Za-z_]\w{0,31}").fullmatch

# key -> (types, whether it must be there, what else must hold, in words, as a test)
_COMMON: dict[str, _Key] = {
    "chip": ((str, list), True, "a chip's name such as ESP32C3, or a list of them", _is_chip),
    "runtime": ((str,), True, "micropython or circuitpython", {MICROPYTHON, CIRCUITPYTHON}.__contains__),
    "min_version": ((str,), True, 'a version such as "1.24"', re.compile(r"\d+\.\d+").fullmatch),
    "network": ((str,), True, "wifi or none", {"wifi", "none"}.__contains__),
    "led_on": ((int,), False, "0 or 1", range(2).__contains__),
    "watchdog": ((int,), True, "0 or 60 to 3600 seconds", lambda s: s == 0 or SHORTEST_WATCHDOG <= s <= 3600),
}
_SCHEMAS: dict[str, dict[str, _Key]] = {
    MICROPYTHON: _COMMON
    | {
        "led": ((int,), False, "a pin number from 0 to 48", range(49).__contains__),
        "heap": ((str,), True, 'a size such as "56k"', re.compile(r"[1-9]\d*k").fullmatch),
        "epoch": ((int,), True, "1970 or 2000", {1970, 2000}.__contains__),
        "mpy": ((list,), True, "a list of mpy-cross options", lambda words: all(isinstance(one, str) for one in words)),
    },
    CIRCUITPYTHON: _COMMON
    | {
        "led": ((str,), False, 'the name of a pin such as "LED"', _PIN),
        "button": ((str,), False, 'the name of a pin such as "BUTTON"', _PIN),
    },
}


def names(folder: Path = BOARDS) -> list[str]:
    """The profiles there are, sorted."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def load(name: str, folder: Path = BOARDS) -> Profile:
    """The profile called `name`. Raises ToolError that names the file and the key at fault."""
    known = names(folder)
    if name not in known:
        hint = f"one of {', '.join(known)}; boards/README.md says how to add one"
        raise ToolError(f"no board profile {name!r}", hint, WRONG_USE)
    path = folder / f"{name}.toml"
    text = inputs.decode(files.read(path, may_be_empty=True), path.name).replace("\r\n", "\n")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ToolError(
            f"{path.name}: not TOML: {error}", "correct that line; boards/README.md says what a profile holds"
        ) from None
    runtime = table.get("runtime")
    if runtime is not None and runtime not in list(_SCHEMAS):  # not the keys themselves: a list is no key of a dict
        rule = _COMMON["runtime"][2]
        raise ToolError(f"{path.name}:{_line(text, 'runtime')}: 'runtime' must be {rule}", "take one of these")
    schema = _SCHEMAS[runtime or MICROPYTHON]
    for key in table:
        if key not in schema:
            where = f"{path.name}:{_line(text, key)}"
            if any(key in other for other in _SCHEMAS.values()):
                raise ToolError(f"{where}: {key!r} means nothing for {runtime or MICROPYTHON}", "take it out")
            near = difflib.get_close_matches(key, schema, 1)
            hint = f"{near[0]} is meant?" if near else f"known are {', '.join(schema)}"
            raise ToolError(f"{where}: unknown key {key!r}", hint)
    for key, (kind, needed, rule, holds) in schema.items():
        if key not in table:
            if needed:
                raise ToolError(f"{path.name}: {key!r} is missing", f"{key} is {rule}")
        elif type(table[key]) not in kind or not holds(table[key]):  # not isinstance: true is no pin number
            raise ToolError(
                f"{path.name}:{_line(text, key)}: {key!r} must be {rule}",
                "correct it; boards/README.md explains each key",
            )
    if ("led" in table) != ("led_on" in table):
        key = "led" if "led" in table else "led_on"
        raise ToolError(f"{path.name}:{_line(text, key)}: 'led' and 'led_on' go together", "give both, or neither")
    major, minor = table["min_version"].split(".")
    values = {"led": None, "led_on": None} | table
    chips = values.pop("chip")
    values["chips"] = tuple(chips) if isinstance(chips, list) else (chips,)
    values |= {"name": name, "min_version": (int(major), int(minor)), "mpy": tuple(table.get("mpy", ()))}
    return Profile(**values)


def _line(text: str, key: str) -> int:
    """The number of the line in which `key` begins. The parser does not tell, so it is asked how far it gets: each
    value ends with the first line up to which all is TOML again."""
    start, lines = 1, text.splitlines(keepends=True)
    for number in range(1, len(lines) + 1):
        try:
            table = tomllib.loads("".join(lines[:number]))
        except tomllib.TOMLDecodeError:
            continue
        if key in table:
            return start
        start = number + 1
    return start
