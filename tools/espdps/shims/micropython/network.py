# Stand-in for ESP32's `network`: a station whose link comes up after a moment, or fails the way a test asks.
# It owns no radio: once "connected", packets go through the PC's loopback. Settings: _chip.py.
import _chip
from _release import minor
from micropython import const
from uos import getenv
from ustruct import pack_into, unpack_from
from utime import ticks_add, ticks_diff, ticks_ms

STA_IF = 0
AP_IF = 1
STAT_BEACON_TIMEOUT = 200
STAT_NO_AP_FOUND = 201
STAT_WRONG_PASSWORD = 202
STAT_ASSOC_FAIL = 203
STAT_HANDSHAKE_TIMEOUT = 204
STAT_IDLE = 1000
STAT_CONNECTING = 1001
STAT_GOT_IP = 1010
MODE_11B = 1
MODE_11G = 2
MODE_11N = 4
AUTH_OPEN = 0
AUTH_WPA2_PSK = 3
AUTH_WPA3_PSK = 6

_hostname = "mpy-esp32"


def hostname(name=None):
    global _hostname
    if name is None:
        return _hostname
    _hostname = name


# In _chip.memory, which outlives a soft reset as the radio's state does: what the radio is about, when it is through with
# that (ticks_ms), and the name and the password that it was given.
_STATE = const(16)
_ACTIVE = const(1)
_WANTED = const(2)
_LEFT = const(4)  # disconnect() was called last
_WHEN = const(20)
_NAME = const(24)
_KEY = const(57)


def _text(at):
    size = _chip.memory[at]
    return str(_chip.memory[at + 1 : at + 1 + size], "utf-8")


def _keep(at, most, text):
    text = (text or "").encode()[:most]
    _chip.memory[at] = len(text)
    _chip.memory[at + 1 : at + 1 + len(text)] = text


def _state(*bits):
    # Set, if bits are given, and since when.
    if bits:
        _chip.memory[_STATE] = sum(bits)
        pack_into("<I", _chip.memory, _WHEN, ticks_add(ticks_ms(), int(getenv("BOARD_WIFI_MS") or 50)))
    return _chip.memory[_STATE]


def _busy():
    return ticks_diff(unpack_from("<I", _chip.memory, _WHEN)[0], ticks_ms()) > 0


class WLAN:
    IF_STA = STA_IF
    IF_AP = AP_IF
    PM_NONE = 0
    PM_PERFORMANCE = 1
    PM_POWERSAVE = 2

    _station = None

    def __new__(cls, interface=STA_IF):
        # There is one radio: every call gives the same station.
        if interface != STA_IF:
            raise ValueError("STA_IF only")
        if getenv("BOARD_WIFI") == "broken":
            raise RuntimeError("Wifi Unknown Error 0x0101")
        if cls._station is None:
            cls._station = super().__new__(cls)
            cls._station._settings = {"reconnects": -1, "pm": cls.PM_PERFORMANCE, "txpower": 20}
        return cls._station

    def active(self, on=None):
        if on is not None and bool(on) != bool(_state() & _ACTIVE):
            _state(_ACTIVE if on else 0)
        return bool(_state() & _ACTIVE)

    def connect(self, ssid=None, key=None, *, bssid=None):
        state = _state()
        if not state & _ACTIVE:
            raise OSError("Wifi Internal State Error")
        if state & _WANTED and not self.isconnected():
            # Until disconnect() it goes on trying, whatever the status is.
            raise OSError("Wifi Internal State Error" if minor >= 27 else "Wifi Internal Error")
        _keep(_NAME, 32, ssid)
        _keep(_KEY, 64, key)
        _state(_ACTIVE, _WANTED)

    def disconnect(self):
        # The link is up for a moment yet: it goes down in another task.
        if not _state() & _ACTIVE:
            raise OSError("Wifi Not Started")
        _state(_ACTIVE, _LEFT if self.isconnected() else 0)

    def status(self, what=None):
        if what == "rssi":
            return -50
        if what is not None:
            raise ValueError("unknown status param")
        state = _state()
        if state & _LEFT and _busy():
            return STAT_GOT_IP
        if not state & _WANTED:
            return STAT_IDLE
        mode = getenv("BOARD_WIFI") or ""
        if mode == "silent" or _busy():
            return STAT_CONNECTING
        if mode == "absent" or (getenv("BOARD_WIFI_NAME") or _text(_NAME)) != _text(_NAME):
            return STAT_NO_AP_FOUND
        if mode == "wrong" or (getenv("BOARD_WIFI_KEY") or _text(_KEY)) != _text(_KEY):
            return STAT_WRONG_PASSWORD
        return STAT_GOT_IP

    def isconnected(self):
        return self.status() == STAT_GOT_IP

    def ifconfig(self, fixed=None):
        if fixed is not None:
            return None
        if self.isconnected():
            return ("127.0.0.1", "255.0.0.0", "127.0.0.1", "127.0.0.1")
        return ("0.0.0.0", "0.0.0.0", "0.0.0.0", "0.0.0.0")

    def config(self, name=None, **changes):
        if name == "mac":
            import machine

            return machine.unique_id()
        if name == "ssid":
            return _text(_NAME)
        if name is not None:
            if name not in self._settings:
                raise ValueError("unknown config param")
            return self._settings[name]
        for key in changes:
            if key not in self._settings:
                raise ValueError("unknown config param")
        self._settings.update(changes)

    def scan(self):
        if not self._active:
            raise OSError("STA must be active")
        return []
