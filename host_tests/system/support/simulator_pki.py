"""Certificates of customers and their devices for the tests of the simulator, and what devices do with them.

Nothing of espdps may be used here: what the simulator is checked with has to be of another origin.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from simulator_client import Key, dps_device, finish, save_key

NEW_KEYS: dict[str, Any] = {
    "p-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
}


@dataclass(frozen=True)
class Party:
    """A certificate and its key: a root, an intermediate or a device."""

    certificate: x509.Certificate
    key: Key

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def made(
    name: str | list[str],
    issuer: Party | None = None,
    ca: bool = False,
    days: tuple[int, int] = (-1, 30),
    length: int | None = None,
    key: Key | None = None,
) -> Party:
    """A certificate by ``issuer`` (None: by itself) that is valid from and to these days from now."""
    key, now = key or NEW_KEYS["p-256"](), datetime.datetime.now(datetime.timezone.utc)
    names = [name] if isinstance(name, str) else name
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, value) for value in names])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days[0]))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=length), critical=True)
        .sign((issuer.key if issuer else key), hashes.SHA256())
    )
    return Party(certificate, key)


def pem_file(folder: Path, device: Party, *chain: Party) -> Path:
    """What a device presents, in this order, with its private key."""
    file = save_key(folder / "device.pem", device.key)
    with file.open("ab") as out:
        out.write(b"".join(party.pem for party in (device, *chain)))
    return file


def registered(info: dict[str, Any], registration_id: str, pem: Path, csr: bytes | None = None) -> dict[str, Any]:
    """The registrationState of a device that comes with a certificate."""
    with dps_device(info, registration_id, chain=pem, password=None) as device:
        assert device.connack.value == 0
        body = finish(device, registration_id, csr)
    assert body["status"] == "assigned"
    state: dict[str, Any] = body["registrationState"]
    return state


def answered(
    info: dict[str, Any], registration_id: str, pem: Path | None = None, **changes: Any
) -> tuple[int, int, str]:
    """Status, code and message of the error that answers a registration."""
    with dps_device(info, registration_id, chain=pem, **{"password": None, **changes}) as device:
        assert device.connack.value == 0
        device.register(registration_id)
        answer = device.answer()
    return answer.status, answer.body["errorCode"], answer.body["message"]
