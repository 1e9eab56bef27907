"""The making and keeping of certificates: names, extensions, signatures, key files; and what others ask of one.

Private keys stay in their files, mode 0600, and are never handed out but to the TLS layer.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from ..files import write_private

CaKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

_ROOT_DAYS = 20 * 365
_INTERMEDIATE_DAYS = 5 * 365
DAY = 86400
# Nothing answers there: the addresses are in the certificates because a real authority's are, and they cost size.
_PKI = "pki.localhost/esp-dps-simulator/certs"
# Arc for documentation and examples (IANA private enterprise number 32473, RFC 5612).
_POLICY = "1.3.6.1.4.1.32473.1"


def now() -> datetime.datetime:
    """The time in whole seconds, as certificates count it."""
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def seconds(count: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=count)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: CaKey

    def __repr__(self) -> str:
        return f"Pair({self.certificate.subject.rfc4514_string()})"


def name_of(common_name: str, organization: str | None = "esp-dps device provisioning simulator") -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization is not None:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def key_usage(*names: str) -> x509.KeyUsage:
    known = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in names for name in known})


def build(
    subject: x509.Name,
    public_key: CertificatePublicKeyTypes,
    issuer: Pair | None,
    signing_key: CaKey,
    not_before: datetime.datetime,
    not_after: datetime.datetime,
    extensions: Iterable[tuple[x509.ExtensionType, bool]],
    serial: int | None = None,
) -> x509.Certificate:
    issuer_name = subject if issuer is None else issuer.certificate.subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(public_key)
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )
    if issuer is not None:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        builder = builder.add_extension(identifier, critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    # RFC 5480 and common practice: the hash goes with the size of the signing key.
    digest = hashes.SHA384() if isinstance(signing_key, ec.EllipticCurvePrivateKey) else hashes.SHA256()
    return builder.sign(signing_key, digest)


def new_root(common_name: str, key: CaKey) -> Pair:
    start = now() - seconds(DAY)
    extensions = (
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (key_usage("key_cert_sign", "crl_sign"), True),
    )
    certificate = build(
        name_of(common_name), key.public_key(), None, key, start, start + seconds(_ROOT_DAYS * DAY), extensions
    )
    return Pair(certificate, key)


def new_intermediate(
    common_name: str, key: CaKey, issuer: Pair, usage: x509.ObjectIdentifier, path_length: int = 0
) -> Pair:
    start = now() - seconds(DAY)
    extensions = (
        (x509.BasicConstraints(ca=True, path_length=path_length), True),
        (key_usage("key_cert_sign", "crl_sign", "digital_signature"), True),
        (x509.ExtendedKeyUsage([usage]), False),
        *published("roots", copies=1),
    )
    certificate = build(
        name_of(common_name), key.public_key(), issuer, issuer.key, start, start + seconds(_INTERMEDIATE_DAYS * DAY),
        extensions,
    )  # fmt: skip
    return Pair(certificate, key)


def published(authority: str, copies: int) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    """Where a public authority says its revocation lists, issuers and policies are, ``copies`` mirrors of each."""
    lists = [
        x509.DistributionPoint(
            [x509.UniformResourceIdentifier(f"http://crl{n}.{_PKI}/{authority}/current/revocation-list-{n:02d}.crl")],
            None,
            None,
            None,
        )
        for n in range(1, copies + 1)
    ]
    issuers = [
        x509.AccessDescription(
            AuthorityInformationAccessOID.CA_ISSUERS,
            x509.UniformResourceIdentifier(f"http://aia{n}.{_PKI}/{authority}/current/issuing-certificate-{n:02d}.crt"),
        )
        for n in range(1, copies + 1)
    ]
    status = x509.AccessDescription(
        AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(f"http://ocsp.{_PKI}/{authority}")
    )
    statement = f"http://{_PKI}/repository/certification-practice-statement.html"
    notice = x509.UserNotice(None, "Made by a simulator on this machine. It vouches for nothing.")
    policies = [
        x509.PolicyInformation(x509.ObjectIdentifier(f"{_POLICY}.1"), [statement, notice]),
        x509.PolicyInformation(x509.ObjectIdentifier(f"{_POLICY}.2"), None),
    ]
    return (
        (x509.CRLDistributionPoints(lists), False),
        (x509.AuthorityInformationAccess([*issuers, status]), False),
        (x509.CertificatePolicies(policies), False),
    )


def load_key(path: Path) -> CaKey:
    key = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        raise TypeError(f"{path}: neither RSA nor EC")
    return key


def save_key(path: Path, key: CaKey) -> None:
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def keep(directory: Path, name: str, new: Callable[[], Pair]) -> Pair:
    """The pair ``name`` of an earlier run, or a new one that later runs will find."""
    certificate_file, key_file = directory / f"{name}.pem", directory / f"{name}.key"
    if certificate_file.exists() and key_file.exists():
        pair = Pair(x509.load_pem_x509_certificate(certificate_file.read_bytes()), load_key(key_file))
        if pair.certificate.public_key() == pair.key.public_key() and pair.certificate.not_valid_after_utc > now():
            return pair
    pair = new()
    save_key(key_file, pair.key)
    write_private(certificate_file, pair.certificate.public_bytes(Encoding.PEM))
    return pair


def new_rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def new_p384() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def out_of_date(certificate: x509.Certificate) -> str | None:
    """Why a certificate cannot be used now; None if it can."""
    if now() < certificate.not_valid_before_utc:
        return "certificate not valid yet"
    if now() > certificate.not_valid_after_utc:
        return "certificate expired"
    return None


def common_name(name: x509.Name) -> str | None:
    """The one common name, or None when there is none or more than one."""
    values = [attribute.value for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None


def facts(certificate: x509.Certificate) -> dict[str, str]:
    """What people and events may know of a certificate."""
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
    }
