"""Device folders: `new`, `list`, `doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from espdps.commands import output, secrets
from espdps.commands.options import (
    BOARD_DEFAULT,
    AsJson,
    DeviceKeyFile,
    Devices,
    GroupKeyFile,
    IdScope,
    KeyType,
    SecondaryGroupKeyFile,
    SimFolder,
    WifiSsid,
)
from espdps.credentials import keys
from espdps.devices import folders, profiles, project
from espdps.errors import FAILED, WRONG_USE, ToolError
from espdps.paths import FIRMWARE

if TYPE_CHECKING:
    from espdps.devices.folder_doctor import Finding

app = typer.Typer()


@app.command()
def new(
    registration_id: Annotated[str, typer.Argument(help="The device's name at DPS.")],
    *,
    board: Annotated[
        str, typer.Option(help="Board profile.", default_factory=project.board, show_default=BOARD_DEFAULT)
    ],
    id_scope: IdScope = None,
    group_key_file: GroupKeyFile = None,
    secondary_group_key_file: SecondaryGroupKeyFile = None,
    device_key_file: DeviceKeyFile = None,
    onboarding_cert: Annotated[
        Path | None,
        typer.Option("--onboarding-cert", help="Client certificate for DPS, leaf first, PEM or DER: X.509 enrollment."),
    ] = None,
    onboarding_key_file: Annotated[
        Path | None, typer.Option("--onboarding-key-file", help="Its private key, PEM or DER without a passphrase.")
    ] = None,
    key_type: Annotated[KeyType, typer.Option(help="Private key to make.")] = KeyType(keys.DEFAULT_KIND),  # noqa: B008
    no_csr: Annotated[
        bool, typer.Option("--no-csr", help="No private key and CSR: the hub is used with a token.")
    ] = False,
    wifi_ssid: WifiSsid = None,
    wifi_password_file: Annotated[
        Path | None, typer.Option(help="File with its password; empty: open network.")
    ] = None,
    dps_host: Annotated[str | None, typer.Option(help=f"Else {folders.AZURE_HOST}.")] = None,
    port: Annotated[int | None, typer.Option(help=f"Of DPS and hub. Else {folders.PORT}.")] = None,
    roots_file: Annotated[Path | None, typer.Option("--roots", help="Trusted roots, PEM or DER. Else Azure's.")] = None,
    sim: SimFolder = None,
    devices_folder: Devices,
    force: Annotated[bool, typer.Option("--force", help="Replace a device folder, its private key too.")] = False,
    shred_after_flash: Annotated[
        bool, typer.Option("--shred-after-flash", help="Private values leave this PC once the board has them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a device folder: derived key, private key, CSR, settings.

    The group's key stays here; the board gets the key derived from it. An individual enrollment has its own key:
    --device-key-file. For an X.509 enrollment give the client certificate and its key instead. With --shred-after-flash
    `flash` removes private key and device key from this PC as soon as they are verified on the board: then they are
    there only, and another board needs another folder.

    \b
    EXAMPLE
      esp-dps new greenhouse-1 --id-scope 0ne00ABCDEF --board ESP32_GENERIC_C3 \\
          --group-key-file group.key --wifi-ssid Greenhouse
    """
    keys.check_registration_id(registration_id)
    profile = profiles.load(board)  # what is wrong without any secret is said before one is asked for
    has_wifi = profile.network == "wifi" and profile.chip != "unix"
    if has_wifi and wifi_ssid is None:
        wifi_ssid = project.value("wifi_ssid")
    if has_wifi and wifi_ssid is None:
        output.err.print(f"no --wifi-ssid: {board} will have no network to join", style="yellow", soft_wrap=True)
    folders.check_shredding(profile, shred_after_flash)
    id_scope, sim = project.service(id_scope, sim)
    info = folders.read_simulator(sim) if sim else {}
    scope = id_scope or info.get("id_scope")
    if scope is None:
        raise ToolError("no id scope", "--id-scope 0ne…; it stands on the overview page of the DPS instance", WRONG_USE)
    onboarding = secrets.onboarding(onboarding_cert, onboarding_key_file)
    if onboarding and (group_key_file or secondary_group_key_file or device_key_file):
        raise ToolError("an onboarding certificate and a key exclude each other", "give one of them", WRONG_USE)
    if device_key_file and secondary_group_key_file:
        raise ToolError(
            "--device-key-file and --secondary-group-key-file exclude each other", "give --group-key-file", WRONG_USE
        )
    secondary = secrets.group_key(secondary_group_key_file) if secondary_group_key_file else None
    plan = folders.Plan(
        registration_id=registration_id,
        id_scope=scope,
        board=board,
        device_key=None if onboarding else secrets.device_key(registration_id, group_key_file, device_key_file, info),
        secondary_device_key=keys.derive_device_key(secondary, registration_id) if secondary else None,
        onboarding=onboarding,
        roots=secrets.trusted_roots(roots_file, info),
        key_kind=None if no_csr else key_type.value,
        dps_host=folders.dps_host(dps_host or info.get("host")),
        port=port or info.get("mqtt_port") or folders.PORT,
        spread=5 if info else None,  # no fleet there, but a person who waits
        wifi_ssid=wifi_ssid,
        wifi_password=secrets.wifi_password(wifi_password_file) if wifi_ssid is not None else "",
        shred_after_flash=shred_after_flash,
    )
    folder = folders.create(plan, devices_folder, force=force)
    if as_json:
        output.print_json({"folder": str(folder), **folders.read_json(folder / "manifest.json")})
    else:
        made = "settings, " + ("onboarding certificate" if onboarding else "device key")
        if not no_csr:
            made += f", {key_type.value} key and CSR"
        output.out.print(f"{folder}: {made}, for {board}", soft_wrap=True)


@app.command("list")
def list_devices(*, devices_folder: Devices, as_json: AsJson = False) -> None:
    """List all devices: what they are, and which board has which.

    "until" is the end of the onboarding certificate; the one that Azure issues is on the board, and `monitor` shows it.
    A key that is "on the board" was removed from this PC after flashing.

    \b
    EXAMPLE
      esp-dps list
      esp-dps list --json | jq -r 'select(.flashed_at == null) | .registration_id'
    """
    from espdps.devices import inventory

    found = inventory.read(devices_folder)
    if as_json:
        for entry in found:
            output.print_json(asdict(entry))
        return
    shown = Table("device", "board", "signs in by", "key", "chip", "flashed", "until", box=None, pad_edge=False)
    for column in shown.columns:
        column.overflow = "fold"
    count = damaged = flashed = 0
    for entry in found:
        count += 1
        if entry.fault:
            damaged += 1
            shown.add_row(entry.registration_id, entry.fault, style="red")
            continue
        flashed += entry.flashed_at is not None
        key = (entry.key_type or "none") + (", on the board" if entry.on_board_only else "")
        shown.add_row(
            entry.registration_id, entry.board, {"x509": "X.509"}.get(entry.auth, "key"), key,
            entry.chip_id or "", _day(entry.flashed_at), _day(entry.certificate_until),
        )  # fmt: skip
    if count:
        output.out.print(shown)
    end = f", {damaged} damaged: esp-dps doctor says how" if damaged else ""
    output.err.print(f"{count:,} devices in {devices_folder}, {flashed:,} flashed{end}", style="dim", soft_wrap=True)


@app.command()
def doctor(
    device: Annotated[str | None, typer.Argument(help="Registration id, or path of a device folder.")] = None,
    port: Annotated[str | None, typer.Option(help="Look at the board on this serial port.")] = None,
    group_key_file: GroupKeyFile = None,
    firmware: Annotated[Path, typer.Option(help="Its folder.", show_default="the firmware of esp-dps")] = FIRMWARE,
    network: Annotated[bool, typer.Option("--network", help="Try the clock and the endpoint as well.")] = False,
    *,
    devices_folder: Devices,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with a device folder, before any board is flashed, or with a board.

    Looks at settings, keys, CSR, certificates, roots, profile, who may read the files, and whether the firmware
    compiles; no board, and no network without --network: that asks a time server, and DPS for a TLS handshake by the
    device's roots. With the group key (--group-key-file, or ESPDPS_GROUP_KEY) it checks that the
    device key comes from it. Exit code 1 if anything is wrong; a note alone is not.

    With --port it stops the board's program and looks at runtime, heap, filesystem, clock, Wi-Fi, files and the issued
    identity; then the program starts again.

    \b
    EXAMPLE
      esp-dps doctor greenhouse-1
      esp-dps doctor greenhouse-1 --network
      esp-dps doctor --port /dev/ttyUSB0
    """
    if device is None and port is None:
        raise ToolError("a DEVICE, or a board's --port", "esp-dps doctor --help", WRONG_USE)
    wrong = _folder_findings(device, group_key_file, firmware, network, devices_folder, as_json) if device else 0
    if port:
        from espdps.board import board_doctor, repl

        with repl.opened(port) as board:
            found = board_doctor.examine(board)
            board.restart()
        wrong += _show_findings(port, found, as_json)
    if wrong:
        raise typer.Exit(FAILED)


def _folder_findings(
    device: str, group_key_file: Path | None, firmware: Path, network: bool, devices_folder: Path, as_json: bool
) -> int:
    from espdps.devices import folder_doctor as worker

    folder = next((path for path in (devices_folder / device, Path(device)) if path.is_dir()), None)
    if folder is None:
        raise ToolError(f"no device {device!r} in {devices_folder}", "esp-dps new makes one", WRONG_USE)
    key = secrets.group_key(group_key_file) if secrets.has_group_key(group_key_file) else None
    found = worker.examine(folder, group_key=key, firmware=firmware, app=project.app())
    if network and not any(finding.wrong and finding.where in ("device.json", "roots.pem") for finding in found):
        from espdps.azure import reach

        found += reach.examine(folder)
    return _show_findings(str(folder), found, as_json)


def _show_findings(what: str, found: Sequence[Finding], as_json: bool) -> int:
    """How many of them are wrong."""
    wrong = sum(finding.wrong for finding in found)
    for finding in found:
        if as_json:
            output.print_json(asdict(finding))
            continue
        mark, style = ("wrong", "red") if finding.wrong else ("note ", "yellow")
        output.out.print(f"{mark}  {finding.where}: {finding.message}", style=style, soft_wrap=True)
        if finding.remedy:
            output.out.print(f"       {finding.remedy}", soft_wrap=True)
    if not as_json:
        output.out.print(f"{what}: " + (f"{wrong} wrong" if wrong else "nothing wrong"), soft_wrap=True)
    return wrong


def _day(seconds: int | None) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d") if seconds else ""
