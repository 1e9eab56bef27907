"""Keys, requests and tokens, one at a time: `keygen`, `csr`, `derive-key`, `sas`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.serialization import Encoding

from espdps import files, inputs
from espdps.commands import output, secrets
from espdps.commands.options import (
    AsJson,
    DeviceKeyFile,
    Devices,
    Encrypt,
    Force,
    GroupKeyFile,
    KeyType,
    NewPassphraseFile,
    PassphraseFile,
)
from espdps.credentials import formats, keys
from espdps.devices import folders
from espdps.errors import WRONG_USE, ToolError

app = typer.Typer()


@app.command()
def keygen(
    file: Annotated[Path, typer.Argument(help="Where the private key goes.")],
    key_type: Annotated[KeyType, typer.Option(help="Private key to make.")] = KeyType(keys.DEFAULT_KIND),  # noqa: B008
    der: Annotated[bool, typer.Option("--der", help="DER instead of PEM: as a board reads it.")] = False,
    encrypt: Encrypt = False,
    new_passphrase_file: NewPassphraseFile = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make a private key: PKCS #8, readable for you only.

    With a passphrase (PEM only) it is encrypted by AES-256.

    \b
    EXAMPLE
      esp-dps keygen greenhouse-1.key
      esp-dps keygen line-7.key --key-type rsa-4096 --encrypt

    \b
    PASSPHRASE
      From --new-passphrase-file, else ESPDPS_NEW_PASSPHRASE, else a prompt.
    """
    files.refuse_existing([file], force)
    encrypt = encrypt or new_passphrase_file is not None
    if der and encrypt:
        raise ToolError("a private key in DER cannot have a passphrase", "leave --der or the passphrase out", WRONG_USE)
    passphrase = secrets.new_passphrase(new_passphrase_file, file.name) if encrypt else None
    key = keys.new_key(key_type.value)
    files.write([files.Output(file, formats.key_file(key, der=der, passphrase=passphrase), secret=True)], force=force)
    form = "DER" if der else "PEM"
    if as_json:
        output.print_json({"file": str(file), "key_type": key_type.value, "format": form, "encrypted": encrypt})
    else:
        locked = "encrypted" if encrypt else "not encrypted"
        output.out.print(f"{file}: {key_type.value} private key, {form}, {locked}", soft_wrap=True)


@app.command()
def csr(
    registration_id: Annotated[str, typer.Argument(help="The device's name at DPS: the common name.")],
    key_file: Annotated[Path, typer.Option(help="Its private key: PEM or DER.")],
    out: Annotated[Path, typer.Option(help="Where the request goes.")],
    der: Annotated[bool, typer.Option("--der", help="DER instead of PEM: as a board reads it.")] = False,
    passphrase_file: PassphraseFile = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make a certificate signing request from a private key.

    PKCS #10. DPS issues a certificate only if the common name is the registration id.

    \b
    EXAMPLE
      esp-dps csr greenhouse-1 --key-file greenhouse-1.key --out greenhouse-1.csr

    \b
    PASSPHRASE, if the key has one
      From --passphrase-file, else ESPDPS_PASSPHRASE, else a prompt.
    """
    keys.check_certificate_name(registration_id)
    files.refuse_existing([out], force)
    key = formats.private_key(files.read(key_file), secrets.opener(passphrase_file), str(key_file))
    request = keys.csr(key, registration_id).public_bytes(Encoding.DER if der else Encoding.PEM)
    files.write([files.Output(out, request)], force=force)
    form, kind = "DER" if der else "PEM", formats.kind_of(key.public_key())
    if as_json:
        output.print_json({"file": str(out), "registration_id": registration_id, "key_type": kind, "format": form})
    else:
        output.out.print(f"{out}: request for {registration_id}, {kind}, {form}", soft_wrap=True)


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
    *,
    devices_folder: Devices,
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
        key = folders.device_key(folder)
        id_scope = id_scope or folders.load(folder).config.get("id_scope")
    else:
        key = secrets.device_key(registration_id, group_key_file, device_key_file, {})
    expires = int(time.time()) + seconds
    if hub:
        token = keys.hub_token(inputs.host(hub, "--hub", folders.PORT), registration_id, key, expires)
    elif id_scope:
        token = keys.dps_token(id_scope, registration_id, key, expires)
    else:
        raise ToolError("a token for whom?", "--id-scope for DPS, --hub for an IoT Hub", WRONG_USE)
    output.print_secret(token, {"token": token, "expires": expires}, as_json)
