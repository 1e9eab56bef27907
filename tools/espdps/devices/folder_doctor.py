"""What can be known to be wrong with a device folder before any board is flashed, each with its remedy.
Only reads, asks nobody on the network, and no finding holds a secret."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cryptography import x509

from espdps import inputs
from espdps.credentials import formats, keys, pairs
from espdps.devices import application, drive_content, folders, mpy, profiles, settings, settings_toml, shred
from espdps.errors import ToolError
from espdps.files import read
from espdps.paths import BOARDS, FIRMWARE

WHOLE, ON_BOARD = "the folder", "on the board only"  # as `where`, besides the names of files
ANEW = "make it anew: esp-dps new … --force"
# Bytes. A CSR: what identity.py reads; PEM: all of it is read into the heap at once, for each handshake.
LARGEST = {"device.csr": 2047, "roots.pem": 8192, "onboarding.crt": 8192, "device.json": 4096, "secrets.json": 4096}
FILES = {
    "device.json", "secrets.json", "roots.pem", "device.csr", "device.key", "onboarding.crt", "onboarding.key",
    "manifest.json", "identity.a", "identity.b",
}  # fmt: skip
# Characters. The umqtt.simple before 1.8 puts a subscription's length into one byte, enough for a topic of 122; the
# longest one with the id in it is that of messages to the device.
LONGEST_HEARD = 122 - len("devices//messages/devicebound/#")
_TEXT = ("device.json", "secrets.json", "roots.pem", "onboarding.crt")
SOON = 30  # days before its end in which a certificate is worth a note
_MPY_VERSION = b"M\x06"
_OLDEST_CIRCUITPYTHON = (9, 2)  # its ssl takes any object with a socket's methods


@dataclass(frozen=True)
class Finding:
    """One thing at fault: where, what, what to do. `wrong` False: worth knowing, but the device will work."""

    where: str
    message: str
    remedy: str = ""
    wrong: bool = True


def examine(
    folder: Path,
    *,
    group_key: str | None = None,
    firmware: Path | None = FIRMWARE,
    app: Path | None = None,
    boards: Path = BOARDS,
    now: datetime | None = None,
) -> list[Finding]:
    """Everything that is wrong with a device folder, or worth a note; empty when nothing is.

    `group_key` (base64): the device key must be derived from it. `firmware` None leaves out to compile it; `app` is the
    application's file or folder, None: the one of the firmware; `now` is a time with a zone. A folder whose private
    values were shredded is judged by what is left. Raises ToolError when the folder itself cannot be read, or the group
    key is none.
    """
    if not folder.is_dir():
        raise ToolError(f"{folder} is no folder", "esp-dps new makes one")
    if group_key is not None:
        keys.decode_key(group_key, "group key")
    return list(_findings(_Folder(folder), group_key, firmware, app, boards, now or datetime.now(timezone.utc)))


def admit(folder: Path) -> list[Finding]:
    """The notes on a device folder with which nothing is wrong. Raises ToolError with the first thing that is.

    The firmware itself is left out: who flashes compiles it anyway.
    """
    found = examine(folder, firmware=None)
    wrong = [finding for finding in found if finding.wrong]
    if wrong:
        remedy = [wrong[0].remedy] if wrong[0].remedy else []
        if len(wrong) > 1:
            remedy.append(f"{len(wrong) - 1} more: esp-dps doctor {folder.name}")
        path = folder if wrong[0].where == WHOLE else folder / wrong[0].where
        raise ToolError(f"{path}: {wrong[0].message}", "; ".join(remedy))
    return [finding for finding in found if finding.where != ON_BOARD]  # whoever flashes sees where the keys are


class _Folder:
    """The files of a device; what cannot be read is no file, and is told by `trouble`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, bytes] = {}
        self.trouble: list[Finding] = []
        for name in sorted(FILES):
            try:
                if os.path.lexists(folder / name):
                    self.files[name] = read(folder / name, may_be_empty=True)
            except ToolError as error:
                reason = error.message.removeprefix(str(folder / name)).lstrip(": ")
                self.trouble.append(Finding(name, f"cannot be read: {reason}", error.hint))
        self.config, self.secrets, self.manifest = map(self._json, ("device.json", "secrets.json", "manifest.json"))
        self.on_board: dict[str, str] = {}
        try:
            if self.manifest:
                self.on_board = shred.on_board(folder)
        except ToolError as error:
            self.trouble.append(Finding("manifest.json", error.message, error.hint))

    def _json(self, name: str) -> dict[str, Any] | None:
        if name not in self.files:
            if not any(finding.where == name for finding in self.trouble):
                self.trouble.append(Finding(name, "is missing", ANEW))
            return None
        try:
            table = folders.read_json(self.folder / name)
        except ToolError:
            self.trouble.append(Finding(name, "is not a JSON object", "correct it, or " + ANEW))
            return None
        return table


def _findings(
    device: _Folder, group_key: str | None, firmware: Path | None, app: Path | None, boards: Path, now: datetime
) -> Iterator[Finding]:
    yield from device.trouble
    for name in _TEXT:  # this PC may read it, but the board gets it as it is
        if (content := device.files.get(name, b"")) != inputs.without_mark(content):
            yield Finding(name, "begins with a byte-order mark", "save it as UTF-8 without one")
    yield from _access(device)
    profile = None
    try:
        if device.manifest is not None:
            profile = profiles.load(str(device.manifest.get("board")), boards)
    except ToolError as error:
        yield Finding("manifest.json", error.message, error.hint)
    yield from _settings(device, profile, group_key)
    yield from _request(device)
    yield from _onboarding(device, now)
    yield from _roots(device, now)
    if profile and profile.circuitpython:
        yield from _drive(device, profile, firmware, app)
    elif profile and firmware:
        yield from _compiled(profile, firmware)
    if device.on_board:
        names = ", ".join(device.on_board)
        yield Finding(ON_BOARD, names, "this folder serves that one board; another needs another", False)


def _access(device: _Folder) -> Iterator[Finding]:
    for path in (device.folder, *(device.folder / name for name in device.files)):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            where = path.name if path != device.folder else WHOLE
            right = "700" if path == device.folder else "600"
            yield Finding(where, f"others may use it (mode {mode:o})", f"chmod {right} {path}")
    for name, largest in LARGEST.items():
        if (size := len(device.files.get(name, b""))) > largest:
            yield Finding(name, f"{size:,} bytes are more than the board takes ({largest:,})", "shorten it")
    for name in sorted(path.name for path in device.folder.iterdir()):
        if name not in FILES and not name.startswith("."):
            yield Finding(name, "nothing reads it", "remove it, if it is a mistake", wrong=False)


def _settings(device: _Folder, profile: profiles.Profile | None, group_key: str | None) -> Iterator[Finding]:
    config, secrets = device.config, device.secrets
    if config is not None:
        for message, remedy in settings.check(config):
            yield Finding("device.json", message, remedy)
        name = config.get("registration_id")
        if isinstance(name, str) and len(name) > LONGEST_HEARD:
            yield Finding(
                "device.json",
                f"a registration id of {len(name)} characters: with the umqtt.simple of older MicroPython (before its "
                f"version 1.8) the board cannot ask for messages to the device",
                f"take one of at most {LONGEST_HEARD}, unless the application has no on_message()",
                wrong=False,
            )
        timeout = config.get("timeout", settings.SETTINGS["timeout"].default)
        if profile and isinstance(timeout, int) and 0 < profile.watchdog <= timeout:
            yield Finding(
                "device.json",
                f"timeout, {timeout} s, is not below the watchdog, {profile.watchdog} s: the wait for a TCP connection "
                "does not feed the watchdog, so it ends after 15 s all the same",
                "set a shorter timeout if that is not what you want",
                wrong=False,
            )
        if device.manifest is not None and device.manifest.get("registration_id") != name:
            yield Finding("manifest.json", f"is of another device than device.json, {name!r:.80}", ANEW)
        if name != device.folder.name and isinstance(name, str):
            yield Finding(WHOLE, f"is not called {name}", "commands find a device by its folder's name", False)
        if device.manifest is not None and device.manifest.get("auth", config.get("auth")) != config.get(
            "auth", settings.SETTINGS["auth"].default
        ):
            yield Finding("device.json", "auth is another than this folder was made for", ANEW)
    if secrets is None:
        return
    symmetric = config is not None and config.get("auth", "symmetric-key") == "symmetric-key"
    needs_key = symmetric and "secrets.json" not in device.on_board
    # The virtual board's network needs no name.
    wifi = profile is not None and profile.network == "wifi" and profile.chip != "unix"
    for message, remedy in settings.check_secrets(secrets, key=needs_key, wifi=wifi):
        yield Finding("secrets.json", message, remedy)
    if group_key is None or config is None or not symmetric:
        return
    if "device_key" not in secrets:
        if device.on_board:
            yield Finding(
                "secrets.json",
                "the group key cannot be compared: the device key is on the board only",
                "leave --group-key-file out",
                False,
            )
        return
    try:
        derived = keys.derive_device_key(group_key, str(config.get("registration_id")))
        if keys.decode_key(str(secrets["device_key"])) != keys.decode_key(derived):
            yield Finding("secrets.json", "the device key is not derived from this group key", "another group? " + ANEW)
    except ToolError:
        pass  # told already: the id or the key is none at all


def _request(device: _Folder) -> Iterator[Finding]:
    """The private key and its CSR."""
    csr, key = device.files.get("device.csr"), device.files.get("device.key")
    name = str((device.config or {}).get("registration_id"))
    expected = (device.manifest or {}).get("csr_sha256")
    if csr is None:
        if key is not None or expected:
            yield Finding("device.csr", "is missing", ANEW)
        return
    if expected != hashlib.sha256(csr).hexdigest() and device.manifest is not None:
        yield Finding("device.csr", "is not the one that was made with this folder", ANEW)
    if key is None and "device.key" not in device.on_board:
        yield Finding("device.key", "is missing", ANEW)
    elif key is not None:
        yield from _caught("device.csr", lambda: pairs.check_csr(csr, key, name))
    else:
        try:
            request = x509.load_der_x509_csr(csr)
            if not request.is_signature_valid:
                yield Finding("device.csr", "its signature is wrong", ANEW)
            common = [str(part.value) for part in request.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
            if [part.lower() for part in common] != [name.lower()]:
                yield Finding("device.csr", f"is for {', '.join(common) or 'nobody'}, not for {name}", ANEW)
        except ValueError:
            yield Finding("device.csr", "cannot be read", ANEW)


def _onboarding(device: _Folder, now: datetime) -> Iterator[Finding]:
    certificate, key = device.files.get("onboarding.crt"), device.files.get("onboarding.key")
    if (device.config or {}).get("auth", "symmetric-key") != "x509":
        for name in ("onboarding.crt", "onboarding.key"):
            if name in device.files:
                yield Finding(
                    name, "is not used: auth is not x509", '"auth": "x509" in device.json, or remove it', False
                )
        return
    remedy = "esp-dps new … --onboarding-cert CERT --onboarding-key-file KEY --force"
    if certificate is None:
        yield Finding("onboarding.crt", "is missing, and auth is x509", remedy)
        return
    name = str((device.config or {}).get("registration_id"))
    if key is not None:
        pair = certificate, key
        yield from _caught("onboarding.crt", lambda: pairs.check_pair(*pair, name), remedy)
    elif "onboarding.key" not in device.on_board:
        yield Finding("onboarding.key", "is missing, and auth is x509", remedy)
    try:
        chain = formats.certificates(certificate, "it")
        pairs.checked_chain(chain, "it")
    except ToolError as error:
        if key is None:
            yield Finding("onboarding.crt", error.message, remedy)
        return
    for number, part in enumerate(chain):
        yield from _dates("onboarding.crt", part, now, "" if number == 0 else f"certificate {number + 1}: ")


def _roots(device: _Folder, now: datetime) -> Iterator[Finding]:
    pem = device.files.get("roots.pem")
    if pem is None:
        yield Finding("roots.pem", "is missing", ANEW)
        return
    try:
        certificates = formats.certificates(pem, "it")
        if not formats.pem_blocks(pem):
            raise ToolError("it is not PEM, which the board reads", ANEW)
    except ToolError as error:
        yield Finding("roots.pem", error.message, ANEW)
        return
    for certificate in certificates:
        yield from _dates("roots.pem", certificate, now, f"{certificate.subject.rfc4514_string()[:60]}: ")


def _dates(where: str, certificate: x509.Certificate, now: datetime, prefix: str) -> Iterator[Finding]:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if end <= now:
        yield Finding(where, f"{prefix}expired on {end:%Y-%m-%d}", "take one that is valid")
    elif start > now:
        yield Finding(where, f"{prefix}not valid before {start:%Y-%m-%d %H:%M} UTC", "is this PC's clock right?")
    elif (left := (end - now).days) < SOON:
        yield Finding(where, f"{prefix}{left} days left, until {end:%Y-%m-%d}", "have a new one ready", wrong=False)


def _compiled(profile: profiles.Profile, firmware: Path) -> Iterator[Finding]:
    if profile.min_version < profiles.OLDEST:
        version, oldest = (".".join(map(str, parts)) for parts in (profile.min_version, profiles.OLDEST))
        yield Finding(
            f"{profile.name}.toml",
            f"MicroPython {version} is older than what runs the firmware, {oldest}",
            f'min_version = "{oldest}"',
        )
    sources = sorted((firmware / "aziot").glob("*.py"))
    if not sources or not (firmware / "main.py").is_file():
        yield Finding(str(firmware), "holds no firmware", "it has main.py and a folder aziot")
    for source in sources:
        try:
            content = mpy.compiled(source, profile.mpy)
        except ToolError as error:
            yield Finding(f"firmware/aziot/{source.name}", error.message, error.hint)
            continue
        # Bits 2 to 5 of the third byte: native code, which would be for one architecture (MicroPython, ".mpy files")
        if content[:2] != _MPY_VERSION or content[2] >> 2 & 15:
            yield Finding(
                f"{profile.name}.toml", f"{source.name} becomes no bytecode of version 6", "see its mpy options"
            )
            return


def _drive(device: _Folder, profile: profiles.Profile, firmware: Path | None, app: Path | None) -> Iterator[Finding]:
    """What a CIRCUITPY drive needs besides."""
    if profile.min_version < _OLDEST_CIRCUITPYTHON:
        version = ".".join(map(str, profile.min_version))
        yield Finding(
            f"{profile.name}.toml",
            f"CircuitPython {version} is older than what runs the firmware, 9.2",
            'min_version = "9.2"',
        )
    config, secrets = device.config, device.secrets
    if config is not None and secrets is not None:
        yield from _caught("device.json", lambda: settings_toml.text(settings_toml.entries(config, secrets)))
    if config is not None and config.get("chain") is False:
        yield Finding(
            "device.json", "chain is false, and CircuitPython shows the whole chain all the same", "take it out", False
        )
    if device.manifest and (device.on_board or device.manifest.get("shred_after_flash")):
        message = "shred_after_flash: a CIRCUITPY drive cannot keep the only copy of a secret"
        yield Finding("manifest.json", message, ANEW)
    if firmware:
        files: dict[str, bytes] = {}
        for part in (
            drive_content.libraries,
            lambda: drive_content.firmware_files(firmware),
            lambda: application.read(app or firmware),
        ):
            try:
                files |= part()
            except ToolError as error:
                yield Finding(str(firmware), error.message, error.hint)
        for name, content in files.items():
            try:
                compile(content, name, "exec", dont_inherit=True)
            except (SyntaxError, ValueError) as error:
                yield Finding(name, f"is no Python: {error}", "correct that line")


def _caught(where: str, check: Callable[[], object], remedy: str = "") -> Iterator[Finding]:
    try:
        check()
    except ToolError as error:
        yield Finding(where, error.message, remedy or error.hint)
