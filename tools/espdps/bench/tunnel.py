"""An HTTP proxy on loopback that takes Microsoft's SDKs, which have host names and ports built in, to a simulator.

It must never look into what it passes on.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Tunnel(socketserver.BaseRequestHandler):
    """CONNECT of RFC 9110, 9.3.6, and then bytes both ways."""

    server: Proxy

    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            part = self.request.recv(4096)
            if not part:
                return
            head += part
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        self.server.asked.append(target)
        port = self.server.ports.get(target.rpartition(":")[2])
        if method != "CONNECT" or port is None:
            self.request.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", port)) as service:
            self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=_pump, args=(service, self.request), daemon=True)
            back.start()
            _pump(self.request, service)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Proxy(socketserver.ThreadingTCPServer):
    """Takes what the SDKs have built in, any host at 8883 and at 443, to the simulator's ports. ``asked``: what they
    asked for, as ``host:port``.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, info: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.ports = {"8883": info["mqtt_port"], "443": info["https_port"]}
        self.asked: list[str] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


@contextmanager
def proxy(info: dict[str, Any]) -> Iterator[Proxy]:
    with Proxy(info) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
