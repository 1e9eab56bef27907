"""Which chip a board has, by what MicroPython says of it, and whether it is one that a profile means."""

from __future__ import annotations

from pathlib import Path

import pytest

from espdps.board import flash, repl
from espdps.board.repl import About
from espdps.devices import profiles
from espdps.devices.folders import Device
from espdps.paths import BOARDS

# sys.implementation._machine of boards that MicroPython builds: MICROPY_HW_BOARD_NAME "with" MICROPY_HW_MCU_NAME of
# ports/esp32/boards in 1.24 and 1.29; the family is IDF_TARGET of the same board.
STOCK = {
    "Generic ESP32 module with ESP32": "ESP32",
    "Generic ESP32 module with ESP32-D2WD": "ESP32",
    "Generic ESP32 module with ESP32-UNICORE": "ESP32",
    "Generic ESP32 module with SPIRAM with ESP32": "ESP32",
    "M5Stack ATOM with ESP32-PICO-D4": "ESP32",
    "TinyPICO with ESP32-PICO-D4": "ESP32",
    "Silicognition ManT1S with ESP32-PICO-V3-02": "ESP32",
    "LILYGO TTGO LoRa32 with ESP32": "ESP32",
    "ESP32C3 module with ESP32C3": "ESP32C3",
    "ESP32C3 module with ESP32-C3": "ESP32C3",
    "LOLIN_C3_MINI with ESP32-C3FH4": "ESP32C3",
    "Seeed XIAO ESP32C3 with ESP32-C3": "ESP32C3",
    "ESP32C6 module with ESP32C6": "ESP32C6",
    "Unexpected Maker TinyC6 with ESP32-C6": "ESP32C6",
    "Generic ESP32S2 module with ESP32S2": "ESP32S2",
    "FeatherS2 with ESP32-S2": "ESP32S2",
    "LOLIN_S2_MINI with ESP32-S2FN4R2": "ESP32S2",
    "Generic ESP32S3 module with ESP32S3": "ESP32S3",
    "Generic ESP32S3 module with Octal-SPIRAM with ESP32-S3": "ESP32S3",
    "TinyS3 with ESP32-S3-FN8": "ESP32S3",
    "OMGS3 with ESP32-S3-PICO-1-N8R2": "ESP32S3",
    "Arduino Nano ESP32 with ESP32S3": "ESP32S3",
    "ESP32C2 module with ESP32-C2": "ESP32C2",
    "Seeed XIAO ESP32C5 with ESP32-C5": "ESP32C5",
    "M5Stack NanoH2 with ESP32-H2": "ESP32H2",
    "Generic ESP32P4 module with WIFI module of external ESP32C6 with ESP32-P4": "ESP32P4",
}
GENERIC = {"ESP32": "ESP32_GENERIC"} | {f"ESP32{name}": f"ESP32_GENERIC_{name}" for name in ("C3", "C6", "S2", "S3")}


def device_for(profile: profiles.Profile) -> Device:
    return Device(Path("devices/dev-1"), {}, profile)


@pytest.mark.parametrize("machine", STOCK)
def test_stock_boards_are_told_apart_by_their_chip_s_family(machine: str) -> None:
    chip = repl._chip("esp32", machine, "")
    assert profiles.family(chip) == STOCK[machine]
    about = About("micropython", (1, 29), 6, "esp32", chip, "02" * 6, 4096, 100, "")
    fitting = {name for name in GENERIC.values() if flash.fits(about, device_for(profiles.load(name)))}
    assert fitting == {GENERIC[STOCK[machine]]} if STOCK[machine] in GENERIC else not fitting


def test_a_profile_may_list_more_chips(tmp_path: Path) -> None:
    text = (BOARDS / "ESP32_GENERIC_C3.toml").read_text()
    (tmp_path / "MINE.toml").write_text(text.replace('chip = "ESP32C3"', 'chip = ["ESP32-C3FH4", "ESP32C6"]'))
    profile = profiles.load("MINE", tmp_path)
    assert profile.chip == "ESP32-C3FH4"
    found = {
        chip: flash.fits(About("micropython", (1, 29), 6, "esp32", chip, "", 4096, 100, ""), device_for(profile))
        for chip in ("ESP32-C3", "ESP32C6", "ESP32-S3", "")
    }
    assert found == {"ESP32-C3": True, "ESP32C6": True, "ESP32-S3": False, "": True}


def test_other_names_stay_as_they_are() -> None:
    # An ESP32-S0WD is an ESP32 with one core (Espressif's datasheet), not of a family S0.
    assert [profiles.family(name) for name in ("unix", "ESP32-S0WD", "ESP32-U4WDH")] == ["unix", "ESP32", "ESP32"]
