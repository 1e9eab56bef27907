# Stand-in for `socket`: everything is the interpreter's, but names resolve as on a board in a laboratory.
# No name ever reaches the PC's resolver; settings are described in _chip.py.
from micropython import const
from usocket import *
from usocket import getaddrinfo as _getaddrinfo

# What ESP32 raises for a name that it cannot resolve (lwIP's EAI_FAIL, negated).
_EAI_FAIL = const(-202)


def _linked():
    import sys

    network = sys.modules.get("network")
    return network is not None and network.WLAN(network.STA_IF).isconnected()


def getaddrinfo(host, port, *rest):
    from uos import getenv

    if getenv("BOARD_RADIO") and not _linked():
        raise OSError(_EAI_FAIL)
    wanted = f"{host}:{port}"
    for entry in (getenv("BOARD_HOSTS") or "").split(";"):
        name, _, place = entry.partition("=")
        if name == wanted:
            host, port = place.rsplit(":", 1)
            return _getaddrinfo(host, int(port), *rest)
    if host == "localhost" or host.endswith(".localhost"):
        host = "127.0.0.1"
    elif not all(part.isdigit() for part in host.split(".")):
        raise OSError(_EAI_FAIL)
    return _getaddrinfo(host, port, *rest)
