"""What the services remember: enrollments, registrations, running operations and the devices of each hub.

Lookups behind one lock; no protocol and no connection is known here.
"""

from __future__ import annotations

import threading
import zlib
from dataclasses import replace

from .errors import timestamp
from .records import Device, Enrollment, NoHub, Operation, Registration, new_etag


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

    def devices(self, id: str) -> list[Device]:
        """The records with this id, of all hubs."""
        with self._lock:
            return [device for (_, known), device in self._devices.items() if known == id.lower()]

    def remove_device(self, device: Device) -> None:
        with self._lock:
            self._devices.pop((device.hub, device.id.lower()), None)
