"""A customer's own certificate authority, for X.509 enrollments in tests. It must never be used for anything else."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from espdps.credentials import keys

_PEM = serialization.Encoding.PEM


class Authority:
    """A root, or an intermediate when it has an issuer; pem is its own certificate."""

    def __init__(self, name: str, issuer: Authority | None = None, kind: str = "ec-p384") -> None:
        self.key = keys.new_key(kind)
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._issuer = issuer or self
        self.certificate = self._issuer._sign(self.name, self.key, ca=True)
        self.pem = self.certificate.public_bytes(_PEM)

    def issue(self, name: str, key: keys.PrivateKey, *, days: float = 30, since: float = 1) -> bytes:
        """A client certificate, PEM; it began `since` days ago and ends in `days`."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._sign(subject, key, days=days, since=since).public_bytes(_PEM)

    def _sign(
        self, subject: x509.Name, key: keys.PrivateKey, *, ca: bool = False, days: float = 365, since: float = 1
    ) -> x509.Certificate:
        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=since))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        if not ca:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        return builder.sign(self.key, hashes.SHA256())


def private_pem(key: keys.PrivateKey) -> bytes:
    """A private key as openssl writes it."""
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
