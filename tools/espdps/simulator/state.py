"""What the services remember: enrollments, registrations, running operations and the devices of each hub.

Plain records in memory behind one lock; no protocol and no connection is known here.
"""

from __future__ import annotations

import base64
import datetime
import os
import re
import threading
import uuid
import zlib
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509

from . import sas

# Lenient on purpose: the documentation allows a dash at the end, the specification no special at either end.
ID = re.compile(r"[A-Za-z0-9\-._:]{1,128}")


def timestamp() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_etag() -> str:
    return '"' + base64.b64encode(uuid.uuid4().bytes).decode() + '"'


def new_key() -> str:
    """64 random bytes in base64, as the service makes them."""
    return base64.b64encode(os.urandom(64)).decode()


@dataclass
class Enrollment:
    """An enrollment of one registration id, or (``group``) of all whose credential comes of the group's.

    By symmetric key (base64; made where left out), or by X.509 if there are ``certificates``, primary and secondary:
    the signers of a group, the client certificates of an individual enrollment.

    Raises ValueError for a key that is no base64, for keys beside certificates and for more than two certificates.
    """

    id: str
    group: bool
    primary_key: str = field(default="", repr=False)
    secondary_key: str = field(default="", repr=False)
    certificates: tuple[x509.Certificate, ...] = ()
    credential_policy: str | None = "default"
    provisioning_status: str = "enabled"
    hubs: tuple[str, ...] = ()
    device_id: str | None = None
    etag: str = field(default_factory=new_etag)
    created: str = field(default_factory=timestamp)
    updated: str = field(default_factory=timestamp)

    def __post_init__(self) -> None:
        if len(self.certificates) > 2:
            raise ValueError(f"enrollment {self.id}: a primary and a secondary certificate, no more")
        if not self.certificates:
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
    def attestation(self) -> str:
        """As the service names it."""
        return "x509" if self.certificates else "symmetricKey"

    def device_keys(self, registration_id: str) -> list[str]:
        """The keys (base64), primary first, that a device of this enrollment may sign with; none with X.509."""
        keys = [key for key in (self.primary_key, self.secondary_key) if key]
        return [sas.derived_key(key, registration_id) for key in keys] if self.group else keys


@dataclass
class Registration:
    """What came of a device's registration."""

    registration_id: str
    enrollment: Enrollment
    hub: str
    device_id: str
    substatus: str = "initialAssignment"
    etag: str = field(default_factory=new_etag)
    created: str = field(default_factory=timestamp)
    updated: str = field(default_factory=timestamp)


@dataclass
class Operation:
    """A registration on its way: how many answers still say assigning, then its result (kept for later polls)."""

    enrollment: Enrollment
    assigning_left: int
    csr: x509.CertificateSigningRequest | None = None
    payload: Any = None
    result: dict[str, Any] | None = None
    id: str = field(default_factory=lambda: f"5.{uuid.uuid4().hex[:16]}.{uuid.uuid4()}")


@dataclass
class Device:
    """A device of a hub. It may use an issued certificate, and what it had at DPS: its keys (base64), one of
    ``certificates``, or a certificate by one of ``signers``.
    """

    hub: str
    id: str
    enabled: bool = True
    issued: bool = False
    certificates: tuple[x509.Certificate, ...] = ()
    signers: tuple[x509.Certificate, ...] = ()
    keys: list[str] = field(default_factory=list, repr=False)


class State:
    """Lookups by id, which are case-insensitive at the service. Safe from any thread."""

    def __init__(self, hubs: tuple[str, ...]) -> None:
        self.hubs = hubs
        self._lock = threading.RLock()
        self._enrollments: dict[tuple[bool, str], Enrollment] = {}
        self._registrations: dict[str, Registration] = {}
        self._operations: dict[str, Operation] = {}
        self._devices: dict[tuple[str, str], Device] = {}

    # Enrollments

    def put_enrollment(self, enrollment: Enrollment) -> None:
        with self._lock:
            self._enrollments[enrollment.group, enrollment.id.lower()] = enrollment

    def enrollment(self, id: str, group: bool) -> Enrollment | None:
        with self._lock:
            return self._enrollments.get((group, id.lower()))

    def remove_enrollment(self, id: str, group: bool) -> bool:
        """Whether there was one. Devices it assigned stay in their hub, as at the service."""
        with self._lock:
            return self._enrollments.pop((group, id.lower()), None) is not None

    def groups(self) -> list[Enrollment]:
        with self._lock:
            return [enrollment for (group, _), enrollment in self._enrollments.items() if group]

    # Registrations

    def begin(self, registration_id: str, operation: Operation) -> None:
        """One operation a device: a new registration takes the place of the one before."""
        with self._lock:
            self._operations[registration_id.lower()] = operation

    def operation(self, registration_id: str, operation_id: str) -> Operation | None:
        with self._lock:
            operation = self._operations.get(registration_id.lower())
            return operation if operation is not None and operation.id == operation_id else None

    def forget(self, registration_id: str) -> None:
        """The operation of a registration id is gone."""
        with self._lock:
            self._operations.pop(registration_id.lower(), None)

    def assign(self, registration_id: str, enrollment: Enrollment) -> Registration:
        """Binds a registration id to a hub, for good once chosen, and makes or renews the hub's record of the device.

        The hub keeps whether the device is disabled: DPS does not switch on what an operator switched off.
        """
        with self._lock:
            registration = self._registrations.get(registration_id.lower())
            linked = enrollment.hubs or self.hubs
            if registration is None:
                # Allocation "hashed" with equal weights: the same id goes to the same hub every time.
                hub = linked[zlib.crc32(registration_id.lower().encode()) % len(linked)]
                device_id = enrollment.device_id or registration_id
                registration = Registration(registration_id, enrollment, hub, device_id)
                self._registrations[registration_id.lower()] = registration
            registration.enrollment = enrollment
            registration.updated, registration.etag = timestamp(), new_etag()
            key = (registration.hub, registration.device_id.lower())
            device = self._devices.setdefault(key, Device(registration.hub, registration.device_id))
            device.issued = enrollment.credential_policy is not None
            device.certificates = () if enrollment.group else enrollment.certificates
            device.signers = enrollment.certificates if enrollment.group else ()
            device.keys = enrollment.device_keys(registration_id)
            return registration

    def registration(self, registration_id: str) -> Registration | None:
        with self._lock:
            return self._registrations.get(registration_id.lower())

    def remove_registration(self, registration_id: str) -> bool:
        with self._lock:
            self._operations.pop(registration_id.lower(), None)
            return self._registrations.pop(registration_id.lower(), None) is not None

    # Devices of the hubs

    def device(self, hub: str, id: str) -> Device | None:
        with self._lock:
            return self._devices.get((hub, id.lower()))

    def devices(self, id: str) -> list[Device]:
        """The records with this id, of all hubs."""
        with self._lock:
            return [device for (_, known), device in self._devices.items() if known == id.lower()]

    def remove_device(self, device: Device) -> None:
        with self._lock:
            self._devices.pop((device.hub, device.id.lower()), None)
