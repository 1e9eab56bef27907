"""The two certificate authorities: the one of the servers (RSA-2048, like Azure's) and the one that issues to devices.

Private keys stay in their files, mode 0600, and are never handed out but to the TLS layer.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from .files import write_private

CaKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

_ROOT_DAYS = 20 * 365
_INTERMEDIATE_DAYS = 5 * 365
_SERVER_DAYS = 365
_DAY = 86400
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


def _name(common_name: str, organization: str | None = "esp-dps device provisioning simulator") -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization is not None:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _key_usage(*names: str) -> x509.KeyUsage:
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


def _build(
    subject: x509.Name,
    public_key: CertificatePublicKeyTypes,
    issuer: Pair | None,
    signing_key: CaKey,
    not_before: datetime.datetime,
    not_after: datetime.datetime,
    extensions: Iterable[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    issuer_name = subject if issuer is None else issuer.certificate.subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
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


def _root(common_name: str, key: CaKey) -> Pair:
    start = now() - seconds(_DAY)
    extensions = (
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (_key_usage("key_cert_sign", "crl_sign"), True),
    )
    certificate = _build(
        _name(common_name), key.public_key(), None, key, start, start + seconds(_ROOT_DAYS * _DAY), extensions
    )
    return Pair(certificate, key)


def _intermediate(
    common_name: str, key: CaKey, issuer: Pair, usage: x509.ObjectIdentifier, path_length: int = 0
) -> Pair:
    start = now() - seconds(_DAY)
    extensions = (
        (x509.BasicConstraints(ca=True, path_length=path_length), True),
        (_key_usage("key_cert_sign", "crl_sign", "digital_signature"), True),
        (x509.ExtendedKeyUsage([usage]), False),
        *_published("roots", copies=1),
    )
    certificate = _build(
        _name(common_name), key.public_key(), issuer, issuer.key, start, start + seconds(_INTERMEDIATE_DAYS * _DAY),
        extensions,
    )  # fmt: skip
    return Pair(certificate, key)


def _published(authority: str, copies: int) -> tuple[tuple[x509.ExtensionType, bool], ...]:
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


def _load_key(path: Path) -> CaKey:
    key = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        raise TypeError(f"{path}: neither RSA nor EC")
    return key


def _save_key(path: Path, key: CaKey) -> None:
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _keep(directory: Path, name: str, new: Callable[[], Pair]) -> Pair:
    """The pair ``name`` of an earlier run, or a new one that later runs will find."""
    certificate_file, key_file = directory / f"{name}.pem", directory / f"{name}.key"
    if certificate_file.exists() and key_file.exists():
        pair = Pair(x509.load_pem_x509_certificate(certificate_file.read_bytes()), _load_key(key_file))
        if pair.certificate.public_key() == pair.key.public_key() and pair.certificate.not_valid_after_utc > now():
            return pair
    pair = new()
    _save_key(key_file, pair.key)
    write_private(certificate_file, pair.certificate.public_bytes(Encoding.PEM))
    return pair


class ServerIdentity:
    """What the servers show: leaf and intermediate, and the root that clients pin.

    Files in ``directory``: ``roots.pem`` for clients, ``server-chain.pem`` and ``server.key`` for TLS.
    """

    def __init__(self, directory: Path, names: Iterable[str], address: str) -> None:
        root = _keep(directory, "server-root", lambda: _root("esp-dps simulator server root", _rsa()))
        issuer = _keep(
            directory,
            "server-intermediate",
            lambda: _intermediate("esp-dps simulator server CA 1", _rsa(), root, ExtendedKeyUsageOID.SERVER_AUTH),
        )
        self.roots = directory / "roots.pem"
        self.chain_file = directory / "server-chain.pem"
        self.key_file = directory / "server.key"
        # The key is kept, its certificate made anew: names may have changed since, and it never runs out.
        key = _load_key(self.key_file) if self.key_file.exists() else _rsa()
        hosts: list[x509.GeneralName] = [x509.DNSName(name) for name in dict.fromkeys(["localhost", *names])]
        hosts.append(x509.IPAddress(ipaddress.ip_address(address)))
        start = now() - seconds(_DAY)
        leaf = _build(
            _name("localhost"), key.public_key(), issuer, issuer.key, start, start + seconds(_SERVER_DAYS * _DAY),
            (
                (x509.BasicConstraints(ca=False, path_length=None), True),
                (_key_usage("digital_signature", "key_encipherment"), True),
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
                (x509.SubjectAlternativeName(hosts), False),
                *_published("servers", copies=2),
            ),
        )  # fmt: skip
        _save_key(self.key_file, key)
        chain = leaf.public_bytes(Encoding.PEM) + issuer.certificate.public_bytes(Encoding.PEM)
        write_private(self.chain_file, chain)
        write_private(self.roots, root.certificate.public_bytes(Encoding.PEM))

    def https_context(self) -> ssl.SSLContext:
        """For servers that no device talks to."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.chain_file, self.key_file)
        return context


def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def _p384() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


class IssuingAuthority:
    """Signs operational certificates: P-384 root and intermediate, SHA-384, as seen on the real service.

    A second, ``deep`` intermediate has one more above it, for chains of four.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._revoked: list[x509.Certificate] = []
        self.root = _keep(directory, "issuing-root", lambda: _root("esp-dps simulator device root", _p384()))
        self._policy = self._below("issuing-policy", "esp-dps simulator device policy CA", self.root, path_length=1)
        self.intermediate = self._below("issuing-intermediate", "esp-dps simulator device CA 1", self.root)
        self._deep = self._below("issuing-deep", "esp-dps simulator device CA 2", self._policy)

    def _below(self, file: str, name: str, issuer: Pair, path_length: int = 0) -> Pair:
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        return _keep(self._directory, file, lambda: _intermediate(name, _p384(), issuer, usage, path_length))

    def rotate(self) -> None:
        """Replaces the intermediates. What they issued is revoked; the root stays."""
        for file in ("issuing-intermediate", "issuing-deep"):
            (self._directory / f"{file}.pem").unlink()
        name = "esp-dps simulator device CA {}".format
        number = len(self._revoked) + 3
        intermediate = self._below("issuing-intermediate", name(number), self.root)
        deep = self._below("issuing-deep", name(number + 1), self._policy)
        self._revoked += [self.intermediate.certificate, self._deep.certificate]
        self.intermediate, self._deep = intermediate, deep

    def issue(
        self,
        common_name: str,
        public_key: CertificatePublicKeyTypes,
        life: int,
        begins: int = 0,
        deep: bool = False,
    ) -> x509.Certificate:
        """A leaf for client authentication, valid for ``life`` seconds from ``begins`` seconds after now.

        The start is put back by a twelfth of the life, five minutes at most: a device's clock may be a little slow.
        """
        start = now() + seconds(begins)
        issuer = self._deep if deep else self.intermediate
        return _build(
            _name(common_name, organization=None), public_key, issuer, issuer.key,
            start - seconds(min(300, life // 12)), start + seconds(life),
            (
                (x509.BasicConstraints(ca=False, path_length=None), True),
                (_key_usage("digital_signature"), True),
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
                *_published("devices", copies=3),
            ),
        )  # fmt: skip

    def chain(self, leaf: x509.Certificate) -> list[bytes]:
        """DER, leaf first, the root last."""
        issuers = {pair.certificate.subject: pair.certificate for pair in (self.intermediate, self._deep, self._policy)}
        path = [leaf]
        while path[-1].issuer in issuers:
            path.append(issuers[path[-1].issuer])
        return [certificate.public_bytes(Encoding.DER) for certificate in (*path, self.root.certificate)]

    def issued(self, leaf: x509.Certificate) -> bool:
        """Whether a client certificate is one of ours.

        The leaf alone is enough, as at the real Hub: the service knows its intermediates.
        """
        return _by_one_of(leaf, (self.intermediate.certificate, self._deep.certificate))

    def revoked(self, leaf: x509.Certificate) -> bool:
        """Whether a client certificate was one of ours until an intermediate was replaced. A restart forgets that."""
        return _by_one_of(leaf, self._revoked)


def _by_one_of(leaf: x509.Certificate, issuers: Iterable[x509.Certificate]) -> bool:
    for issuer in issuers:
        try:
            leaf.verify_directly_issued_by(issuer)
            return True
        except (InvalidSignature, TypeError, ValueError):
            pass  # not by this one
    return False


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
