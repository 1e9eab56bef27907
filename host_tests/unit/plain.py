"""TLS left out: a stand-in for the tls module that lets bytes through as they are, and a peer to talk to.

With it the stream, its deadlines and MQTT's bytes can be looked at on real sockets. It must never be used elsewhere."""

import errno
import socket

from aziot import stream

PROTOCOL_TLS_CLIENT = 0
CERT_REQUIRED = 2


class Socket:
    """MicroPython's SSLSocket as far as Stream uses it; flights: what was written, a call each."""

    def __init__(self, link):
        self.link = link
        self.flights = []

    def read(self, size):
        data = b""
        while len(data) < size:
            buf = bytearray(size - len(data))
            got = self.link.readinto(buf)
            if got == -errno.EAGAIN:
                return data or None
            if got < 0:
                raise OSError(-got, "socket")
            if got == 0:
                break
            data += bytes(buf[:got])
        return data

    def write(self, data):
        self.flights.append(bytes(data))
        sent = 0
        while sent < len(data):
            done = self.link.write(memoryview(data)[sent:])
            if done < 0:
                raise OSError(-done, "socket")
            sent += done
        return sent

    def close(self):
        self.link.ioctl(4, 0)


class Peer:
    """A server on loopback, in this very thread: says is sent as soon as a client is there."""

    verify_mode = None

    def __init__(self, says=b"", closes=False):
        self.says = says
        self.closes = closes
        self.loaded = []
        self.listener = socket.socket()
        self.listener.bind(socket.getaddrinfo("127.0.0.1", free_port())[0][-1])
        self.listener.listen(1)

    def __enter__(self):
        stream.tls, self.real = self, stream.tls
        return self

    def __exit__(self, *exc):
        stream.tls = self.real
        self.listener.close()
        if hasattr(self, "socket"):
            self.socket.close()

    # What stream.py takes from tls
    PROTOCOL_TLS_CLIENT = PROTOCOL_TLS_CLIENT
    CERT_REQUIRED = CERT_REQUIRED

    def SSLContext(self, protocol):
        return self

    def load_verify_locations(self, cadata):
        self.loaded.append(cadata)

    def load_cert_chain(self, cert, key):
        self.loaded.append((cert, key))

    def wrap_socket(self, link, server_hostname):
        assert self.verify_mode == CERT_REQUIRED
        self.server_hostname = server_hostname
        self.socket = self.listener.accept()[0]
        if self.says:
            self.socket.send(self.says)
        if self.closes:
            self.socket.close()
        self.wire = Socket(link)
        return self.wire

    @property
    def port(self):
        return port


port = 0


def free_port():
    # MicroPython cannot tell which port it was given for 0: try some.
    global port
    import os

    while True:
        port = 20000 + int.from_bytes(os.urandom(2), "big") % 40000
        s = socket.socket()
        try:
            s.bind(socket.getaddrinfo("127.0.0.1", port)[0][-1])
            return port
        except OSError:
            pass
        finally:
            s.close()
