"""Names of serial ports, as mpremote takes them. Opens none."""

from __future__ import annotations

import re

from serial.tools import list_ports

from espdps import inputs
from espdps.errors import WRONG_USE, ToolError

_SHORT = {"a": "/dev/ttyACM", "u": "/dev/ttyUSB", "c": "COM"}


def named(port: str) -> str:
    """The device that is meant: also for u0, a0, c0, port:DEVICE, id:SERIAL and auto. Raises ToolError."""
    port = inputs.bare(port).removeprefix("port:")
    if not port:
        raise ToolError("--port is empty", "name a port such as /dev/ttyUSB0", WRONG_USE)
    if found := re.fullmatch("([auc])([0-9]+)", port):
        return _SHORT[found[1]] + found[2]
    if "://" in port:
        hint = "name the port on this PC that the board is plugged into"
        raise ToolError(f"--port {port.partition('://')[0]}:// is not supported", hint, WRONG_USE)
    if port.startswith("id:"):
        devices = [one.device for one in list_ports.comports() if one.serial_number == port[3:]]
        missing = f"no serial port has the serial number {port[3:]!r:.80}"
    elif port == "auto":
        devices = [one.device for one in list_ports.comports() if one.vid is not None]
        missing = "no board is plugged in"
    else:
        return port
    if len(devices) > 1:
        raise ToolError(f"--port {port} fits several ports: {', '.join(sorted(devices))}", "name one", WRONG_USE)
    if not devices:
        raise ToolError(missing, "mpremote connect list shows what there is")
    return str(devices[0])
