"""The wire of the simulator: TLS, flights, deadlines, and clients that are broken or mean."""

from __future__ import annotations

import gc
import json
import os
import random
import socket
import ssl
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from simulator_client import (
    DISCONNECT,
    POLL,
    REGISTER,
    RESPONSES,
    WAIT,
    RawClient,
    connect_packet,
    derive,
    dps_token,
    dps_username,
    group_key,
    packet,
    publish_packet,
    save_key,
    subscribe_packet,
    text,
    tls_context,
)

from espdps.simulator import Options, Simulator, serving


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("wire"), Options(retry_after=0)) as simulator:
        yield simulator


def healthy(sim: Simulator) -> None:
    """Another device is served as ever."""
    with RawClient(sim.info) as client:
        client.dps_ready(sim.info, "healthy")
        assert client.request(REGISTER + "1")[0].startswith("$dps/registrations/res/202/")


def s_client(sim: Simulator, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{sim.info['mqtt_port']}", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


# TLS


def test_handshake_as_openssl_sees_it(sim: Simulator) -> None:
    arguments = ("-CAfile", sim.info["roots"], "-verify_return_error", "-verify_hostname", "hub-1.localhost")
    shown = s_client(sim, "-showcerts", *arguments).stdout
    assert "Verify return code: 0 (ok)" in shown
    assert "Protocol  : TLSv1.2" in shown
    assert "Server Temp Key: ECDH, prime256v1" in shown
    assert "Peer signature type: RSA\n" in shown  # and not RSA-PSS, which some builds of mbedTLS fail on
    assert shown.count("BEGIN CERTIFICATE") == 2  # leaf and intermediate; the root is for the client to have
    assert shown.count("Public Key Algorithm") == 0 or "2048" in shown
    assert "Acceptable client certificate CA names" not in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("-tls1_3",),
        ("-tls1_1",),
        ("-tls1_2", "-cipher", "AES128-GCM-SHA256"),
        ("-tls1_2", "-sigalgs", "RSA-PSS+SHA256"),
    ],
)
def test_what_tls_is_not_spoken(sim: Simulator, arguments: tuple[str, ...]) -> None:
    start = len(sim.events)
    assert s_client(sim, "-CAfile", sim.info["roots"], *arguments).returncode != 0
    assert sim.wait_event("tls.failed", after=start)["reason"]


def test_other_roots_and_other_names_fail_at_the_client(sim: Simulator, tmp_path: Path) -> None:
    with serving(tmp_path) as other:
        start = len(sim.events)
        with pytest.raises(ssl.SSLCertVerificationError):
            RawClient({**sim.info, "roots": other.info["roots"]})
        assert "unknown ca" in sim.wait_event("tls.failed", after=start)["reason"]
    with pytest.raises(ssl.SSLCertVerificationError):
        RawClient(sim.info, "hub-9.localhost")


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()])
def test_any_client_certificate_finishes_the_handshake(sim: Simulator, tmp_path: Path, curve: ec.EllipticCurve) -> None:
    key = save_key(tmp_path / "key.pem", ec.generate_private_key(curve))
    done = subprocess.run(
        ["openssl", "req", "-x509", "-key", str(key), "-subj", "/CN=anybody", "-days", "1"],
        capture_output=True,
        check=True,
        timeout=30,
    )
    with key.open("ab") as file:
        file.write(done.stdout)
    start = len(sim.events)
    with RawClient(sim.info, chain=key) as client:
        client.dps_connect(sim.info, "anybody")
        assert client.packet() == (0x20, b"\0\0")
    assert sim.wait_event("tls.open", after=start)["client_cert"] == "CN=anybody"


# Flights


def test_flights_and_records_are_counted(sim: Simulator) -> None:
    start = len(sim.events)
    with RawClient(sim.info) as client:
        client.dps_ready(sim.info, "counted")  # two flights, of one record each
        _, body = client.request(REGISTER + "1")
        operation = json.loads(body)["operationId"]
        request = publish_packet(f"{POLL}2&operationId={operation}")
        client.send(request[:5])
        client.send(request[5:9])
        client.send(request[9:])  # three records, one flight
        client.answer()
        client.send(DISCONNECT)  # a fifth flight: the one that ends it
        assert client.ended()
    closed = sim.wait_event("closed", after=start, device="counted")
    assert closed["graceful"]
    assert (closed["records_in"], closed["flights_in"]) == (7, 5)
    assert closed["reason"] == "disconnect"
    assert closed["bytes_in"] > 1000
    assert closed["bytes_out"] > 3000


def test_acknowledgement_and_answer_leave_in_one_record(sim: Simulator) -> None:
    with RawClient(sim.info) as client:
        client.dps_ready(sim.info, "joined")
        client.send(publish_packet(REGISTER + "1", qos=1))
        first = client.socket.recv(65536)  # one read of a TLS socket never holds more than one record
    assert first[:4] == b"\x40\x02\0\2"
    assert b"$dps/registrations/res/202/" in first


def test_byte_by_byte(sim: Simulator) -> None:
    with RawClient(sim.info) as client:
        client.dps_connect(sim.info, "drip")
        assert client.packet() == (0x20, b"\0\0")
        for byte in subscribe_packet(RESPONSES, 0) + publish_packet(REGISTER + "1"):
            client.send(bytes([byte]))
        assert client.packet() == (0x90, b"\0\1\0")
        assert client.answer()[0].startswith("$dps/registrations/res/202/")


# Deadlines


@pytest.mark.parametrize("beginning", ["nothing", "half a hello", "half a CONNECT"])
def test_connect_deadline(tmp_path: Path, beginning: str) -> None:
    with serving(tmp_path, Options(connect_deadline=0.3)) as sim:
        if beginning == "half a CONNECT":
            with RawClient(sim.info) as client:
                client.send(connect_packet("dev", dps_username(sim.info, "dev"), None)[:20])
                assert client.ended()
        else:
            with socket.create_connection(("127.0.0.1", sim.info["mqtt_port"]), WAIT) as plain:
                plain.sendall(b"" if beginning == "nothing" else b"\x16\x03\x01\x02\x00\x01")
                assert drained(plain)
        assert sim.wait_event("closed")["reason"] == "no CONNECT within the deadline"


def drained(plain: socket.socket) -> bool:
    """Whether the server ends the connection; what it says before is thrown away."""
    try:
        while plain.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def test_keepalive(sim: Simulator) -> None:
    with RawClient(sim.info) as client:
        key = derive(group_key(sim.info), "sleepy")
        token = dps_token(sim.info, "sleepy", key)
        client.send(connect_packet("sleepy", dps_username(sim.info, "sleepy"), token, keep_alive=1))
        assert client.packet() == (0x20, b"\0\0")
        begin = time.monotonic()
        client.send(b"\xc0\0")
        assert client.packet() == (0xD0, b"")
        assert client.ended()
        assert 1.4 <= time.monotonic() - begin < 4
    assert "keepalive" in sim.wait_event("closed", device="sleepy")["reason"]


# Broken clients


CONNECT = packet(0x10, text("MQTT") + b"\x04\x02\0\x3c" + text("dev"))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="http"),
        pytest.param(b"\x30\x03\0\x01a", id="publish-first"),
        pytest.param(b"\xc0\0", id="ping-first"),
        pytest.param(b"\x10\xff\xff\xff\xff\x7f", id="length-too-long"),
        pytest.param(b"\x10\xff\xff\xff\x7f", id="256-mib"),
        pytest.param(b"\x10\0", id="empty-connect"),
        pytest.param(b"\x11" + CONNECT[1:], id="connect-flags"),
        pytest.param(packet(0x10, text("MQTT") + b"\x04\x03\0\x3c" + text("dev")), id="reserved-flag"),
        pytest.param(packet(0x10, text("MQXX") + b"\x04\x02\0\x3c" + text("dev")), id="name"),
        pytest.param(packet(0x10, text("MQTT") + b"\x04\xc2\0\x3c" + text("dev")), id="no-username"),
        pytest.param(packet(0x10, text("MQTT") + b"\x04\x02\0\x3c" + text("dev") + b"x"), id="trailing"),
        pytest.param(packet(0x10, text("MQTT") + b"\x04\x02\0\x3c\xff\xff" + b"d"), id="client-id-beyond"),
        pytest.param(b"\xf0\0", id="type-15"),
        pytest.param(b"\0\0", id="type-0"),
    ],
)
def test_garbage_instead_of_a_connect(sim: Simulator, data: bytes) -> None:
    with RawClient(sim.info) as client:
        client.send(data)
        assert client.ended()
    healthy(sim)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (packet(0x10, text("MQTT") + b"\x05\x02\0\x3c\0" + text("dev")), 1),
        (packet(0x10, text("MQTT") + b"\x03\x02\0\x3c" + text("dev")), 1),
        (packet(0x10, text("MQTT") + b"\x04\x02\0\x3c" + text("")), 2),
        (CONNECT, 5),
        (packet(0x10, text("MQTT") + b"\x04\x02\0\x3c" + text("d" * 65535)), 5),
        (packet(0x10, text("MQTT") + b"\x04\x82\0\x3c" + text("dev") + text(b"\xff\xfe")), 5),
    ],
)
def test_connects_that_are_refused(sim: Simulator, data: bytes, code: int | None) -> None:
    with RawClient(sim.info) as client:
        client.send(data)
        if code is not None:
            assert client.packet() == (0x20, bytes([0, code]))
        assert client.ended()
    healthy(sim)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(CONNECT, id="second-connect"),
        pytest.param(b"\x82\x02\0\1", id="subscribe-to-nothing"),
        pytest.param(b"\x80" + subscribe_packet(RESPONSES)[1:], id="subscribe-flags"),
        pytest.param(subscribe_packet(RESPONSES, number=0), id="packet-id-0"),
        pytest.param(subscribe_packet(RESPONSES, 3), id="qos-3-filter"),
        pytest.param(packet(0x82, b"\0\1\xff\xff$dps"), id="filter-beyond"),
        pytest.param(packet(0x36, text(REGISTER + "1") + b"\0\1"), id="publish-qos-3"),
        pytest.param(packet(0x30, text("a/#")), id="wildcard"),
        pytest.param(packet(0x30, text(b"\xff\xff")), id="topic-not-utf-8"),
        pytest.param(packet(0x30, b"\xff\xff"), id="topic-beyond"),
        pytest.param(packet(0x32, text(REGISTER + "1")), id="no-packet-id"),
        pytest.param(publish_packet(REGISTER + "1", b"x" * (96 * 1024 + 1)), id="beyond-96-kib"),
        pytest.param(b"\x30\xff\xff\x7f", id="2-mib"),
        pytest.param(b"\x20\x02\0\0", id="connack"),
        pytest.param(b"\x62\x02\0\1", id="pubrel"),
        pytest.param(b"\xc0\x01x", id="ping-with-body"),
    ],
)
def test_garbage_in_a_session(sim: Simulator, data: bytes) -> None:
    with RawClient(sim.info) as client:
        client.dps_ready(sim.info, "dev")
        client.send(data)
        assert client.ended()
    healthy(sim)


def test_garbage_instead_of_tls(sim: Simulator) -> None:
    for data in (b"\0" * 100, b"GET / HTTP/1.1\r\n\r\n", CONNECT, os.urandom(3000), b"\x17\x03\x03\xff\xff"):
        with socket.create_connection(("127.0.0.1", sim.info["mqtt_port"]), WAIT) as plain:
            plain.sendall(data)
            plain.shutdown(socket.SHUT_WR)
            assert drained(plain)
    healthy(sim)


def test_random_packets(sim: Simulator) -> None:
    """A bounded fuzz: parts of good packets with bytes changed. The connection may end, the server may not suffer."""
    chance = random.Random(20250701)
    good = [
        subscribe_packet(RESPONSES),
        publish_packet(REGISTER + "1", b'{"csr":"AAAA"}', qos=1),
        publish_packet(POLL + "1&operationId=5.1.2"),
        b"\xc0\0",
        packet(0xA2, b"\0\1" + text(RESPONSES)),
    ]
    for _ in range(60):
        with RawClient(sim.info) as client:
            client.dps_ready(sim.info, "fuzz")
            data = bytearray(chance.choice(good))
            for _ in range(chance.randint(1, 4)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            client.send(bytes(data))
    healthy(sim)
    assert not [event for event in sim.events if event["event"] == "fault"]


def test_a_client_that_does_not_read(sim: Simulator) -> None:
    """Its answers pile up in the kernel, not in the server, which stops reading it and goes on with the others."""
    with RawClient(sim.info) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.dps_ready(sim.info, "greedy")
        client.socket.settimeout(0.5)
        bad = publish_packet(REGISTER + "1" * 60000, b"{")  # an answer of 60 KB each
        with pytest.raises(TimeoutError):
            for _ in range(2000):
                client.send(bad)
        healthy(sim)


# What is left behind


def test_nothing_leaks(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    gc.collect()
    before, threads = descriptors(), threading.active_count()
    with serving(tmp_path) as sim:
        baseline = descriptors()
        for number in range(30):
            with RawClient(sim.info) as client:
                if number % 3 == 0:
                    client.dps_ready(sim.info, "dev")
                if number % 3 == 1:
                    client.send(CONNECT[:7])
            if number % 3 == 2:
                with socket.create_connection(("127.0.0.1", sim.info["mqtt_port"]), WAIT) as plain:
                    plain.sendall(b"\x16\x03\x01")
        opened = 40  # 30 TLS connections and 10 that never were
        for _ in range(200):
            if len([event for event in sim.events if event["event"] == "closed"]) == opened:
                break
            time.sleep(0.02)
        assert len([event for event in sim.events if event["event"] == "closed"]) == opened
        assert descriptors() == baseline
        clients = [RawClient(sim.info) for _ in range(3)]
        clients[0].dps_ready(sim.info, "dev")
        begin = time.monotonic()
    assert time.monotonic() - begin < 3  # stopping does not wait for who is connected
    for client in clients:
        with client:
            assert client.ended()
    gc.collect()
    assert descriptors() <= before  # fewer where garbage of other tests went meanwhile
    assert threading.active_count() == threads


def test_reset_in_the_middle(sim: Simulator) -> None:
    for _ in range(5):
        start = len(sim.events)
        client = RawClient(sim.info)
        client.dps_connect(sim.info, "rude")
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.socket.close()
        sim.wait_event("closed", after=start)
    healthy(sim)
    assert not [event for event in sim.events if event["event"] == "fault"]


def test_tls_context_of_the_tests_verifies(sim: Simulator) -> None:
    """The helper's host name is really checked, or none of the tests above would mean anything."""
    assert tls_context(sim.info).check_hostname
