"""MQTT 3.1.1 packets off a stream: the codec of amqtt, with the bounds and checks that it leaves to its caller.

Never reads more of a packet than the service would take, and never lets a broken one pass.
"""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import asyncio
import struct
from typing import Any

from amqtt.adapters import ReaderAdapter, StreamReaderAdapter
from amqtt.errors import AMQTTError, CodecError, MQTTError, NoDataError
from amqtt.mqtt import packet_class
from amqtt.mqtt.connack import ConnackPacket
from amqtt.mqtt.connect import ConnectPacket
from amqtt.mqtt.disconnect import DisconnectPacket
from amqtt.mqtt.packet import CONNECT, DISCONNECT, PINGREQ, PUBACK, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, MQTTFixedHeader
from amqtt.mqtt.pingreq import PingReqPacket
from amqtt.mqtt.pingresp import PingRespPacket
from amqtt.mqtt.puback import PubackPacket
from amqtt.mqtt.publish import PublishPacket
from amqtt.mqtt.suback import SubackPacket
from amqtt.mqtt.subscribe import SubscribePacket
from amqtt.mqtt.unsuback import UnsubackPacket
from amqtt.mqtt.unsubscribe import UnsubscribePacket

__all__ = [
    "ConnackPacket",
    "ConnectPacket",
    "DisconnectPacket",
    "OtherVersion",
    "Packet",
    "PingReqPacket",
    "PingRespPacket",
    "PubackPacket",
    "PublishPacket",
    "SubackPacket",
    "SubscribePacket",
    "UnsubackPacket",
    "UnsubscribePacket",
    "Violation",
    "packet_id",
    "read_packet",
]

# A packet of the codec. It has no types of its own to offer.
Packet = Any

_LIMIT = 256 * 1024 + 2 + 65535 + 2  # the largest message of the Hub, its topic, its packet id

# What a client may send, and the flag bits that go with it (MQTT 3.1.1, table 2.2). PUBLISH has flags of its own.
_FLAGS = {CONNECT: 0, PUBACK: 0, SUBSCRIBE: 2, UNSUBSCRIBE: 2, PINGREQ: 0, DISCONNECT: 0}


class Violation(Exception):
    """The client broke the rules of MQTT or of the service; the text is the reason in its ``closed`` event."""


class OtherVersion(Violation):
    """A CONNECT of another version of MQTT than 3.1.1."""


class _Body(ReaderAdapter):
    """The codec's reader over one complete packet; notes when it wanted more than there was."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self.short = False

    async def read(self, n: int = -1) -> bytes:
        end = len(self._data) if n < 0 else self._position + n
        self.short = self.short or end > len(self._data)
        part = self._data[self._position : end]
        self._position += len(part)
        return part

    def feed_eof(self) -> None:
        """Part of the interface; a complete packet has nothing to wait for."""

    @property
    def exact(self) -> bool:
        return not self.short and self._position == len(self._data)


async def read_packet(reader: asyncio.StreamReader) -> Packet:
    """The next packet.

    Raises Violation when it is none, OtherVersion for a CONNECT of another version, EOFError when the client has left.
    """
    try:
        header = await MQTTFixedHeader.from_stream(StreamReaderAdapter(reader))
    except (MQTTError, CodecError):
        raise Violation("a length that is none") from None
    if header is None:
        raise EOFError
    kind, flags = header.packet_type, header.flags
    if kind == PUBLISH:
        if flags & 6 == 6:
            raise Violation("a PUBLISH with QoS 3")
    elif _FLAGS.get(kind) != flags:
        raise Violation(f"a packet of type {kind} with flags {flags}")
    if header.remaining_length > _LIMIT:
        raise Violation("a packet larger than the service takes")
    try:
        data = await reader.readexactly(header.remaining_length)
    except asyncio.IncompleteReadError:
        raise EOFError from None
    if kind == CONNECT and data[:6] == b"\0\4MQTT" and data[6:7] != b"\4":  # what follows has another form
        raise OtherVersion("a CONNECT of another version of MQTT")
    body = _Body(data)
    try:
        packet = await packet_class(header).from_stream(body, header)
    except (AMQTTError, MQTTError, CodecError, NoDataError, ValueError, struct.error):
        raise Violation(f"a malformed packet of type {kind}") from None
    if not body.exact:
        raise Violation(f"a malformed packet of type {kind}")
    return packet


def packet_id(packet: Packet) -> int:
    """The id of a packet that has one; it may not be 0 (MQTT-2.3.1-1). Raises Violation."""
    number = packet.variable_header.packet_id
    if not number:
        raise Violation("a packet id of 0")
    return int(number)
