"""What can become of the hub, the device or the certificate while a board sleeps, and how it finds back by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running import Outcome, run
from units import edit, make_unit, stored

from espdps.simulator import Alert, Error, Options, Simulator, Trouble, serving

BOARD = "micropython-32"
ID = "contoso-0001"
ONE, TWO = "hub-1.localhost", "hub-2.localhost"
DAY = 86400


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    with serving(tmp_path / "sim", Options(assigning=0, hubs=(ONE, TWO), certificate_seconds=30 * DAY)) as simulator:
        simulator.set_enrollment(simulator.info["groups"][0]["id"], group=True, hubs=(ONE,))
        yield simulator
    assert not [event for event in simulator.events if event["event"] == "fault"]


@pytest.fixture
def unit(sim: Simulator, tmp_path: Path) -> Path:
    """A board that was at its hub once."""
    folder = make_unit(tmp_path, sim)
    edit(folder / "device.json", ntp=[], patience=0, refusal_patience=0)
    assert run(BOARD, folder).status == 0
    return folder


def move(sim: Simulator, way: str = "migrate") -> None:
    sim.set_enrollment(sim.info["groups"][0]["id"], group=True, hubs=(TWO,), reprovision=way)


def revoke(sim: Simulator) -> None:
    sim.revoke_issuer()


def revoke_by_alert(sim: Simulator) -> None:
    sim.revoke_issuer()
    sim.trouble = Trouble({"hub.tls": Alert()})


def hub_gone(sim: Simulator) -> None:
    move(sim)
    sim.set_hubs(TWO)


def hub_gone_and_reset(sim: Simulator) -> None:
    move(sim, "reset")
    sim.set_hubs(TWO)


def deleted(sim: Simulator) -> None:
    sim.delete_device(ID)


# What happens -> the Hub's word, and where the board is afterwards
EVENTS: dict[str, tuple[Callable[[Simulator], None], str, str]] = {
    "policy revoked, intermediate rotated": (revoke, "connack-5", ONE),
    "policy revoked, told by a TLS alert": (revoke_by_alert, "tls-alert", ONE),
    "device deleted at the hub": (deleted, "connack-5", ONE),
    "hub refuses, device moves with its data": (hub_gone, "connack-5", TWO),
    "hub refuses, device moves without them": (hub_gone_and_reset, "connack-5", TWO),
}


@pytest.mark.parametrize("name", EVENTS)
def test_refused_leads_to_dps_once_and_back(name: str, sim: Simulator, unit: Path) -> None:
    happens, code, hub = EVENTS[name]
    happens(sim)
    outcome = run(BOARD, unit)
    assert outcome.status == 0 and outcome.code == code and outcome.names.count("dps.connect") == 1, outcome.text
    assert f"{ID} on {hub}" in dict(outcome.steps)["hub.ready"]
    again = run(BOARD, unit)
    assert again.status == 0 and again.names.count("dps.connect") == 0, again.text


def test_a_disabled_device_asks_once_and_keeps_what_it_has(sim: Simulator, unit: Path) -> None:
    sim.set_device(ID, enabled=False)
    outcome = run(BOARD, unit)
    assert outcome.code == "connack-5" and outcome.names.count("dps.connect") == 1, outcome.text
    sim.set_device(ID, enabled=True)
    again = run(BOARD, unit)
    assert again.status == 0 and again.names.count("dps.connect") == 0, again.text


def test_a_disabled_enrollment_keeps_the_hub(sim: Simulator, unit: Path) -> None:
    before = stored(unit)
    sim.set_enrollment(sim.info["groups"][0]["id"], group=True, provisioning_status="disabled")
    assert run(BOARD, unit).status == 0  # DPS is not asked
    sim.delete_device(ID)
    outcome = run(BOARD, unit)
    assert (outcome.step, outcome.code) == ("dps.register", "disabled") and stored(unit) == before


def test_unreachable_is_waited_out_before_dps_is_asked(sim: Simulator, tmp_path: Path, unit: Path) -> None:
    """With no patience the second attempt may ask DPS; the hub's name leads nowhere, while DPS is there."""
    move(sim)
    gone = {"BOARD_HOSTS": f"{ONE}:{sim.info['mqtt_port']}=127.0.0.1:1"}
    before = stored(unit)
    outcome = run(BOARD, unit, environment=gone)
    assert outcome.status == 1 and outcome.code == "tcp" and "dps.connect" not in outcome.names, outcome.text
    assert stored(unit) == before
    outcome = run(BOARD, unit, "0", script="life.py", environment=gone)
    # Asked where the hub is, without a CSR; it has moved, so again with one
    assert outcome.status == 0 and outcome.names.count("dps.connect") == 2, outcome.text
    assert [event["csr"] for event in sim.events if event["event"] == "dps.register"][1:] == [False, True]
    assert outcome.names.count("error") == 2 and f"{ID} on {TWO}" in dict(outcome.steps)["hub.ready"]


def test_dps_out_of_order_too(sim: Simulator, unit: Path) -> None:
    before = stored(unit)
    sim.revoke_issuer()
    sim.trouble = Trouble({"register": Error(401, 401002, "Unauthorized")})
    outcome = run(BOARD, unit)
    assert outcome.status == 1 and outcome.code == "401002" and stored(unit) == before
    sim.trouble = Trouble()
    assert run(BOARD, unit).status == 0


@pytest.mark.parametrize("clock", ["unset", "2026-02-01", "2050-01-01"])
def test_a_wrong_clock_does_not_cost_a_certificate(clock: str, sim: Simulator, unit: Path) -> None:
    edit(unit / "device.json", ntp=["pool.ntp.org"])
    environment = {"BOARD_HOSTS": f"pool.ntp.org:123=127.0.0.1:{sim.info['ntp_port']}", "BOARD_EPOCH": "2000"}
    words: list[Any] = []
    if clock == "unset":
        environment["BOARD_CLOCK"] = "unset"
    else:
        words = [f"clock={clock}"]
    outcome = run(BOARD, unit, *words, environment=environment)
    assert outcome.status == 0 and "clock" in outcome.names and "dps.connect" not in outcome.names, outcome.text


def test_an_expired_certificate_leads_to_dps(sim: Simulator, tmp_path: Path) -> None:
    sim.set_enrollment(sim.info["groups"][0]["id"], group=True, certificate_seconds=4)
    folder = make_unit(tmp_path, sim)
    edit(folder / "device.json", ntp=[], timeout=2)
    first: Outcome = run(BOARD, folder)
    assert first.status == 0
    sim.set_enrollment(sim.info["groups"][0]["id"], group=True, certificate_seconds=DAY)
    again = run(BOARD, folder, "wait=4500")
    assert again.status == 0 and "dps.connect" in again.names and again.code == "", again.text
