"""IoT Hub as a device sees it over MQTT: telemetry, messages, methods, its twin, new certificates.

Neither sockets nor packets here; a device publishes in its own name only.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from .. import strict_json
from ..errors import ServiceError, timestamp
from ..events import EventLog
from ..memory import messages
from ..memory.messages import CloudMessage
from ..memory.records import Device
from ..memory.state import State
from ..memory.twin import Document, check
from ..names import HUB_API
from ..options import Options
from ..registry.namespace import Registry
from ..trouble.actions import Cut, Delay, Error, Ignore, Reconnect, Troubles
from ..trust import certificates
from ..wire.mqtt import Connect, Message, Refused
from ..wire.packets import Violation
from .renewal import Body, Credentials, Renewal, failure
from .sign_in import admit

_RENEW = "$iothub/credentials/POST/issueCertificate/"
_RENEWAL_PLACES = ("hub.renewal.result", "hub.certificate", "hub.answer")
_RENEWED = "$iothub/credentials/res/"
_RENEW_SINCE = "2025-08-01"  # the first api-version that knows these topics
_TWIN_GET = "$iothub/twin/GET/"
_REPORT = "$iothub/twin/PATCH/properties/reported/"
_TWIN = "$iothub/twin/res/"
_DESIRED = "$iothub/twin/PATCH/properties/desired/"
_METHODS = "$iothub/methods/POST/"
_METHOD_RESULT = re.compile(r"\$iothub/methods/res/(\d{1,9})/")
_METHODS_ALL = "$iothub/methods/#"
PAYLOAD_LIMIT = 128 * 1024  # bytes of a method's JSON, each way (D: iot-hub-devguide-direct-methods)
_EVENT_LIMIT = 256 * 1024  # bytes, with properties (D: iot-hub-devguide-messages-construct)
_FILTERS = 5  # subscriptions of one device
_INBOX = re.compile(r"devices/([^/]+)/messages/devicebound/#")
_EVENTS = re.compile(r"devices/([^/]+)/messages/events(?:/.*)?", re.DOTALL)
_TWIN_STATUS = re.compile(r"\$iothub/twin/res/\d{3}/#")

# Without the question mark: Adafruit's library, which works with the service.
_USERNAME = re.compile(r"(?P<hub>[^/]+)/(?P<id>[^/]+)(/\??(?P<query>.*))?", re.DOTALL)


@dataclass
class Hub:
    """What all connections to all hubs share. For the event loop's thread, all of it."""

    state: State
    registry: Registry
    options: Options
    log: EventLog
    troubles: Troubles
    online: dict[tuple[str, str], HubConnection] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.credentials = Credentials(self.registry)

    def serves(self, username: str) -> bool:
        """Whether a CONNECT with this username is meant for one of the hubs."""
        match = _USERNAME.fullmatch(username)
        return match is not None and match["hub"] in self.options.hubs

    def open(self, connect: Connect) -> HubConnection:
        """Raises Refused when the username is not of the form ``{hub}/{deviceId}/?api-version={version}``.

        The version is only recommended (D: iot-hub-mqtt-support): without it, the oldest. That an unknown one is
        refused like a wrong key is inference.
        """
        match = _USERNAME.fullmatch(connect.username)
        if match is None:
            raise Refused("hub", connect.client_id, 5, "username of another form")
        query = dict(pair.partition("=")[::2] for pair in (match["query"] or "").split("&"))
        version = query.get("api-version", HUB_API[0])
        if version not in self.state.hub_api and "api-version" in query:
            raise Refused("hub", match["id"], 5, "unsupported api-version")
        return HubConnection(self, connect, match["hub"], match["id"], version)

    def connection(self, device: Device) -> HubConnection | None:
        """The device's connection, if it has one."""
        return self.online.get((device.hub, device.id))

    def hang_up(self, device: Device, reason: str) -> None:
        """Ends the device's connection, if it has one."""
        connection = self.connection(device)
        if connection is not None:
            connection.close(reason)

    def hang_up_all(self, hub: str, reason: str) -> None:
        """Ends all connections to a hub."""
        for connection in [connection for (name, _), connection in self.online.items() if name == hub]:
            connection.close(reason)

    # What the service side asks for

    def send(self, device: Device, message: CloudMessage) -> None:
        """A message to the device, which gets it when it is there and subscribed. Raises ServiceError."""
        message.check(device.id, len(device.inbox))
        device.inbox.append(message)
        self.log.report("hub.c2d", None, device.id, state="queued", message_id=message.id)
        connection = self.connection(device)
        if connection is not None:
            connection.offer_messages()

    def desire(self, device: Device, patch: Document) -> int:
        """Changes desired properties and tells the device, if it is there; their new version. Raises ServiceError."""
        check(patch)
        version = device.twin.desire(patch)
        self.log.report("hub.desired", None, device.id, version=version)
        connection = self.connection(device)
        if connection is not None:
            connection.tell_desired(patch, version)
        return version

    async def call(self, device: Device, name: str, payload: bytes, timeout: float) -> tuple[int, Any]:
        """Calls a method of the device: its status and payload. Raises ServiceError, after ``timeout`` seconds too."""
        connection = self.connection(device)
        try:
            if connection is None:
                raise ServiceError(404, 404103, "The device is not online.")
            status, result = await connection.call(name, payload, timeout)
        except ServiceError as error:
            self.log.report("hub.method", None, device.id, name=name, status=None, error_code=error.error_code)
            raise
        self.log.report("hub.method", None, device.id, name=name, status=status, error_code=None)
        return status, result

    def finish(self, renewal: Renewal) -> None:
        """Makes the answer to a renewal and offers it to the device, if it is there."""
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
            certificate=certificate and certificates.facts(certificate),
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
        self.granted: dict[str, int] = {}
        self.resumed = False
        self._hub, self._connect, self._host = hub, connect, host
        self._renews = version >= _RENEW_SINCE
        self._key = (host, device_id)
        self._level = device_id  # how topics spell it: as the device subscribed, else as it is
        self._number = 0
        self._record = Device(host, device_id)  # that of the hub, once accepted
        self._expiry: asyncio.TimerHandle | None = None
        self._unacknowledged: dict[int, Callable[[], None]] = {}
        self._calls: dict[str, asyncio.Future[tuple[int, Any]]] = {}
        self._call_ids = itertools.count(1)

    # The connection

    def accept(self, connection: int) -> None:
        self._number = connection
        if self._connect.client_id != self.device:
            raise Refused("hub", self.device, 5, "client id is not the device id")
        will = self._connect.will
        if will is not None and not self._is_event(will.topic):
            raise Refused("hub", self.device, 5, "a will on another topic than the device's events")
        admission = admit(self._hub.state, self._hub.registry, self._connect, self._host, self.device)
        self._record = admission.device
        if admission.expires is not None:
            left = admission.expires - time.time() + self._hub.options.token_grace
            self._expiry = asyncio.get_running_loop().call_later(left, self.close, "the token expired")
        earlier = self._hub.online.get(self._key)
        self._hub.online[self._key] = self
        if earlier is not None:
            earlier.close("the same device connected again")
        # Documented for messages; azure-iot-device subscribes once and counts on it for twin and methods as well.
        kept = None if self._connect.clean else self._record.session
        self.resumed = kept is not None
        self.granted = kept if kept is not None else {}
        self._record.session = None if self._connect.clean else self.granted
        self._record.connection_changed = timestamp()
        # &model-id={urlencoded DTMI} in the user name: official SDKs, for IoT Plug and Play.
        query = parse_qs(self._connect.username.partition("?")[2])
        model = {"model_id": query["model-id"][0]} if "model-id" in query else {}
        self._report("hub.connect", hub=self._host, **admission.proof, **model)

    def end(self, graceful: bool) -> None:
        known = self._hub.state.device(self._host, self.device) is self._record
        if self._connect.will is not None and not graceful and known:
            # D: iot-hub-mqtt-support. It becomes telemetry with this property.
            self._telemetry(self._connect.will, {"iothub-MessageType": "Will"})
        if self._hub.online.get(self._key) is self:
            del self._hub.online[self._key]
            self._record.connection_changed = timestamp()
        if self._expiry is not None:
            self._expiry.cancel()
        for call in self._calls.values():
            if not call.done():
                call.set_exception(ServiceError(404, 404104, "The device's connection was closed."))
        self._report("hub.disconnect")

    # MQTT

    def grant(self, topic_filter: str) -> bool:
        if len(self.granted) >= _FILTERS and topic_filter not in self.granted:
            return False
        inbox = _INBOX.fullmatch(topic_filter)
        if inbox is not None:  # "+" for the device: the embedded SDK for C
            if inbox[1] == "+":
                return True
            if self.device in (inbox[1], unquote(inbox[1])):
                self._level = inbox[1]
                return True
            return False
        if topic_filter == _RENEWED + "#":
            return self._renews
        # The last two: a published client.
        return topic_filter in (_TWIN + "#", _DESIRED + "#", _METHODS + "#", _METHODS_ALL) or bool(
            _TWIN_STATUS.fullmatch(topic_filter)
        )

    def subscribed(self, topic_filter: str) -> None:
        renewal = self._hub.credentials.active(self._record)
        if topic_filter == _RENEWED + "#" and renewal is not None:
            self.offer(renewal)
        elif _INBOX.fullmatch(topic_filter):
            if self._connect.clean:  # it gets what is sent from now on (D: iot-hub-mqtt-connect-to-iot-hub)
                for message in self._record.inbox:
                    message.held_by = self
            self.offer_messages()

    def place(self, topic: str) -> str:
        path, _, _ = topic.partition("?")
        if self._is_event(topic):
            return "hub.telemetry"
        if path == _RENEW and self._renews:
            return "hub.renewal"
        if path in (_TWIN_GET, _REPORT):
            return "hub.twin"
        if _METHOD_RESULT.fullmatch(path):
            return "hub.method"
        raise Violation("a topic that the hub does not take")

    def publish(self, message: Message) -> Sequence[Message]:
        place = self.place(message.topic)
        if self._hub.state.device(self._host, self.device) is not self._record:
            raise Violation("the device is no longer of this hub")
        if place == "hub.telemetry":
            return self._telemetry(message)
        path, _, _ = message.topic.partition("?")
        rid = _request_id(message.topic)
        if place == "hub.method":
            return self._returned(path, rid, message.body)
        action = self._hub.troubles.at(place, self.device)
        if isinstance(action, Ignore):
            self._report(place, rid=rid, status=None, error_code=None)
            return []
        take = {_RENEW: self._renew, _REPORT: self._report_properties, _TWIN_GET: self._get_twin}[path]
        try:
            if isinstance(action, Error):
                raise ServiceError(action.status, action.error_code, action.message, action.retry_after, action.info)
            return [take(rid, message.body)]
        except ServiceError as error:
            self._report(place, rid=rid, status=error.status, error_code=error.error_code)
            prefix = _RENEWED if place == "hub.renewal" else _TWIN
            return [_response(prefix, error.status, rid, failure(error))]

    def acknowledged(self, packet_id: int) -> None:
        done = self._unacknowledged.pop(packet_id, None)
        if done is not None:
            done()

    def _is_event(self, topic: str) -> bool:
        match = _EVENTS.fullmatch(topic)
        return match is not None and self.device in (match[1], unquote(match[1]))

    def _telemetry(self, message: Message, more: messages.Properties | None = None) -> Sequence[Message]:
        """``more``: properties that the hub adds. Raises Violation."""
        _, _, bag = message.topic.partition("/messages/events")
        properties = messages.unpacked(bag.lstrip("/"))
        if messages.size(message.body, properties) > _EVENT_LIMIT:
            raise Violation("a message that is larger than the hub takes, with its properties")
        properties.update(more or {})
        if message.retain:
            properties["mqtt-retain"] = "true"
        body, encoding = messages.readable(message.body)
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

    def _hand_over(self, message: Message, done: Callable[[], None]) -> bool:
        """Sends a message; ``done`` is called once the device has it. False if it was not subscribed to."""
        number = self._connect.deliver(message)
        if number:
            self._unacknowledged[number] = done
        elif number == 0:
            done()
        return number is not None

    # Messages to the device

    def offer_messages(self) -> None:
        """Sends what waits for the device, each message once a connection, in order."""
        inbox = self._record.inbox
        for message in [message for message in inbox if message.held_by is not self]:
            if message.deliveries >= messages.DELIVERIES:
                inbox.remove(message)
                self._report("hub.c2d", state="dropped", message_id=message.id)
                continue
            if not self._hand_over(
                Message(message.topic(self.device, self._level), message.body), self._settle(message)
            ):
                return
            message.held_by = self
            message.deliveries += 1

    def _settle(self, message: CloudMessage) -> Callable[[], None]:
        def settle() -> None:
            if message in self._record.inbox:
                self._record.inbox.remove(message)
                self._report("hub.c2d", state="completed", message_id=message.id)

        return settle

    # Methods

    async def call(self, name: str, payload: bytes, timeout: float) -> tuple[int, Any]:
        """Raises ServiceError."""
        rid = f"{next(self._call_ids):x}"
        result = self._calls[rid] = asyncio.get_running_loop().create_future()
        try:
            if self._connect.deliver(Message(f"{_METHODS}{name}/?$rid={rid}", payload)) is None:
                raise ServiceError(404, 404103, "The device does not take methods: it is not subscribed.")
            return await asyncio.wait_for(result, timeout)
        except asyncio.TimeoutError:
            raise ServiceError(504, 504101, "The device did not answer in time.") from None
        finally:
            del self._calls[rid]

    def _returned(self, path: str, rid: str, body: bytes) -> Sequence[Message]:
        """What a method returned; an answer that nobody waits for is dropped."""
        result, match = self._calls.get(rid), _METHOD_RESULT.fullmatch(path)
        if result is not None and match is not None and not result.done():
            try:
                if len(body) > PAYLOAD_LIMIT:
                    raise ValueError
                result.set_result((int(match[1]), strict_json.read(body) if body else None))
            except ValueError:
                result.set_exception(ServiceError(502, 502000, "The device did not answer with JSON of up to 128 KB."))
        return []

    # Twin

    def _get_twin(self, rid: str, _: bytes) -> Message:
        self._report("hub.twin", rid=rid, status=200, error_code=None, version=None)
        return _response(_TWIN, 200, rid, self._record.twin.properties())

    def _report_properties(self, rid: str, body: bytes) -> Message:
        """Raises ServiceError."""
        patch = _json(body)
        check(patch)
        version = self._record.twin.report(patch)
        self._report("hub.twin", rid=rid, status=204, error_code=None, version=version)
        return Message(f"{_TWIN}204/?$rid={rid}&$version={version}", b"")

    def tell_desired(self, patch: Document, version: int) -> None:
        """A change of the desired properties. A device that is not subscribed misses it and has to get the twin."""
        body = strict_json.write({**patch, "$version": version})
        self._connect.deliver(Message(f"{_DESIRED}?$version={version}", body))

    # Certificates

    def _renew(self, rid: str, body: bytes) -> Message:
        """Takes a request and answers 202; the result follows. Raises ServiceError."""
        trouble = self._hub.troubles.of(self.device, _RENEWAL_PLACES)
        renewal = self._hub.credentials.begin(self._record, self._number, rid, body, trouble)
        self._report("hub.renewal", rid=rid, status=202, error_code=None)
        script = trouble.at.get("hub.renewal.result")
        if not isinstance(script, Ignore):
            delay = script.seconds if isinstance(script, Delay) else 0
            asyncio.get_running_loop().call_later(delay, self._hub.finish, renewal)
        return _response(_RENEWED, 202, rid, renewal.accepted())

    def offer(self, renewal: Renewal) -> None:
        """Sends the answer to a renewal, if there is one and the device has subscribed to it; it may be asked again."""
        script = renewal.trouble.at.get("hub.renewal.result")
        first = renewal.connection == self._number
        if renewal.answer is None or (first and isinstance(script, Reconnect)):
            return
        status, body = renewal.answer
        lost = first and isinstance(script, Cut)

        def taken() -> None:
            if not lost:
                self._hub.credentials.forget(renewal)
                self._report("hub.renewal.delivered", rid=renewal.rid, status=status)

        if first and isinstance(script, Cut):
            self._connect.cut(script.after)
        self._hand_over(_response(_RENEWED, status, renewal.rid, body), taken)

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
    return Message(f"{prefix}{status}/?$rid={rid}", strict_json.write(body))


def _json(body: bytes) -> Any:
    """Raises ServiceError."""
    try:
        return strict_json.read(body)
    except ValueError:
        raise ServiceError(400, 400004, "The body is not JSON.") from None
