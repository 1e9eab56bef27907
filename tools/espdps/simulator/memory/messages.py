"""Messages between a hub and its devices: property bags of topics, and what waits for a device to take it.

Text only: when a message goes out is the hub's to say.
"""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from ..errors import ServiceError

DELIVERIES = 10  # of one message; the service's default, after which it is dropped
_LIMIT = 64 * 1024  # of a message to a device with its properties
_TOPIC_LIMIT = 65535  # bytes (MQTT 3.1.1, 1.5.3)
_QUEUE = 50  # messages that may wait for one device

# None is a name without a value, "" a value that is empty.
Properties = dict[str, str | None]


def unpacked(bag: str) -> Properties:
    """The properties of a telemetry topic: ``%20`` is a space (no topic has a ``+``)."""
    properties: Properties = {}
    for pair in bag.split("&") if bag else []:
        key, equals, value = pair.partition("=")
        properties[unquote(key)] = unquote(value) if equals else None
    return properties


def packed(properties: Properties) -> str:
    """The property bag of a topic, all but letters, digits and ``_.-~`` escaped, in names as well."""
    return "&".join(
        quote(name, safe="") + ("" if value is None else "=" + quote(value, safe=""))
        for name, value in properties.items()
    )


def size(body: bytes, properties: Properties) -> int:
    """Bytes as the service counts them (D: iot-hub-devguide-messages-construct): the body, the values of system
    properties, names and values of the others.
    """
    return len(body) + sum(
        len((value or "").encode()) + (0 if name.startswith("$.") else len(name.encode()))
        for name, value in properties.items()
    )


def readable(body: bytes) -> tuple[str, str]:
    """A body as text, and how: ``utf-8``, or ``base64`` where it is none."""
    try:
        return body.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), "base64"


@dataclass(eq=False)
class CloudMessage:
    """A message to a device, until the device has it. ``held_by``: the connection it went out on last."""

    body: bytes
    properties: Properties
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    deliveries: int = 0
    held_by: object = None

    def all_properties(self, device_id: str) -> Properties:
        return {"$.mid": self.id, "$.to": f"/devices/{device_id}/messages/deviceBound", **self.properties}

    def topic(self, device_id: str, level: str) -> str:
        """``level``: the device's ID as it is spelled in topics. System properties go first, with their ``$.`` escaped,
        as seen at the service.
        """
        return f"devices/{level}/messages/devicebound/{packed(self.all_properties(device_id))}"

    def check(self, device_id: str, waiting: int) -> None:
        """Raises ServiceError for a message that the service would not queue behind so many."""
        topic = len(self.topic(device_id, device_id))
        if size(self.body, self.all_properties(device_id)) > _LIMIT or topic > _TOPIC_LIMIT:
            raise ServiceError(413, 413001, "The message with its properties is larger than 64 KB.")
        if waiting >= _QUEUE:
            raise ServiceError(403, 403004, f"{_QUEUE} messages wait for the device already.")
