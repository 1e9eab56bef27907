"""What the services remember of one thing each: an enrollment, a registration, a running operation, a hub's device.

Plain records; no protocol and no connection is known here.
"""

from __future__ import annotations

import asyncio
import base64
import os
import uuid
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509

from ..errors import timestamp
from ..trust import sas
from .messages import CloudMessage
from .storage import Record
from .twin import Document, Twin

NAMESPACE = "default"  # the one that the simulated DPS and hubs are linked to
ISSUER = "issuer"  # these two are in the namespace from the start
POLICY = "default"
ALLOCATIONS = ("hashed", "geoLatency", "static", "custom")


def new_etag() -> str:
    return '"' + base64.b64encode(uuid.uuid4().bytes).decode() + '"'


def new_key() -> str:
    """64 random bytes in base64, as the service makes them."""
    return base64.b64encode(os.urandom(64)).decode()


@dataclass
class Enrollment(Record):
    """An enrollment of one registration id, or (``group``) of all whose credential comes of the group's.

    By symmetric key (base64; made where left out), or by X.509: with ``certificates``, primary and secondary, which are
    the signers of a group and the client certificates of an individual enrollment, or with ``ca_references``, the names
    of one or two CertificateAuthority that sign for a group.

    ``certificate_seconds``: life of its devices' issued certificates; None leaves that to ``credential_policy``, which
    is ``ISSUER/POLICY``, or a name alone (see policy_key).
    ``reprovision``, for a registration that is given another hub than before: ``migrate`` the device's twin there,
    ``reset`` it, or ``never`` leave the hub. ``hubs``: those linked for it, all of the service when empty.
    ``allocation``: one of ALLOCATIONS; ``webhook`` and its ``webhook_version`` are for ``custom``.
    ``initial_twin``: tags and desired properties of a new device. ``edge``: the capability iotEdge.

    Raises ValueError for a key that is no base64, for keys beside certificates, for more than two certificates, and for
    another way to reprovision or to allocate.
    """

    id: str
    group: bool
    primary_key: str = field(default="", repr=False)
    secondary_key: str = field(default="", repr=False)
    certificates: tuple[x509.Certificate, ...] = ()
    ca_references: tuple[str, ...] = ()
    credential_policy: str | None = POLICY
    certificate_seconds: int | None = None
    reprovision: str = "migrate"
    provisioning_status: str = "enabled"
    allocation: str = "hashed"
    webhook: str | None = field(default=None, repr=False)  # the key of the function is in its query
    webhook_version: str | None = None
    hubs: tuple[str, ...] = ()
    device_id: str | None = None
    initial_twin: Document | None = None
    edge: bool = False
    etag: str = field(default_factory=new_etag)
    created: str = field(default_factory=timestamp)
    updated: str = field(default_factory=timestamp)

    def __post_init__(self) -> None:
        if self.reprovision not in ("migrate", "reset", "never"):
            raise ValueError(f"enrollment {self.id}: reprovision is migrate, reset or never")
        if self.allocation not in ALLOCATIONS:
            raise ValueError(f"enrollment {self.id}: allocation is one of {', '.join(ALLOCATIONS)}")
        if (self.allocation == "custom") != bool(self.webhook):
            raise ValueError(f"enrollment {self.id}: a webhook and custom allocation go together")
        if len(self.certificates) > 2 or len(self.ca_references) > 2:
            raise ValueError(f"enrollment {self.id}: a primary and a secondary certificate, no more")
        if self.certificates and self.ca_references:
            raise ValueError(f"enrollment {self.id}: either certificates or names of authorities")
        if self.attestation == "symmetricKey":
            self.primary_key = self.primary_key or new_key()
            self.secondary_key = self.secondary_key or new_key()
        elif self.primary_key or self.secondary_key:
            raise ValueError(f"enrollment {self.id}: either keys or certificates")
        for key in (self.primary_key, self.secondary_key):
            try:
                base64.b64decode(key, validate=True)
            except ValueError:
                raise ValueError(f"enrollment {self.id}: a key must be base64") from None

    @property
    def key(self) -> str:
        return enrollment_key(self.id, self.group)

    @property
    def attestation(self) -> str:
        """As the service names it."""
        return "x509" if self.certificates or self.ca_references else "symmetricKey"

    def device_keys(self, registration_id: str) -> list[str]:
        """The keys (base64), primary first, that a device of this enrollment may sign with; none with X.509."""
        keys = [key for key in (self.primary_key, self.secondary_key) if key]
        return [sas.derived_key(key, registration_id) for key in keys] if self.group else keys


def enrollment_key(id: str, group: bool) -> str:
    return f"{'group' if group else 'individual'}/{id.lower()}"


@dataclass
class CertificateAuthority(Record):
    """A customer's authority that groups may name. It counts once its owner has proved to hold its key, by a
    certificate for ``code``.
    """

    name: str
    certificate: x509.Certificate
    verified: bool = False
    code: str | None = None
    etag: str = field(default_factory=new_etag)
    created: str = field(default_factory=timestamp)
    updated: str = field(default_factory=timestamp)

    @property
    def key(self) -> str:
        return self.name.lower()


class Unassigned(Exception):
    """A registration that ends as ``failed``, with the code of that state."""

    def __init__(self, error_code: int, message: str) -> None:
        super().__init__(message)
        self.error_code, self.message = error_code, message


@dataclass
class Registration(Record):
    """What came of a device's registration. ``group``: the one it came by, None with an individual enrollment.
    ``hubs``: all that it was ever assigned to.
    """

    registration_id: str
    group: str | None
    hub: str
    device_id: str
    substatus: str = "initialAssignment"
    hubs: tuple[str, ...] = ()
    etag: str = field(default_factory=new_etag)
    created: str = field(default_factory=timestamp)
    updated: str = field(default_factory=timestamp)

    @property
    def key(self) -> str:
        return self.registration_id.lower()


@dataclass
class Operation:
    """A registration on its way: how many answers still say assigning, then its result (kept for later polls).
    ``choice``: what custom allocation says, when it is asked.
    """

    enrollment: Enrollment
    assigning_left: int
    csr: x509.CertificateSigningRequest | None = None
    payload: Any = None
    choice: asyncio.Task[dict[str, Any] | Unassigned] | None = None
    result: dict[str, Any] | None = None
    id: str = field(default_factory=lambda: f"5.{uuid.uuid4().hex[:16]}.{uuid.uuid4()}")


@dataclass
class Device(Record):
    """A device of a hub. It may use an issued certificate (``issued``; renewed under ``policy``), and what it had at
    DPS or was given at the hub: its keys (base64), one of ``certificates`` or of ``thumbprints`` (SHA-1 or SHA-256 in
    upper-case hex), or a certificate by one of ``signers``. ``enrollment``: the key of the one that it came by.
    ``inbox``: messages that it does not have yet. ``session``: the filters, each with its QoS, that it subscribed to
    and wants kept, None for no such session. ``connection_changed``: when it came or went last.
    """

    hub: str
    id: str
    enabled: bool = True
    issued: bool = False
    policy: str | None = None
    certificates: tuple[x509.Certificate, ...] = ()
    thumbprints: tuple[str, ...] = ()
    signers: tuple[x509.Certificate, ...] = ()
    keys: list[str] = field(default_factory=list, repr=False)
    enrollment: str | None = None
    edge: bool = False
    twin: Twin = field(default_factory=Twin)
    inbox: list[CloudMessage] = field(default_factory=list, metadata={"kept": False})
    session: dict[str, int] | None = field(default=None, metadata={"kept": False})
    connection_changed: str | None = None
    # Tells a device from an earlier one with its ID (D).
    generation: str = field(default_factory=lambda: str(int.from_bytes(os.urandom(7), "big")))
    etag: str = field(default_factory=new_etag)

    def __post_init__(self) -> None:
        if isinstance(self.twin, dict):  # as it comes out of storage
            self.twin = Twin(**self.twin)

    @property
    def key(self) -> str:
        return device_key(self.hub, self.id)


def device_key(hub: str, id: str) -> str:
    """Case counts (D: iot-hub-devguide-identity-registry)."""
    return f"{hub}/{id}"


@dataclass
class Issuer(Record):
    """A certificate authority of the registry's namespace that issues to devices, below the one root.

    ``revoked``: its former intermediates.
    """

    name: str
    revoked: tuple[x509.Certificate, ...] = ()
    etag: str = field(default_factory=new_etag)
    created: str = field(default_factory=timestamp)
    updated: str = field(default_factory=timestamp)

    @property
    def key(self) -> str:
        return self.name.lower()


@dataclass
class CertificatePolicy(Record):
    """A certificate policy of an issuer: how certificates are issued to devices.

    ``key_types``, of options.KEY_TYPES, and ``certificate_seconds``: as in the options where they are left out.
    """

    name: str
    issuer: str = ISSUER
    key_types: tuple[str, ...] = ()
    certificate_seconds: int | None = None
    etag: str = field(default_factory=new_etag)
    created: str = field(default_factory=timestamp)
    updated: str = field(default_factory=timestamp)

    @property
    def key(self) -> str:
        return policy_key(f"{self.issuer}/{self.name}")


def policy_key(policy: str) -> str:
    """``ISSUER/POLICY``, or the name of a policy alone: of the issuer that is there from the start."""
    return (policy if "/" in policy else f"{ISSUER}/{policy}").lower()


@dataclass
class NamespaceDevice(Record):
    """A device as the registry has it, whichever hub it is at. ``uuid`` goes into its certificates: another one
    revokes them.
    """

    name: str
    uuid: str
    hub: str
    policy: str | None = None
    enabled: bool = True
    attributes: Document = field(default_factory=dict)
    tags: Document = field(default_factory=dict)
    etag: str = field(default_factory=new_etag)
    created: str = field(default_factory=timestamp)
    updated: str = field(default_factory=timestamp)

    @property
    def key(self) -> str:
        return self.name
