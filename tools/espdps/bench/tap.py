"""A TCP proxy on loopback that makes the way as long as it is asked to, and counts what a device sends and gets.

It reads the headers of TLS records only (RFC 5246, 6.2.1); it must never change what it passes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

_APPLICATION_DATA = 23
_CHUNK = 65536
Count = Callable[[bytes], None]
_DEADLINE = 10.0  # seconds for what happens within this process


@dataclass
class Side:
    """What one side has sent: ``records`` of application data, and the ``size`` of all, in bytes of TCP."""

    records: int = 0
    size: int = 0
    _header: bytearray = field(default_factory=bytearray)
    _skip: int = 0

    def feed(self, data: bytes) -> bool:
        """Whether application data begins in these bytes."""
        self.size += len(data)
        before = self.records
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                continue
            self._header.append(data[at])
            at += 1
            if len(self._header) == 5:
                self._skip = int.from_bytes(self._header[3:], "big")
                self.records += self._header[0] == _APPLICATION_DATA
                self._header.clear()
        return self.records > before


@dataclass
class Link:
    """One connection of a device. ``flights``: how often it sent application data and then got some, which is how often
    it waited for a round trip; nobody waits for the answer to a goodbye.
    """

    sent: Side = field(default_factory=Side)
    got: Side = field(default_factory=Side)
    flights: int = 0
    _waits: bool = False

    def up(self, data: bytes) -> None:
        self._waits |= self.sent.feed(data)

    def down(self, data: bytes) -> None:
        if self.got.feed(data) and self._waits:
            self.flights += 1
            self._waits = False


class Tap:
    """Listens on ``port`` and passes on to ``target``, each way in half of ``rtt`` seconds. A connection's first bytes
    take one round trip more, as TCP's own handshake does, which on loopback costs nothing.

    Runs in a thread of its own between ``with`` and its end, which closes every connection.
    """

    def __init__(self, target: int, rtt: float = 0.0) -> None:
        self._target = target
        self.rtt = rtt
        self.links: list[Link] = []  # the connections since it was last cleared
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tap", daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Tap:  # noqa: PYI034 - Python 3.10 has no Self
        self._thread.start()
        start = asyncio.start_server(self._serve, sock=self._listener)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result(_DEADLINE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_DEADLINE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_DEADLINE)
        self._loop.close()

    def settle(self) -> None:
        """Wait until every connection is over and counted to its end."""
        asyncio.run_coroutine_threadsafe(self._settle(), self._loop).result(_DEADLINE)

    async def _settle(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link()
        self.links.append(link)
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        above, out = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            await asyncio.gather(self._pump(reader, out, link.up, self.rtt), self._pump(above, writer, link.down, 0.0))
        except asyncio.CancelledError:
            pass  # by _stop; who called this task must not hear of it
        finally:
            for end in (writer, out):
                end.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, count: Count, first: float) -> None:
        """``first``: seconds more for the first bytes. Nothing overtakes anything."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                when, data = await queue.get()
                await asyncio.sleep(when - self._loop.time())
                with contextlib.suppress(OSError):  # one side may have ended by itself
                    if data:
                        count(data)
                        sink.write(data)
                        await sink.drain()
                    else:
                        sink.write_eof()
                if not data:
                    return

        delivery = self._loop.create_task(deliver())
        data = b"any"
        try:
            while data:
                try:
                    data = await source.read(_CHUNK)
                except OSError:
                    data = b""
                queue.put_nowait((self._loop.time() + self.rtt / 2 + first, data))
                first = 0.0
            await delivery
        finally:
            delivery.cancel()
