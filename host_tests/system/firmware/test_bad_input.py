"""What goes wrong at a customer's: each gives one clear error in bounded time, and no identity is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from running import RUNTIMES, Outcome, run
from units import edit, make_unit, stored

from espdps.simulator import Options, Simulator, Trouble, serving
from espdps.simulator.trouble.actions import Chain, Cut, Error, Refuse, Silence, State

BOARD = "micropython-32"


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    with serving(tmp_path / "sim", Options(retry_after=0)) as simulator:
        yield simulator


def refused(runtime: str, unit: Path, *words: str, **kwargs: object) -> Outcome:
    """A run that must fail, and must leave what is stored as it was."""
    before = stored(unit)
    outcome = run(runtime, unit, *words, timeout=40, **kwargs)  # type: ignore[arg-type]
    assert outcome.status == 1 and outcome.code, outcome.text
    assert stored(unit) == before
    return outcome


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_wrong_group_key(sim: Simulator, tmp_path: Path, runtime: str) -> None:
    unit = make_unit(tmp_path, sim)
    edit(unit / "secrets.json", device_key="d3Jvbmcga2V5")
    outcome = refused(runtime, unit)
    assert (outcome.step, outcome.code) == ("dps.register", "401000")
    assert outcome.tracking and outcome.message
    assert "d3Jvbmcga2V5" not in outcome.text


def test_expired_token(sim: Simulator, tmp_path: Path) -> None:
    unit = make_unit(tmp_path, sim)
    outcome = refused(BOARD, unit, "clock=2026-02-01")  # the board thinks so, and signs for an hour
    assert (outcome.step, outcome.code) == ("dps.connect", "connack-5")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_registration_id_that_dps_does_not_know(sim: Simulator, tmp_path: Path, runtime: str) -> None:
    unit = make_unit(tmp_path, sim)
    sim.remove_enrollment(sim.info["groups"][0]["id"], group=True)
    outcome = refused(runtime, unit)
    assert (outcome.step, outcome.code) == ("dps.register", "404201")
    assert outcome.tracking


def test_disabled_enrollment(sim: Simulator, tmp_path: Path) -> None:
    unit = make_unit(tmp_path, sim)
    sim.set_enrollment(sim.info["groups"][0]["id"], group=True, provisioning_status="disabled")
    outcome = refused(BOARD, unit)
    assert (outcome.step, outcome.code) == ("dps.register", "disabled")


def test_csr_in_pem(sim: Simulator, tmp_path: Path) -> None:
    unit = make_unit(tmp_path, sim)
    (unit / "device.csr").write_text("-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n")
    outcome = refused(BOARD, unit)
    assert (outcome.step, outcome.code) == ("identity", "csr")
    assert not sim.events  # found before anything is sent


def test_csr_for_another_name(sim: Simulator, tmp_path: Path) -> None:
    unit = make_unit(tmp_path, sim)
    other = make_unit(tmp_path, sim, "contoso-0002")
    (unit / "device.csr").write_bytes((other / "device.csr").read_bytes())
    outcome = refused(BOARD, unit)
    assert outcome.step == "dps.register" and outcome.code.startswith("400")
    assert "common name" in outcome.message


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("other-key", "cert-key"),
        ("other-name", "cert-name"),
        ("expired", "cert-date"),
        ("not-yet-valid", "cert-date"),
        ("garbage", "cert-form"),
    ],
)
def test_a_chain_that_is_not_ours(sim: Simulator, tmp_path: Path, kind: str, code: str) -> None:
    unit = make_unit(tmp_path, sim)
    sim.trouble = Trouble({"certificate": Chain(kind)})
    outcome = refused(BOARD, unit)
    assert (outcome.step, outcome.code) == ("certificate", code)


@pytest.mark.parametrize("kind", ["absent", "null", "empty"])
def test_no_certificate_was_issued(sim: Simulator, tmp_path: Path, kind: str) -> None:
    """It says so, and goes to the Hub with the onboarding credential, which here can work."""
    unit = make_unit(tmp_path, sim)
    sim.trouble = Trouble({"certificate": Chain(kind)})
    outcome = run(BOARD, unit)
    assert (outcome.step, outcome.code) == ("certificate", "no-certificate")
    assert outcome.status == 0 and "hub.sent" in outcome.names, outcome.text
    assert sim.wait_event("hub.connect")["auth"] == "sas"


def test_hub_refuses_the_new_certificate(sim: Simulator, tmp_path: Path) -> None:
    unit = make_unit(tmp_path, sim)
    sim.trouble = Trouble({"hub.connect": Refuse(5)})
    outcome = run(BOARD, unit)
    assert (outcome.step, outcome.code) == ("hub.connect", "connack-5")
    # It waits as pending, and the next start gets in with it.
    sim.trouble = Trouble()
    outcome = run(BOARD, unit)
    assert outcome.status == 0 and "hub.sent" in outcome.names


def test_hub_refuses_and_dps_cannot_help(sim: Simulator, tmp_path: Path) -> None:
    unit = make_unit(tmp_path, sim)
    edit(unit / "device.json", refusal_patience=0)
    assert run(BOARD, unit).status == 0
    sim.trouble = Trouble({"hub.connect": Refuse(5), "register": Error(401, 401002, "Unauthorized")})
    outcome = refused(BOARD, unit)
    assert (outcome.step, outcome.code) == ("dps.register", "401002")
    assert "hub.connect connack-5" in outcome.text
    sim.trouble = Trouble()
    outcome = run(BOARD, unit)
    assert outcome.status == 0 and "dps.connect" not in outcome.names


def test_errors_of_the_service_keep_its_words(sim: Simulator, tmp_path: Path) -> None:
    unit = make_unit(tmp_path, sim)
    sim.trouble = Trouble({"register": Error(401, 401002, "CA certificate not found.")})
    outcome = refused(BOARD, unit)
    assert (outcome.code, outcome.message) == ("401002", "CA certificate not found.")
    assert outcome.tracking
    sim.trouble = Trouble({"poll": State("failed", 400207, "Custom allocation failed")})
    outcome = refused(BOARD, unit)
    assert (outcome.code, outcome.message) == ("400207", "Custom allocation failed")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_dps_under_another_root_is_not_talked_to(sim: Simulator, tmp_path: Path, runtime: str) -> None:
    unit = make_unit(tmp_path, sim)
    with serving(tmp_path / "other") as other:
        (unit / "roots.pem").write_bytes(Path(other.info["roots"]).read_bytes())
    outcome = refused(runtime, unit)
    assert (outcome.step, outcome.code) == ("dps.connect", "tls-root")
    assert_nothing_was_said(sim)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_dps_with_another_name_is_not_talked_to(sim: Simulator, tmp_path: Path, runtime: str) -> None:
    unit = make_unit(tmp_path, sim)
    edit(unit / "device.json", dps_host="dps-2.localhost")
    outcome = refused(runtime, unit)
    assert (outcome.step, outcome.code) == ("dps.connect", "tls-name")
    assert_nothing_was_said(sim)


def assert_nothing_was_said(sim: Simulator) -> None:
    """The handshake failed at the server too: no MQTT packet, no user name, no token."""
    sim.wait_event("tls.failed")
    closed = sim.wait_event("closed")
    assert closed["records_in"] == 0
    assert not [event for event in sim.events if event["event"].startswith("dps.")]


def test_clock_not_set_and_no_ntp(sim: Simulator, tmp_path: Path) -> None:
    unit = make_unit(tmp_path, sim)
    edit(unit / "device.json", ntp=["ntp-1.invalid", "ntp-2.invalid"])
    outcome = refused(BOARD, unit, environment={"BOARD_CLOCK": "unset"})
    assert (outcome.step, outcome.code) == ("clock", "ntp")
    assert "ntp-1.invalid ntp-2.invalid" in outcome.message
    assert not sim.events


def test_clock_not_set_and_ntp(sim: Simulator, tmp_path: Path) -> None:
    unit = make_unit(tmp_path, sim)
    hosts = f"pool.ntp.org:123=127.0.0.1:{sim.info['ntp_port']}"
    outcome = run(BOARD, unit, environment={"BOARD_CLOCK": "unset", "BOARD_EPOCH": "2000", "BOARD_HOSTS": hosts})
    assert outcome.status == 0 and "hub.sent" in outcome.names, outcome.text
    assert "clock" in outcome.names


PLACES = ("tls", "connect", "subscribe", "register", "poll", "hub.connect", "hub.telemetry")


def step_at(place: str) -> str:
    return {
        "tls": "dps.connect",
        "connect": "dps.connect",
        "hub.connect": "hub.connect",
        "hub.telemetry": "hub.send",
    }.get(place, "dps.register")


@pytest.mark.parametrize("place", PLACES)
def test_a_server_that_falls_silent(sim: Simulator, tmp_path: Path, place: str) -> None:
    unit = make_unit(tmp_path, sim)
    edit(unit / "device.json", timeout=1)
    sim.trouble = Trouble({place: Silence()})
    outcome = run(BOARD, unit, timeout=20)
    assert outcome.status == 1
    assert (outcome.step, outcome.code) == (step_at(place), "timeout")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("after", [0, 7])
def test_a_server_that_hangs_up(sim: Simulator, tmp_path: Path, place: str, after: int) -> None:
    unit = make_unit(tmp_path, sim)
    edit(unit / "device.json", timeout=5)
    sim.trouble = Trouble({place: Cut(after)})
    outcome = run(BOARD, unit, timeout=20)
    assert outcome.status == 1
    assert (outcome.step, outcome.code) == (step_at(place), "closed")


@pytest.mark.parametrize("name", ["device.json", "secrets.json", "roots.pem", "device.key"])
@pytest.mark.parametrize("content", [None, b"{garbage"])
def test_files_that_are_missing_or_broken(sim: Simulator, tmp_path: Path, name: str, content: bytes | None) -> None:
    unit = make_unit(tmp_path, sim)
    (unit / name).unlink()
    if content:
        (unit / name).write_bytes(content)
    outcome = run(BOARD, unit)
    assert outcome.status == 1 and (outcome.step, outcome.code) == ("identity", "config"), outcome.text
    assert name in outcome.message


def test_a_key_that_is_not_base64(sim: Simulator, tmp_path: Path) -> None:
    unit = make_unit(tmp_path, sim)
    edit(unit / "secrets.json", device_key="not base64!")
    outcome = refused(BOARD, unit)
    assert (outcome.step, outcome.code) == ("identity", "key")
    assert "not base64!" not in outcome.text


def test_nobody_listens(sim: Simulator, tmp_path: Path) -> None:
    unit = make_unit(tmp_path, sim)
    edit(unit / "device.json", dps_host="nowhere.invalid")
    assert refused(BOARD, unit).code == "dns"
    port = sim.info["mqtt_port"]
    edit(unit / "device.json", dps_host="localhost", port=1)
    assert port != 1 and refused(BOARD, unit).code == "tcp"
