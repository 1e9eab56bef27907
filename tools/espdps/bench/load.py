"""A fleet that comes to DPS at the same moment: whether each device gets its own certificate, and how long that takes.

Talks to the simulator over TLS only, as devices do; it must never take another device's answer for good.
"""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import asyncio
import base64
import json
import multiprocessing
import os
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from amqtt.adapters import StreamReaderAdapter
from amqtt.mqtt import packet_class
from amqtt.mqtt.connect import ConnectPacket, ConnectPayload, ConnectVariableHeader
from amqtt.mqtt.packet import CONNACK, PUBLISH, SUBACK, MQTTFixedHeader
from amqtt.mqtt.publish import PublishPacket
from amqtt.mqtt.subscribe import SubscribePacket
from cryptography import x509
from cryptography.x509.oid import NameOID

from espdps.bench.row import AGAIN, Row
from espdps.credentials import keys
from espdps.errors import ToolError
from espdps.simulator import Options, files, serving

API = "2025-07-01-preview"
_RESPONSES = "$dps/registrations/res/"
_FLAGS = 0b11000010  # user name, password, clean session (MQTT 3.1.1, 3.1.2.3)
_PATIENCE = 600.0  # seconds for all of them, and for one: who is served last has waited for all the others' handshakes

# What was measured, how much, of what.


@dataclass
class Device:
    """One of the fleet. ``state``: the registrationState it got, ``seconds`` after the start of all."""

    id: str
    key: keys.PrivateKey = field(repr=False)
    csr: bytes
    state: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Figures:
    """``each``: seconds from the start of all to a device's certificate, in order. ``memory``: bytes that the process
    of the simulator grew by for one connection, connected and subscribed.
    """

    each: tuple[float, ...]
    memory: float

    def rows(self) -> list[Row]:
        count, seconds = len(self.each), self.each[-1]
        return [
            Row("devices that register at once", count, ""),
            Row("all have their own certificate after", seconds, "s"),
            Row("registrations", count / seconds, "a second"),
            Row("half of them after", self.each[count // 2], "s"),
            Row("99 % of them after", self.each[min(count - 1, count * 99 // 100)], "s"),
            Row("memory of a connection in the simulator", self.memory / 1024, "KB"),
        ]


def fleet(count: int) -> list[Device]:
    """Devices with their keys and CSRs, made beforehand as `esp-dps new` does."""
    devices = []
    for number in range(count):
        id, key = f"load-{number:04d}", keys.new_key()
        devices.append(Device(id, key, keys.csr_der(key, id)))
    return devices


def measure(folder: Path, count: int = 1000) -> Figures:
    """Registers so many devices at once with a simulator in a process of its own.

    Raises ToolError when one of them does not end assigned with a certificate of its own.
    """
    files.allow_open(2 * count)
    devices = fleet(count)
    with _simulator(folder, count) as (info, memory):
        asyncio.run(_register(info, fleet(8)))  # what is loaded or made once is no part of a connection
        before = memory()
        held = asyncio.run(_hold(info, devices, memory)) - before
        asyncio.run(_register(info, devices))
    serials = {check(device).serial_number for device in devices}
    if len(serials) != count:
        raise ToolError(f"{count} devices have {len(serials)} certificates between them", AGAIN)
    return Figures(tuple(sorted(device.seconds for device in devices)), held / count)


def check(device: Device) -> x509.Certificate:
    """The device's certificate. Raises ToolError if it, or anything else in the answer, is not this device's own."""
    state = device.state
    if (
        state.get("status") != "assigned"
        or state.get("registrationId") != device.id
        or state.get("deviceId") != device.id
    ):
        raise ToolError(f"{device.id} was answered with {state.get('status')} for {state.get('registrationId')}", AGAIN)
    chain = [x509.load_der_x509_certificate(base64.b64decode(one)) for one in state.get("issuedCertificateChain") or ()]
    names = [name.value for one in chain[:1] for name in one.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [device.id] or chain[0].public_key() != device.key.public_key():
        raise ToolError(f"{device.id} was answered with a certificate of {names}, or for another key", AGAIN)
    for lower, upper in zip(chain, chain[1:], strict=False):
        lower.verify_directly_issued_by(upper)
    return chain[0]


# The simulator


@contextmanager
def _simulator(folder: Path, count: int) -> Iterator[tuple[dict[str, Any], Callable[[], int]]]:
    """Its sim.json, and a function for the bytes that its process has in memory."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(folder, count, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        info = ours.recv()
        yield info, lambda: _resident(process.pid)
        ours.send("stop")
        process.join(_PATIENCE)
    finally:
        process.kill()
        process.join()
        ours.close()


def _serve(folder: Path, count: int, pipe: Connection) -> None:
    files.allow_open(2 * count)
    options = Options(retry_after=0, connect_deadline=_PATIENCE)
    with serving(folder, options) as simulator:
        pipe.send(simulator.info)
        pipe.recv()


def _resident(pid: int | None) -> int:
    """Bytes of memory that a process has, on Linux."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# The devices


class _Link:
    """A device connected to DPS and subscribed."""

    def __init__(self, device: Device, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._device, self._reader, self._writer = device, reader, writer

    @classmethod
    async def open(cls, info: dict[str, Any], context: ssl.SSLContext, device: Device) -> _Link:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            info["mqtt_port"],
            ssl=context,
            server_hostname=info["host"],
            ssl_handshake_timeout=_PATIENCE,
        )
        link = cls(device, reader, writer)
        key = keys.derive_device_key(info["groups"][0]["primary_key"], device.id)
        user = f"{info['id_scope']}/registrations/{device.id}/api-version={API}"
        token = keys.dps_token(info["id_scope"], device.id, key, int(time.time()) + 3600)
        payload = ConnectPayload(client_id=device.id, username=user, password=token)
        writer.write(ConnectPacket(variable_header=ConnectVariableHeader(_FLAGS, 60), payload=payload).to_bytes())
        writer.write(SubscribePacket.build([(_RESPONSES + "#", 0)], 1).to_bytes())
        connected, subscribed = await link._packet(CONNACK), await link._packet(SUBACK)
        if connected.variable_header.return_code != 0 or subscribed.payload.return_codes != [0]:
            raise ToolError(f"{device.id} was not let in", AGAIN)
        return link

    async def register(self) -> dict[str, Any]:
        """The registrationState, once it is no longer `assigning`."""
        body = {"registrationId": self._device.id, "csr": base64.b64encode(self._device.csr).decode()}
        answer = await self._ask("PUT/iotdps-register/?$rid=1", json.dumps(body).encode(), "1")
        number = 1
        while answer.get("status") == "assigning":
            number += 1
            topic = f"GET/iotdps-get-operationstatus/?$rid={number}&operationId={answer['operationId']}"
            answer = await self._ask(topic, b"", str(number))
        state: dict[str, Any] = answer.get("registrationState") or answer
        return state

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except (OSError, ssl.SSLError):
            pass  # it was done with anyway

    async def _ask(self, topic: str, body: bytes, rid: str) -> dict[str, Any]:
        self._writer.write(PublishPacket.build("$dps/registrations/" + topic, body, None, False, 0, False).to_bytes())
        packet = await self._packet(PUBLISH)
        if f"$rid={rid}" not in packet.topic_name.partition("?")[2].split("&"):
            raise ToolError(f"{self._device.id} was given an answer to another request", AGAIN)
        answer: dict[str, Any] = json.loads(packet.data)
        return answer

    async def _packet(self, kind: int) -> Any:
        adapter = StreamReaderAdapter(self._reader)
        header = await MQTTFixedHeader.from_stream(adapter)
        if header is None or header.packet_type != kind:
            raise ToolError(f"{self._device.id}: the connection ended, or something else came than what was due", AGAIN)
        return await packet_class(header).from_stream(adapter, header)


async def _hold(info: dict[str, Any], devices: list[Device], look: Callable[[], int]) -> int:
    """What ``look`` sees while all of them are connected."""
    context = _context(info)
    links = await asyncio.gather(*(_Link.open(info, context, device) for device in devices))
    seen = look()
    await asyncio.gather(*(link.close() for link in links))
    return seen


async def _register(info: dict[str, Any], devices: list[Device]) -> None:
    """All of them at once; fills in what became of each."""
    context, begin = _context(info), time.perf_counter()

    async def register(device: Device) -> None:
        link = await _Link.open(info, context, device)
        device.state = await link.register()
        device.seconds = time.perf_counter() - begin
        await link.close()

    await asyncio.wait_for(asyncio.gather(*map(register, devices)), _PATIENCE)


def _context(info: dict[str, Any]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=info["roots"])
