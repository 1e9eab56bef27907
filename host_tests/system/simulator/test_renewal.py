"""Certificates that the simulator's hub renews: requests, answers, one operation a device, and what may go wrong."""

from __future__ import annotations

import base64
import json
import queue
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from simulator_client import (
    RENEWAL_API,
    Answer,
    Key,
    PahoDevice,
    RawClient,
    connect_packet,
    derive,
    group_key,
    hub_device,
    hub_username,
    make_csr,
    provision,
    publish_packet,
    save_key,
    subscribe_packet,
    token,
)

from espdps.simulator import Chain, Cut, Delay, Error, Form, Ignore, Options, Reconnect, Simulator, Trouble, serving

HUB = "hub-1.localhost"
RESPONSES = "$iothub/credentials/res/#"
REQUEST = "$iothub/credentials/POST/issueCertificate/"
NAME = "renewer"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("renewal"), Options(retry_after=0, assigning=0)) as simulator:
        yield simulator


@pytest.fixture
def sim(service: Simulator, tmp_path: Path) -> Iterator[Simulator]:
    """With no trouble and with a device of its own for each test."""
    provision(service.info, NAME, tmp_path)
    yield service
    service.trouble = Trouble()
    service.delete_device(NAME)


def online(sim: Simulator, tmp_path: Path, **changes: Any) -> AbstractContextManager[PahoDevice]:
    return hub_device(sim.info, NAME, tmp_path / f"{NAME}.pem", **{"version": RENEWAL_API, **changes})


def body(csr: Any = None, **fields: Any) -> str:
    csr = base64.b64encode(make_csr(NAME) if csr is None else csr).decode() if not isinstance(csr, str) else csr
    return json.dumps({"id": NAME, "csr": csr, **fields})


def ask(device: PahoDevice, rid: str, request: str | bytes | None = None, qos: int = 1) -> None:
    device.publish(f"{REQUEST}?$rid={rid}", body() if request is None else request, qos)


def answers(device: PahoDevice, rid: str, *statuses: int) -> list[Answer]:
    """The next answers, which have to be these, and only these."""
    found = [device.answer() for _ in statuses]
    assert [(answer.topic, answer.status) for answer in found] == [
        (f"$iothub/credentials/res/{status}/?$rid={rid}", status) for status in statuses
    ]
    return found


def nothing(device: PahoDevice) -> None:
    """No message came so far: whatever was on its way before this is answered comes first."""
    device.subscribe("$iothub/twin/res/#")
    with pytest.raises(queue.Empty):
        device.answers.get_nowait()


def certificate(text: str) -> x509.Certificate:
    return x509.load_der_x509_certificate(base64.b64decode(text))


def seconds(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


# As it should be


@pytest.mark.parametrize("qos", [0, 1])
def test_a_renewed_certificate_is_taken_by_the_hub(sim: Simulator, tmp_path: Path, qos: int) -> None:
    key, start = ec.generate_private_key(ec.SECP384R1()), len(sim.events)
    rid = "0f5a2f6e-7f2b-4f0e-9d0e-2f6a1b3c4d5e"  # 36 characters
    with online(sim, tmp_path) as device:
        assert device.subscribe(RESPONSES, qos) == [qos]
        ask(device, rid, body(make_csr(NAME, key)), qos)
        accepted, done = answers(device, rid, 202, 200)
        sim.wait_event("hub.renewal.delivered", after=start, rid=rid, status=200)
        device.publish(f"devices/{NAME}/messages/events/", b"still here")
        sim.wait_event("hub.telemetry", after=start, body="still here")
    assert accepted.body.keys() == {"correlationId", "operationExpires"}
    left = seconds(accepted.body["operationExpires"]) - datetime.now(timezone.utc)
    assert timedelta(hours=11, minutes=59) < left <= timedelta(hours=12)
    assert done.body.keys() == {"correlationId", "certificates"}
    assert done.body["correlationId"] == accepted.body["correlationId"]
    leaf, intermediate, root = map(certificate, done.body["certificates"])
    leaf.verify_directly_issued_by(intermediate)
    intermediate.verify_directly_issued_by(root)
    assert leaf.public_key() == key.public_key()
    assert leaf.subject.rfc4514_string() == f"CN={NAME}"
    made = sim.wait_event("hub.renewal", after=start, device=NAME, status=200)
    assert made["certificate"]["not_after"] == leaf.not_valid_after_utc.isoformat()
    assert sim.wait_event("hub.renewal", after=start, device=NAME)["status"] == 202
    pem = save_key(tmp_path / "renewed.pem", key)
    with pem.open("ab") as file:
        file.write(leaf.public_bytes(Encoding.PEM))
    for chain in (pem, tmp_path / f"{NAME}.pem"):  # the old one is as good until it runs out
        with hub_device(sim.info, NAME, chain) as device:
            assert device.connack.value == 0


def test_one_after_the_other(sim: Simulator, tmp_path: Path) -> None:
    with online(sim, tmp_path) as device:
        device.subscribe(RESPONSES)
        for rid in ("1234", "1235"):
            ask(device, rid)
            answers(device, rid, 202, 200)


def test_a_device_with_a_token_gets_a_certificate_too(sim: Simulator, tmp_path: Path) -> None:
    password = token(f"{HUB}/devices/{NAME}", derive(group_key(sim.info), NAME), skn=None)
    with hub_device(sim.info, NAME, password=password, version=RENEWAL_API) as device:
        device.subscribe(RESPONSES)
        ask(device, "1234")
        answers(device, "1234", 202, 200)


def test_the_life_is_the_enrollments_and_may_change(sim: Simulator, tmp_path: Path) -> None:
    lives = []
    with online(sim, tmp_path) as device:
        device.subscribe(RESPONSES)
        for life in (60, 7200, None):
            sim.set_enrollment("boards", group=True, certificate_seconds=life)
            ask(device, "1234")
            leaf = certificate(answers(device, "1234", 202, 200)[1].body["certificates"][0])
            now = datetime.now(timezone.utc)
            assert leaf.not_valid_before_utc < now  # for clocks that are slow
            lives.append((leaf.not_valid_after_utc - now).total_seconds())
    for life, wanted in zip(lives, (60, 7200, 30 * 86400), strict=True):
        assert wanted - 30 < life <= wanted


def test_the_life_holds_at_dps_too(tmp_path: Path) -> None:
    with serving(tmp_path, Options(retry_after=0)) as sim:
        sim.set_enrollment("boards", group=True, certificate_seconds=60)
        leaf = certificate(provision(sim.info, "brief", tmp_path)[0]["issuedCertificateChain"][0])
    assert timedelta(seconds=30) < leaf.not_valid_after_utc - datetime.now(timezone.utc) <= timedelta(seconds=60)


# Requests that are refused

TOO_LONG = base64.b64encode(b"x" * 6200).decode()


@pytest.mark.parametrize(
    ("rid", "request_body", "status", "code"),
    [
        ("1234", b" ", 400, 400004),
        ("1234", b'{"id":', 400, 400006),
        ("1234", b"\xff", 400, 400006),
        ("1234", b"[1]", 400, 400004),
        ("1234", body(unknown=1), 400, 400004),
        ("1234", body(id="somebody"), 400, 400004),
        ("1234", body(id=None), 400, 400004),
        ("1234", json.dumps({"csr": "AAAA"}), 400, 400004),
        ("1234", json.dumps({"id": NAME}), 400, 400004),
        ("1234", body(""), 400, 400004),
        ("1234", body("%%%"), 400, 400004),
        ("1234", body("-----BEGIN CERTIFICATE REQUEST-----"), 400, 400004),
        ("1234", body(TOO_LONG), 400, 400004),
        ("1234", body(replace="123"), 400, 400004),
        ("1234", body(replace=7), 400, 400004),
        ("1234", body(replace="never-was"), 412, 412001),
        ("123", None, 400, 400004),
        ("1" * 37, None, 400, 400004),
        ("-1234", None, 400, 400004),
        ("1234-", None, 400, 400004),
        ("12_34", None, 400, 400004),
    ],
)
def test_requests_that_are_refused(
    sim: Simulator, tmp_path: Path, rid: str, request_body: Any, status: int, code: int
) -> None:
    start = len(sim.events)
    with online(sim, tmp_path) as device:
        device.subscribe(RESPONSES)
        ask(device, rid, request_body)
        error = answers(device, rid, status)[0].body
        nothing(device)
    assert error["errorCode"] == code
    assert error.keys() == {"errorCode", "message", "trackingId", "timestampUtc", "info"}
    assert error["info"] == ({"requestId": "never-was"} if code == 412001 else None)
    assert sim.wait_event("hub.renewal", after=start, device=NAME)["error_code"] == code


@pytest.mark.parametrize(
    "csr",
    [b"no PKCS#10", make_csr("somebody"), make_csr(NAME)[:-2] + b"\0\0", make_csr(NAME, ec.generate_private_key(ec.SECP521R1()))],
    ids=["form", "name", "signature", "curve"],
)  # fmt: skip
def test_a_csr_that_does_not_verify_fails_after_the_202(sim: Simulator, tmp_path: Path, csr: bytes) -> None:
    with online(sim, tmp_path) as device:
        device.subscribe(RESPONSES)
        ask(device, "1234", body(csr))
        accepted, failed = answers(device, "1234", 202, 400)
        ask(device, "1235")  # and the operation is over
        answers(device, "1235", 202, 200)
    assert failed.body["errorCode"] == 400037
    assert failed.body["info"]["correlationId"] == accepted.body["correlationId"]


def test_without_a_policy_there_is_nobody_to_issue(sim: Simulator, tmp_path: Path) -> None:
    key = sim.add_individual("plain", credential_policy=None).primary_key
    provisioned = token(f"{HUB}/devices/plain", key, skn=None)
    with pytest.raises(KeyError):  # registered, and no certificate came
        provision(sim.info, "plain", tmp_path, key)
    with hub_device(sim.info, "plain", password=provisioned, version=RENEWAL_API) as device:
        device.subscribe(RESPONSES)
        ask(device, "1234", json.dumps({"id": "plain", "csr": base64.b64encode(make_csr("plain")).decode()}))
        assert answers(device, "1234", 404)[0].body["errorCode"] == 404001


@pytest.mark.parametrize(
    ("version", "topic"),
    [("2021-04-12", f"{REQUEST}?$rid=1234"), (RENEWAL_API, REQUEST), (RENEWAL_API, f"{REQUEST[:-1]}?$rid=1234")],
    ids=["older api", "no rid", "no slash"],
)
def test_what_closes_the_connection(sim: Simulator, tmp_path: Path, version: str, topic: str) -> None:
    with RawClient(sim.info, HUB, tmp_path / f"{NAME}.pem") as client:
        client.send(connect_packet(NAME, hub_username(HUB, NAME, version), None))
        assert client.packet() == (0x20, b"\0\0")
        client.send(publish_packet(topic, body().encode()))
        assert client.ended()


def test_an_older_api_has_no_such_subscription(sim: Simulator, tmp_path: Path) -> None:
    with online(sim, tmp_path, version="2021-04-12") as device:
        assert device.subscribe(RESPONSES) == [128]
    with online(sim, tmp_path, version="2026-11-01-preview") as device:
        assert device.subscribe(RESPONSES) == [1]


# One operation a device


def test_a_second_request_conflicts_or_replaces(sim: Simulator, tmp_path: Path) -> None:
    sim.trouble = Trouble({"hub.renewal.result": Ignore()})
    with online(sim, tmp_path) as device:
        device.subscribe(RESPONSES)
        ask(device, "first")
        first = answers(device, "first", 202)[0].body
        ask(device, "second")
        conflict = answers(device, "second", 409)[0].body
        assert conflict["errorCode"] == 409004
        assert conflict["info"] == {"requestId": "first", **first}
        ask(device, "second", body(replace="second"))
        assert answers(device, "second", 412)[0].body["errorCode"] == 412001
        ask(device, "second", body(replace="first"))
        answers(device, "second", 202)
        sim.trouble = Trouble()
        ask(device, "third", body(replace="*"))
        answers(device, "third", 202, 200)
        ask(device, "fourth", body(replace="*"))  # nothing to replace is no mistake
        answers(device, "fourth", 202, 200)
        nothing(device)


def test_a_replaced_operation_is_never_answered(sim: Simulator, tmp_path: Path) -> None:
    sim.trouble = Trouble({"hub.renewal.result": Delay(0.2)})
    with online(sim, tmp_path) as device:
        device.subscribe(RESPONSES)
        ask(device, "first")
        ask(device, "second", body(replace="first"))
        answers(device, "first", 202)
        answers(device, "second", 202, 200)  # of two that were due one after the other
        nothing(device)


def test_the_answer_waits_for_the_device(sim: Simulator, tmp_path: Path) -> None:
    sim.trouble = Trouble({"hub.renewal.result": Delay(0.2)})
    start = len(sim.events)
    with online(sim, tmp_path) as device:
        device.subscribe(RESPONSES)
        ask(device, "1234")
        answers(device, "1234", 202)
    sim.wait_event("hub.renewal", after=start, rid="1234", status=200)
    with online(sim, tmp_path, clean=True) as device:
        ask(device, "1235")  # not subscribed: no answer, and the operation before is still active
        sim.wait_event("hub.renewal", after=start, rid="1235", status=409)
        nothing(device)
        device.subscribe(RESPONSES)
        assert len(answers(device, "1234", 200)[0].body["certificates"]) == 3
    sim.wait_event("hub.renewal.delivered", after=start, rid="1234")
    with online(sim, tmp_path) as device:
        device.subscribe(RESPONSES)
        nothing(device)  # once is enough


def test_an_answer_that_was_not_acknowledged_comes_again(sim: Simulator, tmp_path: Path) -> None:
    with RawClient(sim.info, HUB, tmp_path / f"{NAME}.pem") as client:
        client.send(connect_packet(NAME, hub_username(HUB, NAME, RENEWAL_API), None))
        client.send(subscribe_packet(RESPONSES))
        assert [client.packet()[0] for _ in range(2)] == [0x20, 0x90]
        client.send(publish_packet(f"{REQUEST}?$rid=1234", body().encode()))
        assert client.answer()[0] == "$iothub/credentials/res/202/?$rid=1234"
        assert client.answer()[0] == "$iothub/credentials/res/200/?$rid=1234"
    with online(sim, tmp_path) as device:
        device.subscribe(RESPONSES)
        answers(device, "1234", 200)


def test_an_unsubscribed_device_gets_its_answer_when_it_subscribes_again(sim: Simulator, tmp_path: Path) -> None:
    sim.trouble = Trouble({"hub.renewal.result": Delay(0.2)})
    start = len(sim.events)
    with online(sim, tmp_path) as device:
        device.subscribe(RESPONSES)
        ask(device, "1234")
        answers(device, "1234", 202)
        device.client.unsubscribe(RESPONSES)
        sim.wait_event("hub.renewal", after=start, status=200)
        nothing(device)
        device.subscribe(RESPONSES)
        answers(device, "1234", 200)


# Scripted trouble


@pytest.mark.parametrize(
    ("status", "code", "retry_after"),
    [(400, 400040, None), (403, 403010, None), (409, 409005, None), (412, 412001, None), (429, 429002, 7), (500, 500001, None), (503, 503001, None)],
)  # fmt: skip
@pytest.mark.parametrize("place", ["hub.renewal", "hub.renewal.result"])
def test_scripted_errors(
    sim: Simulator, tmp_path: Path, place: str, status: int, code: int, retry_after: int | None
) -> None:
    sim.trouble = Trouble({place: Error(status, code, "By script", retry_after)})
    with online(sim, tmp_path) as device:
        device.subscribe(RESPONSES)
        ask(device, "1234")
        error = answers(device, "1234", *((202, status) if place == "hub.renewal.result" else (status,)))[-1].body
        assert (error["errorCode"], error.get("retryAfter")) == (code, retry_after)
        sim.trouble = Trouble()
        ask(device, "1235")
        answers(device, "1235", 202, 200)


def test_an_ignored_request_leaves_the_connection_as_it_is(sim: Simulator, tmp_path: Path) -> None:
    sim.trouble = Trouble({"hub.renewal": Ignore()})
    start = len(sim.events)
    with online(sim, tmp_path) as device:
        device.subscribe(RESPONSES)
        ask(device, "1234")
        assert sim.wait_event("hub.renewal", after=start)["status"] is None
        sim.trouble = Trouble()
        ask(device, "1235")
        answers(device, "1235", 202, 200)


def test_a_late_answer(sim: Simulator, tmp_path: Path) -> None:
    sim.trouble = Trouble({"hub.renewal.result": Delay(0.5)})
    with online(sim, tmp_path) as device:
        device.subscribe(RESPONSES)
        ask(device, "1234")
        answers(device, "1234", 202)
        begin = time.monotonic()
        answers(device, "1234", 200)
        assert 0.4 < time.monotonic() - begin < 5


def test_only_after_the_reconnect(sim: Simulator, tmp_path: Path) -> None:
    sim.trouble = Trouble({"hub.renewal.result": Reconnect()})
    start = len(sim.events)
    with online(sim, tmp_path) as device:
        device.subscribe(RESPONSES)
        ask(device, "1234")
        answers(device, "1234", 202)
        sim.wait_event("hub.renewal", after=start, status=200)
        device.subscribe(RESPONSES)
        nothing(device)
    with online(sim, tmp_path) as device:
        device.subscribe(RESPONSES)
        answers(device, "1234", 200)


@pytest.mark.parametrize("after", [0, 100])
def test_a_cut_loses_no_answer(sim: Simulator, tmp_path: Path, after: int) -> None:
    sim.trouble = Trouble({"hub.renewal.result": Cut(after)})
    with online(sim, tmp_path) as device:
        device.subscribe(RESPONSES, 0)  # nothing would be acknowledged
        ask(device, "1234", qos=0)
        answers(device, "1234", 202)
        device.disconnected.get(timeout=10)
    with online(sim, tmp_path) as device:
        device.subscribe(RESPONSES)
        answers(device, "1234", 200)


@pytest.mark.parametrize(
    ("form", "kind", "encoding"),
    [(Form(), dict, "der"), (Form(bare=True), list, "der"), (Form(pem=True), dict, "pem"), (Form(True, True), list, "pem")],
)  # fmt: skip
def test_forms(sim: Simulator, tmp_path: Path, form: Form, kind: type, encoding: str) -> None:
    sim.trouble = Trouble({"hub.answer": form})
    with online(sim, tmp_path) as device:
        device.subscribe(RESPONSES)
        ask(device, "1234")
        answer = answers(device, "1234", 202, 200)[1].body
    assert isinstance(answer, kind)
    chain = answer["certificates"] if isinstance(answer, dict) else answer
    load = certificate if encoding == "der" else lambda text: x509.load_pem_x509_certificate(text.encode())
    names = [load(text).subject.rfc4514_string() for text in chain]
    assert len(names) == 3
    assert names[0] == f"CN={NAME}"


def test_bad_chains(sim: Simulator, tmp_path: Path) -> None:
    key: Key = ec.generate_private_key(ec.SECP384R1())
    with online(sim, tmp_path) as device:
        device.subscribe(RESPONSES)

        def issued(kind: str) -> Any:
            sim.trouble = Trouble({"hub.certificate": Chain(kind), "certificate": Chain("garbage")})
            ask(device, "1234", body(make_csr(NAME, key)))
            return answers(device, "1234", 202, 200)[1].body["certificates"]

        with pytest.raises(KeyError):
            issued("absent")
        assert issued("null") is None
        assert issued("empty") == []
        assert certificate(issued("other-key")[0]).public_key() != key.public_key()
        expired = certificate(issued("expired")[0])
        assert expired.public_key() == key.public_key()
        assert expired.not_valid_after_utc < datetime.now(timezone.utc)
        assert certificate(issued("reversed")[2]).public_key() == key.public_key()
        assert len(issued("longer")) == 4


def test_no_secret_and_no_csr_in_the_events(sim: Simulator, tmp_path: Path) -> None:
    start = len(sim.events)
    with online(sim, tmp_path) as device:
        device.subscribe(RESPONSES)
        ask(device, "1234")
        answers(device, "1234", 202, 200)
    told = json.dumps([event for event in sim.events[start:] if event["event"].startswith("hub.renewal")])
    assert re.search(r'"rid": "1234"', told)
    assert not re.search(r"[A-Za-z0-9+/]{100}", told)
