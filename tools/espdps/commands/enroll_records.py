"""Enrollments that exist, and what came of them: `enroll show|list|keys|enable|disable|delete|registrations|…`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from espdps import files
from espdps.azure import az, enrollment, service_client
from espdps.azure.dps_client import DpsClient
from espdps.commands import enroll_report as report
from espdps.commands import output
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
    say_done,
)
from espdps.commands.options import AsJson, Auth, AuthKind, Force
from espdps.errors import ToolError

app = typer.Typer()


@app.command("show")
def show(
    id: Id,
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    auth: Auth = AuthKind.key,
    api: ApiVersion = enrollment.API,
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

    target = Target(sim, endpoint, policy_name, policy_key_file, by_az, auth, api)
    target.run(do, lambda tool: [tool.enrollment("show", id, group)])


@app.command("list")
def list_(
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    auth: Auth = AuthKind.key,
    api: ApiVersion = enrollment.API,
    by_az: ByAz = False,
    as_json: AsJson = False,
) -> None:
    """List all enrollments and enrollment groups.

    \b
    EXAMPLE
      esp-dps enroll list --sim build/sim
    """

    def do(client: DpsClient) -> None:
        rows = [report.row(one) for group in (True, False) for one in client.all(group)]
        output.show_rows(rows, "no enrollments", as_json)

    target = Target(sim, endpoint, policy_name, policy_key_file, by_az, auth, api)
    target.run(do, lambda tool: [tool.all(True), tool.all(False)])


@app.command("keys")
def keys_(
    id: Id,
    out: Annotated[Path, typer.Option(help="Where the key goes, readable for you only.")],
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    auth: Auth = AuthKind.key,
    api: ApiVersion = enrollment.API,
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

    Target(sim, endpoint, policy_name, policy_key_file, by_az, auth, api).run(do, print_az)


@app.command("enable")
def enable(
    id: Id,
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    auth: Auth = AuthKind.key,
    api: ApiVersion = enrollment.API,
    group: OfGroup = False,
    by_az: ByAz = False,
    as_json: AsJson = False,
) -> None:
    """Let the devices of an enrollment register again.

    The whole enrollment is read and written back. One of a namespace from before
    2026-11-01 needs --api-version 2025-07-01-preview, or it loses its policy.

    \b
    EXAMPLE
      esp-dps enroll enable line-7 --group --sim build/sim
    """
    _switch(Target(sim, endpoint, policy_name, policy_key_file, by_az, auth, api), id, group, True, as_json)


@app.command("disable")
def disable(
    id: Id,
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    auth: Auth = AuthKind.key,
    api: ApiVersion = enrollment.API,
    group: OfGroup = False,
    by_az: ByAz = False,
    as_json: AsJson = False,
) -> None:
    """Refuse the devices of an enrollment, until it is enabled. Connected devices stay connected.

    The whole enrollment is read and written back. One of a namespace from before
    2026-11-01 needs --api-version 2025-07-01-preview, or it loses its policy.

    \b
    EXAMPLE
      esp-dps enroll disable line-7 --group --sim build/sim
    """
    _switch(Target(sim, endpoint, policy_name, policy_key_file, by_az, auth, api), id, group, False, as_json)


def _switch(target: Target, id: str, group: bool, on: bool, as_json: bool) -> None:
    status = "enabled" if on else "disabled"
    target.run(
        lambda client: report.changed(client.enable(id, group, on), status, as_json),
        lambda tool: [tool.enrollment("update", id, group, "--provisioning-status", status)],
    )


@app.command("delete")
def delete(
    id: Id,
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    auth: Auth = AuthKind.key,
    api: ApiVersion = enrollment.API,
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

    target = Target(sim, endpoint, policy_name, policy_key_file, by_az, auth, api)
    target.run(do, lambda tool: [tool.enrollment("delete", id, group)])


@app.command("registrations")
def registrations(
    group: Annotated[str, typer.Argument(help="The enrollment group.")],
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    auth: Auth = AuthKind.key,
    api: ApiVersion = enrollment.API,
    by_az: ByAz = False,
    as_json: AsJson = False,
) -> None:
    """List the devices that have registered by a group, and where they are.

    \b
    EXAMPLE
      esp-dps enroll registrations boards --sim build/sim
    """

    def do(client: DpsClient) -> None:
        output.show_rows([report.registration(one) for one in client.registrations(group)], "no registrations", as_json)

    Target(sim, endpoint, policy_name, policy_key_file, by_az, auth, api).run(
        do, lambda tool: [tool.registrations(group)]
    )


@app.command("registration")
def registration(
    id: Annotated[str, typer.Argument(metavar="ID", help="The registration id.")],
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    auth: Auth = AuthKind.key,
    api: ApiVersion = enrollment.API,
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
            output.show_rows([report.registration(client.registration(id))], "", as_json)

    target = Target(sim, endpoint, policy_name, policy_key_file, by_az, auth, api)
    target.run(do, lambda tool: [tool.registration("delete" if delete else "show", id)])
