"""Every way in: six combinations of attestation and CSR, with each type of key, on 32-bit MicroPython from .mpy and on
CircuitPython."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pki import Authority, private_pem
from running import RUNTIMES, run
from units import ID, edit, make_unit, prepare, stored

from espdps.credentials import keys
from espdps.simulator import Options, Simulator, serving

HEAP = "56k"  # what an ESP32 starts with


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    with serving(tmp_path / "sim", Options(assigning=0)) as simulator:
        yield simulator
    assert not [event for event in simulator.events if event["event"] == "fault"]


@pytest.mark.parametrize("runtime", ["micropython-32", "circuitpython"])
@pytest.mark.parametrize("kind", list(keys.KINDS))
@pytest.mark.parametrize("csr", [True, False], ids=["csr", "no-csr"])
@pytest.mark.parametrize("attestation", ["group-key", "individual-key", "x509"])
def test_in(attestation: str, csr: bool, kind: str, runtime: str, tmp_path: Path, sim: Simulator, mpy: Path) -> None:
    unit = prepare(attestation, kind, csr, tmp_path, sim)
    outcome = run(runtime, unit, heap=HEAP, library=mpy)
    assert outcome.status == 0 and outcome.names[-1] == "hub.sent", outcome.text
    assert ("certificate" in outcome.names) == csr
    assert sim.wait_event("hub.connect")["auth"] == ("x509" if csr or attestation == "x509" else "sas")
    # The next start finds what it needs on flash.
    again = run(runtime, unit, heap=HEAP, library=mpy)
    assert again.status == 0 and "dps.connect" not in again.names


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_individual_x509_enrollment(runtime: str, tmp_path: Path, sim: Simulator) -> None:
    private = keys.new_key()
    leaf = Authority("self made").issue(ID, private)
    sim.add_individual(ID, certificates=[leaf])
    outcome = run(runtime, make_unit(tmp_path, sim, onboarding=(leaf, private_pem(private))))
    assert outcome.status == 0 and outcome.names[-1] == "hub.sent", outcome.text


def test_a_certificate_that_nobody_enrolled(tmp_path: Path, sim: Simulator) -> None:
    private = keys.new_key()
    stranger = Authority("Stranger").issue(ID, private)
    sim.add_group("x509", signers=[Authority("Contoso Root").pem])
    unit = make_unit(tmp_path, sim, onboarding=(stranger, private_pem(private)))
    outcome = run("micropython-32", unit)
    assert (outcome.step, outcome.code) == ("dps.register", "401002") and outcome.tracking
    assert not stored(unit)


def test_a_chain_that_only_bears_the_right_name(tmp_path: Path, sim: Simulator) -> None:
    private = keys.new_key()
    sim.add_group("x509", signers=[Authority("Contoso Root").pem])
    leaf = Authority("Contoso Root").issue(ID, private)  # another key under the same name
    outcome = run("micropython-32", make_unit(tmp_path, sim, onboarding=(leaf, private_pem(private))))
    assert (outcome.code, outcome.message) == ("401002", "Signing certificate info did not match chain elements.")


@pytest.mark.parametrize("individual", [True, False])
def test_an_onboarding_certificate_out_of_date(tmp_path: Path, sim: Simulator, individual: bool) -> None:
    private = keys.new_key()
    root = Authority("Contoso Root")
    leaf = root.issue(ID, private, since=30, days=-1)
    if individual:
        sim.add_individual(ID, certificates=[leaf])
    else:
        sim.add_group("x509", signers=[root.pem])
    outcome = run("micropython-32", make_unit(tmp_path, sim, onboarding=(leaf, private_pem(private))))
    assert (outcome.step, outcome.code, outcome.message) == ("dps.register", "401002", "Invalid certificate.")


def test_an_onboarding_certificate_for_another_device(tmp_path: Path, sim: Simulator) -> None:
    private = keys.new_key()
    root = Authority("Contoso Root")
    sim.add_group("x509", signers=[root.pem])
    unit = make_unit(tmp_path, sim, onboarding=(root.issue(ID, private), private_pem(private)))
    (unit / "onboarding.crt").write_bytes(root.issue("contoso-0002", private))
    outcome = run("micropython-32", unit)
    assert (outcome.step, outcome.code) == ("dps.connect", "connack-5")


def test_an_individual_enrollment_takes_no_other_certificate(tmp_path: Path, sim: Simulator) -> None:
    private = keys.new_key()
    root = Authority("Contoso Root")
    sim.add_group("x509", signers=[root.pem])
    sim.add_individual(ID, certificates=[Authority("self made").issue(ID, keys.new_key())])
    unit = make_unit(tmp_path, sim, onboarding=(root.issue(ID, private), private_pem(private)))
    outcome = run("micropython-32", unit)
    assert (outcome.step, outcome.code) == ("dps.connect", "connack-5")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_custom_payload_reaches_the_application(runtime: str, tmp_path: Path, sim: Simulator) -> None:
    sim.allocate = lambda context: {"payload": {"for": context["registrationId"], "said": context["payload"]}}
    outcome = run(runtime, make_unit(tmp_path, sim), "payload=model-7")
    text = dict(outcome.steps)["payload"]
    assert "model-7" in text and ID in text


def test_an_onboarding_certificate_for_another_key(tmp_path: Path, sim: Simulator) -> None:
    private = keys.new_key()
    unit = make_unit(tmp_path, sim, onboarding=(Authority("x").issue(ID, private), private_pem(private)))
    (unit / "onboarding.key").write_bytes(keys.key_der(keys.new_key()))
    outcome = run("micropython-32", unit)
    assert outcome.status == 1 and outcome.code in ("config", "tls-alert", "connack-5"), outcome.text


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_older_api(runtime: str, tmp_path: Path, sim: Simulator) -> None:
    unit = make_unit(tmp_path, sim)
    edit(unit / "device.json", dps_api="2021-11-01-preview")
    outcome = run(runtime, unit)
    assert outcome.status == 0 and "certificate" in outcome.names, outcome.text
    assert sim.wait_event("hub.connect")["auth"] == "x509"
