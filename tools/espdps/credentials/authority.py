"""A certificate authority for X.509 enrollments: root, intermediates, device certificates, proofs of possession.
Certificates are made from what is given and returned; of files, this only reads those of a CA folder."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from espdps import files, inputs
from espdps.credentials import formats, keys, pairs
from espdps.credentials.formats import Ask
from espdps.credentials.keys import PrivateKey
from espdps.errors import WRONG_USE, ToolError

ROOT, INTERMEDIATE = "root", "intermediate"  # file names in a CA folder
ROOT_DAYS, INTERMEDIATE_DAYS, DEVICE_DAYS, PROOF_DAYS = 20 * 365, 5 * 365, 365, 30
_CLOCKS = timedelta(days=1)  # that much may a clock be behind ours
_CODE = re.compile(r"[0-9A-Za-z+/=_-]{1,64}")
_NO_KEY_USAGE = dict.fromkeys(
    (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ),
    False,
)


@dataclass(frozen=True)
class Issuer:
    """Who signs. `above` are the certificates over it, the root last; empty for a root itself."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)
    above: tuple[x509.Certificate, ...] = ()

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """What a device has to present behind its own certificate: all up to the root, which the service has."""
        return (self.certificate, *self.above)[:-1]


def root(name: str, key: PrivateKey, days: int = ROOT_DAYS, path_length: int = 1) -> x509.Certificate:
    """A root's certificate, with at most `path_length` intermediates between it and a device. Raises ToolError."""
    return _build(_name(_check_name(name)), key.public_key(), None, key, days, ca=path_length)


def intermediate(
    name: str, key: PrivateKey, issuer: Issuer, days: int = INTERMEDIATE_DAYS, path_length: int = 0
) -> x509.Certificate:
    """An intermediate's certificate, with at most `path_length` more of them below it. Raises ToolError."""
    _check_name(name)
    for below, other in enumerate((issuer.certificate, *issuer.above), path_length + 1):
        # Paths are found by names: two authorities of one name would be taken for each other.
        if name.lower() in [known.lower() for known in keys.common_names(other.subject)]:
            raise ToolError(f"{name!r} is the name of an authority above it", "take another one", WRONG_USE)
        limit = _path_length(other)
        if limit is not None and limit < below:
            raise ToolError(
                f"{_title(other)} allows {limit} intermediates below it, and this makes {below}",
                "make it anew with a greater --path-length",
                WRONG_USE,
            )
    return _build(_name(name), key.public_key(), issuer.certificate, issuer.key, days, ca=path_length)


def device(
    registration_id: str, public: CertificatePublicKeyTypes, issuer: Issuer, days: int = DEVICE_DAYS
) -> x509.Certificate:
    """A device's certificate for TLS; DPS compares its common name with the registration id. Raises ToolError."""
    name = _name(keys.check_certificate_name(registration_id))
    return _build(name, public, issuer.certificate, issuer.key, days)


def proof(code: str, issuer: Issuer, days: int = PROOF_DAYS) -> x509.Certificate:
    """A certificate that shows Azure that we have the issuer's key: its common name is Azure's verification code.

    The key it is for is thrown away; nobody is to use this certificate. Raises ToolError.
    """
    code = inputs.bare(code)
    if not _CODE.fullmatch(code):
        raise ToolError("that is no verification code", "the portal shows it: about 48 letters and digits", WRONG_USE)
    public = keys.new_key("ec-p256").public_key()
    return _build(_name(code), public, issuer.certificate, issuer.key, days)


def load(folder: Path, name: str, ask: Ask) -> Issuer:
    """The authority `name` of a CA folder: name.crt, name.key, and what stands above it there.

    Raises ToolError if its files are missing, do not fit together, are no CA's, or their time is over.
    """
    if folder.is_dir():
        files.finish(folder)
    certificate_file, key_file = folder / f"{name}.crt", folder / f"{name}.key"
    if not os.path.isfile(certificate_file):
        others = [path.stem for path in files.listing(folder, ".crt")]
        hint = f"there are: {', '.join(others)}" if others else "ca root makes one"
        raise ToolError(f"no authority {name!r} in {folder}", hint, WRONG_USE)
    certificate = formats.certificates(files.read(certificate_file), str(certificate_file))[0]
    if not _is_ca(certificate):
        raise ToolError(
            f"{certificate_file} is not the certificate of an authority",
            "take one that esp-dps ca root or ca intermediate made, or another with CA:TRUE",
        )
    now = datetime.now(timezone.utc)
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise ToolError(
            f"{certificate_file} is valid from {certificate.not_valid_before_utc:%Y-%m-%d}"
            f" to {certificate.not_valid_after_utc:%Y-%m-%d} only",
            "make another: esp-dps ca root, ca intermediate",
        )
    above = _above(certificate, folder)
    key = formats.private_key(files.read(key_file), ask, str(key_file))
    if formats.spki(key.public_key()) != formats.spki(certificate.public_key()):
        raise ToolError(
            f"{key_file} is not the key of {certificate_file}", "esp-dps inspect says which belong together"
        )
    return Issuer(certificate, key, above)


def default_issuer(folder: Path) -> str:
    """Who signs for devices in this folder if nobody is named: the intermediate, else the root."""
    return INTERMEDIATE if os.path.isfile(folder / f"{INTERMEDIATE}.crt") else ROOT


def ends_early(certificate: x509.Certificate, issuer: Issuer) -> bool:
    """Whether a certificate got less time than wanted because its issuer's ends."""
    return certificate.not_valid_after_utc == issuer.certificate.not_valid_after_utc


def _above(certificate: x509.Certificate, folder: Path) -> tuple[x509.Certificate, ...]:
    """The issuers of a certificate up to a root, out of a folder."""
    known = [formats.certificates(files.read(path), str(path))[0] for path in files.listing(folder, ".crt")]
    path = [certificate]
    while not pairs.issued_by(path[-1], path[-1]):
        parents = [one for one in known if pairs.issued_by(path[-1], one) and one not in path]
        if not parents:
            raise ToolError(
                f"{folder} has no certificate of the issuer of {_title(path[-1])}",
                f"put that of {_title(path[-1], issuer=True)} there, as a .crt",
            )
        path.append(parents[0])
    return tuple(path[1:])


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except formats.BAD:
        return False


def _path_length(certificate: x509.Certificate) -> int | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    except formats.BAD:
        return 0


def _title(certificate: x509.Certificate, issuer: bool = False) -> str:
    name = certificate.issuer if issuer else certificate.subject
    return ", ".join(keys.common_names(name)) or name.rfc4514_string()


def _check_name(name: str) -> str:
    if not 1 <= len(name) <= keys.LONGEST_COMMON_NAME or not name.isprintable() or name != name.strip():
        raise ToolError(
            "that is no name for an authority",
            f"1 to {keys.LONGEST_COMMON_NAME} characters that can be printed",
            WRONG_USE,
        )
    return name


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _build(
    subject: x509.Name,
    public: CertificatePublicKeyTypes,
    issuer: x509.Certificate | None,
    signing_key: PrivateKey,
    days: int,
    ca: int | None = None,
) -> x509.Certificate:
    """A certificate with the extensions of RFC 5280, section 4.2.1; `ca` is the path length of an authority's.

    It does not outlive its issuer: there would be a time when it looks valid and no path to it is.
    """
    now = datetime.now(timezone.utc).replace(microsecond=0)
    begin, end = now - _CLOCKS, now + timedelta(days=days)
    if issuer:
        begin = max(begin, issuer.not_valid_before_utc)
        end = min(end, issuer.not_valid_after_utc)
    uses = {"digital_signature": True} if ca is None else {"key_cert_sign": True, "crl_sign": True}
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=ca is not None, path_length=ca), True),
        (x509.KeyUsage(**{**_NO_KEY_USAGE, **uses}), True),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
    ]
    if ca is None:
        extensions.append((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False))
    if issuer:
        extensions.append((_authority_identifier(issuer), False))
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())  # 159 random bits, positive: RFC 5280, section 4.1.2.2
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signing_key, keys.digest_for(signing_key))


def _authority_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """What the issuer calls its own key, which need not be a hash of it: openssl compares the two."""
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
