"""What device.json and secrets.json may say: every setting the firmware knows, its type and its range.
Judges values only; reads no file, and no text of a finding holds a secret."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from espdps import inputs
from espdps.credentials import keys
from espdps.errors import ToolError

_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # and what is no character
# DTMI: github.com/Azure/opendigitaltwins-dtdl, "Digital Twin Model Identifier"
_MODEL = re.compile(r"(dtmi:[A-Za-z](\w*[A-Za-z0-9])?(:[A-Za-z](\w*[A-Za-z0-9])?)*;[1-9]\d{0,8})?", re.A)
_API = re.compile(r"20\d\d-[01]\d-[0-3]\d(-preview)?")


@dataclass(frozen=True)
class Setting:
    """`default` holds where device.json says nothing; `rule` in words, `holds` as a test; `needed`: must be said."""

    default: str | int | bool | list[str] | dict[str, Any]
    rule: str
    holds: Callable[[Any], object]
    needed: bool = False


def _number(default: int, low: int, high: int, unit: str = "") -> Setting:
    return Setting(default, f"a number from {low} to {high}{unit}", lambda value: low <= value <= high)


def _registration_id(value: str) -> bool:
    try:
        return bool(keys.check_registration_id(value))
    except ToolError:
        return False


# The same names, types and defaults as in firmware/aziot/identity.py
SETTINGS: dict[str, Setting] = {
    "registration_id": Setting(
        "", "1 to 128 letters, digits and - . _ : with a letter or digit at both ends", _registration_id, needed=True
    ),
    "id_scope": Setting("", "an id scope such as 0ne00ABCDEF", re.compile(r"[0-9A-Za-z]{5,32}").fullmatch, needed=True),
    "dps_host": Setting("global.azure-devices-provisioning.net", "a host name", inputs.HOST.fullmatch),
    "port": _number(8883, 1, 65535),
    "dps_api": Setting("2026-11-01", "a version such as 2026-11-01", _API.fullmatch),
    "hub_api": Setting("2021-04-12", "a version such as 2021-04-12", _API.fullmatch),
    "auth": Setting("symmetric-key", "symmetric-key or x509", {"symmetric-key", "x509"}.__contains__),
    "payload": Setting({}, "a JSON object", lambda value: True),
    "model_id": Setting("", "a model of IoT Plug and Play such as dtmi:com:example:Thermostat;1", _MODEL.fullmatch),
    "ntp": Setting(
        ["pool.ntp.org"],
        "a list of 1 to 8 host names",
        lambda hosts: (
            0 < len(hosts) <= 8 and all(isinstance(host, str) and inputs.HOST.fullmatch(host) for host in hosts)
        ),
    ),
    # A TLS handshake takes an ESP32 up to 2.5 s; the watchdog is fed in every wait.
    "timeout": _number(30, 5, 600, " seconds"),
    # Shorter, and a slow start or a clock a little off makes it invalid.
    "token_life": _number(3600, 300, 86400 * 365, " seconds"),
    "renew": _number(66, 10, 90, " percent of a certificate's life"),
    "chain": Setting(True, "true or false", lambda value: True),
    "will": Setting("", "text, the last telemetry", lambda value: True),
    "outbox": _number(20, 1, 100_000, " messages"),
    "report": Setting(True, "true or false", lambda value: True),
    "spread": _number(120, 0, 86400, " seconds"),
    "patience": _number(900, 10, 86400, " seconds"),
    "refusal_patience": _number(300, 0, 86400, " seconds"),
}
_TYPES = {
    str: "text in quotes", int: "a number without quotes", bool: "true or false", list: "a list", dict: "a JSON object",
}  # fmt: skip


def check(config: dict[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with the settings of device.json: (message, remedy) each; nothing when the firmware takes them."""
    found = []
    for name, value in config.items():
        setting = SETTINGS.get(name)
        if setting is None:
            close = difflib.get_close_matches(name, SETTINGS, 1)
            remedy = f"{close[0]} is meant?" if close else f"known are {', '.join(SETTINGS)}"
            found.append((f"no setting is called {name!r:.80}", remedy))
        elif type(value) is not type(setting.default):  # not isinstance: the firmware does not take true for a number
            found.append((f"{name} has to be {_TYPES[type(setting.default)]}", f"{name} is {setting.rule}"))
        elif not setting.holds(value):
            found.append((f"{name} cannot be {value!r:.80}", f"it is {setting.rule}"))
    for name, setting in SETTINGS.items():
        if name not in config and setting.needed:
            found.append((f"{name} is missing", f"it is {setting.rule}"))
    return found


def check_secrets(secrets: dict[str, Any], *, key: bool, wifi: bool) -> list[tuple[str, str]]:
    """What is wrong with secrets.json, which has to hold a device key if `key`, and a network if `wifi`."""
    found = []
    for name in secrets.keys() - {"device_key", "secondary_device_key", "wifi_ssid", "wifi_password"}:
        found.append((f"nothing reads {name!r:.80}", "take it out"))
    for name, value in secrets.items():
        if not isinstance(value, str):
            found.append((f"{name} has to be text in quotes", "put it in quotes"))
    texts = {name: value for name, value in secrets.items() if isinstance(value, str)}
    if key and "device_key" not in secrets:
        found.append(("device_key is missing", "esp-dps derive-key makes it from the group key; or make all anew"))
    elif "device_key" in texts:
        try:
            if keys.symmetric_key(texts["device_key"], "device key") != texts["device_key"]:
                found.append(("the device key is not only base64", "take out what is around it and between"))
        except ToolError as error:
            found.append((error.message, error.hint))
    if wifi and "wifi_ssid" not in secrets:
        found.append(("wifi_ssid is missing: the board has no network to join", "add it, and wifi_password"))
    found += check_wifi(texts.get("wifi_ssid"), texts.get("wifi_password", ""))
    return found


def check_wifi(ssid: str | None, password: str) -> list[tuple[str, str]]:
    """What is wrong with a network's name (None: no network) and its password, "" for an open one."""
    found = []
    if ssid is not None and (not 1 <= len(ssid.encode(errors="replace")) <= 32 or _CONTROL.search(ssid)):
        found.append(("wifi_ssid has to be of 1 to 32 bytes", "copy the name as the access point has it"))
    size = len(password.encode(errors="replace"))
    if _CONTROL.search(password):
        found.append(("wifi_password has a line end or another control character", "give it in one line"))
    elif size == 64:  # IEEE 802.11, annex J: 8 to 63 characters, or the key itself
        if not re.fullmatch("[0-9A-Fa-f]{64}", password):
            found.append(("wifi_password of 64 characters is not a hexadecimal key", "a password has 8 to 63"))
    elif password and not 8 <= size <= 63:
        found.append(("wifi_password has to be of 8 to 63 characters", "or empty, for an open network"))
    return found
