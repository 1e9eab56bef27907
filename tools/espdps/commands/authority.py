"""A certificate authority of one's own, and PFX files: `ca …`, `pfx …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509

from espdps import files
from espdps.commands import output, secrets
from espdps.commands.options import AsJson, CaFolder, Encrypt, Force, KeyType, NewPassphraseFile, PassphraseFile
from espdps.credentials import authority, formats, keys, pfx
from espdps.errors import WRONG_USE, ToolError
from espdps.files import Output

app = typer.Typer()

_CA_HELP = """A certificate authority of your own: X.509 enrollments.

It is a folder: root.crt and root.key, intermediate.crt and intermediate.key, devices/ with one pair a device. Upload
root.crt to DPS; a device presents its own certificate and the intermediate's. With an intermediate, root.key can be
elsewhere while devices are made.

\b
EXAMPLE
  esp-dps ca root "Contoso root" --encrypt
  esp-dps ca intermediate "Contoso line 7"
  esp-dps ca device greenhouse-1

\b
PASSPHRASES
  Of a key that is read: --passphrase-file, else ESPDPS_PASSPHRASE.
  Of a key that is made: --new-passphrase-file, else ESPDPS_NEW_PASSPHRASE.
  Else a prompt.
"""
ca = typer.Typer(help=_CA_HELP, no_args_is_help=True, rich_markup_mode=None)
pfx_app = typer.Typer(
    help="PFX files: key, certificate and chain in one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(ca, name="ca")
app.add_typer(pfx_app, name="pfx")

Days = Annotated[int, typer.Option(min=1, max=36500, help="How long it is valid from now.")]
CaName = Annotated[str, typer.Argument(metavar="NAME", help="Its common name, for example of your company.")]
IssuerName = Annotated[str | None, typer.Option("--issuer", help="Who signs; else intermediate, else root.")]
KeyKind = Annotated[KeyType, typer.Option(help="Private key to make.")]
_KIND = KeyType(keys.DEFAULT_KIND)


@ca.command()
def root(
    name: CaName,
    *,
    folder: CaFolder,
    days: Days = authority.ROOT_DAYS,
    path_length: Annotated[
        int, typer.Option(min=0, max=9, help="How many intermediates may follow on each other.")
    ] = 1,
    key_type: KeyKind = _KIND,
    encrypt: Encrypt = False,
    new_passphrase_file: NewPassphraseFile = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make the root: root.crt, which you upload to DPS, and root.key.

    \b
    EXAMPLE
      esp-dps ca root "Contoso root" --encrypt
    """
    paths = _paths(folder, authority.ROOT, force)
    passphrase = _passphrase(encrypt, new_passphrase_file, paths[1])
    key = keys.new_key(key_type.value)
    certificate = authority.root(name, key, days, path_length)
    _keep(paths, (certificate,), key, passphrase, force)
    _told(paths[0], certificate, as_json)


@ca.command()
def intermediate(
    name: CaName,
    *,
    folder: CaFolder,
    file_name: Annotated[str, typer.Option("--as", help="Name of its files.")] = authority.INTERMEDIATE,
    issuer_name: Annotated[str, typer.Option("--issuer", help="Who signs.")] = authority.ROOT,
    days: Days = authority.INTERMEDIATE_DAYS,
    path_length: Annotated[int, typer.Option(min=0, max=9, help="How many intermediates may be below it.")] = 0,
    key_type: KeyKind = _KIND,
    passphrase_file: PassphraseFile = None,
    encrypt: Encrypt = False,
    new_passphrase_file: NewPassphraseFile = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make an intermediate, signed by the root or by another intermediate.

    \b
    EXAMPLE
      esp-dps ca intermediate "Contoso line 7" --as line-7
      esp-dps ca device greenhouse-1 --issuer line-7
    """
    if "/" in file_name or file_name.startswith(".") or file_name == authority.ROOT:
        raise ToolError(
            f"{file_name!r} is no name for an intermediate's files", "take one of letters and digits", WRONG_USE
        )
    paths = _paths(folder, file_name, force)
    issuer = authority.load(folder, issuer_name, secrets.opener(passphrase_file))
    passphrase = _passphrase(encrypt, new_passphrase_file, paths[1])
    key = keys.new_key(key_type.value)
    certificate = authority.intermediate(name, key, issuer, days, path_length)
    _keep(paths, (certificate,), key, passphrase, force)
    _told(paths[0], certificate, as_json, issuer)


@ca.command()
def device(
    registration_id: Annotated[str, typer.Argument(help="The device's name at DPS: the common name.")],
    *,
    folder: CaFolder,
    issuer_name: IssuerName = None,
    csr_file: Annotated[Path | None, typer.Option("--csr", help="Its CSR, if its key is elsewhere.")] = None,
    days: Days = authority.DEVICE_DAYS,
    key_type: KeyKind = _KIND,
    passphrase_file: PassphraseFile = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make a device's certificate (with the intermediates, leaf first) and key.

    They are what `new` takes for an X.509 enrollment. The key has no passphrase: a board could not type it. Ids that
    differ in case only are one device for DPS, so a second one is refused.

    \b
    EXAMPLE
      esp-dps ca device greenhouse-1
      esp-dps new greenhouse-1 --id-scope 0ne00ABCDEF --board ESP32_GENERIC \\
          --wifi-ssid Greenhouse \\
          --onboarding-cert ca/devices/greenhouse-1.crt \\
          --onboarding-key-file ca/devices/greenhouse-1.key
    """
    keys.check_certificate_name(registration_id)
    paths = _paths(folder / "devices", registration_id, force)
    for other in files.listing(paths[0].parent, ".crt"):
        if other.name.lower() == paths[0].name.lower() and other != paths[0]:
            raise ToolError(f"{other} is there already", "for DPS, ids that differ in case only are one device")
    issuer = authority.load(folder, issuer_name or authority.default_issuer(folder), secrets.opener(passphrase_file))
    key: keys.PrivateKey | None = None
    if csr_file:
        request = formats.request(files.read(csr_file), str(csr_file))
        names = keys.common_names(request.subject)
        if [name.lower() for name in names] != [registration_id.lower()]:
            raise ToolError(
                f"{csr_file} is for {', '.join(names) or 'nobody'}, not for {registration_id}",
                f"esp-dps csr {registration_id} makes one that is, or name the device that it is for",
                WRONG_USE,
            )
        if formats.kind_of(request.public_key()) not in keys.KINDS:
            raise ToolError(
                f"{csr_file} is for a key of type {formats.kind_of(request.public_key())}",
                f"have it made anew for one of {', '.join(keys.KINDS)}",
            )
        certificate = authority.device(registration_id, request.public_key(), issuer, days)
    else:
        key = keys.new_key(key_type.value)
        certificate = authority.device(registration_id, key.public_key(), issuer, days)
    _keep(paths, (certificate, *issuer.chain), key, None, force)
    _told(paths[0], certificate, as_json, issuer)


@ca.command("verify-proof")
def verify_proof(
    code: Annotated[str, typer.Argument(help="The verification code that Azure shows.")],
    *,
    folder: CaFolder,
    issuer_name: Annotated[str, typer.Option("--issuer", help="Whose key is to be proved.")] = authority.ROOT,
    out: Annotated[Path | None, typer.Option(help="Else proof.crt in the folder.")] = None,
    days: Days = authority.PROOF_DAYS,
    passphrase_file: PassphraseFile = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make the certificate by which Azure sees that you have the authority's key.

    In the portal: the DPS instance, Certificates, the one you uploaded, Generate verification code; afterwards upload
    the file that this makes.

    \b
    EXAMPLE
      esp-dps ca verify-proof 75B86466DA34D2B04C0C4C9557A119687ADAE7D4732BDDB3
    """
    out = out or folder / "proof.crt"
    files.refuse_existing([out], force)
    issuer = authority.load(folder, issuer_name, secrets.opener(passphrase_file))
    certificate = authority.proof(code, issuer, days)
    files.write([Output(out, formats.pem(certificate))], force=force)
    _told(out, certificate, as_json, issuer)


@pfx_app.command("export")
def export(
    out: Annotated[Path, typer.Argument(metavar="PFX", help="The file to make.")],
    certificate_file: Annotated[Path, typer.Option("--cert", help="Certificate and chain, leaf first: PEM or DER.")],
    key_file: Annotated[Path, typer.Option(help="The private key: PEM or DER.")],
    passphrase_file: PassphraseFile = None,
    new_passphrase_file: Annotated[Path | None, typer.Option(help="File with the password of the PFX.")] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Put a private key, its certificate and the chain into a PFX (AES-256).

    Its password: --new-passphrase-file, else ESPDPS_NEW_PASSPHRASE, else a prompt. That of the key, if it has one:
    --passphrase-file, else ESPDPS_PASSPHRASE, else a prompt.

    \b
    EXAMPLE
      esp-dps pfx export greenhouse-1.pfx --cert ca/devices/greenhouse-1.crt \\
          --key-file ca/devices/greenhouse-1.key
    """
    files.refuse_existing([out], force)
    chain = formats.certificates(files.read(certificate_file), str(certificate_file))
    key = formats.private_key(files.read(key_file), secrets.opener(passphrase_file), str(key_file))
    content = pfx.pack(key, chain, secrets.new_passphrase(new_passphrase_file, out.name))
    files.write([Output(out, content, secret=True)], force=force)
    _told(out, chain[0], as_json)


@pfx_app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="PFX", help="The file to read; - is standard input.")],
    out: Annotated[Path, typer.Option(help="Made are OUT.crt (leaf first) and OUT.key, both PEM.")],
    passphrase_file: Annotated[Path | None, typer.Option(help="File with the password of the PFX.")] = None,
    encrypt: Encrypt = False,
    new_passphrase_file: NewPassphraseFile = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Take a PFX apart into a certificate chain and a private key.

    Its password: --passphrase-file, else ESPDPS_PASSPHRASE, else a prompt.

    \b
    EXAMPLE
      esp-dps pfx import greenhouse-1.pfx --out greenhouse-1
    """
    paths = _paths(out.parent, out.name, force)
    key, chain = pfx.identity(pfx.unpack(files.read(file), secrets.opener(passphrase_file), str(file)), str(file))
    passphrase = _passphrase(encrypt, new_passphrase_file, paths[1])
    _keep(paths, tuple(chain), key, passphrase, force)
    _told(paths[0], chain[0], as_json)


def _paths(folder: Path, name: str, force: bool) -> tuple[Path, Path]:
    """Where a certificate and its key go; not `with_suffix`, as a registration id may have dots."""
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    files.refuse_existing(paths, force)
    return paths


def _passphrase(encrypt: bool, path: Path | None, key_file: Path) -> bytes | None:
    return secrets.new_passphrase(path, key_file.name) if encrypt or path else None


def _keep(
    paths: tuple[Path, Path],
    chain: tuple[x509.Certificate, ...],
    key: keys.PrivateKey | None,
    passphrase: bytes | None,
    force: bool,
) -> None:
    outputs = [Output(paths[0], formats.pem(*chain))]
    if key:
        outputs.append(Output(paths[1], formats.key_file(key, passphrase=passphrase), secret=True))
    files.write(outputs, force=force)


def _told(path: Path, certificate: x509.Certificate, as_json: bool, issuer: authority.Issuer | None = None) -> None:
    end, kind = certificate.not_valid_after_utc, formats.kind_of(certificate.public_key())
    subject = certificate.subject.rfc4514_string()
    if as_json:
        output.print_json({"file": str(path), "subject": subject, "key_type": kind, "not_after": f"{end:%FT%TZ}"})
        return
    by = f" by {issuer.certificate.subject.rfc4514_string()}" if issuer else ""
    output.out.print(f"{path}: {subject}{by}, {kind}, until {end:%Y-%m-%d}", soft_wrap=True)
    if issuer and authority.ends_early(certificate, issuer):
        output.err.print("it ends with its issuer", style="yellow")
