"""The main job with real parts, over TLS to the simulator: mpremote flashes real MicroPython, 32-bit; and a CIRCUITPY
drive is flashed and run with adafruit_minimqtt, by CPython with stand-ins for CircuitPython's modules."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import secrecy

from espdps.demo.on_micropython import ADDED
from espdps.paths import ROOT


@pytest.fixture(scope="module", params=["micropython", "circuitpython"])
def demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One run of the command, its folder kept: the folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-m", "espdps.cli", "demo", "--dir", str(folder), "--runtime", request.param],
        env={**os.environ, "COLUMNS": "80"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    secrecy.note(folder)
    secrecy.assert_clean(done.stdout, "what the demo printed")
    assert done.returncode == 0, done.stdout
    return folder, done.stdout


def test_every_step_is_shown_in_order(demo: tuple[Path, str]) -> None:
    text = demo[1]
    at = -1
    for words in (
        "load credential",
        "clock",
        "TLS to DPS",
        "register",
        "assigning",
        "assigned",
        "certificate issued",
        "TLS to Hub",
        "the hub received",
        "the plug is pulled",
        "load credential",
        "clock",
        "TLS to Hub",
        "the hub received",
        "a real identity",
    ):
        found = text.find(words, at + 1)
        assert found > at, f"{words!r} missing in:\n{text}"
        at = found


def test_all_of_it_is_read_in_80_columns(demo: tuple[Path, str]) -> None:
    lines = demo[1].splitlines()
    assert max(map(len, lines)) == 80 and "…" not in demo[1] and not [line for line in lines if line != line.rstrip()]
    words = " ".join(demo[1].split())
    for note in ADDED.values():
        assert note in words
    figures = lines[next(number for number, line in enumerate(lines) if "a real identity" in line) + 1 : -1]
    assert len(figures) == 6, "a figure has two lines"


@pytest.mark.parametrize("demo", ["micropython"], indirect=True)
def test_readme_shows_the_demo_as_it_is(demo: tuple[Path, str]) -> None:
    (shown,) = re.findall(
        r"^```text\n(── mpremote.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert max(map(len, shown.splitlines())) == 80
    begin, end = demo[1].index("── mpremote"), demo[1].index("the plug is pulled")
    assert _words(shown) == _words(demo[1][begin:end])


def _words(text: str) -> list[str]:
    """Without what differs from run to run: all that has a digit in it, and how long a line is."""
    return re.sub(r"\S*\d\S*", "#", text.replace("─", " ")).split()


def test_what_the_service_saw(demo: tuple[Path, str]) -> None:
    events = [json.loads(line) for line in (demo[0] / "sim" / "events.jsonl").read_text().splitlines()]
    names = [event["event"] for event in events]
    # Two handshakes at the first start, one at the second, which asks nothing of DPS.
    assert names.count("tls.open") == 3 and names.count("dps.connect") == 1 and names.count("hub.connect") == 2
    assert all(event["auth"] == "x509" for event in events if event["event"] == "hub.connect")
    registration = next(event for event in events if event["event"] == "closed" and event["connection"] == 1)
    assert registration["flights_in"] <= 4 and registration["records_in"] <= 4
    telemetry = [event for event in events if event["event"] == "hub.telemetry"]
    assert len(telemetry) >= 2 and all(event["qos"] == 1 for event in telemetry)


def test_the_events_hold_no_secret(demo: tuple[Path, str]) -> None:
    secrecy.assert_clean((demo[0] / "sim" / "events.jsonl").read_text(), "the simulator's events")
    assert secrecy.count() > 20
