"""Certificates of authorities at DPS, which enrollment groups may name: `enroll ca list|upload|verify|delete`.
The private key of an authority signs here and goes nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from espdps.azure import az, enrollment, service_client
from espdps.azure.dps_client import DpsClient
from espdps.azure.enrollment import Body
from espdps.commands import output, secrets
from espdps.commands.enroll_target import ByAz, Endpoint, PolicyKeyFile, PolicyName, Sim, Target, say_done
from espdps.commands.options import AsJson, Auth, AuthKind, CaFolder, PassphraseFile
from espdps.credentials import authority, formats

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Certificates of authorities that groups may name. In Azure they are the resource manager's: use --az.",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the certificate at DPS.")]


@app.command("list")
def list_(
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    auth: Auth = AuthKind.key,
    by_az: ByAz = False,
    as_json: AsJson = False,
) -> None:
    """List the certificates that were uploaded, and whether they are verified.

    \b
    EXAMPLE
      esp-dps enroll ca list --sim build/sim
    """

    def do(client: DpsClient) -> None:
        output.show_rows([_authority(one) for one in client.authorities()], "no certificates", as_json)

    target = Target(sim, endpoint, policy_name, policy_key_file, by_az, auth)
    target.run(do, lambda tool: [tool.authority("list")])


@app.command("upload")
def upload(
    name: Name,
    cert: Annotated[Path, typer.Option(help="The certificate of the authority.")],
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    auth: Auth = AuthKind.key,
    by_az: ByAz = False,
    as_json: AsJson = False,
) -> None:
    """Upload the certificate of an authority, for groups to name once it is verified.

    \b
    EXAMPLE
      esp-dps enroll ca upload contoso --cert ca/root.crt --sim build/sim
    """
    pem = enrollment.certificate(cert).pem

    def do(client: DpsClient) -> None:
        output.show_rows([_authority(client.upload(name, pem))], "", as_json)

    target = Target(sim, endpoint, policy_name, policy_key_file, by_az, auth)
    target.run(do, lambda tool: [tool.upload(name, cert)])


@app.command("verify")
def verify(
    name: Name,
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    auth: Auth = AuthKind.key,
    *,
    folder: CaFolder,
    issuer: Annotated[str, typer.Option(help="Which of its certificates it is.")] = authority.ROOT,
    passphrase_file: PassphraseFile = None,
    by_az: ByAz = False,
    as_json: AsJson = False,
) -> None:
    """Prove to DPS that you have the private key of a certificate that was uploaded.

    Asks DPS for a verification code, makes the certificate for it as `esp-dps ca verify-proof` does, and hands it in.

    \b
    EXAMPLE
      esp-dps enroll ca verify contoso --dir ca --sim build/sim
    """

    def do(client: DpsClient) -> None:
        signer = authority.load(folder, issuer, secrets.opener(passphrase_file))
        code, etag = client.verification_code(name)
        proof = formats.pem(authority.proof(code, signer)).decode()
        output.show_rows([_authority(client.verify(name, proof, etag))], "", as_json)

    def print_az(tool: az.Az) -> list[str]:
        where = f"--dir {az.quoted(folder)} --issuer {az.quoted(issuer)}"
        made = f'esp-dps ca verify-proof "$CODE" {where} --out proof.pem'
        words = ("--path", "proof.pem", "--etag", tool.etag(name))
        return [tool.code(name), made, tool.authority("verify", name, *words)]

    Target(sim, endpoint, policy_name, policy_key_file, by_az, auth).run(do, print_az)


@app.command("delete")
def delete(
    name: Name,
    sim: Sim = None,
    endpoint: Endpoint = None,
    policy_name: PolicyName = service_client.OWNER,
    policy_key_file: PolicyKeyFile = None,
    auth: Auth = AuthKind.key,
    by_az: ByAz = False,
    as_json: AsJson = False,
) -> None:
    """Delete the certificate of an authority: groups that name it let nobody in any more.

    \b
    EXAMPLE
      esp-dps enroll ca delete contoso --sim build/sim
    """

    def do(client: DpsClient) -> None:
        client.delete_authority(name)
        say_done(name, "deleted", as_json)

    target = Target(sim, endpoint, policy_name, policy_key_file, by_az, auth)
    target.run(do, lambda tool: [tool.authority("delete", name, "--etag", tool.etag(name))])


def _authority(record: Body) -> Body:
    properties = record["properties"]
    return {
        "name": record["name"],
        "subject": properties["subject"],
        "verified": "yes" if properties["isVerified"] else "no",
        "until": properties["expiry"],
    }
