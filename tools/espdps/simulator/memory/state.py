"""What the services remember: enrollments, authorities, registrations, running operations, devices, policies.

Lookups behind one lock; no protocol and no connection is known here.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import timestamp
from ..names import DPS_API, HUB_API
from ..options import Link
from . import hub_choice
from .records import (
    CertificateAuthority,
    CertificatePolicy,
    Device,
    Enrollment,
    Issuer,
    NamespaceDevice,
    Operation,
    Registration,
    Unassigned,
    device_key,
    enrollment_key,
    new_etag,
    policy_key,
)
from .storage import Storage, Table
from .twin import Document, Twin


class State:
    """Lookups by id, without regard to case at DPS and with it at a hub. Safe from any thread.

    ``links``: what DPS knows of hubs besides their names. ``dps_api``, ``hub_api``: the API versions that are known.
    Raises StateFileError.
    """

    def __init__(self, hubs: tuple[str, ...], storage: Storage, links: Mapping[str, Link]) -> None:
        self.hubs, self.links = hubs, dict(links)
        self.dps_api, self.hub_api = DPS_API, HUB_API
        self.storage = storage
        self._lock = threading.RLock()
        self._operations: dict[str, Operation] = {}
        self.enrollments = Table(storage, Enrollment)
        self.authorities = Table(storage, CertificateAuthority)
        self.registrations = Table(storage, Registration)
        self._devices = Table(storage, Device, exact=True)
        self.issuers = Table(storage, Issuer)
        self.policies = Table(storage, CertificatePolicy)
        self.namespace = Table(storage, NamespaceDevice, exact=True)

    # Enrollments

    def put_enrollment(self, enrollment: Enrollment) -> None:
        with self._lock:
            self.enrollments.put(enrollment)

    def enrollment(self, id: str, group: bool) -> Enrollment | None:
        return self.enrollments.get(enrollment_key(id, group))

    def remove_enrollment(self, id: str, group: bool) -> bool:
        """Whether there was one. Devices it assigned stay in their hub, as at the service."""
        with self._lock:
            enrollment = self.enrollment(id, group)
            if enrollment is not None:
                self.enrollments.remove(enrollment)
            return enrollment is not None

    def groups(self) -> list[Enrollment]:
        return [enrollment for enrollment in self.enrollments.all() if enrollment.group]

    def signers(self, group: Enrollment) -> tuple[Any, ...]:
        """The certificates that vouch for a group's devices: its own, or those of the authorities that it names, as
        far as they are verified.
        """
        named = map(self.authorities.get, group.ca_references)
        return group.certificates or tuple(one.certificate for one in named if one is not None and one.verified)

    # Registrations

    def begin(self, registration_id: str, operation: Operation) -> None:
        """One operation a device: a new registration takes the place of the one before."""
        with self._lock:
            self.forget(registration_id)
            self._operations[registration_id.lower()] = operation

    def operation(self, registration_id: str, operation_id: str) -> Operation | None:
        with self._lock:
            operation = self._operations.get(registration_id.lower())
            return operation if operation is not None and operation.id == operation_id else None

    def forget(self, registration_id: str) -> None:
        """The operation of a registration id is gone."""
        with self._lock:
            operation = self._operations.pop(registration_id.lower(), None)
            if operation is not None and operation.choice is not None:
                operation.choice.cancel()

    def assign(self, registration_id: str, enrollment: Enrollment, given: Mapping[str, Any]) -> Registration:
        """Binds a registration id to a hub and makes or renews the hub's record of the device.

        ``given``: what custom allocation said: the hub as ``iotHubHostName``, and an ``initialTwin`` in place of the
        enrollment's. A hub keeps whether the device is disabled: DPS does not switch on what an operator switched off.
        Raises Unassigned.
        """
        with self._lock:
            before = self.registrations.get(registration_id)
            hub = self._hub(registration_id, enrollment, before, given.get("iotHubHostName"))
            initial = given.get("initialTwin") or enrollment.initial_twin
            id = self.device_id(registration_id, enrollment)
            device, substatus = self._device(before, hub, id, enrollment.reprovision == "migrate", initial)
            device.change(
                enrollment=enrollment.key,
                issued=enrollment.credential_policy is not None,
                policy=enrollment.credential_policy,
                certificates=() if enrollment.group else enrollment.certificates,
                signers=self.signers(enrollment) if enrollment.group else (),
                # By its first spelling: another one, with another derived key, does not take the device over.
                keys=enrollment.device_keys(before.registration_id if before is not None else registration_id),
                edge=enrollment.edge,
            )
            registration = before or Registration(registration_id, None, hub, id)
            registration.change(
                group=enrollment.id if enrollment.group else None,
                hub=hub,
                hubs=tuple(dict.fromkeys((*registration.hubs, hub))),
                substatus=substatus,
                updated=timestamp(),
                etag=new_etag(),
            )
            self.registrations.put(registration)
            return registration

    def _hub(self, id: str, enrollment: Enrollment, before: Registration | None, chosen: str | None) -> str:
        """The hub for a registration. Raises Unassigned."""
        if before is not None and enrollment.reprovision == "never":
            return before.hub
        linked = self.linked(enrollment)
        if not linked or (enrollment.allocation == "static" and not enrollment.hubs):
            raise Unassigned(400208, "No IoT hub is linked.")
        if chosen is not None:
            if chosen not in linked:
                raise Unassigned(400207, "Custom allocation failed: it chose a hub that is not linked.")
            return chosen
        return hub_choice.choose(enrollment.allocation, id, linked, self.links, before.hub if before else None)

    def device_id(self, registration_id: str, enrollment: Enrollment) -> str:
        """What a hub calls the device: as it was first, in that case, whatever the enrollment says now."""
        before = self.registrations.get(registration_id)
        return before.device_id if before is not None else enrollment.device_id or registration_id

    def linked(self, enrollment: Enrollment) -> list[str]:
        """The hubs that its devices may be assigned to."""
        return [hub for hub in enrollment.hubs or self.hubs if hub in self.hubs]

    def _device(
        self, before: Registration | None, hub: str, id: str, migrate: bool, initial: Document | None
    ) -> tuple[Device, str]:
        """The hub's record of a device and the registration's substatus (DPS REST specification).

        A device that moves takes all that its hub knows of it along or (not ``migrate``) starts anew. That a hub which
        had the device before and deleted it gives ``reprovisionedToInitialAssignment`` is inference.
        """
        known = self.device(hub, id)
        if before is None:
            return known or self._new_device(hub, id, initial), "initialAssignment"
        if hub == before.hub:
            if known is not None:
                return known, before.substatus
            return self._new_device(hub, id, initial), "reprovisionedToInitialAssignment"
        old = self.device(before.hub, id)
        if old is not None:
            self._devices.remove(old)
        if old is None or not migrate:
            return self._new_device(hub, id, initial), "deviceDataReset"
        moved = replace(old, hub=hub)
        self._devices.put(moved)
        return moved, "deviceDataMigrated"

    def _new_device(self, hub: str, id: str, initial: Document | None) -> Device:
        initial = initial or {}
        twin = Twin(tags=initial.get("tags") or {}, desired=(initial.get("properties") or {}).get("desired") or {})
        device = Device(hub, id, twin=twin)
        self._devices.put(device)
        return device

    def registration(self, registration_id: str) -> Registration | None:
        return self.registrations.get(registration_id)

    def remove_registration(self, registration_id: str) -> bool:
        with self._lock:
            self.forget(registration_id)
            registration = self.registrations.get(registration_id)
            if registration is not None:
                self.registrations.remove(registration)
            return registration is not None

    # Policies

    def policy(self, name: str) -> CertificatePolicy | None:
        """By ``ISSUER/POLICY``, or by the name alone for one of the issuer that is there from the start."""
        return self.policies.get(policy_key(name))

    # Devices of the hubs

    def put_device(self, device: Device) -> None:
        self._devices.put(device)

    def device(self, hub: str, id: str) -> Device | None:
        return self._devices.get(device_key(hub, id))

    def devices(self, id: str | None = None) -> list[Device]:
        """The records with this id, or all, of all hubs."""
        return [device for device in self._devices.all() if id is None or device.id == id]

    def remove_device(self, device: Device) -> None:
        self._devices.remove(device)
