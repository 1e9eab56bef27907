"""Device twins of the simulator, as a device sees them."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simulator_client import (
    PahoDevice,
    RawClient,
    connect_packet,
    hub_device,
    hub_username,
    provision,
    publish_packet,
)

from espdps.simulator import Error, Ignore, Options, Simulator, Trouble, serving

HUB = "hub-1.localhost"
NAME = "twinned"
RESPONSES = "$iothub/twin/res/#"
REPORT = "$iothub/twin/PATCH/properties/reported/?$rid="


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("twin"), Options(retry_after=0, assigning=0)) as simulator:
        yield simulator


@pytest.fixture
def sim(service: Simulator, tmp_path: Path) -> Iterator[Simulator]:
    """With no trouble and with a device of its own for each test."""
    provision(service.info, NAME, tmp_path)
    yield service
    service.trouble = Trouble()
    service.delete_device(NAME)


@pytest.fixture
def device(sim: Simulator, tmp_path: Path) -> Iterator[PahoDevice]:
    with hub_device(sim.info, NAME, tmp_path / f"{NAME}.pem") as client:
        yield client


def report(device: PahoDevice, patch: str, rid: str = "1") -> tuple[int, dict[str, str], Any]:
    """Reports; status, properties and body of the answer."""
    device.publish(REPORT + rid, patch, qos=0)
    answer = device.answer()
    assert answer.topic.startswith("$iothub/twin/res/")
    return answer.status, answer.properties, answer.body


def test_reported_properties_are_kept_and_counted(sim: Simulator, device: PahoDevice) -> None:
    device.subscribe(RESPONSES)
    assert report(device, '{"a":1,"b":{"c":2,"d":3}}', "x") == (204, {"$rid": "x", "$version": "2"}, b"")
    assert report(device, '{"b":{"c":null,"e":[1]},"f":"text"}', "y") == (204, {"$rid": "y", "$version": "3"}, b"")
    assert report(device, '{"a":{"now":"an object"},"none":null}')[1]["$version"] == "4"
    twin = sim.twin(NAME)
    assert twin.reported == {"a": {"now": "an object"}, "b": {"d": 3, "e": [1]}, "f": "text"}
    assert (twin.reported_version, twin.desired, twin.desired_version) == (4, {}, 1)


def test_without_the_subscription_nothing_is_answered(sim: Simulator, device: PahoDevice) -> None:
    start = len(sim.events)
    device.publish(REPORT + "1", '{"silent":true}', qos=0)
    assert sim.wait_event("hub.twin", after=start, device=NAME)["status"] == 204
    assert sim.twin(NAME).reported == {"silent": True}
    device.subscribe(RESPONSES)
    with pytest.raises(queue.Empty):
        device.answers.get_nowait()


@pytest.mark.parametrize("body", ["", "{", "[1]", "1", '"text"'])
def test_what_cannot_be_reported(sim: Simulator, device: PahoDevice, body: str) -> None:
    device.subscribe(RESPONSES)
    status, properties, error = report(device, body)
    assert (status, properties, error["errorCode"]) == (400, {"$rid": "1"}, 400004)
    assert sim.twin(NAME).reported_version == 1


def test_trouble(sim: Simulator, device: PahoDevice) -> None:
    device.subscribe(RESPONSES)
    sim.trouble = Trouble({"hub.twin": Error(429, 429001, "Throttled")})
    assert report(device, "{}")[0] == 429
    sim.trouble = Trouble({"hub.twin": Ignore()})
    start = len(sim.events)
    device.publish(REPORT + "2", '{"lost":1}')
    sim.wait_event("hub.twin", after=start, rid="2", status=None)
    sim.trouble = Trouble()
    assert report(device, "{}", "3") == (204, {"$rid": "3", "$version": "2"}, b"")
    assert sim.twin(NAME).reported == {}


def test_a_request_without_rid_ends_the_connection(sim: Simulator, tmp_path: Path) -> None:
    with RawClient(sim.info, HUB, tmp_path / f"{NAME}.pem") as client:
        client.send(connect_packet(NAME, hub_username(HUB, NAME), None))
        assert client.packet() == (0x20, b"\0\0")
        client.send(publish_packet("$iothub/twin/PATCH/properties/reported/", b"{}"))
        assert client.ended()
