"""What DPS of the simulator refuses: credentials, certificate requests, bodies and topics, each in its own way."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from simulator_client import (
    REGISTER,
    RawClient,
    derive,
    dps_device,
    dps_token,
    dps_username,
    finish,
    group_key,
    make_csr,
    publish_packet,
)

from espdps.simulator import Options, Simulator, serving

OTHER_KEY = base64.b64encode(b"k" * 64).decode()


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("refusals"), Options(retry_after=0)) as simulator:
        yield simulator


# Bad credentials


def test_wrong_signature_is_told_at_the_registration(sim: Simulator) -> None:
    with dps_device(sim.info, "forged", OTHER_KEY) as device:
        assert device.connack.value == 0
        rid = device.register("forged", make_csr("forged"))
        answer = device.answer()
    assert (answer.status, answer.rid) == (401, rid)
    assert answer.body["errorCode"] == 401000
    assert answer.body["trackingId"]
    assert answer.body["timestampUtc"]
    event = sim.wait_event("dps.answer", device="forged")
    assert (event["status"], event["error_code"]) == (401, 401000)
    assert event["tracking_id"] == answer.body["trackingId"]


def test_an_individual_enrollment_shadows_the_groups(sim: Simulator) -> None:
    sim.add_individual("shadowed")
    with dps_device(sim.info, "shadowed", derive(group_key(sim.info), "shadowed")) as device:
        device.register("shadowed")
        assert device.answer().body["errorCode"] == 401000


def test_no_enrollment_at_all(tmp_path: Path) -> None:
    with serving(tmp_path) as sim:
        sim.remove_enrollment("boards", group=True)
        with dps_device(sim.info, "nobody") as device:
            device.register("nobody")
            answer = device.answer()
        assert (answer.status, answer.body["errorCode"]) == (404, 404201)


def test_enrollment_deleted_after_the_connect(sim: Simulator) -> None:
    key = sim.add_individual("deleted").primary_key
    with dps_device(sim.info, "deleted", key) as device:
        sim.remove_enrollment("deleted")
        device.register("deleted")
        assert device.answer().body["errorCode"] == 404201


def test_a_token_need_not_name_its_policy(sim: Simulator) -> None:
    """As azure-iot-device does it."""
    key = sim.add_individual("no-skn").primary_key
    with dps_device(sim.info, "no-skn", password=dps_token(sim.info, "no-skn", key, skn=None)) as device:
        device.register("no-skn")
        assert device.answer().status in (200, 202)


def refusal_cases() -> list[Any]:
    def case(name: str, reason: str, change: Any) -> Any:
        return pytest.param(reason, change, id=name)

    return [
        case("expired", "expired", lambda i, k: {"password": dps_token(i, "dev", k, expiry=int(time.time()) - 1)}),
        case("expired-1970", "expired", lambda i, k: {"password": dps_token(i, "dev", k, expiry=3600)}),
        case("no-password", "neither token", lambda i, k: {"password": None}),
        case("not-a-token", "not a Shared", lambda i, k: {"password": "secret"}),
        case("half-a-token", "without sr", lambda i, k: {"password": dps_token(i, "dev", k).split("&se=")[0]}),
        case("twice", "repeated", lambda i, k: {"password": dps_token(i, "dev", k) + "&se=9999999999"}),
        case("bad-expiry", "Unix", lambda i, k: {"password": dps_token(i, "dev", k).replace("&se=", "&se=-")}),
        case("not-base64", "base64", lambda i, k: {"password": dps_token(i, "dev", k).replace("&sig=", "&sig=!")}),
        case("wrong-skn", "skn", lambda i, k: {"password": dps_token(i, "dev", k, skn="device")}),
        case("other-resource", "resource", lambda i, k: {"password": dps_token(i, "dev-2", k)}),
        case("client-id", "client id", lambda i, k: {"client_id": "dev-2"}),
        case("username", "another form", lambda i, k: {"username": "dev"}),
        case("no-version", "another form", lambda i, k: {"username": dps_username(i, "dev").split("/api-")[0]}),
        case("bad-version", "another form", lambda i, k: {"username": dps_username(i, "dev", "latest")}),
        case("id-scope", "id scope", lambda i, k: {"username": "0neFFFF/registrations/dev/api-version=2021-06-01"}),
        case("will", "will", lambda i, k: {"will": "devices/dev/messages/events/"}),
    ]


@pytest.mark.parametrize(("reason", "change"), refusal_cases())
def test_connack_5(sim: Simulator, reason: str, change: Any) -> None:
    start = len(sim.events)
    key = derive(group_key(sim.info), "dev")
    with dps_device(sim.info, "dev", key, **change(sim.info, key)) as device:
        assert device.connack.value == 135  # paho's name for CONNACK 5, not authorized
    event = sim.wait_event("dps.refused", after=start)
    assert event["return_code"] == 5
    assert reason in event["reason"]


def test_client_version_in_the_username_is_welcome(sim: Simulator) -> None:
    username = dps_username(sim.info, "agent") + "&ClientVersion=azure-iot-device%2F2.14"
    with dps_device(sim.info, "agent", username=username) as device:
        assert finish(device, "agent")["status"] == "assigned"


@pytest.mark.parametrize("registration_id", ["bad id", "a" * 129, "umläut"])
def test_invalid_registration_id(sim: Simulator, registration_id: str) -> None:
    with dps_device(sim.info, registration_id, OTHER_KEY) as device:
        device.register(registration_id)
        assert device.answer().body["errorCode"] == 400004


@pytest.mark.parametrize("group", [True, False])
def test_disabled(tmp_path: Path, group: bool) -> None:
    with serving(tmp_path) as sim:
        key = None if group else sim.add_individual("off").primary_key
        sim.set_enrollment("boards" if group else "off", group, provisioning_status="disabled")
        with dps_device(sim.info, "off", key) as device:
            device.register("off")
            answer = device.answer()
        assert answer.status == 200
        assert answer.body["operationId"] == ""
        assert answer.body["status"] == answer.body["registrationState"]["status"] == "disabled"


# Bad requests


def bad_csr_cases() -> list[Any]:
    der = make_csr("dev")
    pem = x509.load_der_x509_csr(der).public_bytes(Encoding.PEM).decode()
    broken = bytearray(der)
    broken[-5] ^= 1
    other_curve = make_csr("dev", ec.generate_private_key(ec.SECP521R1()))
    name = x509.Name([])
    nameless = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        .public_bytes(Encoding.DER)
    )

    def encoded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    return [
        pytest.param(pem, 400012, id="pem"),
        pytest.param(encoded(pem.encode()), 400012, id="base64-of-pem"),
        pytest.param(encoded(der)[:-7], 400012, id="cut"),
        pytest.param(encoded(der + b"\0"), 400012, id="trailing"),
        pytest.param(encoded(b""), 400012, id="empty"),
        pytest.param(17, 400012, id="number"),
        pytest.param(encoded(make_csr("other")), 400004, id="cn-mismatch"),
        pytest.param(encoded(nameless), 400004, id="no-cn"),
        pytest.param(encoded(bytes(broken)), 400004, id="signature"),
        pytest.param(encoded(other_curve), 400004, id="p-521"),
        pytest.param(
            encoded(make_csr("dev", rsa.generate_private_key(65537, 1024), hashes.SHA256())), 400004, id="rsa-1024"
        ),
    ]


@pytest.mark.parametrize(("csr", "code"), bad_csr_cases())
def test_bad_csr(sim: Simulator, csr: Any, code: int) -> None:
    with dps_device(sim.info, "dev") as device:
        rid = device.register("dev", csr)
        answer = device.answer()
    assert (answer.status, answer.rid, answer.body["errorCode"]) == (400, rid, code)


def test_csr_with_an_api_version_of_before(sim: Simulator) -> None:
    with dps_device(sim.info, "old-api", version="2021-06-01") as device:
        device.register("old-api", make_csr("old-api"))
        assert device.answer().body["errorCode"] == 400012
        assert finish(device, "old-api")["status"] == "assigned"


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff\xfe", b"[" * 50000])
def test_bad_json(sim: Simulator, body: bytes) -> None:
    with RawClient(sim.info) as client:
        client.dps_ready(sim.info, "dev")
        topic, answer = client.request(REGISTER + "x", body)
        assert topic == "$dps/registrations/res/400/?$rid=x"
        assert json.loads(answer)["errorCode"] == 400012


def test_body_for_another_id(sim: Simulator) -> None:
    with dps_device(sim.info, "dev") as device:
        device.register("other")
        assert device.answer().body["errorCode"] == 400004


def test_operation_of_nobody_and_of_another_device(sim: Simulator) -> None:
    with dps_device(sim.info, "mine") as mine, dps_device(sim.info, "yours") as yours:
        mine.register("mine")
        assert mine.answer().status == 202
        yours.register("yours")
        operation = yours.answer().body["operationId"]
        for id in ("5.0.0", "", operation):
            mine.poll(id)
            answer = mine.answer()
            assert (answer.status, answer.body["errorCode"]) == (404, 404203)


def test_nothing_is_answered_before_the_subscription(sim: Simulator) -> None:
    with RawClient(sim.info) as client:
        client.dps_connect(sim.info, "eager")
        assert client.packet() == (0x20, b"\0\0")
        client.send(publish_packet(REGISTER + "1", qos=1, number=9))
        assert client.packet() == (0x40, b"\0\x09")  # the PUBACK, and nothing else
        assert client.silent()
    sim.wait_event("dps.assigning", device="eager")


@pytest.mark.parametrize(
    "topic",
    [
        "devices/dev/messages/events/",
        "$dps/registrations/POST/iotdps-register/?$rid=1",
        "$dps/registrations/PUT/iotdps-register/",
        "$dps/registrations/PUT/iotdps-register/?x=1",
        "",
    ],
)
def test_unknown_topics_close(sim: Simulator, topic: str) -> None:
    with RawClient(sim.info) as client:
        client.dps_ready(sim.info, "dev")
        client.send(publish_packet(topic))
        assert client.ended()


def test_qos_2_closes(sim: Simulator) -> None:
    with RawClient(sim.info) as client:
        client.dps_ready(sim.info, "dev")
        client.send(publish_packet(REGISTER + "1", qos=2))
        assert client.ended()


def test_other_filters_are_not_granted(sim: Simulator) -> None:
    with dps_device(sim.info, "dev") as device:
        assert device.subscribe("#") == [128]
        assert device.subscribe("$dps/registrations/#") == [128]
