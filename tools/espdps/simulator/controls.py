"""What tests and people may change on a simulator that runs: enrollments, devices, hubs, scripted trouble.

May be called from any thread; what has to do with connections is done in the simulator's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any

from . import strict_json
from .dps.dps import Allocate, Dps
from .events import Event, EventLog
from .hub.hub import Hub
from .memory.messages import CloudMessage, Properties
from .memory.records import ISSUER, Device, Enrollment
from .memory.state import State
from .memory.twin import Twin
from .options import Link, Options
from .registry.namespace import Registry
from .trouble.actions import Trouble, Troubles
from .trust.authorities import IssuingAuthority
from .trust.signers import load

GROUP = "boards"  # the enrollment group that is there from the start


class Controls:
    """The handles of a simulator; Simulator gives it its parts."""

    options: Options
    log: EventLog
    _troubles: Troubles
    _state: State
    _authority: IssuingAuthority
    _registry: Registry
    _dps: Dps
    _hub: Hub
    _loop: asyncio.AbstractEventLoop | None = None

    # What happened

    @property
    def events(self) -> list[Event]:
        return self.log.events

    def wait_event(self, kind: str, timeout: float = 10.0, after: int = 0, **match: Any) -> Event:
        """Blocks until there is an event of this kind whose fields equal ``match``; see EventLog.wait.

        Not for the simulator's own thread. Raises TimeoutError.
        """
        return self.log.wait(kind, timeout, after, **match)

    # What may go wrong

    @property
    def trouble(self) -> Trouble:
        """The scripted trouble of all devices that have none of their own; set it at any time."""
        return self._troubles.get()

    @trouble.setter
    def trouble(self, trouble: Trouble) -> None:
        self._troubles.set(trouble)

    def set_trouble(self, registration_id: str, trouble: Trouble) -> None:
        """Scripted trouble of one device. At ``tls`` and ``ntp`` no device is known yet, so those are for all only."""
        self._troubles.set(trouble, registration_id)

    # Enrollments and devices

    def add_group(
        self, id: str, primary_key: str | None = None, *, signers: Iterable[bytes] = (), **fields: Any
    ) -> Enrollment:
        """An enrollment group by symmetric key (base64, made when None), or by X.509 if there are ``signers``.

        ``signers``: one or two certificates, PEM or DER, of roots or intermediates; ``fields`` as in state.Enrollment.
        Raises ValueError.
        """
        return self._add(Enrollment(id, True, primary_key or "", certificates=tuple(map(load, signers)), **fields))

    def add_individual(
        self, registration_id: str, key: str | None = None, *, certificates: Iterable[bytes] = (), **fields: Any
    ) -> Enrollment:
        """An individual enrollment by symmetric key (base64, made when None), or by X.509 with ``certificates``.

        ``certificates``: one or two client certificates, PEM or DER; ``fields`` as in state.Enrollment.
        Raises ValueError.
        """
        known = tuple(map(load, certificates))
        return self._add(Enrollment(registration_id, False, key or "", certificates=known, **fields))

    @property
    def allocate(self) -> Allocate | None:
        """Called once a registration, in the simulator's thread, with what custom allocation is told of the device:
        registrationId, x509 or symmetricKey, and payload if it sent one. What it returns may have a ``payload`` for the
        device, and ``iotHubHostName``, one of the linked hubs.
        """
        return self._dps.allocate

    @allocate.setter
    def allocate(self, allocate: Allocate | None) -> None:
        self._dps.allocate = allocate

    def group(self, id: str = GROUP) -> Enrollment:
        """Raises KeyError."""
        return self._enrollment(id, group=True)

    def set_enrollment(self, id: str, group: bool = False, **fields: Any) -> None:
        """Changes fields of an enrollment, such as ``provisioning_status="disabled"`` or ``certificate_seconds=60``.

        Raises KeyError, TypeError for an unknown field, ValueError as state.Enrollment.
        """
        enrollment = self._enrollment(id, group)
        replace(enrollment, **fields)  # judges them
        enrollment.change(**fields)

    def remove_enrollment(self, id: str, group: bool = False) -> None:
        """Raises KeyError."""
        if not self._state.remove_enrollment(id, group):
            raise KeyError(id)

    def device(self, id: str) -> Device:
        """The hub's record of a device. Raises KeyError."""
        found = self._state.devices(id)
        if not found:
            raise KeyError(id)
        return found[0]

    def set_device(self, id: str, enabled: bool) -> None:
        """Enables or disables a device in its hub; a disabled one is disconnected. Raises KeyError."""
        device = self.device(id)
        device.enabled = enabled
        if not enabled:
            self._call(self._hub.hang_up, device, "device was disabled")

    def delete_device(self, id: str) -> None:
        """Takes a device out of its hub and disconnects it. Raises KeyError."""
        device = self.device(id)
        self._state.remove_device(device)
        self._call(self._hub.hang_up, device, "device was deleted")

    def twin(self, id: str) -> Twin:
        """The twin of a device, with all that it reported. Raises KeyError."""
        return self.device(id).twin

    def send_message(self, id: str, body: bytes, properties: Properties | None = None) -> str:
        """Queues a message to a device; its message id. Raises KeyError, and ServiceError for one that is too much."""
        message = CloudMessage(body, properties or {})
        self._do(self._hub.send, self.device(id), message)
        return message.id

    def desire(self, id: str, patch: dict[str, Any]) -> int:
        """Changes desired properties of a device; their new version. Raises KeyError, ServiceError."""
        version: int = self._do(self._hub.desire, self.device(id), patch)
        return version

    def call_method(self, id: str, name: str, payload: Any = None, timeout: float = 30.0) -> tuple[int, Any]:
        """Calls a method of a device; its status and payload. Raises KeyError, and ServiceError when the device is not
        there, does not take methods, or does not answer within so many seconds.
        """
        call = self._hub.call(self.device(id), name, strict_json.write(payload), timeout)
        return self._result(call)

    def add_issuer(self, name: str) -> None:
        """A certificate authority that issues to devices, for policies to belong to. Raises ServiceError."""
        self._registry.put_issuer(name)

    def revoke_issuer(self, name: str = ISSUER) -> None:
        """Revokes an authority: another intermediate issues from now on, and the hubs refuse what was issued before.
        Connected devices stay connected. Raises ServiceError for an authority that does not exist.
        """
        self._registry.revoke_issuer(name)

    def add_policy(self, name: str, key_types: Iterable[str] = (), certificate_seconds: int | None = None) -> None:
        """A policy for enrollments to name, or other terms for an existing one: ISSUER/POLICY, or a name alone for
        one of the first issuer. Raises ServiceError."""
        issuer, slash, policy = name.rpartition("/")
        self._registry.put_policy(issuer if slash else ISSUER, policy, tuple(key_types), certificate_seconds)

    def set_link(self, hub: str, **fields: Any) -> None:
        """What allocation knows of a hub, such as ``latency=20.0``; see options.Link. Raises KeyError, ValueError."""
        if hub not in self.options.hubs:
            raise KeyError(hub)
        self._state.links[hub] = replace(self._state.links.get(hub, Link()), **fields)

    def set_api(self, dps: Iterable[str] | None = None, hub: Iterable[str] | None = None) -> None:
        """The API versions that DPS and the hubs know from now on; None leaves them as they are. A connection to a hub
        that names another one stays.
        """
        if dps is not None:
            self._state.dps_api = tuple(dps)
        if hub is not None:
            self._state.hub_api = tuple(hub)

    def set_hubs(self, *hubs: str) -> None:
        """The hubs that are there from now on, of those in the options. Another one refuses all devices and is not
        linked any more: a registration that finds its hub gone moves as its enrollment's ``reprovision`` says. The
        records of a hub outlive its absence.

        Raises ValueError for a name that is not in the options.
        """
        if not set(hubs) <= set(self.options.hubs):
            raise ValueError(f"hubs: some of {', '.join(self.options.hubs)}")
        gone = set(self._state.hubs) - set(hubs)
        self._state.hubs = hubs
        for hub in gone:
            self._call(self._hub.hang_up_all, hub, "the hub is gone")

    def _add(self, enrollment: Enrollment) -> Enrollment:
        self._state.put_enrollment(enrollment)
        return enrollment

    def _enrollment(self, id: str, group: bool) -> Enrollment:
        enrollment = self._state.enrollment(id, group)
        if enrollment is None:
            raise KeyError(id)
        return enrollment

    def _do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function returns or raises in the event loop's thread, where connections live."""

        async def do() -> Any:
            return function(*arguments)

        return self._result(do())

    def _result(self, work: Coroutine[Any, Any, Any]) -> Any:
        if self._loop is None:
            work.close()
            raise RuntimeError("the simulator does not run")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _call(self, function: Any, *arguments: Any) -> None:
        """Runs a function in the event loop's thread, where connections live."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)
