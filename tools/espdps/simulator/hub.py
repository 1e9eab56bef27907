"""IoT Hub as a device sees it over MQTT: who may connect, its telemetry, its twin, its new certificates.

Neither sockets nor packets here; a device publishes in its own name only.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from cryptography import x509

from . import attestation, ca, sas
from .credentials import Body, Credentials, Renewal, failure
from .errors import ServiceError
from .events import EventLog
from .mqtt import Connect, Message, Refused
from .options import Options
from .packets import Violation
from .state import Device, State
from .trouble import Cut, Delay, Error, Ignore, Reconnect, Troubles

_RENEW = "$iothub/credentials/POST/issueCertificate/"
_RENEWED = "$iothub/credentials/res/"
_RENEW_SINCE = "2025-08-01"  # the first api-version that knows these topics
_REPORT = "$iothub/twin/PATCH/properties/reported/"
_TWIN = "$iothub/twin/res/"

_USERNAME = re.compile(r"(?P<hub>[^/]+)/(?P<id>[^/]+)/\?(?P<query>.*)", re.DOTALL)
_VERSION = re.compile(r"api-version=(\d{4}-\d{2}-\d{2})(-preview)?")


@dataclass
class Hub:
    """What all connections to all hubs share."""

    state: State
    authority: ca.IssuingAuthority
    options: Options
    log: EventLog
    troubles: Troubles
    online: dict[tuple[str, str], HubConnection] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.credentials = Credentials(self.authority, self.options)

    def serves(self, username: str) -> bool:
        """Whether a CONNECT with this username is meant for one of the hubs."""
        match = _USERNAME.fullmatch(username)
        return match is not None and match["hub"] in self.options.hubs

    def open(self, connect: Connect) -> HubConnection:
        """Raises Refused when the username is not of the form ``{hub}/{deviceId}/?api-version={version}``."""
        match = _USERNAME.fullmatch(connect.username)
        versions = map(_VERSION.fullmatch, match["query"].split("&")) if match is not None else ()
        version = next((found[1] for found in versions if found), None)
        if match is None or version is None:
            raise Refused("hub", connect.client_id, 5, "username of another form")
        return HubConnection(self, connect, match["hub"], match["id"], version)

    def hang_up(self, device: Device, reason: str) -> None:
        """Ends the device's connection, if it has one. For the event loop's thread."""
        connection = self.connection(device)
        if connection is not None:
            connection.close(reason)

    def hang_up_all(self, hub: str, reason: str) -> None:
        """Ends all connections to a hub. For the event loop's thread."""
        for connection in [connection for (name, _), connection in self.online.items() if name == hub]:
            connection.close(reason)

    def connection(self, device: Device) -> HubConnection | None:
        """The device's connection, if it has one."""
        return self.online.get((device.hub, device.id.lower()))

    def finish(self, renewal: Renewal) -> None:
        """Makes the answer to a renewal and offers it to the device, if it is there. For the event loop's thread."""
        certificate = self.credentials.finish(renewal)
        if renewal.answer is None:
            return  # replaced by another one
        connection, (status, body) = self.connection(renewal.device), renewal.answer
        self.log.report(
            "hub.renewal",
            None,
            renewal.device.id,
            rid=renewal.rid,
            status=status,
            error_code=body.get("errorCode") if isinstance(body, dict) else None,
            certificate=certificate and ca.facts(certificate),
        )
        if connection is not None:
            connection.offer(renewal)


class HubConnection:
    """One device's session with its hub."""

    name = "hub"
    prefix = "hub."

    def __init__(self, hub: Hub, connect: Connect, host: str, device_id: str, version: str) -> None:
        self.device = device_id
        self.close = connect.close
        self._hub, self._connect, self._host = hub, connect, host
        self._renews = version >= _RENEW_SINCE
        self._key = (host, device_id.lower())
        self._number = 0
        self._record = Device(host, device_id)  # that of the hub, once accepted
        self._unacknowledged: dict[int, Callable[[], None]] = {}

    def accept(self, connection: int) -> None:
        self._number = connection
        if self._connect.client_id != self.device:
            raise self._refused("client id is not the device id")
        will = self._connect.will_topic
        if will is not None and not self._is_event(will):
            raise self._refused("a will on another topic than the device's events")
        if self._host not in self._hub.state.hubs:
            raise self._refused("the hub is gone")
        device = self._hub.state.device(self._host, self.device)
        if device is None:
            raise self._refused("unknown device")
        if self._connect.password is not None:
            self._check_token(device, self._connect.password)
            auth, certificate = "sas", None
        elif self._connect.certificate is not None:
            self._check_certificate(device, self._connect.certificate)
            auth, certificate = "x509", ca.facts(self._connect.certificate)
        else:
            raise self._refused("neither token nor client certificate")
        if not device.enabled:
            raise self._refused("device is disabled")
        self._record = device
        earlier = self._hub.online.get(self._key)
        self._hub.online[self._key] = self
        if earlier is not None:
            earlier.close("the same device connected again")
        self._report("hub.connect", hub=self._host, auth=auth, certificate=certificate)

    def grant(self, topic_filter: str) -> bool:
        # These are five, and five is all that the service allows: there is no sixth to refuse.
        documented = (
            f"devices/{self.device}/messages/devicebound/#",
            "$iothub/twin/res/#",
            "$iothub/twin/PATCH/properties/desired/#",
            "$iothub/methods/POST/#",
            _RENEWED + "#",
        )
        return topic_filter in documented and (self._renews or topic_filter != _RENEWED + "#")

    def subscribed(self, topic_filter: str) -> None:
        renewal = self._hub.credentials.active(self._record)
        if topic_filter == _RENEWED + "#" and renewal is not None:
            self.offer(renewal)

    def place(self, topic: str) -> str:
        path, _, _ = topic.partition("?")
        if self._is_event(topic):
            return "hub.telemetry"
        if path == _RENEW and self._renews:
            return "hub.renewal"
        if path == _REPORT:
            return "hub.twin"
        raise Violation("a topic that the hub does not take")

    def publish(self, message: Message) -> Sequence[Message]:
        place = self.place(message.topic)
        if self._hub.state.device(self._host, self.device) is not self._record:
            raise Violation("the device is no longer of this hub")
        if place == "hub.telemetry":
            return self._telemetry(message)
        rid = _request_id(message.topic)
        action = self._hub.troubles.at(place, self.device)
        if isinstance(action, Ignore):
            self._report(place, rid=rid, status=None, error_code=None)
            return []
        try:
            if isinstance(action, Error):
                raise ServiceError(action.status, action.error_code, action.message, action.retry_after)
            return (
                self._renew(rid, message.body) if place == "hub.renewal" else self._report_properties(rid, message.body)
            )
        except ServiceError as error:
            self._report(place, rid=rid, status=error.status, error_code=error.error_code)
            prefix = _RENEWED if place == "hub.renewal" else _TWIN
            return [_response(prefix, error.status, rid, failure(error))]

    def acknowledged(self, packet_id: int) -> None:
        done = self._unacknowledged.pop(packet_id, None)
        if done is not None:
            done()

    def _telemetry(self, message: Message) -> Sequence[Message]:
        _, _, bag = message.topic.partition("/messages/events")
        properties = _properties(bag.lstrip("/"))
        if message.retain:
            properties["mqtt-retain"] = "true"
        try:
            body, encoding = message.body.decode(), "utf-8"
        except UnicodeDecodeError:
            body, encoding = base64.b64encode(message.body).decode(), "base64"
        self._report(
            "hub.telemetry",
            topic=message.topic,
            body=body,
            encoding=encoding,
            properties=properties,
            qos=message.qos,
            retain=message.retain,
            duplicate=message.duplicate,
        )
        return []

    # Certificates

    def _renew(self, rid: str, body: bytes) -> Sequence[Message]:
        """Takes a request and answers 202; the result follows. Raises ServiceError."""
        trouble = self._hub.troubles.get(self.device)
        renewal = self._hub.credentials.begin(self._record, self._number, rid, body, trouble)
        self._report("hub.renewal", rid=rid, status=202, error_code=None)
        script = trouble.at.get("hub.renewal.result")
        if not isinstance(script, Ignore):
            delay = script.seconds if isinstance(script, Delay) else 0
            asyncio.get_running_loop().call_later(delay, self._hub.finish, renewal)
        return [_response(_RENEWED, 202, rid, renewal.accepted())]

    def offer(self, renewal: Renewal) -> None:
        """Sends the answer to a renewal, if there is one and the device has subscribed to it; it may be asked again."""
        script = renewal.trouble.at.get("hub.renewal.result")
        first = renewal.connection == self._number
        if renewal.answer is None or (first and isinstance(script, Reconnect)):
            return
        lost = first and isinstance(script, Cut)
        if isinstance(script, Cut) and lost:
            self._connect.cut(script.after)
        status, body = renewal.answer
        number = self._connect.deliver(_response(_RENEWED, status, renewal.rid, body))
        if number is None or lost:
            return  # the answer waits for the next subscription

        def taken() -> None:
            self._hub.credentials.forget(renewal)
            self._report("hub.renewal.delivered", rid=renewal.rid, status=status)

        if number:
            self._unacknowledged[number] = taken
        else:
            taken()

    # Twin

    def _report_properties(self, rid: str, body: bytes) -> Sequence[Message]:
        """Raises ServiceError."""
        version = self._record.twin.report(_object(body))
        self._report("hub.twin", rid=rid, status=204, error_code=None, version=version)
        return [Message(f"{_TWIN}204/?$rid={rid}&$version={version}", b"")]

    # The connection

    def end(self) -> None:
        if self._hub.online.get(self._key) is self:
            del self._hub.online[self._key]
        self._report("hub.disconnect")

    def _is_event(self, topic: str) -> bool:
        events = f"devices/{self.device}/messages/events"
        return topic == events or topic.startswith(events + "/")

    def _check_token(self, device: Device, password: str) -> None:
        try:
            token = sas.check(password, f"{self._host}/devices/{self.device}", None)
        except sas.BadToken as error:
            raise self._refused(str(error)) from None
        if not token.signed_by(device.keys):
            raise self._refused("token not signed by a key of this device")

    def _check_certificate(self, device: Device, certificate: x509.Certificate) -> None:
        """By what DPS prepared: an issued certificate, the enrolled one, or one by an enrolled signer."""
        refusal = ca.out_of_date(certificate)
        if refusal is not None:
            raise self._refused(refusal)
        if certificate in device.certificates:
            return  # known by its thumbprint, so its name says nothing
        if self._hub.authority.revoked(certificate):
            raise self._refused("the policy that issued the certificate was revoked")
        if not (device.issued and self._hub.authority.issued(certificate)):
            if not device.signers:
                raise self._refused("certificate not issued by an authority of this device")
            try:
                attestation.signer_of(certificate, self._connect.chain, device.signers)
            except attestation.Untrusted as error:
                raise self._refused(str(error)) from None
        if ca.common_name(certificate.subject) != self.device:
            raise self._refused("common name of the certificate is not the device id")

    def _refused(self, reason: str) -> Refused:
        return Refused("hub", self.device, 5, reason)

    def _report(self, kind: str, **details: Any) -> None:
        self._hub.log.report(kind, self._number, self.device, **details)


def _request_id(topic: str) -> str:
    """Seen at the service: without one there is no answer, and the connection may end. Raises Violation."""
    _, _, query = topic.partition("?")
    rid = dict(pair.partition("=")[::2] for pair in query.split("&")).get("$rid")
    if not rid:
        raise Violation("a request without $rid")
    return rid


def _response(prefix: str, status: int, rid: str, body: Body) -> Message:
    return Message(f"{prefix}{status}/?$rid={rid}", json.dumps(body, separators=(",", ":")).encode())


def _object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body has to be. Raises ServiceError."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ServiceError(400, 400004, "The body is no JSON object.")
    return document


def _properties(bag: str) -> dict[str, str | None]:
    """The property bag of a telemetry topic: ``%20`` is a space (no topic has a ``+``); a key alone has no value."""
    properties: dict[str, str | None] = {}
    for pair in bag.split("&") if bag else []:
        key, equals, value = pair.partition("=")
        properties[unquote(key)] = unquote(value) if equals else None
    return properties
