"""Device folders: everything one physical unit gets, made whole or not at all.
Files are for their owner only, and nothing is ever overwritten unless the caller says so."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from espdps import inputs, locks
from espdps.credentials import keys, pairs
from espdps.devices import profiles, settings, shred
from espdps.errors import WRONG_USE, ToolError
from espdps.files import read
from espdps.files import read_json as read_json

AZURE_HOST = "global.azure-devices-provisioning.net"
PORT = 8883
DPS_API = "2026-11-01"  # the first stable one with a CSR in the registration
HUB_API = "2021-04-12"
RENEWAL_API = "2025-08-01-preview"  # the first with which the Hub itself renews an issued certificate
_NEW, _OLD = ".new-", ".old-"  # folders on their way into place, and out of it
NTP = ["pool.ntp.org", "time.windows.com"]
SAME_DEVICE = "for DPS, ids that differ in case only are one device"
# A line a name, by the separator: json.dumps with an indent takes ten times as long, which a fleet would notice.
_lines = json.JSONEncoder(ensure_ascii=False, separators=(",\n  ", ": ")).encode
_ID_SCOPE = re.compile(r"[0-9A-Za-z]{5,32}")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a new device folder is to hold.

    It comes into Azure by `device_key` (base64), and `secondary_device_key` where that one is refused, or by
    `onboarding`: a client certificate (PEM, the leaf first) and its private key (PEM or DER, not encrypted).
    `key_kind` None leaves the private key and the CSR out.
    """

    registration_id: str
    id_scope: str
    board: str
    device_key: str | None = field(default=None, repr=False)
    secondary_device_key: str | None = field(default=None, repr=False)
    onboarding: tuple[bytes, bytes] | None = field(default=None, repr=False)
    roots: bytes = field(repr=False)
    key_kind: str | None = keys.DEFAULT_KIND
    dps_host: str = AZURE_HOST
    port: int = PORT
    spread: int | None = None  # seconds, and no patience with a hub that refuses; None leaves the firmware's own
    wifi_ssid: str | None = None
    wifi_password: str = field(default="", repr=False)
    shred_after_flash: bool = False  # the PC keeps no private value once the board is verified to have it


@dataclass(frozen=True)
class Device:
    """A device folder that was read: `config` is device.json, `profile` the type of board it was made for.

    `on_board_only`: its private values were removed from the PC after flashing; the board has the only copy.
    """

    folder: Path
    config: dict[str, Any]
    profile: profiles.Profile
    on_board_only: bool = False

    @property
    def registration_id(self) -> str:
        return str(self.config["registration_id"])


def create(plan: Plan, devices: Path, *, force: bool = False) -> Path:
    """Make devices/<registration id>/ with files 0600 in a folder 0700, and return it.

    The folder appears at once with all its files; with `force` it takes the place of one that is there.
    Raises ToolError.
    """
    check_shredding(profiles.load(plan.board), plan.shred_after_flash)
    files = contents(plan)  # before anything is touched: most of what can go wrong goes wrong here
    devices.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = devices / plan.registration_id
    with locks.alone(devices):
        tidy(devices)
        _check_free(devices, plan.registration_id, force)
        work = Path(tempfile.mkdtemp(prefix=_NEW, dir=devices))
        try:
            write_files(str(work), files)
            _put_in_place(work, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)  # gone already if all went well
    return target


def write_files(folder: str, files: dict[str, bytes]) -> None:
    """New files in `folder`, for their owner only. Raises OSError."""
    for name, content in files.items():
        descriptor = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            while content:  # a disk that gets full takes a part first
                content = content[os.write(descriptor, content) :]
        finally:
            os.close(descriptor)


def find(name: str, devices: Path) -> Path:
    """The folder of a device given by its registration id or by a path. Raises ToolError."""
    for folder in (devices / name, Path(name)):
        if (folder / "device.json").is_file():
            return folder
    raise ToolError(f"no device {name!r} in {devices}", "esp-dps new makes one", WRONG_USE)


def load(folder: Path, boards: Path = profiles.BOARDS) -> Device:
    """Read a device folder. Raises ToolError that names the file at fault."""
    config, manifest = read_json(folder / "device.json"), read_json(folder / "manifest.json")
    for table, key, name in ((config, "registration_id", "device.json"), (manifest, "board", "manifest.json")):
        if not isinstance(table.get(key), str):
            raise ToolError(f"{folder / name}: {key!r} is missing", "make it anew: esp-dps new … --force")
    for name in ("secrets.json", "roots.pem"):
        if not (folder / name).is_file():
            raise ToolError(f"{folder / name} is missing", "make it anew: esp-dps new … --force")
    on_board = shred.on_board(folder)
    if (folder / "device.csr").is_file() and "device.key" not in on_board:
        if not (folder / "device.key").is_file():
            raise ToolError(f"{folder / 'device.key'} is missing", "make it anew: esp-dps new … --force")
        pair = [read(folder / part) for part in ("device.csr", "device.key")]
        pairs.check_csr(pair[0], pair[1], config["registration_id"])
    return Device(folder, config, profiles.load(manifest["board"], boards), bool(on_board))


def device_key(folder: Path) -> str:
    """The device key of a folder, base64. Raises ToolError."""
    key = read_json(folder / "secrets.json").get("device_key")
    if not isinstance(key, str):
        raise ToolError(f"{folder / 'secrets.json'}: 'device_key' is missing", "make it anew: esp-dps new … --force")
    return key


def check_id_scope(id_scope: str) -> None:
    """Raises ToolError unless it looks like one."""
    if not _ID_SCOPE.fullmatch(id_scope):
        raise ToolError(
            f"{id_scope!r} is no id scope",
            "copy it from the overview page of the DPS instance: it looks like 0ne00ABCDEF",
            WRONG_USE,
        )


def dps_host(given: str | None) -> str:
    """The host name of DPS, Azure's if none is given. Raises ToolError."""
    return inputs.host(given, "--dps-host", PORT) if given else AZURE_HOST


def check_shredding(profile: profiles.Profile, shred_after_flash: bool) -> None:
    """Raises ToolError for a board that cannot keep the only copy of a secret."""
    if shred_after_flash and profile.circuitpython:
        raise ToolError(
            f"{profile.name} has CircuitPython: whoever plugs its drive in may read and change it",
            "leave --shred-after-flash out: it is for boards with MicroPython",
            WRONG_USE,
        )


def contents(plan: Plan) -> dict[str, bytes]:
    """File name -> content of a new device folder, with new keys; whether there is such a board is not looked at.

    Raises ToolError for whatever in the plan no device could work with.
    """
    keys.check_registration_id(plan.registration_id)
    secrets: dict[str, str] = {}
    files: dict[str, bytes] = {}
    if plan.onboarding:
        files["onboarding.crt"], files["onboarding.key"] = pairs.check_pair(*plan.onboarding, plan.registration_id)
    elif plan.device_key:
        secrets["device_key"] = keys.symmetric_key(plan.device_key, "device key")
        if plan.secondary_device_key:
            secrets["secondary_device_key"] = keys.symmetric_key(plan.secondary_device_key, "secondary device key")
    else:
        raise ToolError("no device key and no onboarding certificate", "give one of them", WRONG_USE)
    check_id_scope(plan.id_scope)
    if not 0 < plan.port < 65536:
        raise ToolError(f"{plan.port} is no port", "it is 1 to 65535; DPS listens on 8883", WRONG_USE)
    if plan.wifi_ssid is not None:
        for message, hint in settings.check_wifi(plan.wifi_ssid, plan.wifi_password):
            raise ToolError(message, hint, WRONG_USE)
        secrets |= {"wifi_ssid": plan.wifi_ssid, "wifi_password": plan.wifi_password}
    config = {
        "registration_id": plan.registration_id,
        "id_scope": plan.id_scope,
        "dps_host": dps_host(plan.dps_host),
        "port": plan.port,
        "dps_api": DPS_API,
        "hub_api": RENEWAL_API if plan.key_kind else HUB_API,
        "auth": "x509" if plan.onboarding else "symmetric-key",
        "ntp": NTP,
    }
    if plan.spread is not None:
        config |= {"spread": plan.spread, "refusal_patience": 0}
    files |= {"device.json": _json(config), "secrets.json": _json(secrets), "roots.pem": plan.roots}
    if plan.key_kind is not None:
        key = keys.new_key(plan.key_kind)
        files |= {"device.csr": keys.csr_der(key, plan.registration_id), "device.key": keys.key_der(key)}
    manifest: dict[str, Any] = {
        "registration_id": plan.registration_id,
        "board": plan.board,
        "key_type": plan.key_kind,
        "csr_sha256": hashlib.sha256(files["device.csr"]).hexdigest() if plan.key_kind else None,
        "auth": config["auth"],
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    if plan.shred_after_flash:
        manifest["shred_after_flash"] = True
    return files | {"manifest.json": _json(manifest)}


def _check_free(devices: Path, registration_id: str, force: bool = False) -> None:
    """Raises ToolError if there is a device of this name, unless `force`, or of one that differs in case only."""
    for other in os.listdir(devices):
        if other.lower() == registration_id.lower() and not (force and other == registration_id):
            if other == registration_id:
                raise ToolError(f"{devices / other} is there already", "new … --force makes it anew, with new keys")
            raise ToolError(f"{devices / other} is there already", SAME_DEVICE)


def tidy(devices: Path) -> None:
    """Remove what a run that was killed left behind, private keys above all; what it was about to replace comes back.

    The caller holds the folder (`locks.alone`). Raises OSError.
    """
    for path in devices.iterdir():
        if path.name.startswith(_OLD):
            for old in path.iterdir():
                if not (devices / old.name).exists():
                    old.rename(devices / old.name)
        if path.name.startswith((_NEW, _OLD)):
            shutil.rmtree(path)


def _put_in_place(work: Path, target: Path) -> None:
    """Rename `work` to `target`; what was there goes only after the new one is in place."""
    if not target.exists():
        work.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=_OLD, dir=target.parent))
    old = aside / target.name
    target.rename(old)
    try:
        work.rename(target)
    except OSError:
        if target.exists():  # another program's, made at this moment
            kept = aside.rename(aside.with_name(aside.name.replace(_OLD, ".kept-"))) / target.name
            raise ToolError(
                f"{target} was made by another program at this moment; the old device is in {kept}",
                "compare the two, and move the right one there",
            ) from None
        old.rename(target)
        aside.rmdir()
        raise
    shutil.rmtree(aside)


def _json(table: dict[str, Any]) -> bytes:
    return f"{{\n  {_lines(table)[1:-1]}\n}}\n".encode()


def read_simulator(folder: Path) -> dict[str, Any]:
    """What a running simulator says of itself in `folder`/sim.json; one that is starting is waited for.

    Raises ToolError.
    """
    path = folder / "sim.json"
    if not locks.wait(folder):
        raise ToolError(f"{path} is missing", f"start the simulator: esp-dps sim --dir {folder}")
    info = read_json(path)
    missing = {"host", "mqtt_port", "ntp_port", "id_scope", "roots", "groups"} - info.keys()
    if missing:
        raise ToolError(
            f"{path}: {', '.join(sorted(missing))} missing", f"start the simulator anew: esp-dps sim --dir {folder}"
        )
    return info
