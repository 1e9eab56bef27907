"""Ports by the names that mpremote takes (its documentation, "Shortcuts" and "connect")."""

from __future__ import annotations

import pytest
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from espdps.board import monitor, ports, repl
from espdps.errors import ToolError


def plugged(monkeypatch: pytest.MonkeyPatch, *devices: tuple[str, str | None, int | None]) -> None:
    found = []
    for device, serial_number, vid in devices:
        info = ListPortInfo(device, skip_link_detection=True)
        info.serial_number, info.vid = serial_number, vid
        found.append(info)
    monkeypatch.setattr(list_ports, "comports", lambda: found)


@pytest.mark.parametrize(
    ("given", "device"),
    [
        ("u0", "/dev/ttyUSB0"),
        ("a12", "/dev/ttyACM12"),
        ("c3", "COM3"),
        ("COM5", "COM5"),
        ("port:/dev/ttyS1", "/dev/ttyS1"),
        ("  /dev/ttyUSB0\n", "/dev/ttyUSB0"),
        ("id:7c9ebd", "/dev/ttyUSB1"),
        ("auto", "/dev/ttyUSB1"),
    ],
)
def test_a_port_has_the_names_of_mpremote(monkeypatch: pytest.MonkeyPatch, given: str, device: str) -> None:
    plugged(monkeypatch, ("/dev/ttyS0", None, None), ("/dev/ttyUSB1", "7c9ebd", 0x10C4))
    assert ports.named(given) == device


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("", "is empty"),
        ("rfc2217://localhost:2217", "not supported"),
        ("id:none", "serial number 'none'"),
        ("auto", "ttyACM0, /dev/ttyUSB1"),
    ],
)
def test_what_is_no_port_is_said_by_every_command(monkeypatch: pytest.MonkeyPatch, given: str, says: str) -> None:
    plugged(monkeypatch, ("/dev/ttyUSB1", "7c9ebd", 0x10C4), ("/dev/ttyACM0", "x", 0x303A))
    with pytest.raises(ToolError, match=says):
        monitor.open_port(given)
    with pytest.raises(ToolError, match=says), repl.opened(given):
        pass
