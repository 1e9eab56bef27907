"""The user's project folder: what its esp-dps.toml says, and how a new one is made.
An option comes before the environment, the environment before the file. No secret is ever stored in the file."""

from __future__ import annotations

import difflib
import json
import os
import sys
from pathlib import Path

from espdps import files, paths
from espdps.errors import WRONG_USE, ToolError, of_system
from espdps.files import Output

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

APP = "app"
SIMULATOR = "sim"
_ENVIRONMENT = {
    "id_scope": "ESPDPS_ID_SCOPE",
    "simulator": "ESPDPS_SIM",
    "board": "ESPDPS_BOARD",
    "port": "ESPDPS_PORT",
}
_KEYS = (*_ENVIRONMENT, "wifi_ssid", "group_key_file")
_TEMPLATE = """\
# Settings of this project. Options of a command come before them, and so do the environment variables
# ESPDPS_ID_SCOPE, ESPDPS_SIM, ESPDPS_BOARD and ESPDPS_PORT. Do not store secrets here.

# ID scope of your DPS instance. In the Azure portal: the DPS instance, Overview.
{id_scope}
# File with the key of its enrollment group, base64. Without it the tools ask for the key.
{group_key_file}

# Folder of a simulator, to use instead of id_scope. Start it with: esp-dps sim
{simulator}

# Board profile
{board}
# Name of the Wi-Fi network. The tools ask for its password.
{wifi_ssid}
# Serial port of the board
{port}
"""
_EXAMPLES = {
    "id_scope": "0ne00ABCDEF",
    "group_key_file": "group.key",
    "simulator": SIMULATOR,
    "board": "ESP32_GENERIC_C3",
    "wifi_ssid": "Greenhouse",
    "port": "/dev/ttyUSB0",
}
_IGNORED = """\
# Secrets: keys and passwords of your devices, your certificate authority, the simulator and the virtual board
/devices/
/ca/
/sim/
/board/
*.key
*.pem
*.pfx
*.p12
*.identity
*.passphrase
*.password
*.token
"""
_README = """\
# {name}

A project for `esp-dps`.

- `esp-dps.toml`: settings, used by every command in this folder
- `app/app.py`: your application; `esp-dps flash` copies it to the board
- `devices/`: one folder for each device, with its private key; not for git

```sh
esp-dps new greenhouse-1
esp-dps flash greenhouse-1
```
"""


def value(name: str) -> str | None:
    """A setting from the environment, else from esp-dps.toml. Raises ToolError for a file that is wrong."""
    return os.environ.get(_ENVIRONMENT.get(name, "")) or _read().get(name)


def needed(name: str, option: str) -> str:
    """As `value`. Raises ToolError without any."""
    found = value(name)
    if found is None:
        hint = f"give {option}, set {_ENVIRONMENT[name]}, or write {name} into {paths.PROJECT_FILE}"
        raise ToolError(f"no {name.replace('_', ' ')} is given", hint, WRONG_USE)
    return found


def board() -> str:
    """The board profile's name. Raises ToolError without any."""
    return needed("board", "--board")


def port() -> str:
    """The serial port; a relative path in esp-dps.toml starts at the project folder. Raises ToolError without any."""
    found = os.environ.get("ESPDPS_PORT")
    if found:
        return found
    found = needed("port", "--port")
    return str(paths.project() / found) if "/" in found else found


def simulator() -> Path | None:
    """The simulator's folder, if there is one: a relative path in esp-dps.toml starts at the project folder."""
    found = os.environ.get("ESPDPS_SIM")
    if found:
        return Path(found)
    found = _read().get("simulator")
    return paths.shown(paths.project() / found) if found else None


def needed_simulator() -> Path:
    """As `simulator`. Raises ToolError without any."""
    needed("simulator", "--sim DIR")
    return simulator() or Path()


def service(id_scope: str | None, sim: Path | None) -> tuple[str | None, Path | None]:
    """ID scope and simulator's folder. Where an option names one of them, the other one's default does not count; the
    same is true of the environment, which comes before esp-dps.toml."""
    if id_scope is None and sim is None:
        id_scope, folder = (os.environ.get(_ENVIRONMENT[name]) for name in ("id_scope", "simulator"))
        sim = Path(folder) if folder else None
    if id_scope is None and sim is None:
        id_scope, sim = _read().get("id_scope"), simulator()
    return id_scope, sim


def group_key_file() -> Path | None:
    """File with the enrollment group's key, if esp-dps.toml names one."""
    found = _read().get("group_key_file")
    return paths.project() / found if found else None


def app() -> Path | None:
    """The project's application; None in a folder without esp-dps.toml: then it is the one beside the firmware."""
    folder = paths.project()
    return paths.shown(folder / APP) if (folder / paths.PROJECT_FILE).is_file() else None


def create(folder: Path, settings: dict[str, str]) -> tuple[list[Path], list[Path]]:
    """Make a project in `folder`: what was made, and what was there and is kept. Raises ToolError."""
    made: list[Path] = []
    kept: list[Path] = []
    if (folder / paths.PROJECT_FILE).exists():
        raise ToolError(f"{folder / paths.PROJECT_FILE} already exists", "edit it, or name another folder")
    lines = {
        name: f"{name} = {json.dumps(settings[name], ensure_ascii=False)}"
        if name in settings
        else f"# {name} = {json.dumps(example)}"
        for name, example in _EXAMPLES.items()
    }
    contents = {
        f"{APP}/app.py": (paths.FIRMWARE / "app.py").read_bytes(),
        ".gitignore": _IGNORED.encode(),
        "README.md": _README.format(name=folder.resolve().name).encode(),
        paths.PROJECT_FILE: _TEMPLATE.format(**lines).encode(),  # last: it makes the folder a project
    }
    for name, content in contents.items():
        path = folder / name
        (kept if path.exists() else made).append(path)
        if path not in kept:
            files.write([Output(path, content)])
    return made, kept


def _read() -> dict[str, str]:
    """The settings of esp-dps.toml, {} without one. Raises ToolError that names the file and the key at fault."""
    path = paths.project() / paths.PROJECT_FILE
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ToolError(f"{path} is not valid TOML: {error}", "correct that line", WRONG_USE) from None
    except OSError as error:
        raise of_system(error, path) from None
    for key, found in table.items():
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, 1)
            hint = f"write {near[0]}" if near else f"use one of {', '.join(_KEYS)}"
            raise ToolError(f"{path}: unknown key {key!r}", hint, WRONG_USE)
        if not isinstance(found, str) or not found:
            raise ToolError(f"{path}: {key!r} is not a text", f'write it as {key} = "{_EXAMPLES[key]}"', WRONG_USE)
    if "id_scope" in table and "simulator" in table:
        hint = "comment one of them out: a device is for one service"
        raise ToolError(f"{path} has both id_scope and simulator", hint, WRONG_USE)
    return table
