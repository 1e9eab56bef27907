"""app.py and each of firmware/examples on a virtual board, as a reader would try them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from units import make_unit

from espdps.board.flash import flash
from espdps.board.monitor import Listener, open_port
from espdps.devices import folders, profiles
from espdps.paths import FIRMWARE
from espdps.simulator import Cut, Options, Simulator, Trouble, serving
from espdps.virtual_board import VirtualBoard
from espdps.virtual_board.micropython import interpreter

ID = "contoso-0001"


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    with serving(tmp_path / "sim", Options(assigning=0)) as simulator:
        yield simulator


@pytest.fixture
def board(tmp_path: Path, sim: Simulator) -> Iterator[VirtualBoard]:
    profile = profiles.load("UNIX")
    hosts = {"pool.ntp.org:123": ("127.0.0.1", sim.info["ntp_port"])}
    # What an S2, S3, C3 or C6 starts with: asyncio with all of a session needs more than the 56 KB of an ESP32.
    with VirtualBoard(
        tmp_path / "board", interpreter(32), heap="64k", profile_name="UNIX", epoch=profile.epoch, hosts=hosts
    ) as virtual:
        yield virtual


@pytest.fixture
def start(tmp_path: Path, sim: Simulator, board: VirtualBoard) -> Callable[..., None]:
    """Flash a board with this application, some of its text replaced, and wait until it is connected."""

    def start(app: str, **changes: str) -> None:
        firmware = tmp_path / "firmware"
        shutil.copytree(FIRMWARE, firmware)
        text = (FIRMWARE / app).read_text()
        for old, new in changes.items():
            assert text.count(f"{old} = ") >= 1
            text = "\n".join(f"{old} = {new}" if line.startswith(f"{old} = ") else line for line in text.split("\n"))
        (firmware / "app.py").write_text(text)
        done = flash(folders.load(make_unit(tmp_path, sim)), board.port, firmware=firmware, follow=60)
        assert done.connected, done

    return start


def said(board: VirtualBoard, step: str, times: int = 1) -> list[str]:
    """Texts of the board's next lines of this step, none of which is an error."""
    texts: list[str] = []
    with open_port(board.port) as port:
        for event in Listener(port).events(60):
            assert not (event and ("Traceback" in event.text or event.step == "error")), event
            if event and event.step == step:
                texts.append(event.text)
                if len(texts) == times:
                    return texts
    raise AssertionError(texts)


def told(sim: Simulator, kind: str, count: int, **match: Any) -> list[dict[str, Any]]:
    """The first events of this kind; waits for as many."""
    last: dict[str, Any] = {}
    found: list[dict[str, Any]] = []
    while len(found) < count:
        sim.wait_event(kind, timeout=60, after=sim.events.index(last) + 1 if last else 0, **match)
        found = [event for event in sim.events if event["event"] == kind and match.items() <= event.items()]
        last = found[-1]
    return found[:count]


def test_app_shows_a_message_a_method_and_a_desired_property(
    sim: Simulator, board: VirtualBoard, start: Callable[..., None]
) -> None:
    start("app.py")
    told(sim, "hub.telemetry", 1)
    assert sim.twin(ID).reported["interval"] == 10
    sim.desire(ID, {"interval": 1})
    told(sim, "hub.twin", 3, status=204)  # the certificate's dates, then both intervals
    assert sim.twin(ID).reported["interval"] == 1
    assert sim.call_method(ID, "led", {"on": True}) == (200, {"on": True})
    assert sim.call_method(ID, "led", {})[0] == 500
    assert sim.call_method(ID, "other")[0] == 404
    sim.send_message(ID, b"good morning", {"urgency": "low"})
    told(sim, "hub.c2d", 1, state="completed")
    counts = [json.loads(event["body"])["count"] for event in told(sim, "hub.telemetry", 4)]
    assert counts == [1, 2, 3, 4]


def test_an_application_that_fails_says_where_and_is_started_again(
    sim: Simulator, board: VirtualBoard, start: Callable[..., None]
) -> None:
    start("app.py", interval='"soon"')  # what a person might write
    with open_port(board.port) as port:
        lines = []
        for event in Listener(port).events(60):
            if event:
                lines.append(event)
            if event and event.step == "hub.ready":
                break
    text = "\n".join(event.text for event in lines)
    assert 'File "app.py", line' in text and [e.fault.code for e in lines if e.fault] == ["ValueError"], text
    assert "wait" in [event.step for event in lines]


def test_sensor(sim: Simulator, board: VirtualBoard, start: Callable[..., None]) -> None:
    start("examples/sensor.py")
    sim.desire(ID, {"limit": 0})
    first, second = told(sim, "hub.telemetry", 2)
    assert first["properties"]["unit"] == second["properties"]["unit"] == "Celsius"
    assert 20 <= json.loads(first["body"])["temperature"] < 36
    assert "alarm" in second["properties"] and second["properties"]["alarm"] is None


def test_asyncio(sim: Simulator, board: VirtualBoard, start: Callable[..., None]) -> None:
    start("examples/asyncio_app.py")
    told(sim, "hub.telemetry", 1)
    assert sim.call_method(ID, "faster") == (200, {"blink_ms": 500})
    assert sim.call_method(ID, "faster") == (200, {"blink_ms": 250})
    sim.set_trouble(ID, Trouble({"hub.telemetry": Cut()}))
    sim.wait_event("hub.disconnect", timeout=60)
    sim.set_trouble(ID, Trouble())
    after = len(sim.events)
    sim.wait_event("hub.telemetry", timeout=60, after=after)
    assert sim.call_method(ID, "faster") == (200, {"blink_ms": 125})


def test_deep_sleep_costs_one_handshake_a_time(sim: Simulator, board: VirtualBoard, start: Callable[..., None]) -> None:
    start("examples/deep_sleep.py", SLEEP="1", LISTEN="1")
    assert [json.loads(event["body"])["woken"] for event in told(sim, "hub.telemetry", 3)] == [False, True, True]
    with open_port(board.port) as port:
        steps = []
        for event in Listener(port).events(60):
            steps += [event.step] if event else []
            if steps.count("hub.ready") == 3:
                break
    woken = steps[steps.index("start") :]
    assert woken[:4] == ["start", "identity", "network", "hub.ready"], steps  # no time server, no DPS
    kinds = [event["event"] for event in sim.events]
    assert kinds.count("dps.connect") == 1 and kinds.count("tls.open") == 1 + kinds.count("hub.connect"), kinds
    sim.send_message(ID, b"kept while it slept")
    told(sim, "hub.c2d", 1, state="completed")
