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

    def topic(self, device_id: str) -> str:
        """System properties go first, with their ``$.`` escaped, as seen at the service."""
        system = {"$.mid": self.id, "$.to": f"/devices/{device_id}/messages/deviceBound"}
        return f"devices/{device_id}/messages/devicebound/{packed({**system, **self.properties})}"

    def check(self, device_id: str, waiting: int) -> None:
        """Raises ServiceError for a message that the service would not queue behind so many."""
        if len(self.body) + len(self.topic(device_id)) >= _LIMIT:
            raise ServiceError(413, 413001, "The message with its properties is larger than 64 KB.")
        if waiting >= _QUEUE:
            raise ServiceError(403, 403004, f"{_QUEUE} messages wait for the device already.")
