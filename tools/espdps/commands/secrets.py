"""Where a command has its secrets from: a file, else the environment, else a prompt, never an argument.
No exception text holds one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import typer

from espdps import files, inputs
from espdps.credentials import keys, roots
from espdps.credentials.formats import Ask
from espdps.devices import project
from espdps.errors import WRONG_USE, ToolError

GROUP_KEY = "ESPDPS_GROUP_KEY"
DEVICE_KEY = "ESPDPS_DEVICE_KEY"
WIFI_PASSWORD = "ESPDPS_WIFI_PASSWORD"
POLICY_KEY = "ESPDPS_POLICY_KEY"
PASSPHRASE = "ESPDPS_PASSPHRASE"
NEW_PASSPHRASE = "ESPDPS_NEW_PASSPHRASE"


_taken: dict[str, str] = {}


def take_environment() -> None:
    """Take all of them out of the environment, so that no program that is started gets them."""
    _taken.clear()
    for name in (GROUP_KEY, DEVICE_KEY, WIFI_PASSWORD, POLICY_KEY, PASSPHRASE, NEW_PASSPHRASE):
        if name in os.environ:
            _taken[name] = os.environ.pop(name)


def has_group_key(path: Path | None) -> bool:
    """Whether an enrollment group's key is given, so that nobody would be asked for it."""
    return path is not None or GROUP_KEY in _taken


def group_key(path: Path | None) -> str:
    """An enrollment group's key, base64; also from the file that esp-dps.toml names. Raises ToolError without any."""
    if path is None and GROUP_KEY not in _taken:
        path = project.group_key_file()
    return keys.symmetric_key(_read(path, GROUP_KEY, "group key", "--group-key-file"), "group key")


def policy_key(path: Path | None) -> str:
    """The key of a shared access policy, base64. Raises ToolError without any."""
    return keys.symmetric_key(_read(path, POLICY_KEY, "policy key", "--policy-key-file"), "policy key")


def key_file(path: Path) -> str:
    """A symmetric key out of a file, base64. Raises ToolError that names the file."""
    return keys.symmetric_key(inputs.decode(files.read(path), str(path)), f"content of {path}")


def wifi_password(path: Path | None) -> str:
    """The password of a Wi-Fi network, "" for an open one. Raises ToolError without any."""
    return _line(path, WIFI_PASSWORD, "Wi-Fi password", "--wifi-password-file")


def opener(path: Path | None, *, optional: bool = False) -> Ask:
    """What is asked when something turns out to be encrypted, and only then: file, environment, prompt.

    With `optional` the answer may be none; else ToolError is raised without any.
    """

    def ask(what: str) -> bytes | None:
        if optional and not path and PASSPHRASE not in _taken and not sys.stdin.isatty():
            return None
        return _line(path, PASSPHRASE, f"passphrase of {what}", "--passphrase-file").encode()

    return ask


def new_passphrase(path: Path | None, what: str) -> bytes:
    """The passphrase that something made now gets; typed twice at a prompt. Raises ToolError without any."""
    return _line(path, NEW_PASSPHRASE, f"new passphrase for {what}", "--new-passphrase-file", twice=True).encode()


def device_key(registration_id: str, group_file: Path | None, device_file: Path | None, info: dict[str, Any]) -> str:
    """The device's key: given as such, or derived from the group's, which may be that of a simulator's `info`."""
    if group_file and device_file:
        raise ToolError("--group-key-file and --device-key-file exclude each other", "give one of them", WRONG_USE)
    if device_file or (not group_file and not info and GROUP_KEY not in _taken and DEVICE_KEY in _taken):
        return keys.symmetric_key(_read(device_file, DEVICE_KEY, "device key", "--device-key-file"), "device key")
    if info and not group_file:
        return keys.derive_device_key(simulators_group_key(info), registration_id)
    return keys.derive_device_key(group_key(group_file), registration_id)


def simulators_group_key(info: dict[str, Any]) -> str:
    """The group key of a running simulator, by its `info`. Raises ToolError if it has none."""
    for group in info["groups"]:
        if group.get("attestation") == "symmetricKey":
            return str(group["primary_key"])
    raise ToolError("the simulator has no enrollment group with a symmetric key", "--group-key-file or another one")


def onboarding(certificate: Path | None, key: Path | None) -> tuple[bytes, bytes] | None:
    """Content of the certificate's and the key's file, or None without them."""
    if not certificate and not key:
        return None
    if not certificate or not key:
        raise ToolError("--onboarding-cert and --onboarding-key-file go together", "give both", WRONG_USE)
    return files.read(certificate), files.read(key)


def trusted_roots(path: Path | None, info: dict[str, Any]) -> bytes:
    chosen = path or (Path(info["roots"]) if info else None)
    return roots.read_roots(chosen) if chosen else roots.azure_roots()


def _line(path: Path | None, variable: str, name: str, option: str, twice: bool = False) -> str:
    """As `_read`, for a secret in which spaces count."""
    return inputs.secret_line(_read(path, variable, name, option, twice), name)


def _read(path: Path | None, variable: str, name: str, option: str, twice: bool = False) -> str:
    """A secret from the file, else the environment, else a prompt on a terminal. Raises ToolError without any."""
    if path:
        return inputs.decode(files.read(path, may_be_empty=True), str(path))
    if variable in _taken:
        return _taken[variable]
    if not sys.stdin.isatty():
        raise ToolError(f"no {name} given", f"{option} FILE, or {variable} in the environment", WRONG_USE)
    prompt = name[0].upper() + name[1:]
    return str(
        typer.prompt(prompt, hide_input=True, err=True, default="", show_default=False, confirmation_prompt=twice)
    )
