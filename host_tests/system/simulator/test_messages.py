"""Messages from the simulator's hub to a device: kept until the device has them, properties, bounds."""

from __future__ import annotations

import base64
import queue
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from simulator_client import (
    Answer,
    PahoDevice,
    RawClient,
    api_call,
    connect_packet,
    hub_code,
    hub_device,
    hub_username,
    provision,
    publish_packet,
    subscribe_packet,
)

from espdps.simulator import Options, Silence, Simulator, Trouble, serving
from espdps.simulator.errors import ServiceError

HUB = "hub-1.localhost"
NAME = "listener"
FILTER = f"devices/{NAME}/messages/devicebound/#"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("messages"), Options(retry_after=0, assigning=0)) as simulator:
        yield simulator


@pytest.fixture
def sim(service: Simulator, tmp_path: Path) -> Iterator[Simulator]:
    """With a device of its own for each test."""
    provision(service.info, NAME, tmp_path)
    yield service
    service.delete_device(NAME)


def online(sim: Simulator, tmp_path: Path, **changes: Any) -> AbstractContextManager[PahoDevice]:
    return hub_device(sim.info, NAME, tmp_path / f"{NAME}.pem", **changes)


def bag(answer: Answer) -> dict[str, str | None]:
    """The properties of a message, as a device reads them: decoded, None for a name alone."""
    text = answer.topic.removeprefix(f"devices/{NAME}/messages/devicebound/")
    pairs = [pair.partition("=") for pair in text.split("&")]
    return {unquote(name): unquote(value) if equals else None for name, equals, value in pairs}


def nothing(device: PahoDevice) -> None:
    device.subscribe("$iothub/twin/res/#")  # what was sent before its answer comes before it
    with pytest.raises(queue.Empty):
        device.answers.get_nowait()


def waiting(sim: Simulator) -> int:
    return int(api_call(sim.info, "GET", f"/devices/{NAME}")[1]["cloudToDeviceMessageCount"])


def test_messages_wait_for_the_subscription_in_order(sim: Simulator, tmp_path: Path) -> None:
    start = len(sim.events)
    ids = [sim.send_message(NAME, f'"{number}"'.encode()) for number in range(3)]
    with online(sim, tmp_path) as device:
        nothing(device)
        assert waiting(sim) == 3
        device.subscribe(FILTER)
        for number, message_id in enumerate(ids):
            answer = device.answer()
            assert (answer.body, answer.qos, bag(answer)["$.mid"]) == (str(number), 1, message_id)
            sim.wait_event("hub.c2d", after=start, state="completed", message_id=message_id)
        sim.send_message(NAME, b'"and one more"')  # to a device that is there
        assert device.answer().body == "and one more"
    with online(sim, tmp_path) as device:
        device.subscribe(FILTER)
        nothing(device)
    assert waiting(sim) == 0


def test_properties_in_the_topic(sim: Simulator, tmp_path: Path) -> None:
    properties = {"room": "4 north", "a+b": "1&1=2", "ünï": "caffè/☕", "empty": "", "none": None, "$.ct": "text/plain"}
    sim.send_message(NAME, b"hello", properties)
    with online(sim, tmp_path) as device:
        device.subscribe(FILTER)
        answer = device.answer()
    read = bag(answer)
    assert read.pop("$.to") == f"/devices/{NAME}/messages/deviceBound"
    assert read.pop("$.mid")
    assert read == properties
    assert answer.body == b"hello"
    assert not set(answer.topic) & set(" +$#☕")


def kept(client: RawClient) -> None:
    """Connects with a session that is kept, and subscribes if the hub has none: what waits comes next."""
    client.send(connect_packet(NAME, hub_username(HUB, NAME), None, clean=False))
    kind, flags = client.packet()
    assert kind == 0x20
    if flags == b"\0\0":
        client.send(subscribe_packet(FILTER))
        assert client.packet()[0] == 0x90


def test_a_clean_session_gets_only_what_is_sent_after_its_subscription(sim: Simulator, tmp_path: Path) -> None:
    sim.send_message(NAME, b"before")
    with online(sim, tmp_path, clean=True) as device:
        device.subscribe(FILTER)
        sim.send_message(NAME, b"after")
        assert device.answer().body == b"after"
    assert waiting(sim) == 1
    with online(sim, tmp_path) as device:
        device.subscribe(FILTER)
        assert device.answer().body == b"before"


def test_a_message_without_puback_comes_again(sim: Simulator, tmp_path: Path) -> None:
    start = len(sim.events)
    sim.send_message(NAME, b"once more")
    for _ in range(2):
        with RawClient(sim.info, HUB, tmp_path / f"{NAME}.pem") as client:
            kept(client)
            assert client.answer()[1] == b"once more"
            client.send(subscribe_packet(FILTER, number=2))  # the same connection has it already
            client.send(b"\xc0\0")
            assert [client.packet()[0] for _ in range(2)] == [0x90, 0xD0]
        assert waiting(sim) == 1
    with RawClient(sim.info, HUB, tmp_path / f"{NAME}.pem") as client:
        kept(client)
        first, body = client.packet()
        assert first == 0x32
        size = int.from_bytes(body[:2], "big") + 2
        client.send(b"\x40\x02\xff\xff")  # for a message that never was
        client.send(b"\x40\x02" + body[size : size + 2])
        sim.wait_event("hub.c2d", after=start, state="completed", device=NAME)
    assert waiting(sim) == 0


def test_qos_0_needs_no_puback(sim: Simulator, tmp_path: Path) -> None:
    with online(sim, tmp_path) as device:
        device.subscribe(FILTER, 0)
        sim.send_message(NAME, b"fire and forget")
        assert (device.answer().qos, waiting(sim)) == (0, 0)


def test_a_message_that_is_never_taken_is_dropped(sim: Simulator, tmp_path: Path) -> None:
    poison, start = sim.send_message(NAME, b"poison"), len(sim.events)
    sim.send_message(NAME, b"good")
    for _ in range(10):
        with RawClient(sim.info, HUB, tmp_path / f"{NAME}.pem") as client:
            kept(client)
            assert client.answer()[1] == b"poison"
    sim.send_message(NAME, b"late")
    with online(sim, tmp_path) as device:
        device.subscribe(FILTER)
        sim.wait_event("hub.c2d", after=start, state="dropped", message_id=poison)
        assert device.answer().body == b"late"


def test_a_silent_hub_sends_nothing_and_loses_nothing(sim: Simulator, tmp_path: Path) -> None:
    start = len(sim.events)
    try:
        with RawClient(sim.info, HUB, tmp_path / f"{NAME}.pem") as client:
            client.send(connect_packet(NAME, hub_username(HUB, NAME), None))
            client.send(subscribe_packet(FILTER, 0))
            assert [client.packet()[0] for _ in range(2)] == [0x20, 0x90]
            sim.trouble = Trouble({"hub.telemetry": Silence()})
            client.send(publish_packet(f"devices/{NAME}/messages/events/", b"now it is silent", qos=1))
            assert client.silent()
            sim.send_message(NAME, b"in the silence")
            assert client.silent()
    finally:
        sim.trouble = Trouble()
    sim.wait_event("hub.disconnect", after=start, device=NAME)
    with online(sim, tmp_path) as device:
        device.subscribe(FILTER)
        assert device.answer().body == b"in the silence"


def test_bounds(sim: Simulator) -> None:
    with pytest.raises(ServiceError, match="64 KB"):
        sim.send_message(NAME, b"x" * 65536)
    with pytest.raises(ServiceError, match="64 KB"):
        sim.send_message(NAME, b"", {"long": "ü" * 12000})
    for _ in range(50):
        sim.send_message(NAME, b"x" * 65000)
    with pytest.raises(ServiceError) as caught:
        sim.send_message(NAME, b"one too many")
    assert (caught.value.status, caught.value.error_code) == (403, 403004)
    with pytest.raises(KeyError):
        sim.send_message("nobody", b"")


def test_over_https(sim: Simulator, tmp_path: Path) -> None:
    path = f"/devices/{NAME}/messages/devicebound"
    with online(sim, tmp_path) as device:
        device.subscribe(FILTER)
        status, answer = api_call(sim.info, "POST", path, {"body": "grüß", "properties": {"p": "1", "none": None}})
        message = device.answer()
        assert (status, bag(message)["$.mid"]) == (201, answer["messageId"])
        assert (message.body, bag(message)["p"], bag(message)["none"]) == ("grüß".encode(), "1", None)
        blob = base64.b64encode(b"\xff\0").decode()
        assert api_call(sim.info, "POST", path, {"body": blob, "encoding": "base64"})[0] == 201
        assert device.answer().body == b"\xff\0"


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"body": 5},
        {"body": "x", "encoding": "rot13"},
        {"body": "x", "encoding": ["utf-8"]},
        {"body": "%", "encoding": "base64"},
        {"body": "x", "properties": []},
        {"body": "x", "properties": {"a": 1}},
        {"body": "x", "properties": {"": "1"}},
    ],
)
def test_what_is_no_message(sim: Simulator, body: Any) -> None:
    status, error = api_call(sim.info, "POST", f"/devices/{NAME}/messages/devicebound", body)
    assert (status, hub_code(error), waiting(sim)) == (400, 400004, 0)
