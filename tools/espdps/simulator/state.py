"""What the services remember: enrollments, registrations, running operations and the devices of each hub.

Plain records in memory behind one lock; no protocol and no connection is known here.
"""

from __future__ import annotations

import base64
import os
import re
import threading
import uuid
import zlib
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography import x509

from . import sas
from .errors import timestamp
from .messages import CloudMessage
from .twin import Twin

# Lenient on purpose: the documentation allows a dash at the end, the specification no special at either end.
ID = re.compile(r"[A-Za-z0-9\-._:]{1,128}")


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

    ``certificate_seconds``: life of its devices' issued certificates; None leaves that to the options.
    ``reprovision``, for a registration that finds its hub no longer linked: ``migrate`` the device's twin to another
    hub, ``reset`` it there, or ``never`` leave the hub. ``hubs``: those linked for it, all of the service when empty.

    Raises ValueError for a key that is no base64, for keys beside certificates, for more than two certificates and for
    another way to reprovision.
    """

    id: str
    group: bool
    primary_key: str = field(default="", repr=False)
    secondary_key: str = field(default="", repr=False)
    certificates: tuple[x509.Certificate, ...] = ()
    credential_policy: str | None = "default"
    certificate_seconds: int | None = None
    reprovision: str = "migrate"
    provisioning_status: str = "enabled"
    hubs: tuple[str, ...] = ()
    device_id: str | None = None
    etag: str = field(default_factory=new_etag)
    created: str = field(default_factory=timestamp)
    updated: str = field(default_factory=timestamp)

    def __post_init__(self) -> None:
        if self.reprovision not in ("migrate", "reset", "never"):
            raise ValueError(f"enrollment {self.id}: reprovision is migrate, reset or never")
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


class NoHub(Exception):
    """A registration that gets no hub, with the code of its ``failed`` state."""

    def __init__(self, error_code: int, message: str) -> None:
        super().__init__(message)
        self.error_code, self.message = error_code, message


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
    ``certificates``, or a certificate by one of ``signers``. ``enrollment``: the one that it came by.
    ``inbox``: messages that it does not have yet. ``session``: the filters, each with its QoS, that it subscribed to
    and wants kept, None for no such session. ``connection_changed``: when it came or went last.
    """

    hub: str
    id: str
    enabled: bool = True
    issued: bool = False
    certificates: tuple[x509.Certificate, ...] = ()
    signers: tuple[x509.Certificate, ...] = ()
    keys: list[str] = field(default_factory=list, repr=False)
    enrollment: Enrollment | None = None
    twin: Twin = field(default_factory=Twin)
    inbox: list[CloudMessage] = field(default_factory=list)
    session: dict[str, int] | None = None
    connection_changed: str | None = None
    etag: str = field(default_factory=new_etag)


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

    def assign(self, registration_id: str, enrollment: Enrollment, chosen: str | None = None) -> Registration:
        """Binds a registration id to a hub and makes or renews the hub's record of the device.

        ``chosen``: the hub of custom allocation; without it a hub stays as long as it is linked. A hub keeps whether
        the device is disabled: DPS does not switch on what an operator switched off. Raises NoHub.
        """
        with self._lock:
            registration = self._registrations.get(registration_id.lower())
            hub = self._hub(registration_id, enrollment, registration, chosen)
            if registration is None:
                registration = Registration(registration_id, enrollment, hub, enrollment.device_id or registration_id)
                self._registrations[registration_id.lower()] = registration
            elif hub != registration.hub:
                self._move(registration, hub, enrollment.reprovision == "migrate")
            registration.enrollment = enrollment
            registration.updated, registration.etag = timestamp(), new_etag()
            key = (hub, registration.device_id.lower())
            device = self._devices.setdefault(key, Device(hub, registration.device_id))
            device.enrollment = enrollment
            device.issued = enrollment.credential_policy is not None
            device.certificates = () if enrollment.group else enrollment.certificates
            device.signers = enrollment.certificates if enrollment.group else ()
            device.keys = enrollment.device_keys(registration_id)
            return registration

    def _hub(self, id: str, enrollment: Enrollment, before: Registration | None, chosen: str | None) -> str:
        """The hub for a registration. Raises NoHub."""
        if before is not None and enrollment.reprovision == "never":
            return before.hub
        linked = [hub for hub in enrollment.hubs or self.hubs if hub in self.hubs]
        if not linked:
            raise NoHub(400208, "No IoT hub is linked.")
        if chosen is not None:
            if chosen not in linked:
                raise NoHub(400207, "Custom allocation failed: it chose a hub that is not linked.")
            return chosen
        if before is not None and before.hub in linked:
            return before.hub
        # Allocation "hashed" with equal weights: the same id goes to the same hub every time.
        return linked[zlib.crc32(id.lower().encode()) % len(linked)]

    def _move(self, registration: Registration, hub: str, migrate: bool) -> None:
        """Takes the device to another hub, with all that its hub knows of it or (not ``migrate``) as a new one."""
        id = registration.device_id.lower()
        old = self._devices.pop((registration.hub, id), None)
        if old is not None and migrate:
            self._devices[hub, id] = replace(old, hub=hub)
        registration.hub = hub
        registration.substatus = "deviceDataMigrated" if migrate else "deviceDataReset"

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

    def devices(self, id: str | None = None) -> list[Device]:
        """The records with this id, or all, of all hubs."""
        with self._lock:
            return [device for (_, known), device in self._devices.items() if id is None or known == id.lower()]

    def remove_device(self, device: Device) -> None:
        with self._lock:
            self._devices.pop((device.hub, device.id.lower()), None)
