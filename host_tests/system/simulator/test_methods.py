"""Direct methods of the simulator's hub: called by the service, answered by a device, or not."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from simulator_client import PahoDevice, api_call, hub_code, hub_device, provision

from espdps.simulator import Cut, Options, Simulator, Trouble, serving
from espdps.simulator.errors import ServiceError

NAME = "callee"
FILTER = "$iothub/methods/POST/#"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("methods"), Options(retry_after=0, assigning=0)) as simulator:
        yield simulator


@pytest.fixture
def sim(service: Simulator, tmp_path: Path) -> Iterator[Simulator]:
    """With a device of its own for each test, and no trouble."""
    provision(service.info, NAME, tmp_path)
    yield service
    service.trouble = Trouble()
    service.delete_device(NAME)


@pytest.fixture
def device(sim: Simulator, tmp_path: Path) -> Iterator[PahoDevice]:
    with hub_device(sim.info, NAME, tmp_path / f"{NAME}.pem") as client:
        yield client


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


def call(pool: ThreadPoolExecutor, sim: Simulator, body: Any) -> Future[tuple[int, Any]]:
    return pool.submit(api_call, sim.info, "POST", f"/twins/{NAME}/methods", body)


def asked(device: PahoDevice) -> tuple[str, str, Any]:
    """The next call: name, request id, payload."""
    request = device.answer()
    path, name = request.topic.split("/?")[0].rsplit("/", 1)
    assert path == "$iothub/methods/POST"
    return name, request.properties["$rid"], request.body


def answer(device: PahoDevice, rid: str, status: Any = 200, body: str = "") -> None:
    device.publish(f"$iothub/methods/res/{status}/?$rid={rid}", body, qos=0)


def test_a_call_and_its_answer(sim: Simulator, device: PahoDevice, pool: ThreadPoolExecutor) -> None:
    device.subscribe(FILTER)
    start = len(sim.events)
    waiting = call(pool, sim, {"methodName": "blink", "payload": {"times": 3}, "responseTimeoutInSeconds": 10})
    name, rid, payload = asked(device)
    assert (name, payload) == ("blink", {"times": 3})
    answer(device, rid, 202, '{"ok":["yes"]}')
    assert waiting.result(10) == (200, {"status": 202, "payload": {"ok": ["yes"]}})
    assert sim.wait_event("hub.method", after=start, device=NAME, name="blink")["status"] == 202


def test_payloads_of_all_kinds(sim: Simulator, device: PahoDevice, pool: ThreadPoolExecutor) -> None:
    device.subscribe(FILTER)
    for sent, received in (({}, b""), ({"payload": None}, None), ({"payload": "text"}, "text"), ({"payload": 0}, 0)):
        waiting = call(pool, sim, {"methodName": "echo", **sent})
        _, rid, payload = asked(device)
        assert payload == received
        answer(device, rid, 200, json.dumps(received) if received != b"" else "")
        result = waiting.result(10)[1]
        assert result == {"status": 200, "payload": received if received != b"" else None}


def test_answers_find_their_calls(sim: Simulator, device: PahoDevice, pool: ThreadPoolExecutor) -> None:
    device.subscribe(FILTER)
    first = call(pool, sim, {"methodName": "first"})
    _, first_rid, _ = asked(device)
    second = call(pool, sim, {"methodName": "second"})
    _, second_rid, _ = asked(device)
    answer(device, "never-asked", 200, '"nobody"')
    answer(device, second_rid, 200, "2")
    assert second.result(10)[1]["payload"] == 2
    answer(device, second_rid, 200, "22")  # twice is once
    answer(device, first_rid, 200, "1")
    assert first.result(10)[1]["payload"] == 1
    assert device.disconnected.empty()


def error(sim: Simulator, **arguments: Any) -> tuple[int, int]:
    with pytest.raises(ServiceError) as caught:
        sim.call_method(NAME, "any", **arguments)
    return caught.value.status, caught.value.error_code


def test_no_device_to_call(sim: Simulator, tmp_path: Path) -> None:
    assert error(sim) == (404, 404103)
    with hub_device(sim.info, NAME, tmp_path / f"{NAME}.pem") as device:
        assert error(sim) == (404, 404103)  # there, and not subscribed
        device.subscribe(FILTER)
        start = len(sim.events)
        assert error(sim, timeout=0.1) == (504, 504101)
        assert sim.wait_event("hub.method", after=start, device=NAME)["error_code"] == 504101
        _, rid, _ = asked(device)
        answer(device, rid)  # too late, and harmless
        device.subscribe("$iothub/twin/res/#")
        assert device.disconnected.empty()
    with pytest.raises(KeyError):
        sim.call_method("nobody", "any")


def test_a_device_that_leaves_instead(sim: Simulator, device: PahoDevice, pool: ThreadPoolExecutor) -> None:
    device.subscribe(FILTER)
    waiting = call(pool, sim, {"methodName": "shutdown"})
    asked(device)
    device.close()
    status, body = waiting.result(10)
    assert (status, hub_code(body)) == (404, 404104)


def test_an_answer_that_is_cut_off(sim: Simulator, device: PahoDevice, pool: ThreadPoolExecutor) -> None:
    device.subscribe(FILTER)
    sim.trouble = Trouble({"hub.method": Cut()})
    waiting = call(pool, sim, {"methodName": "unlucky"})
    answer(device, asked(device)[1])
    assert hub_code(waiting.result(10)[1]) == 404104


@pytest.mark.parametrize("body", ["{", "not json", '"' + "x" * 131072 + '"'])
def test_answers_that_are_none(sim: Simulator, device: PahoDevice, pool: ThreadPoolExecutor, body: str) -> None:
    device.subscribe(FILTER)
    waiting = call(pool, sim, {"methodName": "odd"})
    answer(device, asked(device)[1], 200, body)
    status, failure = waiting.result(10)
    assert (status, hub_code(failure)) == (502, 502000)


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"methodName": ""},
        {"methodName": "with space"},
        {"methodName": "with/slash"},
        {"methodName": "with#"},
        {"methodName": "ünï"},
        {"methodName": 5},
        {"methodName": "a", "responseTimeoutInSeconds": 4},
        {"methodName": "a", "responseTimeoutInSeconds": 301},
        {"methodName": "a", "responseTimeoutInSeconds": "30"},
    ],
)
def test_what_is_no_call(sim: Simulator, device: PahoDevice, body: Any) -> None:
    device.subscribe(FILTER)
    status, failure = api_call(sim.info, "POST", f"/twins/{NAME}/methods", body)
    assert (status, hub_code(failure)) == (400, 400004)
    with pytest.raises(queue.Empty):
        device.answers.get_nowait()
