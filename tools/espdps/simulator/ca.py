"""The two certificate authorities: the one of the servers (RSA-2048, like Azure's) and the one that issues to devices.

Their private keys stay in their files and are never handed out but to the TLS layer.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from .certificates import (
    DAY,
    Pair,
    build,
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
from .files import write_private

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


class IssuingAuthority:
    """Signs operational certificates: P-384 root and intermediate, SHA-384, as seen on the real service.

    A second, ``deep`` intermediate has one more above it, for chains of four.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._revoked: list[x509.Certificate] = []
        self.root = keep(directory, "issuing-root", lambda: new_root("esp-dps simulator device root", new_p384()))
        self._policy = self._below("issuing-policy", "esp-dps simulator device policy CA", self.root, path_length=1)
        self.intermediate = self._below("issuing-intermediate", "esp-dps simulator device CA 1", self.root)
        self._deep = self._below("issuing-deep", "esp-dps simulator device CA 2", self._policy)

    def _below(self, file: str, name: str, issuer: Pair, path_length: int = 0) -> Pair:
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        return keep(self._directory, file, lambda: new_intermediate(name, new_p384(), issuer, usage, path_length))

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
        return build(
            name_of(common_name, organization=None), public_key, issuer, issuer.key,
            start - seconds(min(300, life // 12)), start + seconds(life),
            (
                (x509.BasicConstraints(ca=False, path_length=None), True),
                (key_usage("digital_signature"), True),
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
                *published("devices", copies=3),
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
