"""What arrives may be too large for the board, or may have waited for it: over real TLS, from .mpy, in a small heap."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from running import Outcome, run
from units import make_unit

from espdps.simulator import Options, Simulator, serving
from espdps.simulator.errors import ServiceError

ID = "contoso-0001"


@contextmanager
def busy(sim: Simulator, unit: Path, runtime: str, seconds: int, library: Path) -> Iterator[Future[Outcome]]:
    """A board with all handlers, for some seconds; it is connected when this is entered."""
    with ThreadPoolExecutor(1) as pool:
        after = len(sim.events)
        board = pool.submit(
            run, runtime, unit, str(seconds), script="busy.py", heap="56k", library=library, timeout=seconds + 100
        )
        sim.wait_event("hub.telemetry", timeout=60, after=after)
        yield board


def called(sim: Simulator, payload: Any) -> tuple[int, Any]:
    try:
        return sim.call_method(ID, "add", payload)
    except ServiceError as error:
        return error.status, None


@pytest.mark.parametrize("runtime", ["micropython-32", "circuitpython"])
def test_what_is_too_large_costs_no_connection(runtime: str, tmp_path: Path, mpy: Path) -> None:
    """Desired properties of 30 KB (32 are allowed), a method of 100 KB (128 are), a message of 60 KB (64 are). A PC's
    CircuitPython has the room for all of them."""
    small = runtime == "micropython-32"
    large = {str(n): "x" * 3000 for n in range(10)}
    with serving(tmp_path / "sim", Options(assigning=0)) as sim:
        unit = make_unit(tmp_path, sim)
        with busy(sim, unit, runtime, 20, mpy) as board:
            assert called(sim, {"a": 1, "b": 2}) == (200, {"sum": 3})
            before = len(sim.events)
            sim.desire(ID, large)
            assert called(sim, {"a": 1, "b": 2, "c": "x" * 100_000}) == ((413, None) if small else (200, {"sum": 3}))
            sim.send_message(ID, b"x" * 60_000)
            sim.send_message(ID, b"small")
            sim.wait_event("hub.c2d", timeout=20, after=before, state="completed")
            assert called(sim, {"a": 2, "b": 2}) == (200, {"sum": 4})
            after = len(sim.events)
            sim.desire(ID, dict.fromkeys(large) | {"now": "short"})
            sim.wait_event("hub.telemetry", timeout=20, after=after)
        outcome = board.result()
        assert outcome.status == 0 and "error" not in outcome.names, outcome.text
        events = [event["event"] for event in sim.events]
        assert events.count("hub.connect") == events.count("dps.connect") == 1
        patches = [json.loads(text.split(" ", 1)[1]) for step, text in outcome.steps if step == "desired"]
        assert patches[-1].get("now") == "short" and patches[-1].keys() <= large.keys() | {"now"}, outcome.text
        messages = [text for step, text in outcome.steps if step == "message"]
        if small:
            assert len(messages) == 1 and messages[0].startswith("small ")
            sizes = [int(text.split()[0]) for step, text in outcome.steps if step == "skipped"]
            assert sizes == sorted(set(sizes)) and sizes[-1] > 100_000, outcome.text  # said when larger than any before
            assert sim.twin(ID).reported["skipped"] > 20_000
        else:
            assert len(messages) == 2 and "skipped" not in outcome.names


@pytest.mark.parametrize("runtime", ["micropython-32", "circuitpython"])
def test_what_was_said_while_the_board_was_away(runtime: str, tmp_path: Path, mpy: Path) -> None:
    """A restart gets what has waited, in its order and once, and subscribes nothing again."""
    with serving(tmp_path / "sim", Options(assigning=0)) as sim:
        unit = make_unit(tmp_path, sim)
        with busy(sim, unit, runtime, 3, mpy) as board:
            pass
        assert board.result().status == 0
        for number in range(5):
            sim.send_message(ID, b"waiting %d" % number)
        before = len(sim.events)
        with busy(sim, unit, runtime, 4, mpy) as board:
            pass
        outcome = board.result()
        assert outcome.status == 0 and "error" not in outcome.names, outcome.text
        heard = [text.partition(" {")[0] for step, text in outcome.steps if step == "message"]
        assert heard == [f"waiting {number}" for number in range(5)], outcome.text
        events = [event["event"] for event in sim.events[before:]]
        assert events.count("hub.connect") == 1 and "hub.subscribe" not in events
        assert [event["state"] for event in sim.events[before:] if event["event"] == "hub.c2d"].count("completed") == 5


def test_a_flood_is_lived_through(tmp_path: Path, mpy: Path) -> None:
    """Messages as fast as the service takes them: none is lost, and telemetry goes on."""
    with serving(tmp_path / "sim", Options(assigning=0)) as sim:
        unit = make_unit(tmp_path, sim)
        over = threading.Event()
        sent = 0
        with busy(sim, unit, "micropython-32", 15, mpy) as board:
            while not over.wait(0.01) and sent < 200:
                try:
                    sim.send_message(ID, b"%d" % sent)
                    sent += 1
                except ServiceError:  # 50 wait already
                    over.wait(0.2)
        outcome = board.result()
        assert outcome.status == 0 and outcome.names.count("dps.connect") == 1, outcome.text
        heard = [int(text.partition(" ")[0]) for step, text in outcome.steps if step == "message"]
        assert sorted(set(heard)) == list(range(sent)), outcome.text
