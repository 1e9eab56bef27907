"""What the commands of `enroll` have in common: which DPS they go to, and how their options and answers are read.
Knows no command. The key of a policy is asked for only when something is to be done."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from espdps import files, inputs
from espdps.azure import az, enrollment, entra, service_client
from espdps.azure.dps_client import DpsClient
from espdps.azure.enrollment import Body, Key
from espdps.commands import output, secrets
from espdps.commands.options import SIM_DEFAULT, AuthKind
from espdps.devices import folders, project
from espdps.errors import WRONG_USE, ToolError

Id = Annotated[str, typer.Argument(metavar="ID", help="Registration ID, or with --group the group's name.")]
OfGroup = Annotated[bool, typer.Option("--group", help="It is an enrollment group.")]
Sim = Annotated[Path | None, typer.Option("--sim", help="Folder of a running simulator.", show_default=SIM_DEFAULT)]
Endpoint = Annotated[str | None, typer.Option(help="NAME.azure-devices-provisioning.net")]
PolicyName = Annotated[str, typer.Option(help="Shared access policy of --endpoint.")]
PolicyKeyFile = Annotated[Path | None, typer.Option(help="File with that policy's key, base64.")]
ApiVersion = Annotated[
    str,
    typer.Option(
        "--api-version",
        help="Version of the service API; 2025-07-01-preview for a credential policy from before, by its name alone.",
    ),
]
ByAz = Annotated[bool, typer.Option("--az", help="Only print the commands of az that do the same.")]

_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?")


@dataclass(frozen=True)
class Target:
    """What the options say of where to go; `az` is there if nothing is to be done."""

    sim: Path | None
    endpoint: str | None
    policy: str
    key_file: Path | None
    by_az: bool
    auth: AuthKind = AuthKind.key
    api: str = enrollment.API

    def __post_init__(self) -> None:
        """Raises ToolError for a version that cannot be one."""
        if not _VERSION.fullmatch(self.api):
            raise ToolError(f"{self.api!r} is not an API version", f"Use {enrollment.API}.", WRONG_USE)

    @property
    def simulator(self) -> Path | None:
        """The simulator's folder, without --endpoint also the project's."""
        return self.sim or (None if self.endpoint else project.simulator())

    def run(self, do: Callable[[DpsClient], None], print_az: Callable[[az.Az], list[str]]) -> None:
        if self.by_az:
            name = self.endpoint.partition(".")[0] if self.endpoint else None
            for line in print_az(az.Az(name, login=self.auth is AuthKind.entra)):
                print(line)
            return
        do(DpsClient(self.service(), self.api))

    def service(self) -> service_client.Service:
        sim = self.simulator
        if (sim is None) == (self.endpoint is None):
            hint = "give --sim DIR or --endpoint NAME.azure-devices-provisioning.net"
            raise ToolError("exactly one DPS is needed", hint, WRONG_USE)
        if sim is not None:
            return service_client.simulator(folders.read_simulator(sim), self.auth is AuthKind.entra)
        assert self.endpoint is not None
        if self.auth is AuthKind.entra:
            return service_client.azure_by_entra(self.endpoint, entra.authorization())
        return service_client.azure(self.endpoint, self.policy, secrets.policy_key(self.key_file))


def key(path: Path | None) -> Key | None:
    return None if path is None else read_key(path)


def read_key(path: Path) -> Key:
    return Key(secrets.key_file(path), az.content_of(path))


def read_url(path: Path) -> Key:
    """A URL with a key in it, out of a file."""
    return Key(inputs.bare(inputs.decode(files.read(path), str(path))), az.content_of(path))


def hub_names(names: list[str] | None) -> list[str]:
    """Host names of hubs, also out of URLs. Raises ToolError."""
    return [inputs.host(name, "--hub", folders.PORT) for name in names or ()]


def pair(primary: Any, secondary: Any, option: str, read: Callable[[Any], Any]) -> list[Any]:
    if primary is None and secondary is not None:
        raise ToolError(f"a secondary needs a primary: {option}", "give the primary as well, or it alone", WRONG_USE)
    return [read(one) for one in (primary, secondary) if one is not None]


def json_object(text: str | None, option: str) -> Body | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ToolError(f"{option} is no JSON object", """quote it for the shell: '{"name": 1}'""", WRONG_USE)
    return value


def say_done(id: str, done: str, as_json: bool) -> None:
    if as_json:
        output.print_json({"id": id, "done": done})
    else:
        output.out.print(f"{id}: {done}", soft_wrap=True)
