# CircuitPython's face of aziot/runtime.py, in whose place it is on the drive: its settings are in settings.toml, its
# hashlib has new() only, its ticks are those of time.monotonic_ns().
import hashlib
import os
import select
from time import localtime, monotonic_ns, sleep
from time import time as seconds

import wifi
from socketpool import SocketPool

# What Identity and its token want to know, and of which type where that is not the one that settings.toml has
_PLAIN = """registration_id id_scope dps_host port dps_api hub_api auth timeout token_life will outbox renew spread
patience device_key group_key""".split()
_SWITCHES = "chain report".split()

pool = SocketPool(wifi.radio)
IOBase = object  # ssl asks a socket for its methods, not for its type


def sha256(data=b""):
    return hashlib.new("sha256", data)


class poll:
    """select.poll() for the sockets of umqtt/simple.py, which hold CircuitPython's own."""

    def __init__(self):
        self.real = select.poll()

    def register(self, sock, event):
        self.real.register(sock.real, event)

    def poll(self, ms):
        return self.real.poll(ms)


class time:
    """As much of MicroPython's time as this library uses. These ticks never go round."""

    time = seconds
    sleep = sleep

    @staticmethod
    def gmtime(t):
        # Of the years before 2000 CircuitPython's calendar knows nothing.
        return localtime(t) if t else (1970, 1, 1, 0, 0, 0)

    @staticmethod
    def sleep_ms(ms):
        sleep(ms / 1000)

    @staticmethod
    def ticks_ms():
        return monotonic_ns() // 1000000

    @staticmethod
    def ticks_add(ticks, ms):
        return ticks + ms

    @staticmethod
    def ticks_diff(a, b):
        return a - b


def table(_path):
    """What settings.toml says under AZIOT_..., whichever of MicroPython's files is asked for: dict."""
    found = {}
    for name in _PLAIN + _SWITCHES + ["ntp"]:
        value = os.getenv("AZIOT_" + name.upper())
        if name in _SWITCHES and value in (0, 1):
            value = bool(value)
        elif name == "ntp" and isinstance(value, str):
            value = value.split(",")
        if value is not None:
            found[name] = value
    for name in ("wifi_ssid", "wifi_password"):
        found[name] = os.getenv("CIRCUITPY_" + name.upper()) or ""
    return found


def read(path):
    with open(path, "rb") as f:
        return f.read()


def hand(load, path, _size, *others):
    """Files for TLS, which opens them itself: so a chain is shown whole, whatever the setting "chain" says."""
    load(path, *others)
