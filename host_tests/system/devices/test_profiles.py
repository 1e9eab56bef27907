"""Board profiles: those that are here load, and a wrong one is named by file and key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from espdps.devices import profiles
from espdps.errors import ToolError
from espdps.paths import BOARDS

GOOD = (BOARDS / "ESP32_GENERIC.toml").read_text()


@pytest.mark.parametrize(
    ("name", "chip", "heap", "epoch"),
    [
        ("ESP32_GENERIC", "ESP32", "56k", 2000),
        ("ESP32_GENERIC_S2", "ESP32S2", "64k", 2000),
        ("ESP32_GENERIC_S3", "ESP32S3", "64k", 2000),
        ("ESP32_GENERIC_C3", "ESP32C3", "64k", 2000),
        ("ESP32_GENERIC_C6", "ESP32C6", "64k", 2000),
        ("UNIX", "unix", "56k", 1970),
    ],
)
def test_the_profiles_that_are_here(name: str, chip: str, heap: str, epoch: int) -> None:
    profile = profiles.load(name)
    assert (profile.chip, profile.heap, profile.epoch) == (chip, heap, epoch)
    assert profile.runtime == "micropython" and profile.min_version == profiles.OLDEST
    assert name in profiles.names()


def test_what_the_firmware_gets() -> None:
    table = json.loads(json.dumps(profiles.load("ESP32_GENERIC").board_json()))
    assert table == {"board": "ESP32_GENERIC", "network": "wifi", "led": 2, "led_on": 1, "watchdog": 120}
    assert profiles.load("ESP32_GENERIC_C3").board_json()["led"] is None


def test_an_unknown_board_lists_the_known() -> None:
    with pytest.raises(ToolError, match="no board profile 'ESP9'") as caught:
        profiles.load("ESP9")
    assert "ESP32_GENERIC_C6" in caught.value.hint and caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("colour = 1", "unknown key 'colour'"),
        ("chip = 32", "'chip' must be"),
        ('chip = "STM32"', "'chip' must be"),
        ("chip = []", "'chip' must be"),
        ('chip = ["ESP32", 3]', "'chip' must be"),
        ('min_version = "1"', "'min_version' must be"),
        ("min_version = 1.23", "'min_version' must be"),
        ('network = "lora"', "'network' must be"),
        ("led = true", "'led' must be"),
        ("led = 49", "'led' must be"),
        ("led_on = 2", "'led_on' must be"),
        ("watchdog = 10", "'watchdog' must be"),
        ('heap = "lots"', "'heap' must be"),
        ("epoch = 2001", "'epoch' must be"),
        ("mpy = [1]", "'mpy' must be"),
        ('runtime = "java"', "'runtime' must be"),
    ],
)
def test_a_wrong_profile_is_named_by_file_and_key(tmp_path: Path, line: str, says: str) -> None:
    key = line.split(" ")[0]
    kept = [old for old in GOOD.splitlines() if not old.startswith(key + " ")]
    (tmp_path / "MINE.toml").write_text("\n".join([*kept, line]))
    with pytest.raises(ToolError, match=f"MINE.toml:{len(kept) + 1}: {says}"):
        profiles.load("MINE", tmp_path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[wifi]\nssid = 1\n", 1),
        ('# a comment\n\n"wifi" = 1\n', 3),
        ("wifi.ssid = 1\n", 1),
        ('\nwifi = """\nled = 1\n"""\n', 2),
        ("wifi = [\n  1,\n]\n", 1),
        ("[[wifi]]\n", 1),
    ],
)
def test_the_line_of_an_unknown_key_however_it_is_written(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / "MINE.toml").write_text(GOOD + text)
    with pytest.raises(ToolError, match=f"MINE.toml:{GOOD.count(chr(10)) + line}: unknown key 'wifi'"):
        profiles.load("MINE", tmp_path)


def test_a_slip_of_the_finger_is_told_what_is_meant(tmp_path: Path) -> None:
    (tmp_path / "MINE.toml").write_text(GOOD + "watchdgo = 60\n")
    with pytest.raises(ToolError, match="unknown key 'watchdgo'") as caught:
        profiles.load("MINE", tmp_path)
    assert caught.value.hint == "watchdog is meant?"


@pytest.mark.parametrize("key", ["chip", "runtime", "min_version", "network", "watchdog", "heap", "epoch", "mpy"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    (tmp_path / "MINE.toml").write_text("\n".join(line for line in GOOD.splitlines() if not line.startswith(key + " ")))
    with pytest.raises(ToolError, match=f"MINE.toml: '{key}' is missing"):
        profiles.load("MINE", tmp_path)


def test_a_led_needs_its_level(tmp_path: Path) -> None:
    (tmp_path / "MINE.toml").write_text(GOOD.replace("led_on = 1\n", ""))
    with pytest.raises(ToolError, match="go together"):
        profiles.load("MINE", tmp_path)


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    (tmp_path / "MINE.toml").write_text("chip =")
    with pytest.raises(ToolError, match="MINE.toml: not TOML"):
        profiles.load("MINE", tmp_path)
