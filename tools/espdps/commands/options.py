"""Options and arguments that more than one command has, so that they are called and explained the same everywhere."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from espdps.credentials import keys

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
Port = Annotated[str, typer.Option(help="Serial port, for example /dev/ttyUSB0, COM5 or u0.")]
SimFolder = Annotated[Path | None, typer.Option("--sim", help="Folder of a running simulator: everything from there.")]
RunningSim = Annotated[Path, typer.Option("--sim", help="Folder of a running simulator.")]
DeviceId = Annotated[str, typer.Argument(help="The device's id at its hub.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts: one JSON object a line.")]
PassphraseFile = Annotated[Path | None, typer.Option(help="File with the passphrase of what is read.")]
NewPassphraseFile = Annotated[
    Path | None, typer.Option(help="File with the passphrase of what is made; implies --encrypt.")
]
Encrypt = Annotated[bool, typer.Option("--encrypt", help="Give the private key a passphrase.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that are there.")]
