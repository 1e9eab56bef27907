"""What outlives a soft reset of an ESP32, its radio and why it was started, with the firmware's own hardware.py."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import secrecy
from bench import PASSWORD, PLAN, Bench
from board_console import Console

from espdps.board import board_doctor, repl
from espdps.devices import folders
from espdps.paths import FIRMWARE
from espdps.virtual_board import VirtualBoard

JOINS = """\
import hardware, network
print('[   0.000] joined       %s' % network.WLAN().isconnected())
hardware.start()
try:
    hardware.start_network(1)
    print('[   0.100] hub.ready    %s' % network.WLAN().config('ssid'))
except hardware.AzureError as e:
    hardware.log('error', str(e))
    hardware.log('wait', '600 s')
"""
HANGS = """\
import hardware, machine
hardware.config['watchdog'] = 60 if machine.reset_cause() == machine.WDT_RESET else 1
hardware.start()
while True: hardware.time.sleep_ms(20)
"""


@contextmanager
def working(folder: Path, micropython: Path, main: str, **environment: str) -> Iterator[Bench]:
    """A bench with the real firmware, but for main.py."""
    firmware = folder / "firmware"
    shutil.copytree(FIRMWARE, firmware, ignore=shutil.ignore_patterns("circuitpython", "examples", "__pycache__"))
    (firmware / "main.py").write_text(main)
    device = folders.load(folders.create(PLAN, folder / "devices"))
    secrecy.note(device.folder)
    with VirtualBoard(folder / "board", micropython, flash_size=512 * 1024, environment=environment) as board:
        yield Bench(board, firmware, device)


def network_of(bench: Bench, **changes: str) -> None:
    path = bench.device.folder / "secrets.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_wrong_password_is_said_and_a_corrected_one_is_taken(tmp_path: Path, micropython32: Path) -> None:
    access_point = {"BOARD_WIFI_NAME": "Greenhouse", "BOARD_WIFI_KEY": PASSWORD, "BOARD_RELEASE": "1.29"}
    with working(tmp_path, micropython32, JOINS, **access_point) as bench:
        network_of(bench, wifi_password="battery horse wrong")
        fault = bench.flash().fault
        assert fault and fault.code == "network" and "Wi-Fi status 202: wrong password" in fault.message
        network_of(bench, wifi_password=PASSWORD)
        assert bench.flash().connected


def test_flashing_resets_the_radio_too(tmp_path: Path, micropython32: Path) -> None:
    with working(tmp_path, micropython32, JOINS) as bench:
        assert bench.flash().connected
        network_of(bench, wifi_ssid="Barn")
        assert bench.flash().connected
        assert [event.text for event in bench.events if event.step in ("joined", "hub.ready")] == ["False", "Barn"]


def test_another_network_is_left_that_outlived_a_soft_reset(tmp_path: Path, micropython32: Path) -> None:
    with working(tmp_path, micropython32, JOINS) as bench:
        assert bench.flash().connected
        network_of(bench, wifi_ssid="Barn")
        bench.mpremote("fs", "cp", str(bench.device.folder / "secrets.json"), ":/secrets.json")
        with Console(bench.board.port) as console:
            console.type(b"\x02")
            console.prompt()
            console.type(b"\x04")  # a soft reset
            text = console.read_until(b"hub.ready")
            assert b"joined       True" in text
            assert b"Barn" in console.read_until(b">>> ")


def test_doctor_sees_that_the_watchdog_has_started_the_program(tmp_path: Path, micropython32: Path) -> None:
    with working(tmp_path, micropython32, HANGS) as bench:
        bench.flash(follow=None)
        with Console(bench.board.port) as console:
            console.read_until(b"by the watchdog")
        with repl.opened(bench.board.port) as board:
            assert "its watchdog had to start it" in [finding.message for finding in board_doctor.examine(board)]
