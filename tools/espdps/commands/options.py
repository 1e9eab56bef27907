"""Options and arguments that more than one command has, so that they are called and explained the same everywhere."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from espdps import paths
from espdps.credentials import keys
from espdps.devices import project

KeyType = Enum("KeyType", {kind: kind for kind in keys.KINDS}, type=str)  # type: ignore[misc]  # made from the one table

GroupKeyFile = Annotated[Path | None, typer.Option(help="File with the enrollment group's key, base64.")]
SecondaryGroupKeyFile = Annotated[
    Path | None, typer.Option(help="File with the group's other key: a board tries both, so one can be replaced.")
]
DeviceKeyFile = Annotated[Path | None, typer.Option(help="File with an individual enrollment's key, base64.")]
Devices = Annotated[
    Path,
    typer.Option(
        "--devices",
        help="Folder of the device folders.",
        envvar="ESPDPS_DEVICES",
        default_factory=paths.devices,
        show_default="devices/ of the project folder",
    ),
]


class AuthKind(str, Enum):
    """How a service is asked: by Microsoft Entra ID, or by a key of a shared access policy."""

    entra = "entra"
    key = "key"


Auth = Annotated[AuthKind, typer.Option(help="Sign in by Microsoft Entra ID, or by the key of a shared access policy.")]
CaFolder = Annotated[
    Path,
    typer.Option(
        "--dir",
        help="Folder of the authority (esp-dps ca …).",
        default_factory=paths.authority,
        show_default="ca/ of the project folder",
    ),
]
Port = Annotated[
    str,
    typer.Option(
        help="Serial port, for example /dev/ttyUSB0, COM5 or u0.",
        default_factory=project.port,
        show_default="ESPDPS_PORT, else port in esp-dps.toml",
    ),
]
SIM_DEFAULT = "ESPDPS_SIM, else simulator in esp-dps.toml"
SimFolder = Annotated[
    Path | None,
    typer.Option("--sim", help="Folder of a running simulator: everything from there.", show_default=SIM_DEFAULT),
]
RunningSim = Annotated[
    Path,
    typer.Option(
        "--sim",
        help="Folder of a running simulator.",
        default_factory=project.needed_simulator,
        show_default=SIM_DEFAULT,
    ),
]
BOARD_DEFAULT = "ESPDPS_BOARD, else board in esp-dps.toml"
IdScope = Annotated[
    str | None,
    typer.Option(help="ID scope of the DPS instance.", show_default="ESPDPS_ID_SCOPE, else id_scope in esp-dps.toml"),
]
WifiSsid = Annotated[
    str | None, typer.Option(help="Name of the Wi-Fi network.", show_default="wifi_ssid in esp-dps.toml")
]
DeviceId = Annotated[str, typer.Argument(help="The device's id at its hub.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts: one JSON object a line.")]
PassphraseFile = Annotated[Path | None, typer.Option(help="File with the passphrase of what is read.")]
NewPassphraseFile = Annotated[
    Path | None, typer.Option(help="File with the passphrase of what is made; implies --encrypt.")
]
Encrypt = Annotated[bool, typer.Option("--encrypt", help="Give the private key a passphrase.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that are there.")]
