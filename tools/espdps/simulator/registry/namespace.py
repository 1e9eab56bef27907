"""The device registry's namespace: issuing authorities, their policies, and the devices that were provisioned by one.

How an authority and a device's identifier are tied to a certificate is decided here; no protocol is known.
"""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass

from cryptography import x509

from ..errors import ServiceError, timestamp
from ..memory.records import ISSUER, POLICY, CertificatePolicy, Device, Issuer, NamespaceDevice, new_etag
from ..memory.state import State
from ..options import Options
from ..trust import authorities

ROOT = "root"  # the authority above all issuers; it issues nothing to devices
# REST specification 2026-11-01, certificateAuthorityName and certificatePolicyName.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{2,62}")
_RANDOM = 96  # bits of a serial number that differ from one certificate of a device to the next


@dataclass(frozen=True)
class Terms:
    """How a device's next certificate is issued. ``key_types``: of its CSR; ``life`` in seconds."""

    issuer: str
    key_types: tuple[str, ...]
    life: int
    serial: int


class Registry:
    """One namespace. ``seed``: what makes the first identifiers its own."""

    def __init__(self, state: State, authority: authorities.IssuingAuthority, options: Options, seed: str) -> None:
        self.authority = authority
        self._state, self._options = state, options
        self._seed = uuid.uuid5(uuid.NAMESPACE_OID, seed)
        if not state.issuers.all():
            state.issuers.put(Issuer(ISSUER))
            state.policies.put(CertificatePolicy(POLICY))
        for issuer in state.issuers.all():
            authority.add(issuer.key, issuer.revoked)

    # Issuing authorities

    def issuer(self, name: str) -> Issuer:
        """Raises ServiceError."""
        issuer = self._state.issuers.get(name)
        if issuer is None:
            raise ServiceError(404, 404001, "The certificate authority does not exist.")
        return issuer

    def put_issuer(self, name: str) -> Issuer:
        """A new one, or the one of this name. Raises ServiceError."""
        issuer = self._state.issuers.get(name)
        if issuer is not None:
            return issuer
        _check_name(name, "certificate authority")
        if name.lower() == ROOT:
            raise ServiceError(409, 409001, "A certificate authority cannot change its type.")
        issuer = Issuer(name)
        self.authority.add(issuer.key)
        self._state.issuers.put(issuer)
        return issuer

    def delete_issuer(self, name: str) -> None:
        """No hub trusts its intermediate any more. That it must not have policies is inference. Raises ServiceError."""
        issuer = self.issuer(name)
        if self.policies(issuer.name):
            raise ServiceError(409, 409001, "The certificate authority has certificate policies.")
        self._state.issuers.remove(issuer)
        self.authority.remove(issuer.key)

    def revoke_issuer(self, name: str) -> Issuer:
        """Another intermediate issues from now on; hubs refuse what was issued before. Raises ServiceError."""
        issuer = self.issuer(name)
        issuer.change(revoked=self.authority.rotate(issuer.key), updated=timestamp(), etag=new_etag())
        return issuer

    # Policies

    def policies(self, issuer: str) -> list[CertificatePolicy]:
        return [policy for policy in self._state.policies.all() if policy.issuer.lower() == issuer.lower()]

    def policy(self, name: str) -> CertificatePolicy:
        """By ISSUER/POLICY, or by a name alone. Raises ServiceError."""
        policy = self._state.policy(name)
        if policy is None:
            raise ServiceError(404, 404001, "The certificate policy does not exist.")
        return policy

    def put_policy(self, issuer: str, name: str, key_types: tuple[str, ...], life: int | None) -> CertificatePolicy:
        """A new one, or another life and other key types for what it issues from now on. Raises ServiceError."""
        if issuer.lower() == ROOT:
            # Seen at the service: 409 PolicyRequiresIssuingCa.
            raise ServiceError(409, 409001, "A certificate policy requires an issuing certificate authority.")
        owner = self.issuer(issuer)
        policy = self._state.policy(f"{issuer}/{name}")
        if policy is not None:
            policy.change(key_types=key_types, certificate_seconds=life, updated=timestamp(), etag=new_etag())
            return policy
        _check_name(name, "certificate policy")
        policy = CertificatePolicy(name, owner.name, key_types, life)
        self._state.policies.put(policy)
        return policy

    def delete_policy(self, name: str) -> None:
        """Hubs still trust what it issued. An enrollment that still names it fails where it has to issue.

        That it may be in use is inference. Raises ServiceError.
        """
        self._state.policies.remove(self.policy(name))

    # Certificates

    def key_types(self, policy: str | None) -> tuple[str, ...]:
        """Of the CSRs that a policy takes; an unknown policy or None: those of the options."""
        known = self._state.policy(policy) if policy is not None else None
        return known.key_types if known is not None and known.key_types else self._options.key_types

    def terms(self, device: Device) -> Terms:
        """For a device with a policy. The life that its enrollment has counts before its policy's.

        Raises ServiceError when the policy is gone.
        """
        policy = self.policy(device.policy or "")
        enrollment = self._state.enrollments.get(device.enrollment or "")
        own = enrollment.certificate_seconds if enrollment is not None else None
        life = own or policy.certificate_seconds or self._options.certificate_seconds
        # How the service ties a certificate to a device's identifier is not documented. The first half of the serial
        # number makes it no longer, and says nothing to anybody else.
        random = int.from_bytes(os.urandom(_RANDOM // 8), "big")
        serial = _prefix(self.enter(device)) << _RANDOM | random
        return Terms(policy.issuer.lower(), self.key_types(policy.key), life, serial)

    def revoked(self, device: Device, certificate: x509.Certificate) -> bool:
        """Whether a certificate of this device is one of ours from before its identifier was changed."""
        known = self._state.namespace.get(device.id)
        other = known is not None and certificate.serial_number >> _RANDOM != _prefix(known)
        return other and self.authority.issued(certificate)

    # Devices

    def device(self, name: str) -> NamespaceDevice:
        """Raises ServiceError."""
        device = self._state.namespace.get(name)
        if device is None:
            raise ServiceError(404, 404001, "The device is not in the namespace.")
        return device

    def enter(self, device: Device) -> NamespaceDevice:
        """The registry's record of a hub's device, made or brought up to date. DPS does so when it provisions one.

        The first identifier comes of the name, so that a simulator without a memory takes what it issued before.
        """
        known = self._state.namespace.get(device.id)
        if known is None:
            known = NamespaceDevice(device.id, str(uuid.uuid5(self._seed, device.id)), device.hub, device.policy)
            self._state.namespace.put(known)
        elif (known.hub, known.policy) != (device.hub, device.policy):
            known.change(hub=device.hub, policy=device.policy, updated=timestamp(), etag=new_etag())
        return known

    def blocked(self, name: str) -> bool:
        """Whether a device was disabled in the registry, which keeps it from coming back through DPS."""
        known = self._state.namespace.get(name)
        return known is not None and not known.enabled

    def set_enabled(self, device: NamespaceDevice, enabled: bool) -> list[Device]:
        """The hubs' records that changed with it."""
        device.change(enabled=enabled, updated=timestamp(), etag=new_etag())
        changed = [one for one in self._state.devices(device.name) if one.enabled != enabled]
        for one in changed:
            one.change(enabled=enabled, etag=new_etag())
        return changed

    def revoke_device(self, name: str) -> NamespaceDevice:
        """Gives it another identifier: all certificates that it has are good no more. Raises ServiceError."""
        device = self.device(name)
        device.change(uuid=str(uuid.uuid4()), updated=timestamp(), etag=new_etag())
        return device


def _check_name(name: str, kind: str) -> None:
    """Raises ServiceError."""
    if not _NAME.fullmatch(name):
        raise ServiceError(400, 400004, f"The name of a {kind} has 3 to 63 letters, digits and inner dashes.")


def _prefix(device: NamespaceDevice) -> int:
    """The part of an identifier that goes into serial numbers: 63 bits, as those are positive."""
    return uuid.UUID(device.uuid).int >> 65
