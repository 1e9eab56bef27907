"""One MQTT 3.1.1 session over one TLS connection: packets in, packets out, and the service behind them.

Knows nothing of DPS or Hub, and of no other connection: an answer can only go to the device that asked.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cryptography import x509

from ..events import EventLog
from ..trouble.actions import Action, Cut, Delay, Early, Flood, Refuse, Silence, Troubles
from .floods import flood
from .packets import (
    ConnackPacket,
    ConnectPacket,
    DisconnectPacket,
    OtherVersion,
    Packet,
    PingReqPacket,
    PingRespPacket,
    PubackPacket,
    PublishPacket,
    SubackPacket,
    SubscribePacket,
    UnsubackPacket,
    UnsubscribePacket,
    Violation,
    packet_id,
    read_packet,
)
from .tls import TlsLink

_BODY_LIMIT = 256 * 1024  # the largest message of the Hub
_KEEP_ALIVE_LIMIT = 1177  # seconds; the service's own when the client asks for none or for more
_SUBACK_FAILURE = 0x80


class Refused(Exception):
    """The service does not take this CONNECT. ``service`` is ``dps`` or ``hub``; the text is for the event only."""

    def __init__(self, service: str, device: str, return_code: int, reason: str) -> None:
        super().__init__(reason)
        self.service, self.device, self.return_code, self.reason = service, device, return_code, reason


@dataclass(frozen=True)
class Connect:
    """What a client says of itself. ``chain``: the certificates it presented beside its own, in its order. ``clean``:
    it wants nothing of an earlier session, nor this one to be kept.

    The service acts on the connection by three functions. ``deliver`` sends a message that was subscribed to and
    returns the id that its PUBACK will carry, 0 with QoS 0; None when no filter takes it or the connection is over.
    ``close`` ends the connection with a reason, ``cut`` by script, after so many more bytes.
    """

    client_id: str
    username: str
    password: str | None = field(repr=False)
    clean: bool
    will: Message | None
    certificate: x509.Certificate | None
    chain: tuple[x509.Certificate, ...]
    deliver: Callable[[Message], int | None]
    close: Callable[[str], None]
    cut: Callable[[int], None]


@dataclass(frozen=True)
class Message:
    """A PUBLISH, in either direction."""

    topic: str
    body: bytes
    qos: int = 0
    retain: bool = False
    duplicate: bool = False


class Service(Protocol):
    """DPS or Hub as one connection sees it. ``prefix`` goes before the names of its places in trouble.py.

    Once the CONNECT is accepted, ``granted`` has the filters that are subscribed to, each with its QoS: those of the
    earlier session if that goes on here (``resumed``).
    """

    name: str
    prefix: str
    device: str
    granted: dict[str, int]
    resumed: bool

    def accept(self, connection: int) -> None:
        """Judges the CONNECT; when this returns the device is online. Raises Refused."""

    def grant(self, topic_filter: str) -> bool:
        """Whether the filter may be subscribed to."""

    def subscribed(self, topic_filter: str) -> None:
        """The filter is granted and the device knows it: what waited for it may be delivered."""

    def place(self, topic: str) -> str:
        """Where a message on this topic gets to. Raises Violation for a topic that the service does not take."""

    def publish(self, message: Message) -> Sequence[Message]:
        """Takes a message, returns the answers. Raises Violation."""

    def acknowledged(self, packet_id: int) -> None:
        """The device has a message that was delivered with this id."""

    def end(self, graceful: bool) -> None:
        """The connection is over. ``graceful``: the client said so, and its will is void."""


class Session:
    """Runs one connection from CONNECT to its end.

    ``route`` finds the service that a CONNECT is meant for, or raises Refused.
    """

    def __init__(self, link: TlsLink, route: Callable[[Connect], Service], log: EventLog, troubles: Troubles) -> None:
        self._link, self._route, self._log, self._troubles = link, route, log, troubles
        self._granted: dict[str, int] = {}
        self._last_id = 0

    async def run(self) -> None:
        """Ends with the link closed; never raises for what a client does."""
        reason = "closed by the client"
        try:
            await self._serve()
        except EOFError:
            pass
        except Violation as violation:
            reason = str(violation)
        except asyncio.TimeoutError:
            reason = "nothing for one and a half times the keepalive"
        finally:
            self._link.close("disconnect" if self._link.graceful else reason)

    async def _serve(self) -> None:
        try:
            packet = await read_packet(self._link.reader)
        except OtherVersion:
            self._acknowledge(1)  # MQTT-3.1.2-2
            raise
        if not isinstance(packet, ConnectPacket):
            raise Violation("a first packet that is no CONNECT")
        service, deadline = await self._connect(packet)
        try:
            while not self._link.graceful:
                packet = await asyncio.wait_for(read_packet(self._link.reader), deadline)
                self._troubles.turn(service.device)
                await self._handle(service, packet)
                await self._link.drain()
        finally:
            service.end(self._link.graceful)

    async def _connect(self, packet: ConnectPacket) -> tuple[Service, float]:
        """Judges and answers the CONNECT; returns the service and the longest pause (seconds) between packets."""
        header, payload = packet.variable_header, packet.payload
        if header is None or payload is None or header.proto_name != "MQTT" or header.reserved_flag:
            raise Violation("a CONNECT that is not MQTT 3.1.1")
        if payload.client_id_is_random:  # the codec's own stand-in for an empty one
            self._acknowledge(2)
            raise Violation("a CONNECT without client id")
        connect = Connect(
            client_id=payload.client_id or "",
            username=payload.username or "",
            # umqtt cannot leave it out: a board with a certificate sends an empty one.
            password=payload.password or None,
            clean=header.clean_session_flag,
            will=_will(header, payload),
            certificate=self._link.peer_certificate,
            chain=self._link.peer_chain,
            deliver=self._deliver,
            close=self._link.close,
            cut=self._link.cut,
        )
        try:
            service = self._route(connect)
            self._link.device = service.device
            self._troubles.turn(service.device)
            action = self._action(service, "connect")
            await self._strike(action)
            if isinstance(action, Refuse):
                raise Refused(service.name, service.device, action.return_code, "by script")
            service.accept(self._link.number)
        except Refused as refused:
            self._link.device = refused.device
            self._log.report(
                f"{refused.service}.refused",
                self._link.number,
                refused.device,
                return_code=refused.return_code,
                reason=refused.reason,
            )
            self._acknowledge(refused.return_code)
            raise Violation(f"refused: {refused.reason}") from None
        self._link.accepted()
        self._granted = service.granted
        self._acknowledge(0, service.resumed)
        for topic_filter in tuple(self._granted):
            service.subscribed(topic_filter)
        return service, 1.5 * min(header.keep_alive or _KEEP_ALIVE_LIMIT, _KEEP_ALIVE_LIMIT)

    async def _handle(self, service: Service, packet: Packet) -> None:
        if isinstance(packet, PublishPacket):
            await self._publish(service, packet)
        elif isinstance(packet, SubscribePacket):
            await self._subscribe(service, packet)
        elif isinstance(packet, UnsubscribePacket):
            self._unsubscribe(packet)
        elif isinstance(packet, PingReqPacket):
            self._link.write(PingRespPacket().to_bytes())
        elif isinstance(packet, DisconnectPacket):
            self._link.graceful = True
        elif isinstance(packet, PubackPacket):
            service.acknowledged(packet_id(packet))
        elif isinstance(packet, ConnectPacket):
            raise Violation("a second CONNECT")

    async def _subscribe(self, service: Service, packet: SubscribePacket) -> None:
        action = self._action(service, "subscribe")
        await self._strike(action)
        number, topics = packet_id(packet), packet.payload.topics if packet.payload else []
        if not topics or any(qos > 2 for _, qos in topics):
            raise Violation("a SUBSCRIBE without a filter, or with a QoS that is none")
        codes = []
        for topic_filter, qos in topics:
            if isinstance(action, Refuse) or not service.grant(topic_filter):
                codes.append(_SUBACK_FAILURE)
            else:
                self._granted[topic_filter] = min(qos, 1)
                codes.append(min(qos, 1))
        self._log.report(
            f"{service.name}.subscribe",
            self._link.number,
            service.device,
            filters=[topic_filter for topic_filter, _ in topics],
            granted=codes,
        )
        early = self._packed(Message(action.topic, action.body))[0] if isinstance(action, Early) else b""
        self._link.write(early + SubackPacket.build(number, codes).to_bytes())
        for (topic_filter, _), code in zip(topics, codes, strict=True):
            if code != _SUBACK_FAILURE:
                service.subscribed(topic_filter)

    def _unsubscribe(self, packet: UnsubscribePacket) -> None:
        number = packet_id(packet)
        for topic_filter in packet.payload.topics if packet.payload else []:
            self._granted.pop(topic_filter, None)
        self._link.write(UnsubackPacket.build(number).to_bytes())

    async def _publish(self, service: Service, packet: PublishPacket) -> None:
        message = Message(
            topic=packet.topic_name or "",
            body=packet.data or b"",
            qos=packet.qos or 0,
            retain=packet.retain_flag,
            duplicate=packet.dup_flag,
        )
        if message.qos == 2:
            raise Violation("a PUBLISH with QoS 2")
        number = packet_id(packet) if message.qos else 0
        if len(message.body) > _BODY_LIMIT:
            raise Violation("a message larger than the service takes")
        await self._strike(self._troubles.at(service.place(message.topic), service.device))
        answers = service.publish(message)
        # The acknowledgement and the answers leave together: one flight, as few packets as can be.
        acknowledgement = PubackPacket.build(number).to_bytes() if message.qos else b""
        self._link.write(acknowledgement + b"".join(self._packed(answer)[0] for answer in answers))

    def _deliver(self, message: Message) -> int | None:
        data, number = self._packed(message) if self._link.writable else (b"", 0)
        self._link.write(data)
        return number if data else None

    def _packed(self, message: Message) -> tuple[bytes, int]:
        """The PUBLISH for this message, with the QoS granted to the filter it matches, and its packet id; nothing when
        no filter does.
        """
        for topic_filter, qos in self._granted.items():
            if _takes(topic_filter, message.topic):
                if qos:
                    self._last_id = self._last_id % 65535 + 1
                number = self._last_id if qos else 0
                packet = PublishPacket.build(message.topic, message.body, number or None, False, qos, False)
                return packet.to_bytes(), number
        return b"", 0

    def _action(self, service: Service, place: str) -> Action | None:
        return self._troubles.at(service.prefix + place, service.device)

    async def _strike(self, action: Action | None) -> None:
        """Carries out a scripted silence, cut, delay or flood. Raises EOFError when the dialogue ends with it."""
        if isinstance(action, Silence):
            self._link.mute()
            await self._ignore()
        elif isinstance(action, Cut):
            self._link.cut(action.after)
            if action.after == 0:
                await self._ignore()
        elif isinstance(action, Delay):
            await asyncio.sleep(action.seconds)
        elif isinstance(action, Flood):
            await self._flood(action)

    async def _flood(self, action: Flood) -> None:
        """Sends until it is over, or the client has left."""
        loop = asyncio.get_running_loop()
        end = loop.time() + action.seconds
        for data in itertools.cycle(flood(action.kind, self._link.device or "")):
            if loop.time() >= end or not self._link.writable or self._link.reader.at_eof():
                return
            self._link.write(data)
            await self._link.drain()
            await asyncio.sleep(0)  # drain() alone lets nobody else run while there is room

    async def _ignore(self) -> None:
        """Waits for the end of the connection without looking at what comes. Always raises EOFError."""
        while await self._link.reader.read(65536):
            pass
        raise EOFError

    def _acknowledge(self, return_code: int, resumed: bool = False) -> None:
        self._link.write(ConnackPacket.build(int(resumed), return_code).to_bytes())


def _will(header: Packet, payload: Packet) -> Message | None:
    if payload.will_topic is None:
        return None
    return Message(payload.will_topic, payload.will_message or b"", header.will_qos, header.will_retain_flag)


def _takes(topic_filter: str, topic: str) -> bool:
    """Whether a filter takes a topic (MQTT 3.1.1, 4.7.1)."""
    wanted, given = topic_filter.split("/"), topic.split("/")
    for at, level in enumerate(wanted):
        if level == "#":
            return True
        if at == len(given) or level not in ("+", given[at]):
            return False
    return len(wanted) == len(given)
