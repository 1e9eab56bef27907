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
from simulator_client import (
    POLL,
    REGISTER,
    RawClient,
    derive,
    dps_device,
    finish,
    group_key,
    make_csr,
    provision,
    publish_packet,
)

from espdps.simulator import Options, Simulator, serving


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
