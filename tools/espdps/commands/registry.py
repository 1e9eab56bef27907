"""A simulator's device registry: `registry authorities|authority|policies|policy|devices|device|revoke`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from espdps.azure.registry_client import RegistryClient
from espdps.commands import output
from espdps.commands.options import AsJson, Auth, AuthKind, DeviceId, RunningSim
from espdps.devices import folders
from espdps.errors import WRONG_USE, ToolError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Certificate authorities, their policies, and devices of a simulator's registry.",
)
_ISSUER = "issuer"  # the authority that a simulator has from the start

PolicyArgument = Annotated[
    str, typer.Argument(metavar="POLICY", help="AUTHORITY/POLICY, or the name of a policy of the authority issuer.")
]
Delete = Annotated[bool, typer.Option("--delete", help="Delete it.")]


def _client(sim: Path, auth: AuthKind) -> RegistryClient:
    return RegistryClient(folders.read_simulator(sim), auth is AuthKind.entra)


@app.command("authorities")
def authorities(sim: RunningSim, auth: Auth = AuthKind.key, as_json: AsJson = False) -> None:
    """List the certificate authorities: the root, and those that issue to devices.

    \b
    EXAMPLE
      esp-dps registry authorities --sim build/sim
    """
    output.show_rows([_authority_row(one) for one in _client(sim, auth).authorities()], "no authorities", as_json)


@app.command("authority")
def authority(
    name: Annotated[str, typer.Argument(help="The authority's name.")],
    sim: RunningSim,
    delete: Delete = False,
    auth: Auth = AuthKind.key,
    as_json: AsJson = False,
) -> None:
    """Create a certificate authority that issues to devices, or delete one that has no policies.

    IoT hubs do not trust what a deleted authority issued.

    \b
    EXAMPLE
      esp-dps registry authority line-7 --sim build/sim
    """
    client = _client(sim, auth)
    if delete:
        client.delete_authority(name)
        output.out.print(f"{name}  deleted", soft_wrap=True)
    else:
        output.show_rows([_authority_row(client.put_authority(name))], "", as_json)


@app.command("policies")
def policies(sim: RunningSim, auth: Auth = AuthKind.key, as_json: AsJson = False) -> None:
    """List the certificate policies of all authorities: which keys they take, and how long a certificate is valid.

    \b
    EXAMPLE
      esp-dps registry policies --sim build/sim
    """
    client = _client(sim, auth)
    names = [one["name"] for one in client.authorities()]
    rows = [_policy_row(name, policy) for name in names for policy in client.policies(name)]
    output.show_rows(rows, "no policies", as_json)


@app.command("policy")
def policy(
    name: PolicyArgument,
    sim: RunningSim,
    days: Annotated[
        int | None, typer.Option(min=1, max=90, help="Life of a certificate (default: the simulator's).")
    ] = None,
    seconds: Annotated[int | None, typer.Option(min=1, help="The same in seconds, to see renewals.")] = None,
    key_types: Annotated[
        list[str] | None,
        typer.Option("--key-type", help="Certify these keys only: ec-p384, ec-p256, rsa; may be given more than once."),
    ] = None,
    delete: Delete = False,
    auth: Auth = AuthKind.key,
    as_json: AsJson = False,
) -> None:
    """Create or change a certificate policy, or delete it.

    An enrollment names it as NAMESPACE/AUTHORITY/POLICY; the namespace of a simulator is "default". --key-type ec-p384
    is what the service's documentation asks for.

    \b
    EXAMPLE
      esp-dps registry policy short --sim build/sim \\
          --seconds 60 --key-type ec-p384
    """
    terms = {"validityPeriodInDays": days, "validityPeriodInSeconds": seconds}
    leaf: dict[str, Any] = {unit: value for unit, value in terms.items() if value is not None}
    if len(leaf) == 2:
        raise ToolError("--days and --seconds exclude each other", "Give one of them.", WRONG_USE)
    if key_types:
        leaf["keyTypes"] = key_types
    if delete and leaf:
        raise ToolError("--delete excludes the other options", "Give it alone.", WRONG_USE)
    owner, slash, own = name.partition("/")
    owner, own = (owner, own) if slash else (_ISSUER, name)
    client = _client(sim, auth)
    if delete:
        client.delete_policy(owner, own)
        output.out.print(f"{owner}/{own}  deleted", soft_wrap=True)
    else:
        output.show_rows([_policy_row(owner, client.put_policy(owner, own, leaf))], "", as_json)


@app.command("devices")
def list_devices(
    sim: RunningSim,
    where: Annotated[
        str | None, typer.Option(help="Only those, such as \"tags.site = 'north'\"; AND is known.")
    ] = None,
    auth: Auth = AuthKind.key,
    as_json: AsJson = False,
) -> None:
    """List the devices of all hubs that were provisioned with a certificate policy.

    \b
    EXAMPLE
      esp-dps registry devices --sim build/sim \\
          --where "tags.site = 'north' AND properties.enablementState = 'Enabled'"
    """
    output.show_rows([_device_row(device) for device in _client(sim, auth).devices(where)], "no devices", as_json)


@app.command("device")
def device(
    device: DeviceId,
    sim: RunningSim,
    tags: Annotated[
        list[str] | None, typer.Option("--tag", help="NAME=VALUE, NAME= deletes; may be given more than once.")
    ] = None,
    attributes: Annotated[list[str] | None, typer.Option("--attribute", help="The same for an attribute.")] = None,
    enable: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Change whether it may connect and get certificates.")
    ] = None,
    auth: Auth = AuthKind.key,
    as_json: AsJson = False,
) -> None:
    """Show or change the registry's record of a device.

    \b
    EXAMPLE
      esp-dps registry device bench-1 --sim build/sim \\
          --tag site=north --attribute model=c3
    """
    properties: dict[str, Any] = {}
    if attributes:
        properties["attributes"] = _pairs(attributes, "--attribute")
    if enable is not None:
        properties["enablementState"] = "Enabled" if enable else "Disabled"
    patch = ({"tags": _pairs(tags, "--tag")} if tags else {}) | ({"properties": properties} if properties else {})
    output.show_rows([_device_row(_client(sim, auth).device(device, patch))], "", as_json)


@app.command("revoke")
def revoke(
    sim: RunningSim,
    device: Annotated[str | None, typer.Argument(help="The device whose certificates are revoked.")] = None,
    authority: Annotated[
        str | None, typer.Option(help="Revoke all certificates that this authority issued instead.")
    ] = None,
    disable: Annotated[bool, typer.Option("--disable", help="Keep the device from getting another one.")] = False,
    auth: Auth = AuthKind.key,
) -> None:
    """Revoke the certificates of a device, or all of an authority, and see the boards come back through DPS.

    \b
    EXAMPLE
      esp-dps registry revoke bench-1 --sim build/sim
      esp-dps registry revoke --authority issuer --sim build/sim
    """
    if (device is None) == (authority is None) or (disable and device is None):
        raise ToolError("revoke takes a device, or --authority alone", "See esp-dps registry revoke --help.", WRONG_USE)
    client = _client(sim, auth)
    if authority is not None:
        subject = client.revoke_authority(authority)["properties"]["subject"].removeprefix("CN=")
        output.out.print(f"{authority}  revoked; {subject} issues from now on", soft_wrap=True)
    elif device is not None:
        client.revoke_device(device, disable)
        output.out.print(f"{device}  revoked{' and disabled' if disable else ''}", soft_wrap=True)


def _pairs(given: list[str], option: str) -> dict[str, str | None]:
    pairs: dict[str, str | None] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ToolError(f"{option} {text!r} is not NAME=VALUE", f"write it as {option} site=berlin", WRONG_USE)
        pairs[name] = value or None
    return pairs


def _authority_row(authority: dict[str, Any]) -> dict[str, Any]:
    properties = authority["properties"]
    return {
        "authority": authority["name"],
        "type": properties["certificateAuthorityType"],
        "subject": properties["subject"].removeprefix("CN="),
        "revoked": properties.get("revoked", 0),
    }


def _policy_row(authority: str, policy: dict[str, Any]) -> dict[str, Any]:
    terms = policy["properties"]["certificate"]
    return {"policy": f"{authority}/{policy['name']}", "life": _life(terms), "keys": terms["keyTypes"]}


def _life(leaf: dict[str, Any]) -> str:
    if "validityPeriodInDays" in leaf:
        return f"{leaf['validityPeriodInDays']} d"
    return f"{leaf['validityPeriodInSeconds']} s" if "validityPeriodInSeconds" in leaf else "as the simulator's"


def _device_row(device: dict[str, Any]) -> dict[str, Any]:
    properties = device["properties"]
    return {
        "device": device["name"],
        "hub": properties["assignedHub"],
        "policy": f"{properties['certificateAuthorityName']}/{properties['certificatePolicyName']}",
        "status": properties["enablementState"].lower(),
        "tags": device["tags"],
        "attributes": properties["attributes"],
    }
