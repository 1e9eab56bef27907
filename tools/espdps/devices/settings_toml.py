"""settings.toml, CircuitPython's file of settings: what a device folder says, in the little TOML that is read there.
Strings and whole numbers, one a line, before any [table]; a user's own lines stay as they are. No text of an error
holds a value. Source: CircuitPython's documentation, "Environment Variables"."""

from __future__ import annotations

import json
import re
from typing import Any

from espdps import inputs
from espdps.errors import ToolError

NAME = "settings.toml"
HEADER = b"# esp-dps writes these; lines of your own belong below\n"
WIFI = {"wifi_ssid": "CIRCUITPY_WIFI_SSID", "wifi_password": "CIRCUITPY_WIFI_PASSWORD"}
PREFIX = "AZIOT_"
_KEY = re.compile(rb"\s*([A-Za-z0-9_-]+)\s*=")
_TABLE = re.compile(rb"\s*\[")


def entries(config: dict[str, Any], secrets: dict[str, Any]) -> dict[str, str | int]:
    """Name -> value of what a board is told: device.json, and of secrets.json the network and the device keys.

    true and false become 1 and 0, a list of texts one text with commas between, the payload its JSON. Raises ToolError
    for what cannot be said in settings.toml.
    """
    table: dict[str, Any] = {name: secrets[key] for key, name in WIFI.items() if key in secrets}
    table |= {PREFIX + name.upper(): _plain(name, value) for name, value in config.items()}
    for name in ("device_key", "secondary_device_key"):
        if name in secrets:
            table[PREFIX + name.upper()] = secrets[name]
    return table


def _plain(name: str, value: Any) -> str | int:
    if isinstance(value, (str, int)):
        return int(value) if isinstance(value, bool) else value
    if isinstance(value, list) and all(isinstance(word, str) and "," not in word for word in value):
        return ",".join(value)
    if name == "payload" and isinstance(value, dict):
        return json.dumps(value)
    raise ToolError(
        f"{name} of device.json cannot be said in {NAME}", "take it out, or make it a text, a number or a list of texts"
    )


def text(table: dict[str, str | int]) -> bytes:
    """The lines that say it. Raises ToolError."""
    return HEADER + b"".join(f"{name} = {_literal(name, value)}\n".encode() for name, value in table.items())


def merged(table: dict[str, str | int], there: bytes) -> bytes:
    """The content of a settings.toml that says `table` and what else it said before. Raises ToolError.

    Ours go first: CircuitPython reads no line behind the head of a [table].
    """
    kept, ours = [], True
    for line in inputs.without_mark(there).splitlines(keepends=True):
        ours = ours and not _TABLE.match(line)
        key = _KEY.match(line) if ours else None
        name = key.group(1).decode() if key else ""
        if name not in table and not name.startswith(PREFIX) and line.strip() != HEADER.strip():
            kept.append(line)
    return text(table) + b"".join(kept)


def _literal(name: str, value: str | int) -> str:
    """A basic string, in which all that is not printable is an escape, or a number."""
    if isinstance(value, int):
        return str(value)
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ToolError(f"{name} holds a character that no {NAME} can", "take it out of the device folder")
    return '"{}"'.format("".join(map(_escaped, value)))


def _escaped(letter: str) -> str:
    """Only the escapes that CircuitPython documents: TOML has more short ones."""
    if letter in '"\\':
        return f"\\{letter}"
    return f"\\u{ord(letter):04x}" if letter < " " or letter == "\x7f" else letter
