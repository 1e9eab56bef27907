"""A simulator's device registry: `registry policies|policy|devices|device|revoke`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from espdps.azure.registry_client import RegistryClient
from espdps.commands import output
from espdps.commands.options import AsJson, DeviceId, RunningSim
from espdps.devices import folders
from espdps.errors import WRONG_USE, ToolError

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Credential policies and devices of a simulator's registry."
)


def _client(sim: Path) -> RegistryClient:
    return RegistryClient(folders.read_simulator(sim))


@app.command("policies")
def policies(sim: RunningSim, as_json: AsJson = False) -> None:
    """List the credential policies: what they issue, by which authority, and how often they were revoked.

    \b
    EXAMPLE
      esp-dps registry policies --sim build/sim
    """
    output.show_rows([_policy_row(policy) for policy in _client(sim).policies()], "no policies", as_json)


@app.command("policy")
def policy(
    name: Annotated[str, typer.Argument(help="The policy's name.")],
    sim: RunningSim,
    days: Annotated[
        int | None, typer.Option(min=1, max=90, help="Life of a certificate. Else the simulator's.")
    ] = None,
    seconds: Annotated[int | None, typer.Option(min=1, help="The same, to see renewals.")] = None,
    key_types: Annotated[
        list[str] | None,
        typer.Option("--key-type", help="Certify these keys only: ec-p384, ec-p256, rsa; may be given more than once."),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete it: hubs do not trust what it issued.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create or change a credential policy, or delete it.

    An enrollment names it as its credentialPolicyName. --key-type ec-p384 is what the service's documentation asks for.

    \b
    EXAMPLE
      esp-dps registry policy short --sim build/sim \\
          --seconds 60 --key-type ec-p384
    """
    terms = {"validityPeriodInDays": days, "validityPeriodInSeconds": seconds}
    leaf: dict[str, Any] = {unit: value for unit, value in terms.items() if value is not None}
    if len(leaf) == 2:
        raise ToolError("--days and --seconds exclude each other", "give one of them", WRONG_USE)
    if key_types:
        leaf["keyTypes"] = key_types
    if delete and leaf:
        raise ToolError("--delete excludes the other options", "give it alone", WRONG_USE)
    client = _client(sim)
    if delete:
        client.delete_policy(name)
        output.out.print(f"{name}  deleted", soft_wrap=True)
    else:
        output.show_rows([_policy_row(client.put_policy(name, leaf))], "", as_json)


@app.command("devices")
def list_devices(
    sim: RunningSim,
    where: Annotated[
        str | None, typer.Option(help="Only those, such as \"tags.site = 'north'\"; AND is known.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the devices of all hubs that were provisioned under a credential policy.

    \b
    EXAMPLE
      esp-dps registry devices --sim build/sim \\
          --where "tags.site = 'north' AND properties.enabled = true"
    """
    output.show_rows([_device_row(device) for device in _client(sim).devices(where)], "no devices", as_json)


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
        properties["enabled"] = enable
    patch = ({"tags": _pairs(tags, "--tag")} if tags else {}) | ({"properties": properties} if properties else {})
    output.show_rows([_device_row(_client(sim).device(device, patch))], "", as_json)


@app.command("revoke")
def revoke(
    sim: RunningSim,
    device: Annotated[str | None, typer.Argument(help="The device whose certificates are revoked.")] = None,
    policy: Annotated[str | None, typer.Option(help="Revoke all that this policy issued instead.")] = None,
    disable: Annotated[bool, typer.Option("--disable", help="Keep the device from getting another one.")] = False,
) -> None:
    """Revoke the certificates of a device, or all of a policy, and see the boards come back through DPS.

    \b
    EXAMPLE
      esp-dps registry revoke bench-1 --sim build/sim
      esp-dps registry revoke --policy default --sim build/sim
    """
    if (device is None) == (policy is None) or (disable and device is None):
        raise ToolError("revoke takes a device, or --policy alone", "esp-dps registry revoke --help", WRONG_USE)
    client = _client(sim)
    if policy is not None:
        issuer = client.revoke_policy(policy)["properties"]["certificate"]["certificateAuthorityConfiguration"]
        output.out.print(f"{policy}  revoked; {issuer['subject']} issues from now on", soft_wrap=True)
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


def _policy_row(policy: dict[str, Any]) -> dict[str, Any]:
    certificate = policy["properties"]["certificate"]
    leaf = certificate["leafCertificateConfiguration"]
    return {
        "policy": policy["name"],
        "life": _life(leaf),
        "keys": leaf["keyTypes"],
        "issuer": certificate["certificateAuthorityConfiguration"]["subject"],
        "revoked": policy["properties"]["revoked"],
    }


def _life(leaf: dict[str, Any]) -> str:
    if "validityPeriodInDays" in leaf:
        return f"{leaf['validityPeriodInDays']} d"
    return f"{leaf['validityPeriodInSeconds']} s" if "validityPeriodInSeconds" in leaf else "as the simulator's"


def _device_row(device: dict[str, Any]) -> dict[str, Any]:
    properties = device["properties"]
    return {
        "device": device["name"],
        "hub": properties["assignedHub"],
        "policy": properties["credentialPolicyName"],
        "status": "enabled" if properties["enabled"] else "disabled",
        "tags": device["tags"],
        "attributes": properties["attributes"],
    }
