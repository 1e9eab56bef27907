"""The hub of the simulator: who may connect, what it sees of telemetry, when it hangs up."""

from __future__ import annotations

import base64
import datetime
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from simulator_client import (
    DISCONNECT,
    RENEWAL_API,
    RawClient,
    connect_packet,
    derive,
    dps_device,
    dps_token,
    dps_username,
    group_key,
    hub_device,
    hub_username,
    provision,
    publish_packet,
    save_key,
    subscribe_packet,
    token,
)

from espdps.simulator import Options, Simulator, serving

HUB = "hub-1.localhost"
REFUSED = 135  # paho's name for CONNACK 5, not authorized


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("hub"), Options(retry_after=0)) as simulator:
        yield simulator


def refused(sim: Simulator, device_id: str, reason: str, chain: Path | None = None, **changes: Any) -> None:
    start = len(sim.events)
    with hub_device(sim.info, device_id, chain, **changes) as device:
        assert device.connack.value == REFUSED
    event = sim.wait_event("hub.refused", after=start, device=device_id)
    assert event["return_code"] == 5
    assert reason in event["reason"]


def test_telemetry_with_the_issued_certificate(sim: Simulator, tmp_path: Path) -> None:
    state, pem = provision(sim.info, "sensor", tmp_path)
    with hub_device(sim.info, "sensor", pem) as device:
        assert device.connack.value == 0
        topic = (
            "devices/sensor/messages/events/$.ct=application%2Fjson&$.ce=utf-8&room=4%20north&a%2Bb=1%2B1&flag&none="
        )
        device.publish(topic, '{"t":21.5}')
        event = sim.wait_event("hub.telemetry", device="sensor")
        device.publish("devices/sensor/messages/events/", b"\xff\x00", qos=0, retain=True)
        second = sim.wait_event("hub.telemetry", device="sensor", encoding="base64")
    assert event["body"] == '{"t":21.5}'
    assert event["topic"] == topic
    assert event["properties"] == {
        "$.ct": "application/json", "$.ce": "utf-8", "room": "4 north", "a+b": "1+1", "flag": None, "none": "",
    }  # fmt: skip
    assert (event["qos"], event["retain"], event["duplicate"], event["encoding"]) == (1, False, False, "utf-8")
    assert base64.b64decode(second["body"]) == b"\xff\x00"
    assert (second["qos"], second["properties"]) == (0, {"mqtt-retain": "true"})
    connect = sim.wait_event("hub.connect", device="sensor")
    leaf = x509.load_der_x509_certificate(base64.b64decode(state["issuedCertificateChain"][0]))
    assert connect["auth"] == "x509"
    assert connect["certificate"]["subject"] == "CN=sensor"
    assert connect["certificate"]["issuer"] == leaf.issuer.rfc4514_string()
    assert connect["certificate"]["not_after"] == leaf.not_valid_after_utc.isoformat()
    opened = sim.wait_event("tls.open", connection=connect["connection"])
    assert (opened["version"], opened["sni"], opened["client_cert"]) == ("TLSv1.2", HUB, "CN=sensor")
    assert sim.wait_event("closed", device="sensor", connection=connect["connection"])["graceful"]


def test_certificate_for_an_rsa_key(sim: Simulator, tmp_path: Path) -> None:
    _, pem = provision(sim.info, "rsa", tmp_path, key=rsa.generate_private_key(65537, 2048))
    with hub_device(sim.info, "rsa", pem) as device:
        assert device.connack.value == 0


def test_the_whole_chain_is_as_good_as_the_leaf(sim: Simulator, tmp_path: Path) -> None:
    state, pem = provision(sim.info, "chained", tmp_path)
    with pem.open("ab") as file:
        for text in state["issuedCertificateChain"][1:]:
            file.write(x509.load_der_x509_certificate(base64.b64decode(text)).public_bytes(Encoding.PEM))
    with hub_device(sim.info, "chained", pem) as device:
        assert device.connack.value == 0


def test_device_key_is_the_hubs_key_too(sim: Simulator, tmp_path: Path) -> None:
    provision(sim.info, "keyed", tmp_path)
    key = derive(group_key(sim.info), "keyed")
    resource = f"{HUB}/devices/keyed"
    with hub_device(sim.info, "keyed", password=token(resource, key, skn=None)) as device:
        assert device.connack.value == 0
    assert sim.wait_event("hub.connect", device="keyed")["auth"] == "sas"
    wrong = base64.b64encode(b"w" * 32).decode()
    refused(sim, "keyed", "not signed", password=token(resource, wrong, skn=None))
    refused(sim, "keyed", "expired", password=token(resource, key, expiry=1, skn=None))
    refused(sim, "keyed", "skn", password=token(resource, key))
    refused(sim, "keyed", "resource", password=token(f"{HUB}/devices/other", key, skn=None))
    refused(sim, "keyed", "neither")


def self_made(folder: Path, name: str, issuer: str, days: int = 1) -> Path:
    """A certificate that calls itself issued by ``issuer``, signed by a key of its own."""
    key, now = ec.generate_private_key(ec.SECP384R1()), datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name.from_rfc4514_string(issuer))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, hashes.SHA384())
    )
    pem = save_key(folder / "self-made.pem", key)
    with pem.open("ab") as file:
        file.write(certificate.public_bytes(Encoding.PEM))
    return pem


def test_foreign_certificates(sim: Simulator, tmp_path: Path) -> None:
    state, _ = provision(sim.info, "target", tmp_path)
    leaf = x509.load_der_x509_certificate(base64.b64decode(state["issuedCertificateChain"][0]))
    issuer = leaf.issuer.rfc4514_string()
    refused(sim, "target", "not issued", self_made(tmp_path, "target", issuer))
    refused(sim, "target", "not issued", self_made(tmp_path, "target", "CN=target"))
    with serving(tmp_path / "other", Options(retry_after=0)) as other:
        _, foreign = provision(other.info, "target", tmp_path)
    refused(sim, "target", "not issued", foreign)


def test_certificate_of_another_device(sim: Simulator, tmp_path: Path) -> None:
    provision(sim.info, "victim", tmp_path)
    _, pem = provision(sim.info, "thief", tmp_path)
    refused(sim, "victim", "common name", pem)
    refused(sim, "victim", "client id", pem, client_id="thief")


def test_expired_certificate(tmp_path: Path) -> None:
    with serving(tmp_path / "sim", Options(retry_after=0, certificate_seconds=1)) as sim:
        _, pem = provision(sim.info, "late", tmp_path)
        leaf = x509.load_pem_x509_certificate(pem.read_bytes())
        while datetime.datetime.now(datetime.timezone.utc) < leaf.not_valid_after_utc + datetime.timedelta(seconds=1):
            pass  # at most two seconds: the end of the validity is the event
        refused(sim, "late", "expired", pem)


def test_unknown_device_and_bad_usernames(sim: Simulator, tmp_path: Path) -> None:
    _, pem = provision(sim.info, "named", tmp_path)
    refused(sim, "stranger", "unknown device", pem)
    refused(sim, "named", "unsupported", pem, username=hub_username(HUB, "named", "2000-01-01"))
    start = len(sim.events)
    with hub_device(sim.info, "named", pem, username=hub_username("hub-2.localhost", "named")) as device:
        assert device.connack.value == REFUSED
    assert sim.wait_event("dps.refused", after=start)["return_code"] == 5


def test_disabled_and_deleted_devices(sim: Simulator, tmp_path: Path) -> None:
    _, pem = provision(sim.info, "moody", tmp_path)
    with hub_device(sim.info, "moody", pem) as device:
        sim.set_device("moody", enabled=False)
        device.disconnected.get(timeout=10)
    refused(sim, "moody", "disabled", pem)
    # DPS does not switch on what an operator switched off.
    provision(sim.info, "moody", tmp_path)
    refused(sim, "moody", "disabled", pem)
    sim.set_device("moody", enabled=True)
    with hub_device(sim.info, "moody", pem) as device:
        assert device.connack.value == 0
        sim.delete_device("moody")
        device.disconnected.get(timeout=10)
    refused(sim, "moody", "unknown device", pem)
    provision(sim.info, "moody", tmp_path)
    with hub_device(sim.info, "moody", pem) as device:
        assert device.connack.value == 0
    with pytest.raises(KeyError):
        sim.set_device("stranger", enabled=False)


def test_device_without_credential_policy(sim: Simulator, tmp_path: Path) -> None:
    _, pem = provision(sim.info, "revoked", tmp_path)
    key = sim.add_individual("revoked", credential_policy=None).primary_key
    with dps_device(sim.info, "revoked", key) as device:
        device.register("revoked")
        device.poll(device.answer().body["operationId"])
        assert device.answer().body["status"] == "assigned"
    refused(sim, "revoked", "authority of this device", pem)


def test_a_second_connection_closes_the_first(sim: Simulator, tmp_path: Path) -> None:
    _, pem = provision(sim.info, "twice", tmp_path)
    with hub_device(sim.info, "twice", pem) as first, hub_device(sim.info, "twice", pem) as second:
        first.disconnected.get(timeout=10)
        second.publish("devices/twice/messages/events/", b"still here")
        assert sim.wait_event("hub.telemetry", device="twice")["body"] == "still here"
        assert second.disconnected.empty()


def test_wills(sim: Simulator, tmp_path: Path) -> None:
    _, pem = provision(sim.info, "willing", tmp_path)
    with hub_device(sim.info, "willing", pem, will="devices/willing/messages/events/") as device:
        assert device.connack.value == 0
    refused(sim, "willing", "will", pem, will="devices/other/messages/events/")


def test_subscriptions(sim: Simulator, tmp_path: Path) -> None:
    _, pem = provision(sim.info, "curious", tmp_path)
    with hub_device(sim.info, "curious", pem, version=RENEWAL_API) as device:
        assert device.subscribe("#") == [128]
        assert device.subscribe("devices/other/messages/devicebound/#") == [128]
        for topic_filter in (
            "devices/curious/messages/devicebound/#",
            "$iothub/twin/res/#",
            "$iothub/twin/PATCH/properties/desired/#",
            "$iothub/methods/POST/#",
            "$iothub/credentials/res/#",
        ):
            assert device.subscribe(topic_filter, 2) == [1]
        assert device.subscribe("$iothub/twin/res/#", 0) == [0]  # one of the five again


@pytest.mark.parametrize(
    "topic",
    [
        "devices/other/messages/events/",
        "devices/closer/messages/eventsx",
        "devices/closer/messages/devicebound/",
        "$iothub/twin/GET?$rid=1",
        "$iothub/twin/PATCH/properties/desired/?$rid=1",
        "$iothub/methods/res/ok/?$rid=1",
        "$iothub/methods/POST/reboot/?$rid=1",
        "telemetry",
    ],
)
def test_topics_that_close(sim: Simulator, tmp_path: Path, topic: str) -> None:
    _, pem = provision(sim.info, "closer", tmp_path)
    with RawClient(sim.info, HUB, pem) as client:
        client.send(connect_packet("closer", hub_username(HUB, "closer"), None))
        assert client.packet() == (0x20, b"\0\0")
        client.send(publish_packet(topic, b"x"))
        assert client.ended()
    assert not [e for e in sim.events if e["event"] == "hub.telemetry" and e["device"] in ("closer", "other")]


def test_messages_up_to_256_kib(sim: Simulator, tmp_path: Path) -> None:
    _, pem = provision(sim.info, "wordy", tmp_path)
    with RawClient(sim.info, HUB, pem) as client:
        client.send(connect_packet("wordy", hub_username(HUB, "wordy"), None))
        assert client.packet() == (0x20, b"\0\0")
        client.send(publish_packet("devices/wordy/messages/events/", b"x" * 256 * 1024, qos=1))
        assert client.packet() == (0x40, b"\0\x02")
        client.send(publish_packet("devices/wordy/messages/events/", b"x" * (256 * 1024 + 1), qos=1))
        assert client.ended()


def test_qos_2_closes(sim: Simulator, tmp_path: Path) -> None:
    _, pem = provision(sim.info, "twofold", tmp_path)
    with RawClient(sim.info, HUB, pem) as client:
        client.send(connect_packet("twofold", hub_username(HUB, "twofold"), None))
        assert client.packet() == (0x20, b"\0\0")
        client.send(publish_packet("devices/twofold/messages/events/", b"x", qos=2))
        assert client.ended()


def test_an_expired_token_ends_the_connection(tmp_path: Path) -> None:
    with serving(tmp_path / "sim", Options(retry_after=0, token_grace=0.5)) as sim:
        provision(sim.info, "timed", tmp_path)
        key, now = derive(group_key(sim.info), "timed"), int(time.time())
        password = token(f"{HUB}/devices/timed", key, expiry=now + 2, skn=None)
        with hub_device(sim.info, "timed", password=password) as device:
            assert device.connack.value == 0
            device.disconnected.get(timeout=10)
        assert 2.4 < time.time() - now < 6
        assert sim.wait_event("closed", device="timed", reason="the token expired")
        with hub_device(sim.info, "timed", password=token(f"{HUB}/devices/timed", key, skn=None)) as device:
            device.publish("devices/timed/messages/events/", b"a new one")  # lives on
            assert device.disconnected.empty()


def test_silence_for_one_and_a_half_times_the_keepalive(sim: Simulator, tmp_path: Path) -> None:
    _, pem = provision(sim.info, "sleepy", tmp_path)
    with RawClient(sim.info, HUB, pem) as client:
        client.send(connect_packet("sleepy", hub_username(HUB, "sleepy"), None, keep_alive=1))
        assert client.packet() == (0x20, b"\0\0")
        begin = time.monotonic()
        assert client.ended()
        assert 1.4 < time.monotonic() - begin < 5


def test_unsubscribe_ping_and_two_packets_in_one_record(sim: Simulator, tmp_path: Path) -> None:
    _, pem = provision(sim.info, "chatty", tmp_path)
    with RawClient(sim.info, HUB, pem) as client:
        client.send(connect_packet("chatty", hub_username(HUB, "chatty"), None))
        assert client.packet() == (0x20, b"\0\0")
        client.send(subscribe_packet("$iothub/twin/res/#", number=7) + b"\xc0\0")
        assert client.packet() == (0x90, b"\0\7\1")
        assert client.packet() == (0xD0, b"")
        client.send(b"\xa2\x16\0\x08\0\x12$iothub/twin/res/#")
        assert client.packet() == (0xB0, b"\0\x08")


def test_several_hubs(tmp_path: Path) -> None:
    hubs = ("hub-1.localhost", "hub-2.localhost")
    with serving(tmp_path / "sim", Options(retry_after=0, hubs=hubs)) as sim:
        chosen = {}
        for number in range(8):
            state, pem = provision(sim.info, f"spread-{number}", tmp_path)
            chosen[state["assignedHub"]] = (state["deviceId"], pem)
        assert chosen.keys() == set(hubs)
        for hub, (device_id, pem) in chosen.items():
            with hub_device(sim.info, device_id, pem, hub=hub) as device:
                assert device.connack.value == 0
            other = hubs[1 - hubs.index(hub)]
            refused(sim, device_id, "unknown device", pem, hub=other)


def test_a_session_that_is_kept(sim: Simulator, tmp_path: Path) -> None:
    """CleanSession 0: subscriptions outlive the connection, and end with the session, with the device, or with DPS."""
    provision(sim.info, "kept", tmp_path)
    chain, username = tmp_path / "kept.pem", hub_username(HUB, "kept")

    def connected(client: RawClient, clean: bool) -> tuple[int, bytes]:
        client.send(connect_packet("kept", username, None, clean=clean))
        return client.packet()

    with RawClient(sim.info, HUB, chain) as client:
        assert connected(client, False) == (0x20, b"\0\0")  # no session present
        client.send(subscribe_packet("$iothub/twin/PATCH/properties/desired/#", 0))
        client.send(subscribe_packet("devices/kept/messages/devicebound/#", 1, 2))
        assert (client.packet()[0], client.packet()[0]) == (0x90, 0x90)
        client.send(DISCONNECT)
        assert client.ended()
    sim.send_message("kept", b"meanwhile")
    with RawClient(sim.info, HUB, chain) as client:
        assert connected(client, False) == (0x20, b"\1\0")  # and its messages behind the CONNACK, not before it
        assert client.answer()[1] == b"meanwhile"
        sim.desire("kept", {"a": 1})
        assert client.answer()[0].startswith("$iothub/twin/PATCH/properties/desired/")
    with RawClient(sim.info, HUB, chain) as client:
        assert connected(client, True) == (0x20, b"\0\0")
        sim.desire("kept", {"a": 2})
        assert client.silent()
    with RawClient(sim.info, HUB, chain) as client:
        assert connected(client, False) == (0x20, b"\0\0")
    for _ in range(2):
        with RawClient(sim.info) as client:
            key = derive(group_key(sim.info), "kept")
            client.send(
                connect_packet(
                    "kept", dps_username(sim.info, "kept"), dps_token(sim.info, "kept", key), clean=False
                )
            )  # fmt: skip
            assert client.packet() == (0x20, b"\0\0")
