"""`network` for a PC: it is always connected. It must never do anything to the PC's own network."""

STA_IF = 0


class WLAN:
    def __init__(self, interface: int) -> None:
        pass

    def active(self, up: bool | None = None) -> bool:
        return True

    def connect(self, ssid: str = "", key: str = "") -> None:
        pass

    def disconnect(self) -> None:
        pass

    def config(self, name: str) -> str:
        return ""

    def isconnected(self) -> bool:
        return True

    def status(self) -> int:
        return 1010

    def ifconfig(self) -> tuple[str, str, str, str]:
        return "127.0.0.1", "255.0.0.0", "127.0.0.1", "127.0.0.1"
