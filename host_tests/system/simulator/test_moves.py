"""What can become of a device's identity on the simulator: revoked, refused within TLS, moved to another hub, hub gone."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from simulator_client import RawClient, connect_packet, dps_device, hub_device, hub_username, provision

from espdps.simulator import Alert, Chain, Options, Simulator, Trouble, serving

ONE, TWO = "hub-1.localhost", "hub-2.localhost"
NAME = "mover"
REFUSED = 135  # paho's name for CONNACK 5


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    """Two hubs; the group is linked to the first one only."""
    with serving(tmp_path / "sim", Options(retry_after=0, assigning=0, hubs=(ONE, TWO))) as simulator:
        simulator.set_enrollment("boards", group=True, hubs=(ONE,))
        yield simulator


def register(sim: Simulator) -> dict[str, Any]:
    with dps_device(sim.info, NAME) as device:
        device.register(NAME)
        body: dict[str, Any] = device.answer().body
    return body


def taken(sim: Simulator, chain: Path, hub: str = ONE) -> bool:
    with hub_device(sim.info, NAME, chain, hub=hub) as device:
        assert device.connack.value in (0, REFUSED)
        return bool(device.connack.value == 0)


def refusal(sim: Simulator) -> str:
    return str([event for event in sim.events if event["event"] == "hub.refused"][-1]["reason"])


def leaf(state: dict[str, Any], position: int = 0) -> x509.Certificate:
    return x509.load_der_x509_certificate(base64.b64decode(state["issuedCertificateChain"][position]))


# Revoked


@pytest.mark.parametrize("kind", [None, "longer"])
def test_a_revoked_policy_takes_its_certificates_with_it(sim: Simulator, tmp_path: Path, kind: str | None) -> None:
    sim.trouble = Trouble({"certificate": Chain(kind)} if kind else {})
    before, old = provision(sim.info, NAME, tmp_path)
    old = old.rename(tmp_path / "old.pem")
    assert taken(sim, old)
    sim.revoke_issuer()
    assert not taken(sim, old)
    assert "revoked" in refusal(sim)
    after, new = provision(sim.info, NAME, tmp_path)
    assert taken(sim, new)
    assert leaf(after).issuer != leaf(before).issuer
    leaf(after).verify_directly_issued_by(leaf(after, 1))
    assert after["issuedCertificateChain"][-1] == before["issuedCertificateChain"][-1]  # the root stays
    sim.revoke_issuer()
    assert not taken(sim, new)
    assert not taken(sim, old)


def test_what_was_revoked_stays_so_after_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path / "sim", Options(assigning=0)) as sim:
        _, old = provision(sim.info, NAME, tmp_path)
        old = old.rename(tmp_path / "old.pem")
        sim.revoke_issuer()
        _, new = provision(sim.info, NAME, tmp_path)
    with serving(tmp_path / "sim", Options(assigning=0)) as sim:
        register(sim)  # the hub's records are of one run only
        assert taken(sim, new)
        assert not taken(sim, old)


# Within TLS


def connects(sim: Simulator, chain: Path | None, host: str = ONE) -> bool:
    """Whether the handshake ends well, and CONNECT with it."""
    try:
        with RawClient(sim.info, host, chain) as client:
            client.send(connect_packet(NAME, hub_username(ONE, NAME), None))
            return client.packet() == (0x20, b"\0\0")
    except ssl.SSLError as error:
        assert "ALERT" in str(error)
        return False


def test_alerts_in_place_of_refusals(sim: Simulator, tmp_path: Path) -> None:
    _, old = provision(sim.info, NAME, tmp_path)
    old = old.rename(tmp_path / "old.pem")
    sim.trouble = Trouble({"hub.tls": Alert()})
    assert connects(sim, old)
    sim.revoke_issuer()
    start = len(sim.events)
    assert not connects(sim, old)
    assert "verify failed" in sim.wait_event("tls.failed", after=start)["reason"]
    _, new = provision(sim.info, NAME, tmp_path)
    assert connects(sim, new)
    sim.trouble = Trouble({"hub.tls": Alert(), "certificate": Chain("expired")})
    _, expired = provision(sim.info, NAME, tmp_path)
    assert not connects(sim, expired)
    sim.trouble = Trouble()
    sim.set_trouble(NAME, Trouble({"hub.tls": Alert()}))
    assert not connects(sim, expired)
    sim.set_trouble(NAME, Trouble())
    with RawClient(sim.info, ONE, expired) as client:  # without the script the hub says it, not TLS
        client.send(connect_packet(NAME, hub_username(ONE, NAME), None))
        assert client.packet() == (0x20, b"\0\5")


def test_no_alert_at_dps(sim: Simulator, tmp_path: Path) -> None:
    _, old = provision(sim.info, NAME, tmp_path)
    sim.trouble = Trouble({"hub.tls": Alert()})
    sim.revoke_issuer()
    with RawClient(sim.info, "localhost", old) as client:
        client.dps_ready(sim.info, NAME)


# Moved


@pytest.mark.parametrize("way", ["migrate", "reset"])
def test_a_device_moves_when_its_hub_is_no_longer_linked(sim: Simulator, tmp_path: Path, way: str) -> None:
    _, pem = provision(sim.info, NAME, tmp_path)
    sim.twin(NAME).report({"kept": True})
    sim.set_enrollment("boards", group=True, hubs=(TWO,), reprovision=way)
    assert taken(sim, pem)  # nothing changes before it registers
    start = len(sim.events)
    with hub_device(sim.info, NAME, pem) as device:
        state, new = provision(sim.info, NAME, tmp_path)
        device.client.publish(f"devices/{NAME}/messages/events/", b"still here?")
        device.disconnected.get(timeout=10)
    assert sim.wait_event("dps.assigned", after=start, device=NAME)["hub"] == TWO
    assert state["assignedHub"] == TWO
    assert state["substatus"] == {"migrate": "deviceDataMigrated", "reset": "deviceDataReset"}[way]
    assert sim.twin(NAME).reported == ({"kept": True} if way == "migrate" else {})
    assert taken(sim, new, TWO)
    assert not taken(sim, new, ONE)
    assert "unknown device" in refusal(sim)


def test_a_device_may_stay_for_ever(sim: Simulator, tmp_path: Path) -> None:
    provision(sim.info, NAME, tmp_path)
    sim.set_enrollment("boards", group=True, hubs=(TWO,), reprovision="never")
    state = register(sim)["registrationState"]
    assert (state["assignedHub"], state["substatus"]) == (ONE, "initialAssignment")


def test_custom_allocation_chooses_the_hub(sim: Simulator) -> None:
    sim.set_enrollment("boards", group=True, hubs=())
    for hub in (TWO, ONE, TWO):
        sim.allocate = lambda context, hub=hub: {"iotHubHostName": hub}
        assert register(sim)["registrationState"]["assignedHub"] == hub
    sim.allocate = lambda context: {"iotHubHostName": "hub-9.localhost"}
    failed = register(sim)
    assert (failed["status"], failed["registrationState"]["errorCode"]) == ("failed", 400207)
    sim.allocate = lambda context: {"payload": 1}  # and no hub: it stays where it is
    assert register(sim)["registrationState"]["assignedHub"] == TWO


# Gone


def test_a_hub_goes_and_comes_back(sim: Simulator, tmp_path: Path) -> None:
    _, pem = provision(sim.info, NAME, tmp_path)
    with hub_device(sim.info, NAME, pem) as device:
        sim.set_hubs(TWO)
        device.disconnected.get(timeout=10)
    assert not taken(sim, pem)
    assert "hub is gone" in refusal(sim)
    failed = register(sim)  # its group is linked to this hub alone
    assert (failed["status"], failed["registrationState"]["errorCode"]) == ("failed", 400208)
    sim.set_hubs(ONE, TWO)
    assert taken(sim, pem)
    sim.set_hubs(TWO)
    sim.set_enrollment("boards", group=True, hubs=())
    state, pem = provision(sim.info, NAME, tmp_path)
    assert (state["assignedHub"], state["substatus"]) == (TWO, "deviceDataMigrated")
    assert taken(sim, pem, TWO)
    with pytest.raises(ValueError, match="hub-1"):
        sim.set_hubs("hub-9.localhost")


def test_a_wrong_way_to_reprovision_is_said(sim: Simulator) -> None:
    with pytest.raises(ValueError, match="reprovision"):
        sim.add_individual(NAME, reprovision="sometimes")
    with pytest.raises(ValueError, match="reprovision"):
        sim.set_enrollment("boards", group=True, reprovision="sometimes")
    assert sim.group().reprovision == "migrate"
