"""The Device Provisioning Service as a device sees it over MQTT: who may register, and what it is answered.

Neither sockets nor packets here; a device's key and token are compared and forgotten.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import strict_json
from ..errors import ServiceError, error_body
from ..events import EventLog
from ..memory.records import Enrollment, Operation, Unassigned
from ..memory.state import State
from ..options import Options
from ..registry import issuance
from ..registry.namespace import Registry
from ..throttle import Throttle
from ..trouble.actions import Assigning, Chain, Error, Late, Profile, Raw, Rid, Spelling, Troubles, Vanished
from ..trouble.actions import State as FinalState
from ..trust import certificates
from ..wire.mqtt import Connect, Message, Refused
from ..wire.packets import Violation
from . import allocation, enrollment_json
from .sign_in import by_certificate, by_token, is_me, refused

_USERNAME = re.compile(r"(?P<scope>[^/]+)/registrations/(?P<id>[^/]+)/api-version=(?P<version>[^&/]+)(&.*)?", re.DOTALL)
_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?")
_RESPONSES = "$dps/registrations/res/"
_REGISTER = "$dps/registrations/PUT/iotdps-register/"
_POLL = "$dps/registrations/GET/iotdps-get-operationstatus/"
_BODY_LIMIT = 96 * 1024

# Custom allocation as a function: what is known of the device, then what it is given, None for nothing.
Allocate = Callable[[dict[str, Any]], dict[str, Any] | None]


@dataclass
class Dps:
    """What all connections to DPS share."""

    id_scope: str
    state: State
    registry: Registry
    options: Options
    log: EventLog
    troubles: Troubles
    allocate: Allocate | None = None

    def __post_init__(self) -> None:
        self.registrations = Throttle(self.options.registrations_a_minute, 60)
        self.polls = Throttle(self.options.polls_in_10_seconds, 10)

    def open(self, connect: Connect) -> DpsConnection:
        """Raises Refused when the username is not of the form ``{scope}/registrations/{id}/api-version={version}``."""
        match = _USERNAME.fullmatch(connect.username)
        if match is None or not _VERSION.fullmatch(match["version"]):
            raise Refused("dps", connect.client_id, 5, "username of another form")
        if match["scope"] != self.id_scope:
            raise Refused("dps", connect.client_id, 5, "unknown id scope")
        return DpsConnection(self, connect, match["id"], match["version"])


class DpsConnection:
    """One device's dialogue with DPS."""

    name = "dps"
    prefix = ""

    def __init__(self, dps: Dps, connect: Connect, registration_id: str, api_version: str) -> None:
        self.device = registration_id
        self.granted: dict[str, int] = {}
        self.resumed = False  # DPS keeps no session
        self._dps, self._connect, self._version = dps, connect, api_version
        self._number = 0
        self._enrollment: Enrollment | None = None
        self._proof: dict[str, Any] = {}  # how registrationState tells the attestation
        self._problem: ServiceError | None = None
        self._vanished = False  # an operation did, by script
        self._last: Message | None = None

    def accept(self, connection: int) -> None:
        self._number = connection
        connect, state = self._connect, self._dps.state
        if not is_me(self.device, connect.client_id):
            raise refused(self.device, "client id is not the registration id")
        if connect.will is not None:
            raise refused(self.device, "DPS takes no will")
        auth = "sas" if connect.password is not None else "x509"
        # Seen at the real service: who signs wrongly is let in and told so when it registers.
        try:
            if auth == "sas":
                self._enrollment, self._proof = by_token(state, self._dps.id_scope, connect, self.device)
            else:
                self._enrollment, self._proof = by_certificate(state, connect, self.device)
        except ServiceError as error:
            self._problem = error
        self._report("dps.connect", api_version=self._version, auth=auth)

    def grant(self, topic_filter: str) -> bool:
        return topic_filter == _RESPONSES + "#"

    def subscribed(self, topic_filter: str) -> None:
        """Answers go to the connection that asked, so none waits."""

    def acknowledged(self, packet_id: int) -> None:
        """Answers are sent once."""

    def place(self, topic: str) -> str:
        path, _, _ = topic.partition("?")
        if path == _REGISTER:
            return "register"
        if path == _POLL:
            return "poll"
        raise Violation("a topic that DPS does not know")

    def publish(self, message: Message) -> Sequence[Message]:
        if len(message.body) > _BODY_LIMIT:
            raise Violation("a message larger than DPS takes")
        place = self.place(message.topic)
        query = _query(message.topic)
        rid = query.get("$rid")
        if not rid:
            raise Violation("a request without $rid")
        try:
            answer = self._answer(place, query, message.body, rid)
        except ServiceError as error:
            answer = self._error(error, rid)
        action = self._dps.troubles.at(place, self.device)
        if isinstance(action, Rid):
            foreign = replace(answer, topic=answer.topic.replace(f"$rid={rid}", f"$rid={uuid.uuid4()}"))
            return [foreign, answer] if action.first else [foreign]
        manner = self._dps.troubles.at("answer", self.device)
        last, self._last = self._last, answer
        if isinstance(manner, Late) and last is not None:
            return [last, answer]
        return [_respelled(answer) if isinstance(manner, Spelling) else answer]

    def end(self, graceful: bool) -> None:
        """Nothing is held for a connection: an operation outlives it."""

    # Requests

    def _answer(self, place: str, query: dict[str, str], body: bytes, rid: str) -> Message:
        action = self._dps.troubles.at(place, self.device)
        if isinstance(action, Error):
            raise ServiceError(action.status, action.error_code, action.message, action.retry_after)
        if isinstance(action, Raw):
            self._report("dps.answer", status=action.status, error_code=None, state=None, tracking_id=None)
            return _message(action.status, rid, action.body)
        if isinstance(action, FinalState):
            return self._final(action.status, rid, action.error_code, action.message)
        # That an unknown version is told so when the device registers, with this text: official SDKs.
        if self._version not in self._dps.state.dps_api:
            raise ServiceError(400, 400004, "Unsupported API version.")
        if self._problem is not None:
            raise self._problem
        wait = self._dps.registrations.wait() if place == "register" else self._dps.polls.wait(self.device.lower())
        if wait:
            raise ServiceError(429, 429001, "Operations are being throttled for this tenant.", wait)
        if isinstance(action, Vanished) and not self._vanished:
            self._vanished = True
            self._dps.state.forget(self.device)
        return self._register(body, rid) if place == "register" else self._poll(query.get("operationId", ""), rid)

    def _register(self, body: bytes, rid: str) -> Message:
        request = _json(body)
        csr, payload = issuance.request(request, self._version), request.get("payload")
        self._report("dps.register", csr=csr is not None, payload=payload is not None)
        # A body for another id contradicts the connection; the service's code for it is not known, this is its kin.
        if not is_me(self.device, str(request.get("registrationId") or self.device)):
            raise ServiceError(400, 400004, "The registration ID in the body is not the one of the connection.")
        signing_request = None
        if csr is not None:
            signing_request = issuance.read(csr, self._version)
            policy = self._enrollment.credential_policy if self._enrollment is not None else None
            issuance.check(signing_request, self.device, self._dps.registry.key_types(policy))
        enrollment = self._current()
        if self._disabled(enrollment):
            return self._final("disabled", rid)
        operation = Operation(enrollment, self._assigning().times, signing_request, payload)
        self._dps.state.begin(self.device, operation)
        if enrollment.webhook is not None:
            operation.choice = self._ask(enrollment.webhook, operation)
        return self._progress(operation, rid)

    def _poll(self, operation_id: str, rid: str) -> Message:
        operation = self._dps.state.operation(self.device, operation_id)
        if operation is None:
            raise ServiceError(404, 404203, "Operation not found.")
        if self._disabled(self._current()):
            return self._final("disabled", rid)
        return self._progress(operation, rid)

    def _current(self) -> Enrollment:
        """The enrollment as it is now: it may have been disabled, changed or deleted since the CONNECT."""
        known = self._enrollment
        enrollment = self._dps.state.enrollment(known.id, known.group) if known is not None else None
        if enrollment is None:
            raise ServiceError(404, 404201, "Enrollment not found.")
        return enrollment

    def _disabled(self, enrollment: Enrollment) -> bool:
        """Also in the registry: that DPS says the same word for it is inference."""
        id = self._dps.state.device_id(self.device, enrollment)
        return enrollment.provisioning_status != "enabled" or self._dps.registry.blocked(id)

    def _ask(self, webhook: str, operation: Operation) -> asyncio.Task[dict[str, Any] | Unassigned]:
        """Custom allocation, while the device polls."""
        state, enrollment = self._dps.state, operation.enrollment
        body = allocation.request(
            enrollment,
            enrollment_json.write(enrollment, enrollment.webhook_version or ""),
            self._context(operation),
            state.registration(self.device),
            state.linked(enrollment),
        )

        def told(status: int | None) -> None:
            self._report("dps.webhook", status=status)

        return asyncio.ensure_future(allocation.ask(webhook, body, self._dps.options.webhook_delays, told))

    def _context(self, operation: Operation) -> dict[str, Any]:
        """What custom allocation is told of the device."""
        payload = {} if operation.payload is None else {"payload": operation.payload}
        return {"registrationId": self.device, **self._proof, **payload}

    def _assigning(self) -> Assigning:
        action = self._dps.troubles.at("assigning", self.device)
        if isinstance(action, Assigning):
            return action
        return Assigning(self._dps.options.assigning, self._dps.options.retry_after)

    def _progress(self, operation: Operation, rid: str) -> Message:
        if operation.assigning_left > 0 or (operation.choice is not None and not operation.choice.done()):
            operation.assigning_left = max(operation.assigning_left - 1, 0)
            script = self._assigning()
            self._report("dps.assigning", retry_after=script.retry_after)
            return _message(202, rid, {"operationId": operation.id, "status": script.status}, script.retry_after)
        if operation.result is None:
            try:
                operation.result = self._assign(operation)
            except Unassigned as error:
                return self._final("failed", rid, error.error_code, error.message)
        result = {"operationId": operation.id, "status": "assigned", "registrationState": operation.result}
        return _message(200, rid, result)

    def _assign(self, operation: Operation) -> dict[str, Any]:
        """The registrationState of an assigned device; makes its hub record and its certificate. Raises Unassigned."""
        enrollment = operation.enrollment
        given = self._choice(operation)
        registration = self._dps.state.assign(self.device, enrollment, given)
        device = self._dps.state.device(registration.hub, registration.device_id)
        if device is not None and device.policy is not None:
            self._dps.registry.enter(device)
        result: dict[str, Any] = {
            "registrationId": self.device,
            "createdDateTimeUtc": registration.created,
            "assignedHub": registration.hub,
            "deviceId": registration.device_id,
            "status": "assigned",
            "substatus": registration.substatus,
            "lastUpdatedDateTimeUtc": registration.updated,
            "etag": registration.etag,
            **self._proof,
        }
        if "payload" in given:
            result["payload"] = given["payload"]
        profile = self._dps.troubles.at("assigned", self.device)
        if isinstance(profile, Profile):
            result["connectionProfile"] = profile.value
        certificate = None
        if operation.csr is not None and device is not None and device.policy is not None:
            action = self._dps.troubles.at("certificate", self.device)
            trouble = action if isinstance(action, Chain) else None
            try:
                terms = self._dps.registry.terms(device)
            except ServiceError as error:  # the policy was deleted; how the service says so is inference
                raise Unassigned(error.error_code, error.message) from None
            authority = self._dps.registry.authority
            certificate, chain = issuance.issue(authority, operation.csr, registration.device_id, terms, trouble)
            if trouble != Chain("absent"):
                result.update(issuance.answer(chain, authority, self._version))
        self._report(
            "dps.assigned",
            hub=registration.hub,
            device_id=registration.device_id,
            certificate=certificate and certificates.facts(certificate),
        )
        return result

    def _choice(self, operation: Operation) -> dict[str, Any]:
        """What custom allocation says: the webhook, then the function. Raises Unassigned."""
        given: dict[str, Any] = {}
        if operation.choice is not None:
            answer = operation.choice.result()
            if isinstance(answer, Unassigned):
                raise answer
            given = answer
        if self._dps.allocate is not None:
            given = self._dps.allocate(self._context(operation)) or given
        return given

    # Answers

    def _error(self, error: ServiceError, rid: str) -> Message:
        body = error_body(error.error_code, error.message)
        self._report(
            "dps.answer",
            status=error.status,
            error_code=error.error_code,
            state=None,
            tracking_id=body["trackingId"],
        )
        return _message(error.status, rid, body, error.retry_after)

    def _final(self, status: str, rid: str, error_code: int = 0, message: str = "") -> Message:
        state: dict[str, Any] = {"registrationId": self.device, "status": status}
        if error_code:
            state.update(errorCode=error_code, errorMessage=message)
        self._report("dps.answer", status=200, error_code=error_code or None, state=status, tracking_id=None)
        return _message(200, rid, {"operationId": "", "status": status, "registrationState": state})

    def _report(self, kind: str, **details: Any) -> None:
        self._dps.log.report(kind, self._number, self.device, **details)


def _query(topic: str) -> dict[str, str]:
    """The properties of a topic, as they are: the service hands ``$rid`` back verbatim."""
    _, _, text = topic.partition("?")
    return dict(pair.partition("=")[::2] for pair in text.split("&"))


def _message(status: int, rid: str, body: bytes | dict[str, Any], retry_after: int | None = None) -> Message:
    topic = f"{_RESPONSES}{status}/?$rid={rid}"
    if retry_after is not None:
        topic += f"&retry-after={retry_after}"
    return Message(topic, body if isinstance(body, bytes) else strict_json.write(body))


def _respelled(message: Message) -> Message:
    """The same properties, in reverse order and with other capitals. ``$rid`` keeps its spelling (Spelling)."""
    path, _, properties = message.topic.partition("?")
    pairs = [re.sub("^retry-after=", "Retry-After=", pair) for pair in reversed(properties.split("&"))]
    return replace(message, topic=f"{path}?{'&'.join(pairs)}")


def _json(body: bytes) -> dict[str, Any]:
    """A request body; all of its fields, and the body itself, may be left out. Raises ServiceError."""
    if not body.strip():
        return {}
    try:
        request = strict_json.read(body)
    except ValueError:
        raise ServiceError(400, 400012, "Deserialization error: the body is not JSON.") from None
    if not isinstance(request, dict):
        raise ServiceError(400, 400012, "Deserialization error: the body is no JSON object.")
    return request
