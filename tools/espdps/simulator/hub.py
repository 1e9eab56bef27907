"""IoT Hub as a device sees it over MQTT: who may connect, and the telemetry it sends.

Neither sockets nor packets here; a device publishes in its own name only.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from cryptography import x509

from . import attestation, ca, sas
from .events import EventLog
from .mqtt import Connect, Message, Refused
from .packets import Violation
from .state import Device, State

_USERNAME = re.compile(r"(?P<hub>[^/]+)/(?P<id>[^/]+)/\?(?P<query>.*)", re.DOTALL)
_VERSION = re.compile(r"api-version=\d{4}-\d{2}-\d{2}(-preview)?")


@dataclass
class Hub:
    """What all connections to all hubs share."""

    state: State
    authority: ca.IssuingAuthority
    log: EventLog
    online: dict[tuple[str, str], HubConnection] = field(default_factory=dict)

    def serves(self, username: str) -> bool:
        """Whether a CONNECT with this username is meant for one of the hubs."""
        match = _USERNAME.fullmatch(username)
        return match is not None and match["hub"] in self.state.hubs

    def open(self, connect: Connect) -> HubConnection:
        """Raises Refused when the username is not of the form ``{hub}/{deviceId}/?api-version={version}``."""
        match = _USERNAME.fullmatch(connect.username)
        if match is None or not any(_VERSION.fullmatch(part) for part in match["query"].split("&")):
            raise Refused("hub", connect.client_id, 5, "username of another form")
        return HubConnection(self, connect, match["hub"], match["id"])

    def hang_up(self, device: Device, reason: str) -> None:
        """Ends the device's connection, if it has one. For the event loop's thread."""
        connection = self.online.get((device.hub, device.id.lower()))
        if connection is not None:
            connection.close(reason)


class HubConnection:
    """One device's session with its hub."""

    name = "hub"
    prefix = "hub."

    def __init__(self, hub: Hub, connect: Connect, host: str, device_id: str) -> None:
        self.device = device_id
        self.close = connect.close
        self._hub, self._connect, self._host = hub, connect, host
        self._key = (host, device_id.lower())
        self._number = 0

    def accept(self, connection: int) -> None:
        self._number = connection
        if self._connect.client_id != self.device:
            raise self._refused("client id is not the device id")
        will = self._connect.will_topic
        if will is not None and not self._is_event(will):
            raise self._refused("a will on another topic than the device's events")
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
            "$iothub/credentials/res/#",
        )
        return topic_filter in documented

    def place(self, topic: str) -> str:
        if self._is_event(topic):
            return "hub.telemetry"
        raise Violation("a topic that the hub does not take")

    def publish(self, message: Message) -> Sequence[Message]:
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


def _properties(bag: str) -> dict[str, str | None]:
    """The property bag of a telemetry topic: ``%20`` is a space (no topic has a ``+``); a key alone has no value."""
    properties: dict[str, str | None] = {}
    for pair in bag.split("&") if bag else []:
        key, equals, value = pair.partition("=")
        properties[unquote(key)] = unquote(value) if equals else None
    return properties
