"""A registration by Adafruit's CircuitPython library, unmodified; runs in the environment build/peers.

What CircuitPython has and a PC lacks is given to it where it asks for it: a socket pool and a TLS context. Nothing of
esp-dps may be used here, and no key may be printed. Reads its settings as JSON from stdin.
"""

import json
import logging
import socket
import ssl
import sys
import time
import types

micropython = types.ModuleType("micropython")  # of CircuitPython, which is one
micropython.const = lambda value: value
sys.modules["micropython"] = micropython
sys.path.pop(0)  # the folder of this file, whose name is that of the library

import adafruit_logging  # noqa: E402
from adafruit_azureiot import hmac  # noqa: E402
from adafruit_azureiot.device_registration import DeviceRegistration  # noqa: E402

hmac._HMAC__translate = vars(hmac)["__translate"]  # CircuitPython does not mangle names within a class

settings = json.load(sys.stdin)
start = time.monotonic()


class Pool:
    """socketpool.SocketPool, whose names resolve to the bench."""

    AF_INET, SOCK_STREAM, timeout = socket.AF_INET, socket.SOCK_STREAM, socket.timeout

    @staticmethod
    def getaddrinfo(host, port, *_):
        return socket.getaddrinfo("127.0.0.1", settings["port"], 0, socket.SOCK_STREAM)

    socket = socket.socket


class Socket(ssl.SSLSocket):
    """CircuitPython's sockets connect to a name, which is the one that TLS checks."""

    def connect(self, address):
        super().connect(("127.0.0.1", settings["port"]))


class Context:
    """ssl.SSLContext. The library has the service's host name built in: here it is the simulator's."""

    def __init__(self):
        self.context = ssl.create_default_context(cafile=settings["roots"])
        self.context.sslsocket_class = Socket

    def wrap_socket(self, sock, server_hostname):
        return self.context.wrap_socket(sock, server_hostname=settings["host"])


def say(step):
    print(f"{(time.monotonic() - start) * 1000:.0f} {step} 0 ", flush=True)


logger = adafruit_logging.getLogger("bench")
logger.addHandler(adafruit_logging.NullHandler())
logger.setLevel(logging.CRITICAL)
pool, context = Pool(), Context()
registration = DeviceRegistration(pool, context, settings["id_scope"], settings["name"], settings["key"], logger)
registration.register_device(int(time.time()) + 3600)
say("dps.assigned")
