"""Enrollments at DPS, of Azure or of a simulator: `enroll device|create|show|list|keys|enable|disable|delete|…`."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from espdps import files
from espdps.azure import az, enrollment, service_client
from espdps.azure.dps_client import DpsClient
from espdps.azure.enrollment import Body, Enrollment
from espdps.commands import enroll_ca, output, secrets
from espdps.commands.enroll_target import (
    ByAz,
    Endpoint,
    PolicyKeyFile,
    PolicyName,
    Sim,
    Target,
    hub_names,
    json_object,
    key,
    pair,
    read_key,
    read_url,
    say_done,
)
from espdps.commands.options import AsJson, Devices, Force
from espdps.devices import folders
from espdps.errors import ToolError

HELP = f"""Enrollments at DPS: who may register.

Of Azure by its service API, or of a simulator by the same. --az does nothing and prints the commands of Azure's own
tool instead.

\\b
EXAMPLE
  esp-dps enroll device greenhouse-1 --sim build/sim
  esp-dps enroll device greenhouse-1 \\\\
      --endpoint contoso.azure-devices-provisioning.net --policy-key-file policy.key

\\b
POLICY
  Of --endpoint: --policy-name, and its key from --policy-key-file, else {secrets.POLICY_KEY},
  else a prompt. In the portal: the DPS instance, Shared access policies.
"""
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=HELP)
app.add_typer(enroll_ca.app, name="ca")

Allocation = Enum("Allocation", {name: name for name in enrollment.ALLOCATIONS}, type=str)  # type: ignore[misc]
Reprovision = Enum("Reprovision", {name: name for name in enrollment.REPROVISION}, type=str)  # type: ignore[misc]
Id = Annotated[str, typer.Argument(metavar="ID", help="Registration id, or with --group the group's name.")]
OfGroup = Annotated[bool, typer.Option("--group", help="It is an enrollment group.")]
Policy = Annotated[
    str | None,
    typer.Option(
        "--credential-policy",
        help="Credential policy that issues certificates: its name, or with --az NAMESPACE/AUTHORITY/POLICY.",
    ),
]
Hubs = Annotated[list[str] | None, typer.Option("--hub", help="One of these hubs only; may be given more than once.")]


@app.command("device")
def device(
    name: Annotated[str, typer.Argument(metavar="DEVICE", help="Name of the device folder.")],
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    group: Annotated[str | None, typer.Option(help="By this enrollment group instead of one of its own.")] = None,
    group_key_file: Annotated[Path | None, typer.Option(help="The group's key, base64, to make the group.")] = None,
    signer: Annotated[Path | None, typer.Option(help="X.509: certificate of the authority, to make the group.")] = None,
    ca: Annotated[str | None, typer.Option(help="X.509: or the name of one that DPS has verified.")] = None,
    credential_policy: Policy = None,
    hubs: Hubs = None,
    *,
    devices_folder: Devices,
    by_az: ByAz = False,
    as_json: AsJson = False,
) -> None:
    """Make the enrollment that lets a device in: all that its folder needs at DPS.

    By the key or the certificate that is in the folder. One that is there already is only checked: whether the
    device gets in by it. A board with a CSR gets its certificate by the credential policy "default", if no other one is
    named.

    \b
    EXAMPLE
      esp-dps enroll device greenhouse-1 --sim build/sim
      esp-dps enroll device greenhouse-1 --sim build/sim --group line-7 \\
          --group-key-file group.key
    """
    given = {"policy": credential_policy} if credential_policy is not None else {}
    folder, target = devices_folder / name, Target(sim, endpoint, policy_name, policy_key_file, by_az)
    wanted = enrollment.for_device(folder, group, key(group_key_file), signer, ca, hubs=hub_names(hubs), **given)
    if target.simulator is not None and not by_az:
        scope = str(folders.load(folder).config.get("id_scope"))
        if scope != (served := folders.read_simulator(target.simulator)["id_scope"]):
            raise ToolError(
                f"{folder} is for id scope {scope}, and this simulator is {served}", "new --sim makes it so"
            )

    def do(client: DpsClient) -> None:
        if wanted.group and wanted.attestation == "symmetricKey" and not wanted.keys:
            made, new = _there(client, wanted, folder), False
        else:
            made, new = client.ensure(wanted)
        if as_json:
            output.print_json({**_row(made), "created": new})
        else:
            what = f"group {wanted.id}" if wanted.group else wanted.id
            says = "enrolled" if new else "was enrolled already"
            by = "by its certificate" if wanted.attestation == "x509" else "by its key"
            output.out.print(f"{name}: {says}, {what} {by}, {_policy(made)}", soft_wrap=True)

    target.run(do, lambda tool: [tool.create(wanted)])


def _there(client: DpsClient, wanted: Enrollment, folder: Path) -> Body:
    """A group that is there, whose key the device's is derived from."""
    there, mechanism = client.show(wanted.id, True), client.mechanism(wanted.id, True)
    reason = wanted.fits(there, mechanism)
    known = (mechanism.get("symmetricKey") or {}).values()
    if not reason and not any(enrollment.made_by(str(key), folder, folder.name) for key in known if key):
        reason = f"has other keys than the one of {folder.name} is derived from"
    if reason:
        raise ToolError(f"{wanted.id} is there and {reason}", "take another group, or make the device anew")
    return there


@app.command("create")
def create(
    id: Id,
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    group: OfGroup = False,
    key_file: Annotated[
        Path | None, typer.Option(help="Symmetric key, base64. Without any key or certificate DPS makes keys.")
    ] = None,
    secondary_key_file: Annotated[Path | None, typer.Option(help="The other one.")] = None,
    cert: Annotated[Path | None, typer.Option(help="X.509: the device's certificate, or a group's signer.")] = None,
    secondary_cert: Annotated[Path | None, typer.Option(help="The other one.")] = None,
    ca: Annotated[str | None, typer.Option(help="X.509 group: name of a verified certificate instead.")] = None,
    secondary_ca: Annotated[str | None, typer.Option(help="The other one.")] = None,
    device_id: Annotated[str | None, typer.Option(help="Another device id than the registration id.")] = None,
    credential_policy: Policy = None,
    allocation: Annotated[Allocation, typer.Option(help="How a hub is chosen.")] = Allocation("hashed"),  # noqa: B008
    hubs: Hubs = None,
    webhook_url_file: Annotated[
        Path | None, typer.Option(help="Custom allocation: file with the URL, which has the function's key in it.")
    ] = None,
    webhook_api: Annotated[str, typer.Option(help="API version that the webhook speaks.")] = "2021-10-01",
    tags: Annotated[str | None, typer.Option(help="Initial twin: tags, a JSON object.")] = None,
    desired: Annotated[str | None, typer.Option(help="Initial twin: desired properties, a JSON object.")] = None,
    reprovision: Annotated[
        Reprovision, typer.Option(help="When a device gets another hub: what becomes of its twin, or never.")
    ] = Reprovision("migrate"),  # noqa: B008
    edge: Annotated[bool, typer.Option("--edge", help="An IoT Edge device.")] = False,
    disabled: Annotated[bool, typer.Option("--disabled", help="Nobody gets in until it is enabled.")] = False,
    by_az: ByAz = False,
    as_json: AsJson = False,
) -> None:
    """Make an enrollment, or with --group an enrollment group.

    One that is there already is left alone. Keys that DPS made are shown by `enroll keys`.

    \b
    EXAMPLE
      esp-dps enroll create line-7 --group --sim build/sim \\
          --credential-policy default
      esp-dps enroll create north --group --sim build/sim --cert ca/root.crt \\
          --allocation static --hub hub-1.localhost --tags '{"site": "north"}'
    """
    webhook = webhook_url_file and read_url(webhook_url_file)
    wanted = Enrollment(
        id=id,
        group=group,
        keys=pair(key_file, secondary_key_file, "--key-file", read_key),
        certificates=pair(cert, secondary_cert, "--cert", enrollment.certificate),
        authorities=pair(ca, secondary_ca, "--ca", enrollment.check_id),
        device_id=device_id and enrollment.check_device_id(device_id),
        policy=credential_policy,
        reprovision=reprovision.value,
        allocation=allocation.value,
        hubs=hub_names(hubs),
        webhook=(webhook, webhook_api) if webhook else None,
        tags=json_object(tags, "--tags"),
        desired=json_object(desired, "--desired"),
        edge=edge,
        enabled=not disabled,
    )
    target = Target(sim, endpoint, policy_name, policy_key_file, by_az)
    target.run(lambda client: _say(client.create(wanted), "created", as_json), lambda tool: [tool.create(wanted)])


@app.command("show")
def show(
    id: Id,
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    group: OfGroup = False,
    by_az: ByAz = False,
    as_json: AsJson = False,
) -> None:
    """Show an enrollment as the service has it, without its keys.

    \b
    EXAMPLE
      esp-dps enroll show greenhouse-1 --sim build/sim
    """

    def do(client: DpsClient) -> None:
        found = client.show(id, group)
        if as_json:
            output.print_json(found)
        else:
            output.out.print(json.dumps(found, indent=2), soft_wrap=True)

    target = Target(sim, endpoint, policy_name, policy_key_file, by_az)
    target.run(do, lambda tool: [tool.enrollment("show", id, group)])


@app.command("list")
def list_(
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    by_az: ByAz = False,
    as_json: AsJson = False,
) -> None:
    """List all enrollments and enrollment groups.

    \b
    EXAMPLE
      esp-dps enroll list --sim build/sim
    """

    def do(client: DpsClient) -> None:
        rows = [_row(one) for group in (True, False) for one in client.all(group)]
        output.show_rows(rows, "no enrollments", as_json)

    target = Target(sim, endpoint, policy_name, policy_key_file, by_az)
    target.run(do, lambda tool: [tool.all(True), tool.all(False)])


@app.command("keys")
def keys_(
    id: Id,
    out: Annotated[Path, typer.Option(help="Where the key goes, readable for you only.")],
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    group: OfGroup = False,
    secondary: Annotated[bool, typer.Option("--secondary", help="The secondary key instead of the primary.")] = False,
    force: Force = False,
    by_az: ByAz = False,
    as_json: AsJson = False,
) -> None:
    """Save the symmetric key of an enrollment in a file, for `new --group-key-file`. It is not shown.

    \b
    EXAMPLE
      esp-dps enroll keys line-7 --group --sim build/sim --out line-7.key
    """
    which = "secondaryKey" if secondary else "primaryKey"

    def do(client: DpsClient) -> None:
        files.refuse_existing([out], force)
        key = (client.mechanism(id, group).get("symmetricKey") or {}).get(which)
        if not key:
            raise ToolError(
                f"{id} has no symmetric key",
                f"it is an X.509 enrollment: esp-dps enroll show {id} has its certificates",
            )
        files.write([files.Output(out, str(key).encode() + b"\n", secret=True)], force=force)
        if as_json:
            output.print_json({"id": id, "file": str(out)})
        else:
            output.out.print(f"{out}: the {which[:-3]} key of {id}", soft_wrap=True)

    def print_az(tool: az.Az) -> list[str]:
        words = ("--show-keys", "true", "--query", f"attestation.symmetricKey.{which}", "--output", "tsv")
        return [f"umask 077; {tool.enrollment('show', id, group, *words)} > {az.quoted(out)}"]

    Target(sim, endpoint, policy_name, policy_key_file, by_az).run(do, print_az)


@app.command("enable")
def enable(
    id: Id,
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    group: OfGroup = False,
    by_az: ByAz = False,
    as_json: AsJson = False,
) -> None:
    """Let the devices of an enrollment register again.

    With --endpoint the whole enrollment is read and written back, by an API that
    knows a credential policy by its name alone: if yours is named in full, use --az.

    \b
    EXAMPLE
      esp-dps enroll enable line-7 --group --sim build/sim
    """
    _switch(Target(sim, endpoint, policy_name, policy_key_file, by_az), id, group, True, as_json)


@app.command("disable")
def disable(
    id: Id,
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    group: OfGroup = False,
    by_az: ByAz = False,
    as_json: AsJson = False,
) -> None:
    """Refuse the devices of an enrollment, until it is enabled. Who is at a hub stays there.

    With --endpoint the whole enrollment is read and written back, by an API that
    knows a credential policy by its name alone: if yours is named in full, use --az.

    \b
    EXAMPLE
      esp-dps enroll disable line-7 --group --sim build/sim
    """
    _switch(Target(sim, endpoint, policy_name, policy_key_file, by_az), id, group, False, as_json)


def _switch(target: Target, id: str, group: bool, on: bool, as_json: bool) -> None:
    status = "enabled" if on else "disabled"
    target.run(
        lambda client: _say(client.enable(id, group, on), status, as_json),
        lambda tool: [tool.enrollment("update", id, group, "--provisioning-status", status)],
    )


@app.command("delete")
def delete(
    id: Id,
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    group: OfGroup = False,
    by_az: ByAz = False,
    as_json: AsJson = False,
) -> None:
    """Delete an enrollment. Who has registered by it stays at its hub, and cannot register again.

    \b
    EXAMPLE
      esp-dps enroll delete greenhouse-1 --sim build/sim
    """

    def do(client: DpsClient) -> None:
        client.delete(id, group)
        say_done(id, "deleted", as_json)

    target = Target(sim, endpoint, policy_name, policy_key_file, by_az)
    target.run(do, lambda tool: [tool.enrollment("delete", id, group)])


@app.command("registrations")
def registrations(
    group: Annotated[str, typer.Argument(help="The enrollment group.")],
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    by_az: ByAz = False,
    as_json: AsJson = False,
) -> None:
    """List the devices that have registered by a group, and where they are.

    \b
    EXAMPLE
      esp-dps enroll registrations boards --sim build/sim
    """

    def do(client: DpsClient) -> None:
        output.show_rows([_registration(one) for one in client.registrations(group)], "no registrations", as_json)

    Target(sim, endpoint, policy_name, policy_key_file, by_az).run(do, lambda tool: [tool.registrations(group)])


@app.command("registration")
def registration(
    id: Annotated[str, typer.Argument(metavar="ID", help="The registration id.")],
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    delete: Annotated[bool, typer.Option("--delete", help="Forget it: the device's next one is its first.")] = False,
    by_az: ByAz = False,
    as_json: AsJson = False,
) -> None:
    """Show what came of a device's registration, or forget it.

    \b
    EXAMPLE
      esp-dps enroll registration greenhouse-1 --sim build/sim
    """

    def do(client: DpsClient) -> None:
        if delete:
            client.delete_registration(id)
            say_done(id, "deleted", as_json)
        else:
            output.show_rows([_registration(client.registration(id))], "", as_json)

    target = Target(sim, endpoint, policy_name, policy_key_file, by_az)
    target.run(do, lambda tool: [tool.registration("delete" if delete else "show", id)])


# What is said


def _say(record: Body, done: str, as_json: bool) -> None:
    row = _row(record)
    if as_json:
        output.print_json(row)
    else:
        what = f"{row['kind']} {row['id']}"
        output.out.print(f"{what}: {done}, {row['attestation']}, {_policy(record)}", soft_wrap=True)


def _policy(record: Body) -> str:
    policy = record.get("credentialPolicyName")
    return f"certificates by policy {service_client.plain(policy)}" if policy else "no certificates issued"


def _row(record: Body) -> Body:
    group = "enrollmentGroupId" in record
    return {
        "id": record["enrollmentGroupId" if group else "registrationId"],
        "kind": "group" if group else "individual",
        "attestation": record["attestation"]["type"],
        "status": record.get("provisioningStatus"),
        "policy": record.get("credentialPolicyName"),
        "allocation": record.get("allocationPolicy"),
        "hubs": record.get("iotHubs") or [],
    }


def _registration(record: Body) -> Body:
    names = ("registrationId", "deviceId", "assignedHub", "status", "substatus", "lastUpdatedDateTimeUtc")
    keys = ("registration", "device", "hub", "status", "substatus", "updated")
    return {key: record.get(name) for key, name in zip(keys, names, strict=True)}
