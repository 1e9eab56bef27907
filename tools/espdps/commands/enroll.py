"""New enrollments at DPS, of Azure or of a simulator: `enroll device|create`, and where the other commands hang."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from espdps.azure import enrollment, service_client
from espdps.azure.dps_client import DpsClient
from espdps.azure.enrollment import Body, Enrollment
from espdps.commands import enroll_ca, enroll_records, output, secrets
from espdps.commands import enroll_report as report
from espdps.commands.enroll_target import (
    ApiVersion,
    ByAz,
    Endpoint,
    Id,
    OfGroup,
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
)
from espdps.commands.options import AsJson, Auth, AuthKind, Devices
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
SIGN-IN at --endpoint
  --auth key    by a shared access policy: --policy-name, and its key from
                --policy-key-file, else {secrets.POLICY_KEY}, else a prompt.
                In the portal: the DPS instance, Shared access policies.
  --auth entra  by your account, as after az login. Needs the role Device
                Provisioning Service Data Contributor, and the package
                azure-identity: pip install "esp-dps[entra]"
"""
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=HELP)

Allocation = Enum("Allocation", {name: name for name in enrollment.ALLOCATIONS}, type=str)  # type: ignore[misc]
Reprovision = Enum("Reprovision", {name: name for name in enrollment.REPROVISION}, type=str)  # type: ignore[misc]
Policy = Annotated[
    str | None,
    typer.Option(
        "--credential-policy",
        metavar="NAMESPACE/AUTHORITY/POLICY",
        help="Policy that issues certificates.",
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
    auth: Auth = AuthKind.key,
    api: ApiVersion = enrollment.API,
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

    By the key or the certificate that is in the folder. One that exists already is only checked: whether the
    device gets in by it. A folder with a CSR needs --credential-policy; with --sim the default is the simulator's own.

    \b
    EXAMPLE
      esp-dps enroll device greenhouse-1 --sim build/sim
      esp-dps enroll device greenhouse-1 --sim build/sim --group line-7 \\
          --group-key-file group.key
    """
    folder, target = devices_folder / name, Target(sim, endpoint, policy_name, policy_key_file, by_az, auth, api)
    # --az is for Azure, also in a project folder that has a simulator.
    if credential_policy is None and target.simulator is not None and not by_az and enrollment.named_in_full(api):
        credential_policy = enrollment.policy_for(folder, folders.read_simulator(target.simulator))
    wanted = enrollment.for_device(
        folder, group, key(group_key_file), signer, ca, hubs=hub_names(hubs), policy=credential_policy, api=api
    )
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
            output.print_json({**report.row(made), "created": new})
        else:
            what = f"group {wanted.id}" if wanted.group else wanted.id
            says = "enrolled" if new else "was enrolled already"
            by = "by its certificate" if wanted.attestation == "x509" else "by its key"
            output.out.print(f"{name}: {says}, {what} {by}, {report.policy(made)}", soft_wrap=True)

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
    auth: Auth = AuthKind.key,
    api: ApiVersion = enrollment.API,
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
          --credential-policy default/issuer/default
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
        api=api,
        reprovision=reprovision.value,
        allocation=allocation.value,
        hubs=hub_names(hubs),
        webhook=(webhook, webhook_api) if webhook else None,
        tags=json_object(tags, "--tags"),
        desired=json_object(desired, "--desired"),
        edge=edge,
        enabled=not disabled,
    )
    target = Target(sim, endpoint, policy_name, policy_key_file, by_az, auth, api)
    target.run(
        lambda client: report.changed(client.create(wanted), "created", as_json), lambda tool: [tool.create(wanted)]
    )


app.add_typer(enroll_records.app)
app.add_typer(enroll_ca.app, name="ca")
