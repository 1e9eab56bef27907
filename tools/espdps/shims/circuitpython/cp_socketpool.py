"""CircuitPython's socketpool on the PC's sockets: its methods, its errors, and names as in a laboratory.

No name reaches the PC's resolver: localhost and *.localhost are this machine, BOARD_HOSTS has others, as the virtual
MicroPython board's (name:port=address:port;...). All else cannot be resolved."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

_EAI_NONAME = -2


class _Gaierror(OSError):
    pass


class Socket:
    def __init__(self, real: socket.socket) -> None:
        self._real = real
        self.type = SocketPool.SOCK_STREAM if real.type == socket.SOCK_STREAM else SocketPool.SOCK_DGRAM
        self.settimeout, self.setblocking, self.close = real.settimeout, real.setblocking, real.close
        self.fileno = real.fileno  # for select.poll()

    def _do(self, call: Any, *args: Any) -> Any:
        try:
            return call(*args)
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, "Timed out") from None
        except BlockingIOError:
            raise OSError(errno.EAGAIN, "Again") from None

    def connect(self, address: tuple[str, int]) -> None:
        self._do(self._real.connect, _resolve(*address))

    def recv_into(self, buf: Any, size: int = 0) -> int:
        return int(self._do(self._real.recv_into, buf, size))

    def send(self, data: Any) -> int:
        return int(self._do(self._real.send, data))

    def sendto(self, data: Any, address: tuple[str, int]) -> int:
        return int(self._do(self._real.sendto, data, _resolve(*address)))

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _resolve(host: str, port: int) -> tuple[str, int]:
    for entry in os.environ.get("BOARD_HOSTS", "").split(";"):
        name, _, place = entry.partition("=")
        if name == f"{host}:{port}":
            address, _, number = place.rpartition(":")
            return address, int(number)
    if host == "localhost" or host.endswith(".localhost"):
        return "127.0.0.1", port
    if all(part.isdigit() for part in host.split(".")):
        return host, port
    raise _Gaierror(_EAI_NONAME, "Name or service not known")


class SocketPool:
    AF_INET = 2
    SOCK_STREAM = 1
    SOCK_DGRAM = 2
    gaierror = _Gaierror

    def __init__(self, radio: object) -> None:
        pass

    def getaddrinfo(
        self, host: str, port: int, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(self.AF_INET, type or self.SOCK_STREAM, 0, "", _resolve(host, port))]

    def socket(self, family: int = AF_INET, type: int = SOCK_STREAM, proto: int = 0) -> Socket:
        kind = socket.SOCK_STREAM if type == self.SOCK_STREAM else socket.SOCK_DGRAM
        return Socket(socket.socket(socket.AF_INET, kind))
