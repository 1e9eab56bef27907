"""The bytes of a scripted flood.

The packets are built here by hand: the codec writes none that is malformed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

_ODD = (b"", b"devices/x", b"\0", b"\xff\xfe", b"$iothub/", b"$iothub/twin/res/x", b"$iothub/methods/POST/", b"a/" * 99)
_SIZES = (16, 64, 256)  # KB; 256 is the most of the Hub


def flood(kind: str, device: str) -> Sequence[bytes]:
    """What is sent in turns: see Flood."""
    if kind == "pings":
        return (b"\xd0\0" * 500,)
    if kind == "acknowledgements":
        return (b"\x40\x02\xff\xfe" * 250,)
    if kind == "topics":
        return [_publish(topic, b"{}") for topic in _ODD]
    return [_publish(b"devices/%s/messages/devicebound/" % device.encode(), bytes(size * 1024)) for size in _SIZES]


def _publish(topic: bytes, body: bytes) -> bytes:
    rest = struct.pack(">H", len(topic)) + topic + body
    left, size = len(rest), b""
    while left > 127:
        size += bytes([left & 127 | 128])
        left >>= 7
    return b"\x30" + size + bytes([left]) + rest
