"""Who may connect to a hub: by a token, by an issued certificate, or by what the device had at DPS.

Judges one CONNECT and keeps nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from ..memory.records import Device
from ..memory.state import State
from ..registry.namespace import Registry
from ..trust import certificates, sas, signers
from ..wire.mqtt import Connect, Refused


@dataclass(frozen=True)
class Admission:
    """``device``: the hub's record. ``proof``: what an event tells of the credential. ``expires``: Unix time of a
    token's end, None with a certificate.
    """

    device: Device
    proof: dict[str, Any]
    expires: int | None


def admit(state: State, registry: Registry, connect: Connect, host: str, device_id: str) -> Admission:
    """Raises Refused."""
    try:
        if host not in state.hubs:
            raise _No("the hub is gone")
        device = state.device(host, device_id)
        if device is None:
            raise _No("unknown device")
        expires = None
        if connect.password is not None:
            expires = _check_token(device, connect.password)
            proof: dict[str, Any] = {"auth": "sas", "certificate": None}
        elif connect.certificate is not None:
            _check_certificate(registry, device, connect.certificate, connect.chain)
            proof = {"auth": "x509", "certificate": certificates.facts(connect.certificate)}
        else:
            raise _No("neither token nor client certificate")
        if not device.enabled:
            raise _No("device is disabled")
    except _No as no:
        raise Refused("hub", device_id, 5, str(no)) from None
    return Admission(device, proof, expires)


class _No(Exception):
    """A reason to refuse."""


def _check_token(device: Device, password: str) -> int:
    """When the token expires."""
    try:
        token = sas.check(password, f"{device.hub}/devices/{device.id}", None)
    except sas.BadToken as error:
        raise _No(str(error)) from None
    if not token.signed_by(device.keys):
        raise _No("token not signed by a key of this device")
    return int(token.se)


def _check_certificate(
    registry: Registry, device: Device, certificate: x509.Certificate, chain: tuple[x509.Certificate, ...]
) -> None:
    """By what DPS prepared: an issued certificate, the enrolled one, or one by an enrolled signer."""
    refusal = certificates.out_of_date(certificate)
    if refusal is not None:
        raise _No(refusal)
    if certificate in device.certificates or _thumbprints(certificate) & set(device.thumbprints):
        return  # known by its thumbprint, so its name says nothing
    if registry.authority.revoked(certificate):
        raise _No("the authority that issued the certificate was revoked")
    if not (device.issued and registry.authority.issued(certificate)):
        if not device.signers:
            raise _No("certificate not issued by an authority of this device")
        try:
            signers.signer_of(certificate, chain, device.signers)
        except signers.Untrusted as error:
            raise _No(str(error)) from None
    if certificates.common_name(certificate.subject) != device.id:
        raise _No("common name of the certificate is not the device id")
    if registry.revoked(device, certificate):
        raise _No("the device's certificates were revoked")


def _thumbprints(certificate: x509.Certificate) -> set[str]:
    """In the two forms that a hub takes."""
    return {certificate.fingerprint(digest).hex().upper() for digest in (hashes.SHA1(), hashes.SHA256())}
