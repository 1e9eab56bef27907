"""Device twins of the simulator, as a device sees them."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simulator_client import (
    PahoDevice,
    RawClient,
    api_call,
    connect_packet,
    hub_code,
    hub_device,
    hub_username,
    provision,
    publish_packet,
)

from espdps.simulator import Error, Ignore, Options, Simulator, Trouble, serving
from espdps.simulator.errors import ServiceError

HUB = "hub-1.localhost"
NAME = "twinned"
RESPONSES = "$iothub/twin/res/#"
REPORT = "$iothub/twin/PATCH/properties/reported/?$rid="
DESIRED = "$iothub/twin/PATCH/properties/desired/"


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


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[1]",
        "1",
        '"text"',
        '{"a.b":1}',
        '{"a b":1}',
        '{"$version":1}',
        '{"":1}',
        '{"in":{"a.b":1}}',
        '{"list":[{"a.b":1}]}',
        '{"control\\u0007":1}',
        json.dumps({"n" * 1025: 1}),
        json.dumps({"long": "x" * 4097}),
        json.dumps({str(number): "x" * 4000 for number in range(9)}),
        '{"a":' * 11 + "1" + "}" * 11,
        '{"big":4503599627370496}',
    ],
)
def test_what_cannot_be_reported(sim: Simulator, device: PahoDevice, body: str) -> None:
    device.subscribe(RESPONSES)
    status, properties, error = report(device, body)
    assert (status, properties, error["errorCode"]) == (400, {"$rid": "1"}, 400004)
    assert sim.twin(NAME).reported_version == 1


def test_what_can_just_be_reported(sim: Simulator, device: PahoDevice) -> None:
    device.subscribe(RESPONSES)
    most = {"n" * 1024: -4503599627370496, "long": "x" * 4096, "ünï": [1.5, True, {"deep": {"er": 1}}]}
    assert report(device, json.dumps(most))[0] == 204
    assert report(device, '{"a":' * 10 + "1" + "}" * 10)[0] == 204
    assert sim.twin(NAME).reported.keys() == {*most, "a"}
    assert report(device, json.dumps({str(number): "x" * 4000 for number in range(6)}))[0] == 204
    assert report(device, json.dumps({"last": "x" * 3900}))[0] == 400  # it is the whole that may not grow


def get(device: PahoDevice) -> dict[str, Any]:
    device.publish("$iothub/twin/GET/?$rid=got", b"", qos=0)
    answer = device.answer()
    assert answer.topic == "$iothub/twin/res/200/?$rid=got"
    body: dict[str, Any] = answer.body
    return body


def test_the_device_gets_its_twin(sim: Simulator, device: PahoDevice) -> None:
    device.subscribe(RESPONSES)
    assert get(device) == {"desired": {"$version": 1}, "reported": {"$version": 1}}
    report(device, '{"seen":1}')
    sim.desire(NAME, {"wanted": {"a": 1, "b": 2}})
    sim.desire(NAME, {"wanted": {"b": None}})
    assert get(device) == {"desired": {"wanted": {"a": 1}, "$version": 3}, "reported": {"seen": 1, "$version": 2}}


def test_desired_properties_reach_who_subscribed(sim: Simulator, device: PahoDevice, tmp_path: Path) -> None:
    sim.desire(NAME, {"missed": 1})
    assert device.subscribe(DESIRED + "#") == [1]
    for number in (3, 4, 5):
        assert sim.desire(NAME, {"step": number, "gone": None}) == number
        answer = device.answer()
        assert answer.topic == f"{DESIRED}?$version={number}"
        assert answer.body == {"step": number, "gone": None, "$version": number}
    device.close()
    sim.desire(NAME, {"step": 6})
    with hub_device(sim.info, NAME, tmp_path / f"{NAME}.pem") as later:
        later.subscribe(DESIRED + "#")
        later.subscribe(RESPONSES)
        assert get(later)["desired"] == {"missed": 1, "step": 6, "$version": 6}  # no patch of before comes again
        with pytest.raises(queue.Empty):
            later.answers.get_nowait()


def test_desired_properties_have_bounds_as_well(sim: Simulator, device: PahoDevice) -> None:
    with pytest.raises(ServiceError, match="dot"):
        sim.desire(NAME, {"a.b": 1})
    assert sim.twin(NAME).desired_version == 1


# The service's side


def test_the_service_sees_and_changes_the_twin(sim: Simulator, device: PahoDevice) -> None:
    device.subscribe(DESIRED + "#")
    device.subscribe(RESPONSES)
    report(device, '{"seen":1}')
    status, patched = api_call(
        sim.info, "PATCH", f"/twins/{NAME}", {"properties": {"desired": {"x": 1}}, "tags": {"t": 1}}
    )
    assert status == 200
    assert device.answer().body == {"x": 1, "$version": 2}
    for twin in (patched, api_call(sim.info, "GET", f"/twins/{NAME}")[1]):
        assert twin["properties"] == {"desired": {"x": 1, "$version": 2}, "reported": {"seen": 1, "$version": 2}}
        assert (twin["deviceId"], twin["tags"], twin["connectionState"]) == (NAME, {"t": 1}, "Connected")
        assert twin["authenticationType"] == "certificateAuthority"
    assert api_call(sim.info, "PATCH", f"/twins/{NAME}", {"tags": {"t": None}})[1]["tags"] == {}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", 400006),
        ([], 400004),
        ({}, 400004),
        ({"properties": {"reported": {"a": 1}}}, 400004),
        ({"properties": {"desired": [1]}}, 400004),
        ({"properties": {"desired": {"a.b": 1}}, "tags": {"kept": 1}}, 400004),
        ({"properties": {"desired": {"a": 1}}, "tags": {"a.b": 1}}, 400004),
        ({"tags": "text"}, 400004),
    ],
)
def test_patches_that_are_refused(sim: Simulator, body: Any, code: int) -> None:
    status, error = api_call(sim.info, "PATCH", f"/twins/{NAME}", body)
    assert (status, hub_code(error)) == (400, code)
    twin = sim.twin(NAME)
    assert (twin.desired, twin.desired_version, twin.tags) == ({}, 1, {})


def test_a_patch_of_another_state_is_refused(sim: Simulator) -> None:
    etag = api_call(sim.info, "GET", f"/twins/{NAME}")[1]["etag"]
    for expected in (200, 412):
        assert api_call(sim.info, "PATCH", f"/twins/{NAME}", {"tags": {"t": 1}}, If_Match=etag)[0] == expected


# Trouble


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
