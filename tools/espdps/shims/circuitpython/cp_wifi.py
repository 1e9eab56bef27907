"""CircuitPython's wifi: one network, that of settings.toml, which is joined at power-on. BOARD_WIFI=none: it is away."""

import os


class Radio:
    enabled = True
    ipv4_address = "127.0.0.1"

    def __init__(self) -> None:
        self.connected = False
        import cp_os

        if cp_os.getenv("CIRCUITPY_WIFI_SSID") and os.environ.get("BOARD_WIFI") != "none":
            self.connected = True

    def connect(self, ssid: str, password: str = "", *, timeout: float | None = None) -> None:
        if os.environ.get("BOARD_WIFI") == "none" or not ssid:
            raise ConnectionError("No network with that ssid")
        self.connected = True


radio = Radio()
