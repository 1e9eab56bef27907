"""Keys and tokens printed where they are asked for: `derive-key`, `sas`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from espdps import devices, keys
from espdps.commands import output, secrets
from espdps.commands.options import AsJson, DeviceKeyFile, Devices, GroupKeyFile
from espdps.errors import WRONG_USE, ToolError
from espdps.paths import DEVICES

app = typer.Typer()


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
    key = keys.derive_device_key(secrets.group_key(group_key_file), registration_id)
    output.print_secret(key, {"registration_id": registration_id, "device_key": key}, as_json)


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
        key = secrets.device_key(registration_id, group_key_file, device_key_file, {})
    expires = int(time.time()) + seconds
    if hub:
        token = keys.hub_token(hub, registration_id, key, expires)
    elif id_scope:
        token = keys.dps_token(id_scope, registration_id, key, expires)
    else:
        raise ToolError("a token for whom?", "--id-scope for DPS, --hub for an IoT Hub", WRONG_USE)
    output.print_secret(token, {"token": token, "expires": expires}, as_json)
