"""The two certificate authorities: the one of the servers (RSA-2048, like Azure's) and the one that issues to devices.

Their private keys stay in their files and are never handed out but to the TLS layer.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from ..files import write_private
from .certificates import (
    DAY,
    Pair,
    build,
    common_name,
    keep,
    key_usage,
    load_key,
    name_of,
    new_intermediate,
    new_p384,
    new_root,
    new_rsa,
    now,
    published,
    save_key,
    seconds,
)

_SERVER_DAYS = 365


class ServerIdentity:
    """What the servers show: leaf and intermediate, and the root that clients pin.

    Files in ``directory``: ``roots.pem`` for clients, ``server-chain.pem`` and ``server.key`` for TLS.
    """

    def __init__(self, directory: Path, names: Iterable[str], address: str) -> None:
        root = keep(directory, "server-root", lambda: new_root("esp-dps simulator server root", new_rsa()))
        issuer = keep(
            directory,
            "server-intermediate",
            lambda: new_intermediate("esp-dps simulator server CA 1", new_rsa(), root, ExtendedKeyUsageOID.SERVER_AUTH),
        )
        self.roots = directory / "roots.pem"
        self.chain_file = directory / "server-chain.pem"
        self.key_file = directory / "server.key"
        # The key is kept, its certificate made anew: names may have changed since, and it never runs out.
        key = load_key(self.key_file) if self.key_file.exists() else new_rsa()
        hosts: list[x509.GeneralName] = [x509.DNSName(name) for name in dict.fromkeys(["localhost", *names])]
        hosts.append(x509.IPAddress(ipaddress.ip_address(address)))
        start = now() - seconds(DAY)
        leaf = build(
            name_of("localhost"), key.public_key(), issuer, issuer.key, start, start + seconds(_SERVER_DAYS * DAY),
            (
                (x509.BasicConstraints(ca=False, path_length=None), True),
                (key_usage("digital_signature", "key_encipherment"), True),
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
                (x509.SubjectAlternativeName(hosts), False),
                *published("servers", copies=2),
            ),
        )  # fmt: skip
        save_key(self.key_file, key)
        chain = leaf.public_bytes(Encoding.PEM) + issuer.certificate.public_bytes(Encoding.PEM)
        write_private(self.chain_file, chain)
        write_private(self.roots, root.certificate.public_bytes(Encoding.PEM))

    def https_context(self) -> ssl.SSLContext:
        """For servers that no device talks to."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.chain_file, self.key_file)
        return context


@dataclass(frozen=True)
class Issuers:
    """The intermediates of one authority: that which issues, and one for chains of four, which has another above it."""

    usual: Pair
    deep: Pair

    @property
    def certificates(self) -> tuple[x509.Certificate, x509.Certificate]:
        return self.usual.certificate, self.deep.certificate


class IssuingAuthority:
    """Signs operational certificates: P-384 root and intermediates, SHA-384, as seen on the real service.

    Each authority of the registry has intermediates of its own below the one root. Its name is lower case here.
    ``first``: the authority whose files and certificates do not have its name in theirs.
    """

    def __init__(self, directory: Path, first: str) -> None:
        self._directory, self._first = directory, first
        self._issuers: dict[str, Issuers] = {}
        self._revoked: dict[str, tuple[x509.Certificate, ...]] = {}
        self.root = keep(directory, "issuing-root", lambda: new_root("esp-dps simulator device root", new_p384()))
        self._above = self._below("issuing-policy", "esp-dps simulator device policy CA", self.root, path_length=1)

    def _below(self, file: str, name: str, issuer: Pair, path_length: int = 0) -> Pair:
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        return keep(self._directory, file, lambda: new_intermediate(name, new_p384(), issuer, usage, path_length))

    def add(self, issuer: str, revoked: tuple[x509.Certificate, ...] = (), number: int = 1) -> None:
        """From now on this authority issues; with the intermediates of an earlier run, if it had any."""
        usual, deep = self._files(issuer)
        name = f"esp-dps simulator {'device' if issuer == self._first else issuer} CA"
        self._issuers[issuer] = Issuers(
            self._below(usual, f"{name} {number}", self.root), self._below(deep, f"{name} {number + 1}", self._above)
        )
        self._revoked[issuer] = revoked

    def rotate(self, issuer: str) -> tuple[x509.Certificate, ...]:
        """Replaces the authority's intermediates; all that were. What they issued is revoked; the root stays."""
        old = self._issuers[issuer].certificates
        revoked = self._revoked[issuer] + old
        last = common_name(old[-1].subject) or "0"
        self.remove(issuer)
        self.add(issuer, revoked, int(last.split()[-1]) + 1)
        return revoked

    def remove(self, issuer: str) -> None:
        """Nobody knows its intermediates any more."""
        for file in self._files(issuer):
            (self._directory / f"{file}.pem").unlink()
        del self._issuers[issuer], self._revoked[issuer]

    def issuer(self, issuer: str) -> str:
        """The common name of the intermediate by which an authority issues."""
        return common_name(self._issuers[issuer].usual.certificate.subject) or ""

    def issue(
        self,
        authority: str,
        serial: int,
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
        issuers = self._issuers[authority]
        issuer = issuers.deep if deep else issuers.usual
        return build(
            name_of(common_name, organization=None), public_key, issuer, issuer.key,
            start - seconds(min(300, life // 12)), start + seconds(life),
            (
                (x509.BasicConstraints(ca=False, path_length=None), True),
                (key_usage("digital_signature"), True),
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
                *published("devices", copies=3),
            ),
            serial,
        )  # fmt: skip

    def chain(self, leaf: x509.Certificate) -> list[bytes]:
        """DER, leaf first, the root last."""
        known = [pair for issuers in self._issuers.values() for pair in (issuers.usual, issuers.deep)]
        issuers = {pair.certificate.subject: pair.certificate for pair in (*known, self._above)}
        path = [leaf]
        while path[-1].issuer in issuers:
            path.append(issuers[path[-1].issuer])
        return [certificate.public_bytes(Encoding.DER) for certificate in (*path, self.root.certificate)]

    def issued(self, leaf: x509.Certificate) -> bool:
        """Whether a client certificate is one of ours.

        The leaf alone is enough, as at the real Hub: the service knows its intermediates.
        """
        return _by_one_of(leaf, (one for issuers in self._issuers.values() for one in issuers.certificates))

    def revoked(self, leaf: x509.Certificate) -> bool:
        """Whether a client certificate was one of ours until an intermediate was replaced."""
        return _by_one_of(leaf, (one for revoked in self._revoked.values() for one in revoked))

    def _files(self, issuer: str) -> tuple[str, str]:
        prefix = "issuing" if issuer == self._first else f"issuing-{issuer}"
        return f"{prefix}-intermediate", f"{prefix}-deep"


def _by_one_of(leaf: x509.Certificate, issuers: Iterable[x509.Certificate]) -> bool:
    for issuer in issuers:
        try:
            leaf.verify_directly_issued_by(issuer)
            return True
        except (InvalidSignature, TypeError, ValueError):
            pass  # not by this one
    return False
