"""CircuitPython's wifi: one network, that of settings.toml, which is joined at power-on. BOARD_WIFI=none: it is away."""

import os
from types import SimpleNamespace


class Radio:
    enabled = True
    ipv4_address = "127.0.0.1"

    def __init__(self) -> None:
        self.ap_info: SimpleNamespace | None = None
        import cp_os

        ssid = cp_os.getenv("CIRCUITPY_WIFI_SSID")
        if ssid and os.environ.get("BOARD_WIFI") != "none":
            self.ap_info = SimpleNamespace(ssid=ssid)

    @property
    def connected(self) -> bool:
        return self.ap_info is not None

    def stop_station(self) -> None:
        self.ap_info = None

    def connect(self, ssid: str, password: str = "", *, timeout: float | None = None) -> None:
        if os.environ.get("BOARD_WIFI") == "none" or not ssid:
            raise ConnectionError("No network with that ssid")
        self.ap_info = SimpleNamespace(ssid=ssid)


radio = Radio()
