"""Scripted trouble: every action at every place does what it says, to the device it is meant for and no other."""

from __future__ import annotations

import base64
import json
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from simulator_client import (
    POLL,
    REGISTER,
    RESPONSES,
    WAIT,
    RawClient,
    connect_packet,
    derive,
    group_key,
    hub_username,
    make_csr,
    provision,
    publish_packet,
    subscribe_packet,
    tls_context,
    token,
)

from espdps.simulator import (
    Assigning,
    Chain,
    Cut,
    Error,
    Options,
    Raw,
    Refuse,
    Rid,
    Silence,
    Simulator,
    State,
    Trouble,
    serving,
)

HUB = "hub-1.localhost"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("trouble"), Options(retry_after=0)) as simulator:
        yield simulator


@pytest.fixture
def sim(service: Simulator) -> Any:
    yield service
    service.trouble = Trouble()
    service.set_trouble("dev", Trouble())


def register(sim: Simulator, client: RawClient, csr: bytes | None = None) -> tuple[str, dict[str, Any]]:
    """Registers; topic and body of the first answer."""
    body = {} if csr is None else {"csr": base64.b64encode(csr).decode()}
    topic, answer = client.request(REGISTER + "r1", json.dumps(body).encode())
    return topic, json.loads(answer)


def poll(client: RawClient, operation_id: str) -> tuple[str, dict[str, Any]]:
    topic, answer = client.request(f"{POLL}r2&operationId={operation_id}")
    return topic, json.loads(answer)


def reach(sim: Simulator, client: RawClient, place: str) -> None:
    """Takes the dialogue of ``dev`` to where the next answer would be the place's."""
    if place == "connect":
        client.dps_connect(sim.info, "dev")
    elif place == "subscribe":
        client.dps_connect(sim.info, "dev")
        assert client.packet() == (0x20, b"\0\0")
        client.send(subscribe_packet(RESPONSES))
    else:
        client.dps_ready(sim.info, "dev")
        operation = register(sim, client)[1]["operationId"] if place == "poll" else ""
        client.send(publish_packet(REGISTER + "r1" if place == "register" else f"{POLL}r2&operationId={operation}"))


def reach_hub(sim: Simulator, client: RawClient, place: str) -> None:
    key = derive(group_key(sim.info), "dev")
    client.send(connect_packet("dev", hub_username(HUB, "dev"), token(f"{HUB}/devices/dev", key, skn=None)))
    if place == "hub.connect":
        return
    assert client.packet() == (0x20, b"\0\0")
    if place == "hub.subscribe":
        client.send(subscribe_packet("$iothub/twin/res/#"))
    else:
        client.send(publish_packet("devices/dev/messages/events/", b"{}", qos=1))


DPS_PLACES = ["connect", "subscribe", "register", "poll"]
HUB_PLACES = ["hub.connect", "hub.subscribe", "hub.telemetry"]


@pytest.mark.parametrize("place", DPS_PLACES + HUB_PLACES)
def test_silence(sim: Simulator, tmp_path: Path, place: str) -> None:
    if place in HUB_PLACES:
        provision(sim.info, "dev", tmp_path)
    sim.set_trouble("dev", Trouble({place: Silence()}))
    with RawClient(sim.info) as client:
        (reach_hub if place in HUB_PLACES else reach)(sim, client, place)
        assert client.silent()


def test_silence_outlasts_the_deadlines(tmp_path: Path) -> None:
    with serving(tmp_path, Options(connect_deadline=0.2)) as sim:
        for place in ("tls", "connect"):
            sim.trouble = Trouble({place: Silence()})
            with socket.create_connection(("127.0.0.1", sim.info["mqtt_port"]), WAIT) as plain:
                if place == "tls":
                    plain.settimeout(0.5)
                    with pytest.raises(TimeoutError), tls_context(sim.info).wrap_socket(plain):
                        pass
                    continue
            with RawClient(sim.info) as client:
                client.dps_connect(sim.info, "dev")
                assert client.silent(0.5)


@pytest.mark.parametrize("place", DPS_PLACES + HUB_PLACES)
def test_cut(sim: Simulator, tmp_path: Path, place: str) -> None:
    if place in HUB_PLACES:
        provision(sim.info, "dev", tmp_path)
    sim.set_trouble("dev", Trouble({place: Cut()}))
    start = len(sim.events)
    with RawClient(sim.info) as client:
        (reach_hub if place in HUB_PLACES else reach)(sim, client, place)
        assert client.ended()
    assert not sim.wait_event("closed", after=start, device="dev", reason="cut by script")["graceful"]


@pytest.mark.parametrize("after", [1, 20, 200])
def test_cut_in_the_middle_of_an_answer(sim: Simulator, after: int) -> None:
    sim.set_trouble("dev", Trouble({"poll": Cut(after)}))
    start = len(sim.events)
    with RawClient(sim.info) as client:
        reach(sim, client, "poll")
        assert client.ended()  # less than a TLS record never shows at all
    sent = sim.wait_event("closed", after=start, device="dev")["bytes_out"]
    with RawClient(sim.info) as client:
        sim.set_trouble("dev", Trouble({"poll": Cut()}))
        reach(sim, client, "poll")
        assert client.ended()
    assert sent - sim.wait_event("closed", after=start, device="dev", bytes_out=sent - after)["bytes_out"] == after


@pytest.mark.parametrize(("after", "received"), [(0, 0), (700, 700)])
def test_cut_within_the_handshake(sim: Simulator, after: int, received: int) -> None:
    sim.trouble = Trouble({"tls": Cut(after)})
    start = len(sim.events)
    with pytest.raises((ssl.SSLEOFError, ConnectionError)):
        RawClient(sim.info)
    # Another connection may end just now: one that was cut by no script.
    closed = sim.wait_event("closed", after=start, reason="cut by script", records_in=0)
    assert closed["bytes_out"] == received


def test_refused_connects(sim: Simulator, tmp_path: Path) -> None:
    provision(sim.info, "dev", tmp_path)
    for code in range(1, 6):
        sim.set_trouble("dev", Trouble({"connect": Refuse(code), "hub.connect": Refuse(code)}))
        for way in (reach, reach_hub):
            with RawClient(sim.info) as client:
                way(sim, client, "connect" if way is reach else "hub.connect")
                assert client.packet() == (0x20, bytes([0, code]))
                assert client.ended()


def test_refused_subscriptions(sim: Simulator, tmp_path: Path) -> None:
    provision(sim.info, "dev", tmp_path)
    sim.set_trouble("dev", Trouble({"subscribe": Refuse(128), "hub.subscribe": Refuse(128)}))
    for way, place in ((reach, "subscribe"), (reach_hub, "hub.subscribe")):
        with RawClient(sim.info) as client:
            way(sim, client, place)
            assert client.packet() == (0x90, b"\0\1\x80")


@pytest.mark.parametrize("place", ["register", "poll"])
def test_error_answers(sim: Simulator, place: str) -> None:
    sim.set_trouble("dev", Trouble({place: Error(429, 429001, "Too many requests", retry_after=9)}))
    start = len(sim.events)
    with RawClient(sim.info) as client:
        reach(sim, client, place)
        topic, body = client.answer()
    rid = "r1" if place == "register" else "r2"
    assert topic == f"$dps/registrations/res/429/?$rid={rid}&retry-after=9"
    answer = json.loads(body)
    assert (answer["errorCode"], answer["message"]) == (429001, "Too many requests")
    event = sim.wait_event("dps.answer", after=start)
    assert (event["status"], event["error_code"], event["tracking_id"]) == (429, 429001, answer["trackingId"])


@pytest.mark.parametrize("place", ["register", "poll"])
def test_final_states(sim: Simulator, place: str) -> None:
    for state in (State("failed", 400207, "Custom allocation failed"), State("disabled")):
        sim.set_trouble("dev", Trouble({place: state}))
        with RawClient(sim.info) as client:
            reach(sim, client, place)
            topic, body = client.answer()
        assert topic.startswith("$dps/registrations/res/200/")
        answer = json.loads(body)
        assert answer["status"] == answer["registrationState"]["status"] == state.status
        assert answer["registrationState"].get("errorCode", 0) == state.error_code
        assert answer["registrationState"].get("errorMessage", "") == state.message


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff" * 9, b"x" * 300000])
def test_raw_bodies(sim: Simulator, body: bytes) -> None:
    sim.set_trouble("dev", Trouble({"poll": Raw(body, 202)}))
    with RawClient(sim.info) as client:
        reach(sim, client, "poll")
        assert client.answer() == ("$dps/registrations/res/202/?$rid=r2", body)


def test_foreign_request_ids(sim: Simulator) -> None:
    sim.set_trouble("dev", Trouble({"register": Rid(first=True), "poll": Rid()}))
    with RawClient(sim.info) as client:
        reach(sim, client, "register")
        topic, body = client.answer()
        assert "$rid=r1" not in topic
        assert client.answer() == ("$dps/registrations/res/202/?$rid=r1&retry-after=0", body)
        topic, answer = poll(client, json.loads(body)["operationId"])
        assert "$rid=r2" not in topic
        assert answer["status"] == "assigned"
        assert client.silent()


def test_assigning(sim: Simulator) -> None:
    sim.set_trouble("dev", Trouble({"assigning": Assigning(2, None)}))
    with RawClient(sim.info) as client:
        client.dps_ready(sim.info, "dev")
        topic, answer = register(sim, client)
        assert topic == "$dps/registrations/res/202/?$rid=r1"
        assert poll(client, answer["operationId"])[0] == "$dps/registrations/res/202/?$rid=r2"
        assert poll(client, answer["operationId"])[1]["status"] == "assigned"
    sim.set_trouble("dev", Trouble({"assigning": Assigning(0)}))
    with RawClient(sim.info) as client:
        client.dps_ready(sim.info, "dev")
        assert register(sim, client)[1]["status"] == "assigned"


def issued(sim: Simulator, kind: str, key_csr: bytes) -> Any:
    """What comes as issuedCertificateChain, or KeyError."""
    sim.set_trouble("dev", Trouble({"certificate": Chain(kind), "assigning": Assigning(0)}))
    with RawClient(sim.info) as client:
        client.dps_ready(sim.info, "dev")
        return register(sim, client, key_csr)[1]["registrationState"]["issuedCertificateChain"]


def leaf_of(chain: list[str]) -> x509.Certificate:
    return x509.load_der_x509_certificate(base64.b64decode(chain[0]))


def test_bad_chains(sim: Simulator) -> None:
    der = make_csr("dev")
    csr = x509.load_der_x509_csr(der)
    with pytest.raises(KeyError):
        issued(sim, "absent", der)
    assert issued(sim, "null", der) is None
    assert issued(sim, "empty", der) == []
    backwards = [x509.load_der_x509_certificate(base64.b64decode(text)).issuer for text in issued(sim, "reversed", der)]
    assert backwards[0] == backwards[1] != backwards[2]  # root, intermediate (by the root), leaf
    assert len(issued(sim, "leaf-only", der)) == 1
    other_key = leaf_of(issued(sim, "other-key", der))
    assert other_key.public_key() != csr.public_key()
    assert other_key.subject == csr.subject
    other_name = leaf_of(issued(sim, "other-name", der))
    assert other_name.public_key() == csr.public_key()
    assert other_name.subject != csr.subject
    expired, early = leaf_of(issued(sim, "expired", der)), leaf_of(issued(sim, "not-yet-valid", der))
    assert expired.not_valid_after_utc < early.not_valid_before_utc
    assert expired.not_valid_before_utc < expired.not_valid_after_utc
    garbage = issued(sim, "garbage", der)
    assert len(garbage) == 3
    for text in garbage:
        with pytest.raises(ValueError):
            base64.b64decode(text, validate=True)


def test_only_the_device_it_is_for(sim: Simulator) -> None:
    sim.set_trouble("dev", Trouble({"register": Cut()}))
    with RawClient(sim.info) as client:
        client.dps_ready(sim.info, "bystander")
        assert register(sim, client)[1]["status"] == "assigning"
    sim.trouble = Trouble({"register": Error(500, 500000, "Internal")})
    with RawClient(sim.info) as client:
        client.dps_ready(sim.info, "bystander")
        assert register(sim, client)[0].startswith("$dps/registrations/res/500/")
    with RawClient(sim.info) as client:
        client.dps_ready(sim.info, "DEV")  # registration ids are case-insensitive
        client.send(publish_packet(REGISTER + "r1"))
        assert client.ended()
    sim.trouble = Trouble()
    with RawClient(sim.info) as client:
        client.dps_ready(sim.info, "bystander")
        assert register(sim, client)[1]["status"] == "assigning"


@pytest.mark.parametrize(
    ("at", "error"),
    [
        ({"nowhere": Silence()}, ValueError),
        ({"tls": Refuse(5)}, TypeError),
        ({"certificate": Chain("upside-down")}, ValueError),
        ({"poll": State("assigned")}, ValueError),
    ],
)
def test_trouble_that_cannot_be(at: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Trouble(at)
