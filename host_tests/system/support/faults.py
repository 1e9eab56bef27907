"""A TCP proxy on loopback that does one thing wrong, at an exact place of a connection between board and service.

It must never look into what it passes on: it knows bytes, directions and who answered whom.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
import struct
import threading
from dataclasses import dataclass, field
from types import TracebackType

SERVER, BOARD = "server", "board"  # where bytes go to
ACTIONS = ("cut", "reset", "stall", "half", "delay", "split", "corrupt")  # that are drawn; a flood is not
HARMLESS = ("delay", "split")  # nothing is lost, so a board has to get along with it
_CHUNK = 65536
_FLOOD = 4096  # bytes of it at once
_DEADLINE = 10.0  # seconds for what happens within this process
WARNING = b"\x15\x03\x03\x00\x02\x01\x5a"  # a TLS alert that ends nothing: user_canceled (RFC 5246, 7.2)
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER without lingering: close sends RST


@dataclass(frozen=True)
class Fault:
    """What goes wrong, once. Its repr can be pasted into a test.

    ``to``: the direction, "server" or "board". ``connection``: which one since the proxy was armed, from 1 on; 0: each.
    ``flight``: which in that direction, from 1 on; a flight is what one side sends until the other answers.
    ``byte``: how much of the flight, and of what follows it, has passed before.

    ``action``: "cut" ends both sides with FIN, "reset" with RST; "stall" lets nothing pass any more in either direction,
    not even an end; "half" sends FIN in this direction and drops the rest of it; "delay" holds the flight back for
    ``seconds``; "split" passes the rest of the flight on in pieces of 1 to 17 bytes; "corrupt" changes the next byte by
    ``xor``; "flood" sends ``data`` in place of the rest, again and again as fast as it is taken, until that side leaves or
    the proxy is armed again.
    """

    action: str
    to: str = SERVER
    connection: int = 1
    flight: int = 1
    byte: int = 0
    seconds: float = 0.3
    xor: int = 1
    data: bytes = WARNING

    @staticmethod
    def random(seed: int, connections: int = 1) -> Fault:
        """Any fault of any kind, the same for the same seed."""
        draw = random.Random(seed)
        return Fault(
            draw.choice(ACTIONS),
            draw.choice((SERVER, BOARD)),
            draw.randint(1, connections),
            draw.randint(1, 5),
            draw.choice((0, draw.randrange(8), draw.randrange(1000))),
            draw.randint(1, 5) / 10,
            draw.randint(1, 255),
        )


@dataclass
class Link:
    """One connection of the board through the proxy. The counts are of what came in, per direction."""

    fault: Fault | None
    flights: dict[str, list[int]] = field(default_factory=lambda: {SERVER: [], BOARD: []})  # bytes of each
    struck: bool = False
    stalled: bool = False
    _last: str = ""
    _left: int | None = None  # bytes until the fault, once its flight has begun

    def count(self, to: str, size: int) -> bool:
        """Takes note of bytes that came in for this side; true if a new flight begins with them."""
        new = self._last != to
        self._last = to
        if new:
            self.flights[to].append(0)
        self.flights[to][-1] += size
        return new

    def before_fault(self, to: str, size: int) -> int | None:
        """How many of the bytes that came in now pass before the fault strikes; None if it does not."""
        fault = self.fault
        if fault is None or self.struck or fault.to != to:
            return None
        if self._left is None:
            if len(self.flights[to]) != fault.flight:
                return None
            self._left = fault.byte
        left = self._left
        self._left -= size
        # What needs no next byte strikes as soon as the bytes before it are through.
        waits = fault.action in ("delay", "split", "corrupt")
        self.struck = left < size if waits else left <= size
        return left if self.struck else None


class _Over(Exception):
    """This connection ends now."""


class Proxy:
    """Listens on ``port`` and passes on to ``target`` on loopback; ``arm`` says what goes wrong next.

    Runs in a thread of its own between ``with`` and its end, which closes every connection.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._fault: Fault | None = None
        self._links: list[Link] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Proxy:  # noqa: PYI034 - Python 3.10 has no Self
        self._thread.start()
        self._loop.call_soon_threadsafe(self._spawn)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_DEADLINE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_DEADLINE)
        self._loop.close()
        self._listener.close()

    def arm(self, fault: Fault | None) -> None:
        """From the next connection on, which is the first again. None: all goes well. Earlier ones stay as they are."""
        asyncio.run_coroutine_threadsafe(self._arm(fault), self._loop).result(_DEADLINE)

    @property
    def links(self) -> list[Link]:
        """The connections since the proxy was armed."""
        return list(self._links)

    @property
    def struck(self) -> bool:
        """Whether the fault has happened."""
        return any(link.struck for link in self._links)

    # In the loop's thread

    async def _arm(self, fault: Fault | None) -> None:
        self._fault, self._links = fault, []

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self) -> None:
        self._start(self._accept())

    def _start(self, job: asyncio.coroutines.Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        while True:
            board, _ = await self._loop.sock_accept(self._listener)
            fault = self._fault
            link = Link(fault if fault and fault.connection in (0, len(self._links) + 1) else None)
            self._links.append(link)
            self._start(self._serve(link, board))

    async def _serve(self, link: Link, board: socket.socket) -> None:
        with board, socket.socket() as server:
            for sock in (board, server):
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pumps: list[asyncio.Task[None]] = []
            # OSError: one side has reset the connection, so the other one loses it too.
            with contextlib.suppress(_Over, OSError):
                try:
                    await self._loop.sock_connect(server, ("127.0.0.1", self._target))
                    pumps.append(self._loop.create_task(self._pump(link, SERVER, board, server)))
                    pumps.append(self._loop.create_task(self._pump(link, BOARD, server, board)))
                    await asyncio.gather(*pumps)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, link: Link, to: str, source: socket.socket, sink: socket.socket) -> None:
        in_pieces = False
        while data := await self._loop.sock_recv(source, _CHUNK):
            if link.stalled:
                continue
            if link.count(to, len(data)):
                in_pieces = False
            passing = link.before_fault(to, len(data))
            if passing is not None and link.fault:
                await self._loop.sock_sendall(sink, data[:passing])
                data = data[passing:]
                if link.fault.action == "split":
                    in_pieces = True
                else:
                    data = await self._strike(link, link.fault, data, source, sink)
            if in_pieces:
                # One byte each would take longer than a deadline on a busy machine.
                sizes = itertools.cycle(range(1, 18))
                while data:
                    size = next(sizes)
                    await self._loop.sock_sendall(sink, data[:size])
                    data = data[size:]
                    # Time to be read between every 17 of them, or the network would join them all again.
                    await asyncio.sleep(0 if size < 17 else 0.002)
            else:
                await self._loop.sock_sendall(sink, data)
        if not link.stalled:
            with contextlib.suppress(OSError):  # it may have ended by itself
                sink.shutdown(socket.SHUT_WR)

    async def _strike(self, link: Link, fault: Fault, data: bytes, source: socket.socket, sink: socket.socket) -> bytes:
        """What is left to be passed on of this flight."""
        if fault.action == "delay":
            await asyncio.sleep(fault.seconds)
            return data
        if fault.action == "corrupt":
            return bytes([data[0] ^ fault.xor]) + data[1:]
        if fault.action == "stall":
            link.stalled = True
            return b""
        if fault.action == "flood":
            while True:
                await self._loop.sock_sendall(sink, fault.data * (_FLOOD // len(fault.data)))
                await asyncio.sleep(0)  # there may be room all the time
                if self._fault is not fault:  # armed with another
                    raise _Over
        if fault.action == "half":
            sink.shutdown(socket.SHUT_WR)
            while await self._loop.sock_recv(source, _CHUNK):
                pass
            return b""
        for sock in (source, sink):
            if fault.action == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            else:
                with contextlib.suppress(OSError):  # one side may have ended by itself
                    sock.shutdown(socket.SHUT_RDWR)
        raise _Over
