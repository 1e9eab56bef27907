"""Certificates that live for seconds, renewed while telemetry goes on: at the Hub, at DPS, and against all odds."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from running import RUNTIMES, Outcome, run
from units import edit, make_unit

from espdps.simulator import (  # fmt: skip
    Chain,
    Cut,
    Delay,
    Error,
    Form,
    Ignore,
    Options,
    Reconnect,
    Refuse,
    Simulator,
    Trouble,
    serving,
)

ID = "contoso-0001"
LIFE = 20  # seconds


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    with serving(tmp_path / "sim", Options(assigning=0, certificate_seconds=LIFE)) as simulator:
        yield simulator
    assert not [event for event in simulator.events if event["event"] == "fault"]


def live(sim: Simulator, folder: Path, renewals: int, runtime: str = "micropython-32", **config: Any) -> Outcome:
    """A board that renews its certificates of 20 seconds as early as it can."""
    unit = make_unit(folder, sim)
    edit(unit / "device.json", **{"renew": 5, "timeout": 2, "ntp": [], **config})
    return run(runtime, unit, str(renewals), script="life.py", timeout=90 + 30 * renewals)


def counts(sim: Simulator) -> list[int]:
    """What the hub received, in order."""
    return [json.loads(event["body"])["count"] for event in sim.events if event["event"] == "hub.telemetry"]


def check_counts(sim: Simulator) -> None:
    """Every number at least once, and in order."""
    numbers = counts(sim)
    assert sorted(set(numbers)) == list(range(1, max(numbers) + 1)) and numbers == sorted(numbers), numbers


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_at_the_hub(runtime: str, sim: Simulator, tmp_path: Path) -> None:
    outcome = live(sim, tmp_path, 1, runtime=runtime)
    assert outcome.status == 0, outcome.text
    assert outcome.names.count("dps.connect") == 1 and outcome.names.count("certificate") == 2
    assert "error" not in outcome.names
    check_counts(sim)
    first, second = [event["certificate"] for event in sim.events if event["event"] == "hub.connect"]
    assert first != second
    twin = sim.twin(ID).reported["certificate"]
    assert twin["validUntil"] > twin["validFrom"] and f"until {twin['validUntil']}" in outcome.text


@pytest.mark.parametrize("runtime", ["micropython-32", "circuitpython"])
def test_at_dps_with_an_older_hub(runtime: str, sim: Simulator, tmp_path: Path) -> None:
    outcome = live(sim, tmp_path, 1, runtime=runtime, hub_api="2021-04-12")
    assert outcome.status == 0 and outcome.names.count("dps.connect") == 2, outcome.text
    assert "error" not in outcome.names and not [e for e in sim.events if e["event"] == "hub.renewal"]
    check_counts(sim)


# What the Hub does with the request -> the error that the board tells of, and whether it goes to DPS
THROTTLED = Error(429, 429002, "Too many requests", 1)
TROUBLES: dict[str, tuple[dict[str, Any], str, bool]] = {
    "the connection is cut": ({"hub.renewal": Cut()}, "closed", True),
    "no answer": ({"hub.renewal": Ignore()}, "timeout", True),
    "bad request": ({"hub.renewal": Error(400, 400004, "No")}, "400004", True),
    "wrong tier": ({"hub.renewal": Error(403, 403010, "No")}, "403010", True),
    "no such device": ({"hub.renewal": Error(404, 404001, "No")}, "404001", True),
    "precondition": ({"hub.renewal": Error(412, 412001, "No")}, "412001", True),
    "server fault": ({"hub.renewal": Error(500, 500001, "No")}, "500001", True),
    "unavailable": ({"hub.renewal": Error(503, 503001, "No")}, "503001", True),
    "not verified, after all": ({"hub.renewal.result": Error(400, 400037, "No")}, "400037", True),
    "another key": ({"hub.certificate": Chain("other-key")}, "cert-key", True),
    "expired": ({"hub.certificate": Chain("expired")}, "cert-date", True),
    "no chain": ({"hub.certificate": Chain("absent")}, "protocol", True),
    "lost with the answer": ({"hub.renewal.result": Cut()}, "closed", False),
    "late": ({"hub.renewal.result": Delay(2)}, "", False),
    "a bare list": ({"hub.answer": Form(bare=True)}, "", False),
    "PEM": ({"hub.answer": Form(pem=True)}, "", False),
    "a bare list of PEM": ({"hub.answer": Form(bare=True, pem=True)}, "", False),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_trouble_at_the_hub(name: str, sim: Simulator, tmp_path: Path) -> None:
    places, code, dps = TROUBLES[name]
    sim.trouble = Trouble(places)
    outcome = live(sim, tmp_path, 1)
    assert outcome.status == 0, outcome.text
    assert [text for step, text in outcome.steps if step == "error" and f" {code} " in f"{text} "] or not code, (
        outcome.text
    )
    assert outcome.names.count("dps.connect") == 1 + dps, outcome.text
    check_counts(sim)


def test_an_answer_that_comes_only_after_a_reconnect(sim: Simulator, tmp_path: Path) -> None:
    sim.trouble = Trouble({"hub.renewal.result": Reconnect()})
    wait = live_beside(sim, tmp_path)
    sim.wait_event("hub.renewal", 40, status=202)
    sim.trouble = Trouble({"hub.telemetry": Cut()})
    sim.wait_event("closed", 40, device=ID, after=len(sim.events))
    sim.trouble = Trouble()
    outcome = wait()
    assert outcome.status == 0 and outcome.code == "closed" and outcome.names.count("dps.connect") == 1, outcome.text
    check_counts(sim)


def test_an_operation_from_before_a_restart_is_replaced(sim: Simulator, tmp_path: Path) -> None:
    sim.trouble = Trouble({"hub.renewal.result": Ignore()})
    unit = make_unit(tmp_path, sim)
    edit(unit / "device.json", renew=5, timeout=2, ntp=[])
    with pytest.raises(subprocess.TimeoutExpired):  # the plug is pulled while the Hub's promise is waited for
        run("micropython-32", unit, "1", script="life.py", timeout=5)
    sim.wait_event("hub.renewal", 1, status=202)
    sim.trouble = Trouble()
    outcome = run("micropython-32", unit, "1", script="life.py")
    assert outcome.status == 0 and "dps.connect" not in outcome.names, outcome.text
    assert [event["status"] for event in sim.events if event["event"] == "hub.renewal"] == [202, 409, 202, 200]


def test_throttled_is_waited_out(sim: Simulator, tmp_path: Path) -> None:
    sim.trouble = Trouble({"hub.renewal": THROTTLED})
    unit_done = live_beside(sim, tmp_path)
    sim.wait_event("hub.renewal", 40, status=429)
    sim.trouble = Trouble()
    outcome = unit_done()
    assert outcome.status == 0 and outcome.names.count("dps.connect") == 1, outcome.text
    check_counts(sim)


def live_beside(sim: Simulator, folder: Path, **config: Any) -> Callable[[], Outcome]:
    """As live(), in a thread of its own; the result waits for it."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(live, sim, folder, 1, **config)
    pool.shutdown(wait=False)
    return future.result


def test_a_new_certificate_that_the_hub_refuses_leaves_the_old_one(sim: Simulator, tmp_path: Path) -> None:
    wait = live_beside(sim, tmp_path)
    sim.wait_event("hub.telemetry", 30)
    # The Hub takes nobody new for a moment, whichever way it comes
    sim.trouble = Trouble({"hub.connect": Refuse(5)})
    sim.wait_event("hub.refused", 30)
    sim.trouble = Trouble()
    outcome = wait()
    assert outcome.status == 0, outcome.text
    assert outcome.code == "connack-5" and outcome.names.count("hub.ready") == 3, outcome.text
    check_counts(sim)


def test_nothing_helps_and_the_application_hears_of_it(sim: Simulator, tmp_path: Path) -> None:
    wait = live_beside(sim, tmp_path, renew=50)
    sim.wait_event("hub.telemetry", 30)
    refusal = Error(400, 400004, "No")
    sim.trouble = Trouble({"hub.renewal": refusal, "register": Error(401, 401002, "Unauthorized")})
    after = 0
    for _ in range(4):
        after = sim.events.index(sim.wait_event("dps.answer", 30, after=after, status=401)) + 1
    sim.trouble = Trouble()
    outcome = wait()
    assert outcome.status == 0 and "expiring" in outcome.names, outcome.text
    check_counts(sim)


# What may be wrong on the way from one certificate to the next; None: nothing
ODDS: list[dict[str, Any] | None] = [
    None,
    {"hub.renewal": Ignore()},
    {"hub.renewal": Error(500, 500001, "No")},
    {"hub.renewal.result": Cut(200)},
    {"hub.telemetry": Cut()},
    {"hub.connect": Refuse(3)},
    {"hub.connect": Cut()},
    {"hub.certificate": Chain("other-key")},
    {"hub.renewal": Cut(), "register": Error(503, 503001, "No")},
    {"hub.renewal": Error(400, 400004, "No"), "register": Cut()},
    {"tls": Cut(20)},
]


@pytest.mark.sweep
def test_a_long_life(sim: Simulator, tmp_path: Path, mpy: Path, record_property: Callable[[str, object], None]) -> None:
    """Renewals in a row, each with a fault drawn by seed that lasts until after it is due, on the heap of an ESP32."""
    whole = bool(os.environ.get("ESP_DPS_SWEEP"))
    renewals = 30 if whole else 6
    dice = random.Random(7)
    sim.set_enrollment(sim.info["groups"][0]["id"], group=True, certificate_seconds=60 if whole else LIFE)
    unit = make_unit(tmp_path, sim)
    edit(unit / "device.json", renew=5, timeout=2, ntp=[])
    faults = 0
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(
            run, "micropython-32", unit, str(renewals), script="life.py", timeout=1500, heap="56k", library=mpy
        )
        after = 0
        while not future.done():
            try:
                after = sim.events.index(sim.wait_event("hub.connect", 1, after=after)) + 1
                odds = dice.choice(ODDS)
                sim.trouble = Trouble(odds or {})
                faults += odds is not None
                # Until after the next renewal: this is what it has to get over.
                sim.wait_event("nothing of the kind", (7.5 if whole else 3) + dice.random())
            except TimeoutError:
                sim.trouble = Trouble()
        outcome = future.result()
    assert outcome.status == 0, outcome.text
    check_counts(sim)
    free = [int(text) for step, text in outcome.steps if step == "free"]
    record_property(
        "figure",
        f"a life of {renewals} renewals: {faults} times in trouble, {outcome.names.count('error')} errors, "
        f"{len(set(counts(sim)))} messages and none lost; heap free {free[1]:,} bytes after the first renewal, "
        f"{free[-1]:,} after the last",
    )
    assert len(free) == renewals + 1 and free[-1] >= free[1] - 512, outcome.text
