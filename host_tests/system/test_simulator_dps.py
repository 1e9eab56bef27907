"""DPS of the simulator, by paho-mqtt and by openssl: who is let in, what a registration brings, what is refused."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from espdps.simulator import Options, Simulator, serving
from simulator_client import (
    POLL,
    REGISTER,
    RawClient,
    derive,
    dps_device,
    dps_token,
    dps_username,
    group_key,
    make_csr,
    provision,
    publish_packet,
)

OTHER_KEY = base64.b64encode(b"k" * 64).decode()


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("dps"), Options(retry_after=0)) as simulator:
        yield simulator


def run_openssl(*arguments: str, stdin: bytes = b"") -> str:
    done = subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def certificates(state: dict[str, Any]) -> list[x509.Certificate]:
    return [x509.load_der_x509_certificate(base64.b64decode(text)) for text in state["issuedCertificateChain"]]


def finish(device: Any, registration_id: str, csr: bytes | None = None) -> dict[str, Any]:
    """Register, poll until it is over; the last answer's body."""
    rid = device.register(registration_id, csr)
    answer = device.answer()
    assert answer.rid == rid
    while answer.body.get("status") == "assigning":
        rid = device.poll(answer.body["operationId"])
        answer = device.answer()
        assert answer.rid == rid
    assert answer.status == 200
    return answer.body


# The main path


def test_group_member_gets_a_hub_and_a_certificate(sim: Simulator) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    with dps_device(sim.info, "group-1") as device:
        rid = device.register("group-1", make_csr("group-1", key))
        first = device.answer()
        assert (first.status, first.rid, first.qos) == (202, rid, 1)
        assert first.properties["retry-after"] == "0"
        assert first.body.keys() == {"operationId", "status"}
        device.poll(first.body["operationId"])
        last = device.answer()
    assert last.status == 200
    state = last.body["registrationState"]
    assert last.body["status"] == state["status"] == "assigned"
    assert state["assignedHub"] == "hub-1.localhost"
    assert state["deviceId"] == state["registrationId"] == "group-1"
    assert state["substatus"] == "initialAssignment"
    assert state["symmetricKey"] == {"enrollmentGroupId": "boards"}
    leaf, intermediate, root = certificates(state)
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert leaf.public_key().public_bytes(*spki) == key.public_key().public_bytes(*spki)
    assert leaf.issuer == intermediate.subject
    assert intermediate.issuer == root.subject == root.issuer
    event = sim.wait_event("dps.assigned", device="group-1")
    assert event["certificate"]["sha256"] == leaf.fingerprint(hashes.SHA256()).hex()


def test_chain_verifies_with_openssl(sim: Simulator, tmp_path: Path) -> None:
    state, _ = provision(sim.info, "verified", tmp_path)
    names = []
    for name, certificate in zip(("leaf", "intermediate", "root"), certificates(state), strict=True):
        names.append(tmp_path / f"{name}.pem")
        names[-1].write_bytes(certificate.public_bytes(Encoding.PEM))
    leaf, intermediate, root = map(str, names)
    arguments = ("verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", root, "-untrusted", intermediate, leaf)
    assert run_openssl(*arguments).endswith("leaf.pem: OK\n")
    shown = run_openssl("x509", "-in", leaf, "-noout", "-text")
    assert "Subject: CN = verified\n" in shown
    assert "ecdsa-with-SHA384" in shown
    assert "TLS Web Client Authentication" in shown


def test_chain_is_as_large_as_the_real_one(sim: Simulator, tmp_path: Path) -> None:
    state, _ = provision(sim.info, "thermostat-0042", tmp_path)
    sizes = [len(base64.b64decode(text)) for text in state["issuedCertificateChain"]]
    # Seen at the service: 1521 + 1190 + 547 bytes, about 4.4 KB of base64.
    assert 1450 <= sizes[0] <= 1600
    assert 1100 <= sizes[1] <= 1250
    assert 500 <= sizes[2] <= 600
    assert 4200 <= sum(map(len, state["issuedCertificateChain"])) <= 4600


def test_individual_enrollment(sim: Simulator) -> None:
    key = sim.add_individual("own-key").primary_key
    with dps_device(sim.info, "own-key", key) as device:
        state = finish(device, "own-key", make_csr("own-key"))["registrationState"]
    assert state["symmetricKey"] == {}
    assert len(state["issuedCertificateChain"]) == 3


def test_secondary_keys_work(sim: Simulator) -> None:
    individual = sim.add_individual("second")
    for registration_id, key in (
        ("second", individual.secondary_key),
        ("second-of-group", derive(sim.group().secondary_key, "second-of-group")),
    ):
        with dps_device(sim.info, registration_id, key) as device:
            assert finish(device, registration_id)["status"] == "assigned"


def test_token_by_openssl(sim: Simulator) -> None:
    """The signature comes from the openssl command, over lower-case escapes, with the fields in another order."""
    scope, expiry = sim.info["id_scope"], int(time.time()) + 600
    key = derive(group_key(sim.info), "by-openssl")
    resource = f"{scope}%2fregistrations%2fby-openssl"
    digest = subprocess.run(
        ["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", "hexkey:" + base64.b64decode(key).hex(), "-binary"],
        input=f"{resource}\n{expiry}".encode(),
        capture_output=True,
        check=True,
        timeout=30,
    ).stdout
    signature = base64.b64encode(digest).decode().replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    password = f"SharedAccessSignature skn=registration&se={expiry}&sr={resource}&sig={signature}"
    with dps_device(sim.info, "by-openssl", password=password) as device:
        assert finish(device, "by-openssl")["status"] == "assigned"


def test_a_csr_by_openssl_and_the_same_one_again(sim: Simulator, tmp_path: Path) -> None:
    run_openssl(
        "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=req-1",
        "-keyout", str(tmp_path / "key.pem"), "-outform", "DER", "-out", str(tmp_path / "req.der"),
    )  # fmt: skip
    csr = (tmp_path / "req.der").read_bytes()
    leaves = []
    for _ in range(2):
        with dps_device(sim.info, "req-1") as device:
            leaves.append(certificates(finish(device, "req-1", csr)["registrationState"])[0])
    assert leaves[0].public_key() == leaves[1].public_key()
    assert leaves[0].serial_number != leaves[1].serial_number


@pytest.mark.parametrize("bits", [2048, 3072])
def test_rsa_keys_are_certified(sim: Simulator, bits: int) -> None:
    csr = make_csr(f"rsa-{bits}", rsa.generate_private_key(65537, bits), hashes.SHA256())
    with dps_device(sim.info, f"rsa-{bits}") as device:
        assert len(finish(device, f"rsa-{bits}", csr)["registrationState"]["issuedCertificateChain"]) == 3


def test_no_certificate_without_csr_or_policy(sim: Simulator) -> None:
    key = sim.add_individual("no-policy", credential_policy=None).primary_key
    with dps_device(sim.info, "no-csr") as device:
        assert "issuedCertificateChain" not in finish(device, "no-csr")["registrationState"]
    with dps_device(sim.info, "no-policy", key) as device:
        assert "issuedCertificateChain" not in finish(device, "no-policy", make_csr("no-policy"))["registrationState"]
    assert sim.wait_event("dps.assigned", device="no-policy")["certificate"] is None


@pytest.mark.parametrize(("asked", "answered"), [(0, 0), (1, 1), (2, 1)])
def test_answers_have_the_granted_qos(sim: Simulator, asked: int, answered: int) -> None:
    with dps_device(sim.info, "qos", qos=asked) as device:
        device.register("qos")
        assert device.answer().qos == answered


def test_all_fields_of_a_request_may_be_missing(sim: Simulator) -> None:
    for body in (b"", b" ", b"{}", b'{"payload":{"a":1},"unknown":[],"csr":null}'):
        with RawClient(sim.info) as client:
            client.dps_ready(sim.info, "terse")
            topic, answer = client.request(REGISTER + "1", body)
            assert topic.startswith("$dps/registrations/res/202/?$rid=1")
            operation = json.loads(answer)["operationId"]
            _, answer = client.request(f"{POLL}2&operationId={operation}", body)
            assert json.loads(answer)["status"] == "assigned"


def test_polls_after_the_end_give_the_same_certificate(sim: Simulator) -> None:
    with dps_device(sim.info, "again") as device:
        body = finish(device, "again", make_csr("again"))
        device.poll(body["operationId"])
        assert device.answer().body == body


def test_retry_after_and_number_of_assigning_answers(tmp_path: Path) -> None:
    with serving(tmp_path, Options(retry_after=7, assigning=3)) as sim, dps_device(sim.info, "slow") as device:
        device.register("slow")
        for _ in range(3):
            answer = device.answer()
            assert (answer.status, answer.properties["retry-after"]) == (202, "7")
            device.poll(answer.body["operationId"])
        assert device.answer().body["status"] == "assigned"
        assert len([event for event in sim.events if event["event"] == "dps.assigning"]) == 3


def test_short_lives(tmp_path: Path) -> None:
    with serving(tmp_path / "sim", Options(retry_after=None, certificate_seconds=60)) as sim:
        before = time.time()
        state, _ = provision(sim.info, "mayfly", tmp_path)
        leaf = certificates(state)[0]
        assert before + 58 <= leaf.not_valid_after_utc.timestamp() <= time.time() + 60
        assert leaf.not_valid_before_utc.timestamp() <= before - 4


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


def refusal_cases() -> list[Any]:
    def case(name: str, reason: str, change: Any) -> Any:
        return pytest.param(reason, change, id=name)

    return [
        case("expired", "expired", lambda i, k: {"password": dps_token(i, "dev", k, expiry=int(time.time()) - 1)}),
        case("expired-1970", "expired", lambda i, k: {"password": dps_token(i, "dev", k, expiry=3600)}),
        case("no-password", "no token", lambda i, k: {"password": None}),
        case("not-a-token", "not a Shared", lambda i, k: {"password": "secret"}),
        case("half-a-token", "without sr", lambda i, k: {"password": dps_token(i, "dev", k).split("&se=")[0]}),
        case("twice", "repeated", lambda i, k: {"password": dps_token(i, "dev", k) + "&se=9999999999"}),
        case("bad-expiry", "Unix", lambda i, k: {"password": dps_token(i, "dev", k).replace("&se=", "&se=-")}),
        case("not-base64", "base64", lambda i, k: {"password": dps_token(i, "dev", k).replace("&sig=", "&sig=!")}),
        case("wrong-skn", "skn", lambda i, k: {"password": dps_token(i, "dev", k, skn="device")}),
        case("no-skn", "skn", lambda i, k: {"password": dps_token(i, "dev", k, skn=None)}),
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


# Many at once


def test_no_device_sees_anothers_answers(sim: Simulator) -> None:
    """All register at the same time; each gets answers to its own requests, its own id, a certificate of its own."""

    def device_life(number: int) -> tuple[str, int]:
        registration_id = f"crowd-{number}"
        with dps_device(sim.info, registration_id) as device:
            body = finish(device, registration_id, make_csr(registration_id))
            assert device.answers.empty()
        state = body["registrationState"]
        assert state["registrationId"] == registration_id
        leaf = certificates(state)[0]
        return leaf.subject.rfc4514_string(), leaf.serial_number

    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(device_life, range(20)))
    assert [subject for subject, _ in results] == [f"CN=crowd-{number}" for number in range(20)]
    assert len({serial for _, serial in results}) == 20


def test_two_dialogues_interleaved(sim: Simulator) -> None:
    with RawClient(sim.info) as one, RawClient(sim.info) as two:
        one.dps_ready(sim.info, "one")
        two.dps_ready(sim.info, "two")
        one.send(publish_packet(REGISTER + "same"))
        two.send(publish_packet(REGISTER + "same"))  # the same request id, as two boards may well choose
        operations = [json.loads(client.answer()[1])["operationId"] for client in (one, two)]
        for client, operation, name in ((two, operations[1], "two"), (one, operations[0], "one")):
            _, answer = client.request(f"{POLL}same&operationId={operation}")
            assert json.loads(answer)["registrationState"]["registrationId"] == name
        assert one.silent(0.05)
        assert two.silent(0.05)
