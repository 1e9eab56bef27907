# CircuitPython's face of aziot/runtime.py, in whose place it is on the drive: its settings are in settings.toml, its
# hashlib has new() only, its ticks are those of time.monotonic_ns().
import hashlib
import json
import os
import select
from time import localtime, monotonic_ns, sleep
from time import time as seconds

import wifi
from socketpool import SocketPool

# What Identity and its token want to know, by type. os.getenv() gives texts only, or whole numbers as well: its
# releases differ.
_TEXTS = "registration_id id_scope dps_host dps_api hub_api auth will model_id payload".split()
_TEXTS += "device_key secondary_device_key group_key".split()
_NUMBERS = "port timeout token_life outbox renew spread patience refusal_patience chain report".split()
_SWITCHES = "chain report".split()

COPIES = 3  # of a message that MQTT makes while it reads it

pool = socket = SocketPool(wifi.radio)
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
    """What settings.toml says under AZIOT_..., whichever of MicroPython's files is asked for: dict. ValueError."""
    found = {}
    for name in _TEXTS + _NUMBERS + ["ntp"]:
        value = os.getenv("AZIOT_" + name.upper())
        if value is None:
            continue
        if name in _NUMBERS:
            value = int(value)
            if name in _SWITCHES:
                value = bool(value)
        elif name == "ntp":
            value = value.split(",")
        elif name == "payload":
            value = json.loads(value)
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
