# Stand-in for ESP32's `network`: a station whose link comes up after a moment, or fails the way a test asks.
# It owns no radio: once "connected", packets go through the PC's loopback. Settings: _chip.py.
from uos import getenv
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
        if cls._station is None:
            cls._station = super().__new__(cls)
            cls._station._active = False
            cls._station._settled = None
            cls._station._settings = {"reconnects": -1, "pm": cls.PM_PERFORMANCE, "txpower": 20, "ssid": ""}
        return cls._station

    def active(self, on=None):
        if on is None:
            return self._active
        self._active = bool(on)
        if not on:
            self._settled = None
        return self._active

    def connect(self, ssid=None, key=None, *, bssid=None):
        if not self._active:
            raise OSError("Wifi Internal State Error")
        if self.status() == STAT_CONNECTING:
            raise OSError("Wifi Internal Error")
        self._settings["ssid"] = ssid or ""
        self._settled = ticks_add(ticks_ms(), int(getenv("BOARD_WIFI_MS") or 50))

    def disconnect(self):
        if not self._active:
            raise OSError("Wifi Not Started")
        self._settled = None

    def status(self, what=None):
        if what == "rssi":
            return -50
        if what is not None:
            raise ValueError("unknown status param")
        if self._settled is None:
            return STAT_IDLE
        mode = getenv("BOARD_WIFI") or ""
        if mode == "silent" or ticks_diff(self._settled, ticks_ms()) > 0:
            return STAT_CONNECTING
        return {"absent": STAT_NO_AP_FOUND, "wrong": STAT_WRONG_PASSWORD}.get(mode, STAT_GOT_IP)

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
