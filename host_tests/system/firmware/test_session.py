"""All of a hub session at once, for two minutes and with connections lost in it: nothing is lost, and no heap."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from running import Outcome, run
from simulator_client import hub_device, provision
from units import make_unit

from espdps.simulator import Cut, Options, Simulator, Trouble, serving
from espdps.simulator.errors import ServiceError

ID = "contoso-0001"
QUIET = 8  # at the end, in which what was said last can arrive


class Service:
    """The other side: says something every quarter of a second, and notes what should come of it."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        self.messages: list[str] = []
        self.desired: dict[str, Any] = {}
        self.versions: list[int] = []
        self.calls = self.answered = 0

    def speak(self, over: threading.Event) -> None:
        n = 0
        while not over.wait(0.25):
            n += 1
            if n % 3 == 0:
                self.sim.send_message(ID, f"{n} grüß".encode(), {"number": str(n), "a b": "ä/?&="})
                self.messages.append(f"{n} grüß")
            elif n % 3 == 1:
                patch: dict[str, Any] = {"n": n, "nested": {f"k{n}": n, f"k{n - 6}": None}}
                self.versions.append(self.sim.desire(ID, patch))
            else:
                self.call(n)

    def call(self, n: int) -> None:
        self.calls += 1
        try:
            result = self.sim.call_method(ID, "add", {"a": n, "b": 1}, timeout=20)
        except ServiceError:  # it is not connected just now
            return
        assert result == (200, {"sum": n + 1})
        self.answered += 1


def merge(document: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """JSON merge patch (RFC 7396), by its own pseudocode."""
    result = dict(document)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            below = result.get(name)
            result[name] = merge(below if isinstance(below, dict) else {}, value)
        else:
            result[name] = value
    return result


def disconnect(sim: Simulator, folder: Path, seconds: int, over: threading.Event) -> None:
    """Twice in that time: by another connection of the same device, and in the middle of a message."""
    if not over.wait(seconds / 4):
        _, chain = provision(sim.info, ID, folder)
        after = len(sim.events)
        with hub_device(sim.info, ID, chain):
            sim.wait_event("hub.disconnect", after=after)
    if not over.wait(seconds / 4):
        after = len(sim.events)
        sim.set_trouble(ID, Trouble({"hub.telemetry": Cut()}))
        sim.wait_event("hub.disconnect", after=after)
        sim.set_trouble(ID, Trouble())


@pytest.mark.parametrize(("runtime", "seconds"), [("micropython-32", 120), ("circuitpython", 40)])
def test_two_busy_minutes(
    runtime: str,
    seconds: int,
    library: dict[str, bytes],  # noqa: F811
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    modules = tmp_path / "lib" / "aziot"
    modules.mkdir(parents=True)
    for name, content in library.items():
        (modules / f"{name}.mpy").write_bytes(content)
    over = threading.Event()
    with serving(tmp_path / "sim", Options(assigning=0)) as sim, ThreadPoolExecutor(3) as pool:
        service = Service(sim)
        unit = make_unit(tmp_path, sim)
        board = pool.submit(
            run, runtime, unit, str(seconds), script="busy.py", heap="56k", library=modules.parent, timeout=600
        )
        try:
            sim.wait_event("hub.telemetry", timeout=60)
            helpers = [pool.submit(service.speak, over), pool.submit(disconnect, sim, tmp_path, seconds, over)]
            over.wait(seconds - QUIET)
        finally:
            over.set()
        outcome = board.result()
        for helper in helpers:
            helper.result()
        check(sim, service, outcome, runtime, seconds, record_property)


def check(
    sim: Simulator,
    service: Service,
    outcome: Outcome,
    runtime: str,
    seconds: int,
    record_property: Callable[[str, object], None],
) -> None:
    assert outcome.status == 0, outcome.text
    assert outcome.names.count("hub.ready") == 3 and outcome.names.count("dps.connect") == 1, outcome.text
    # Telemetry: every number, in order, a second time at most what was on its way when the connection ended.
    numbers = [json.loads(event["body"])["count"] for event in sim.events if event["event"] == "hub.telemetry"]
    assert numbers == sorted(numbers) and sorted(set(numbers)) == list(range(1, max(numbers) + 1))
    assert len(numbers) - len(set(numbers)) <= 2 and max(numbers) > seconds * 3
    # Cloud to device: each at least once, and settled.
    heard = [text for step, text in outcome.steps if step == "message"]
    for message in service.messages:
        assert sum(text.startswith(message + " {") for text in heard) >= 1, (message, heard)
    assert all(json.loads(text[text.index("{") :])["a b"] == "ä/?&=" for text in heard)
    states = {
        state: {event["message_id"] for event in sim.events if event["event"] == "hub.c2d" and event["state"] == state}
        for state in ("queued", "completed", "dropped")
    }
    assert states["completed"] == states["queued"] and len(states["queued"]) == len(service.messages)
    assert not states["dropped"]
    # Desired properties: versions only rise, and what the board was told makes what the twin has.
    changes = [text.split(" ", 1) for step, text in outcome.steps if step == "desired"]
    versions = [int(version) for version, _ in changes]
    document: dict[str, Any] = {}
    for _, patch in changes:
        document = merge(document, json.loads(patch))
    assert document == sim.twin(ID).desired
    assert versions[-1] == service.versions[-1] == sim.twin(ID).reported["seen"]
    told = set(versions)
    missed = [version for version in service.versions if version not in told]
    assert len(missed) < 30  # while there was no connection; what they changed came with the next
    assert service.answered > service.calls * 0.7, (service.answered, service.calls)
    free = [int(text) for step, text in outcome.steps if step == "free"]
    record_property(
        "figure",
        f"{seconds} busy seconds on {runtime}, MicroPython at 56k: {len(set(numbers))} telemetry messages, {len(service.messages)} to the device, "
        f"{len(service.versions)} desired changes, {service.answered} of {service.calls} method calls answered, 2 connections "
        f"lost, nothing else; heap free {free[1]:,} bytes at first, {free[-1]:,} at last",
    )
    assert free[-1] >= free[1] - 512, (free, outcome.text)
