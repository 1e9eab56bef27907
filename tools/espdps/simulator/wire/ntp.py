"""A time server (SNTP version 4, RFC 4330) on loopback, so that a board can set its clock.

Answers one datagram with one of the same size, and nothing that is not a client's request.
"""

from __future__ import annotations

import asyncio
import struct
import time
from typing import cast

from ..trouble.actions import Shift, Silence, Troubles

_SIZE = 48
_EPOCH = 2208988800  # seconds from 1900 to 1970
_CLIENT, _SERVER = 3, 4
_STRATUM = 2  # an unsynchronized server would say 0, and a client has to ignore that


def _stamp(moment: float) -> int:
    """NTP timestamp: seconds since 1900 modulo the era (2**32), then the fraction."""
    return int((moment + _EPOCH) * 2**32) % 2**64


class NtpServer(asyncio.DatagramProtocol):
    """Tells this machine's time. Trouble at ``ntp``: silence, or a shifted clock."""

    def __init__(self, troubles: Troubles) -> None:
        self._troubles = troubles
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        action = self._troubles.at("ntp")
        if len(data) < _SIZE or data[0] & 7 != _CLIENT or isinstance(action, Silence) or self._transport is None:
            return
        moment = _stamp(time.time() + (action.seconds if isinstance(action, Shift) else 0))
        version = data[0] & 0x38
        originate = struct.unpack("!Q", data[40:_SIZE])[0]  # what the client calls its time of sending
        answer = struct.pack(
            "!BBbbII4sQQQQ",
            version | _SERVER,
            _STRATUM,
            data[2] if data[2] < 128 else 6,
            -20,  # precision: 2**-20 s
            0,
            0,
            bytes([127, 0, 0, 1]),
            moment,
            originate,
            moment,
            moment,
        )
        self._transport.sendto(answer, addr)
