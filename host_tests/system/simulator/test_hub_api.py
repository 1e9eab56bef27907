"""The service side of the simulator's hubs over HTTPS: devices, who may call, and the feed of what happens."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from simulator_client import (
    HUB_API,
    PahoDevice,
    api_call,
    derive,
    group_key,
    hub_code,
    hub_device,
    provision,
    service_token,
    token,
)

from espdps.simulator import Options, Simulator, serving

NAME = "subject"
ONE, TWO = "hub-1.localhost", "hub-2.localhost"
REFUSED = 135


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    options = Options(retry_after=0, assigning=0, hubs=(ONE, TWO))
    with serving(tmp_path_factory.mktemp("hub-api"), options) as simulator:
        simulator.set_enrollment("boards", group=True, hubs=(ONE,))
        yield simulator


@pytest.fixture
def sim(service: Simulator, tmp_path: Path) -> Iterator[Simulator]:
    """With a device of its own for each test."""
    provision(service.info, NAME, tmp_path)
    yield service
    with contextlib.suppress(KeyError):  # the test did
        service.delete_device(NAME)


def online(sim: Simulator, tmp_path: Path) -> Any:
    return hub_device(sim.info, NAME, tmp_path / f"{NAME}.pem")


# Devices


def test_a_device_as_the_service_sees_it(sim: Simulator, tmp_path: Path) -> None:
    start = len(sim.events)
    status, before = api_call(sim.info, "GET", f"/devices/{NAME}")
    assert status == 200
    assert (before["deviceId"], before["status"], before["connectionState"]) == (NAME, "enabled", "Disconnected")
    assert before["authentication"] == {"type": "certificateAuthority"}
    with online(sim, tmp_path):
        during = api_call(sim.info, "GET", f"/devices/{NAME}")[1]
        assert during["connectionState"] == "Connected"
        assert during["connectionStateUpdatedTime"] > before["connectionStateUpdatedTime"]
    sim.wait_event("hub.disconnect", after=start, device=NAME)
    after = api_call(sim.info, "GET", f"/devices/{NAME}")[1]
    assert after["connectionState"] == "Disconnected"
    assert after["connectionStateUpdatedTime"] >= during["connectionStateUpdatedTime"]
    assert derive(group_key(sim.info), NAME) not in json.dumps([before, during, after])


def test_disabled_and_enabled(sim: Simulator, tmp_path: Path) -> None:
    with online(sim, tmp_path) as device:
        status, body = api_call(sim.info, "PUT", f"/devices/{NAME}", {"status": "disabled"}, If_Match="*")
        assert (status, body["status"]) == (200, "disabled")
        device.disconnected.get(timeout=10)
    with online(sim, tmp_path) as device:
        assert device.connack.value == REFUSED
    assert api_call(sim.info, "PUT", f"/devices/{NAME}", {"status": "enabled"}, If_Match=body["etag"])[0] == 200
    with online(sim, tmp_path) as device:
        assert device.connack.value == 0


@pytest.mark.parametrize(
    ("body", "match", "status", "code"),
    [
        ({"status": "disabled"}, None, 409, 409001),
        ({"status": "disabled"}, '"other"', 412, 412001),
        ({"status": "sleepy"}, "*", 400, 400004),
        ([], "*", 400, 400004),
        (b"{", "*", 400, 400006),
    ],
)
def test_changes_that_are_refused(sim: Simulator, body: Any, match: str | None, status: int, code: int) -> None:
    headers = {} if match is None else {"If_Match": match}
    answer = api_call(sim.info, "PUT", f"/devices/{NAME}", body, **headers)
    assert (answer[0], hub_code(answer[1])) == (status, code)
    assert sim.device(NAME).enabled


def test_deleted(sim: Simulator, tmp_path: Path) -> None:
    assert api_call(sim.info, "DELETE", f"/devices/{NAME}", If_Match='"other"')[0] == 412
    with online(sim, tmp_path) as device:
        assert api_call(sim.info, "DELETE", f"/devices/{NAME}", If_Match="*") == (204, None)
        device.disconnected.get(timeout=10)
    with online(sim, tmp_path) as device:
        assert device.connack.value == REFUSED
    for method, path, body in (
        ("GET", f"/devices/{NAME}", None),
        ("PUT", f"/devices/{NAME}", {"status": "enabled"}),
        ("DELETE", f"/devices/{NAME}", None),
        ("GET", f"/twins/{NAME}", None),
        ("PATCH", f"/twins/{NAME}", {"tags": {}}),
        ("POST", f"/twins/{NAME}/methods", {"methodName": "a"}),
        ("POST", f"/devices/{NAME}/messages/devicebound", {"body": "x"}),
    ):
        status, error = api_call(sim.info, method, path, body, If_Match="*")
        assert (status, hub_code(error)) == (404, 404001)


def by_password(sim: Simulator, device_id: str, key: str, hub: str = ONE) -> bool:
    password = token(f"{hub}/devices/{device_id}", key, skn=None)
    with hub_device(sim.info, device_id, hub=hub, password=password) as device:
        return bool(device.connack.value == 0)


def test_made_at_the_hub_with_keys(sim: Simulator) -> None:
    """Keys that are left out are made; primary and secondary both work, at this hub alone."""
    status, made = api_call(sim.info, "PUT", "/devices/by-hand", {"deviceId": "by-hand"}, host=TWO)
    keys = made["authentication"]["symmetricKey"]
    assert (status, made["status"], made["authentication"]["type"]) == (200, "enabled", "sas")
    assert len({len(base64.b64decode(key)) for key in keys.values()}) == 1
    assert all(by_password(sim, "by-hand", key, TWO) for key in keys.values())
    assert not by_password(sim, "by-hand", keys["primaryKey"], ONE)
    assert hub_code(api_call(sim.info, "PUT", "/devices/by-hand", {}, host=TWO)[1]) == 409001
    # The status alone, and the keys stay.
    changed = api_call(sim.info, "PUT", "/devices/by-hand", {"status": "disabled"}, host=TWO, If_Match="*")[1]
    assert (changed["status"], changed["authentication"]) == ("disabled", made["authentication"])
    assert not by_password(sim, "by-hand", keys["primaryKey"], TWO)
    own = base64.b64encode(b"k" * 32).decode()
    body = {"authentication": {"type": "sas", "symmetricKey": {"primaryKey": own}}, "capabilities": {"iotEdge": True}}
    changed = api_call(sim.info, "PUT", "/devices/by-hand", body, host=TWO, If_Match=changed["etag"])[1]
    assert changed["capabilities"] == {"iotEdge": True}
    assert by_password(sim, "by-hand", own, TWO)
    assert not by_password(sim, "by-hand", keys["primaryKey"], TWO)
    assert api_call(sim.info, "DELETE", "/devices/by-hand", host=TWO, If_Match="*")[0] == 204


@pytest.mark.parametrize("digest", ["sha1", "sha256"])
def test_made_at_the_hub_with_a_thumbprint(sim: Simulator, tmp_path: Path, digest: str) -> None:
    pem = tmp_path / "self.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=any -keyout key -out cert"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True, timeout=30)
    pem.write_text((tmp_path / "key").read_text() + (tmp_path / "cert").read_text())
    shown = subprocess.run(
        ["openssl", "x509", "-in", str(pem), "-noout", "-fingerprint", f"-{digest}"],
        check=True, capture_output=True, text=True, timeout=30,
    ).stdout  # fmt: skip
    thumbprint = shown.strip().partition("=")[2]
    body = {"authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": thumbprint}}}
    status, made = api_call(sim.info, "PUT", f"/devices/self-{digest}", body, host=ONE)
    told = {"primaryThumbprint": thumbprint.replace(":", ""), "secondaryThumbprint": None}
    assert (status, made["authentication"]) == (200, {"type": "selfSigned", "x509Thumbprint": told})
    with hub_device(sim.info, f"self-{digest}", pem) as device:
        assert device.connack.value == 0
    with hub_device(sim.info, NAME, pem) as device:
        assert device.connack.value == REFUSED


def test_made_at_the_hub_for_an_issued_certificate(sim: Simulator, tmp_path: Path) -> None:
    assert api_call(sim.info, "DELETE", f"/devices/{NAME}", If_Match="*")[0] == 204
    body = {"authentication": {"type": "certificateAuthority"}}
    assert api_call(sim.info, "PUT", f"/devices/{NAME}", body, host=ONE)[0] == 200
    with online(sim, tmp_path) as device:
        assert device.connack.value == 0


@pytest.mark.parametrize(
    "body",
    [
        {"authentication": {"type": "none"}},
        {"authentication": {"type": "selfSigned"}},
        {"authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "12:34"}}},
        {"authentication": {"type": "sas", "symmetricKey": {"primaryKey": "short"}}},
        {"authentication": {"type": "sas", "symmetricKey": "key"}},
        {"authentication": "sas"},
        {"capabilities": True},
    ],
)
def test_devices_that_cannot_be_made(sim: Simulator, body: Any) -> None:
    answer = api_call(sim.info, "PUT", "/devices/never", body, host=ONE)
    assert (answer[0], hub_code(answer[1])) == (400, 400004)
    assert api_call(sim.info, "GET", "/devices/never")[0] == 404


def test_a_device_is_made_at_a_hub_that_is_named(sim: Simulator) -> None:
    assert hub_code(api_call(sim.info, "PUT", "/devices/nowhere", {})[1]) == 404001  # two hubs, and no name
    assert hub_code(api_call(sim.info, "PUT", "/devices/a%20b", {}, host=ONE)[1]) == 400004


def test_the_host_names_the_hub(sim: Simulator) -> None:
    assert api_call(sim.info, "GET", f"/devices/{NAME}", host=ONE)[0] == 200
    assert api_call(sim.info, "GET", f"/devices/{NAME}", host=TWO)[0] == 404
    try:
        sim.set_hubs(TWO)
        assert api_call(sim.info, "GET", f"/devices/{NAME}", host=ONE)[0] == 404
    finally:
        sim.set_hubs(ONE, TWO)


def test_only_with_the_policys_token(sim: Simulator) -> None:
    paths = (
        ("GET", f"/devices/{NAME}"),
        ("DELETE", f"/devices/{NAME}"),
        ("GET", f"/twins/{NAME}"),
        ("POST", f"/twins/{NAME}/methods"),
        ("POST", f"/devices/{NAME}/messages/devicebound"),
        ("GET", "/messages/events"),
    )
    for method, path in paths:
        for bad in ("", service_token(sim.info, ONE), service_token(sim.info, key=group_key(sim.info))):
            status, error = api_call(sim.info, method, path, authorization=bad)
            assert (status, hub_code(error)) == (401, 401002)
    assert sim.device(NAME).enabled


# The feed


class Feed:
    """Reads the feed by aiohttp, a line at a time."""

    def __init__(self, sim: Simulator, query: str = "") -> None:
        self._url = f"https://localhost:{sim.info['https_port']}/messages/events?api-version={HUB_API}{query}"
        self._headers = {"Authorization": service_token(sim.info)}
        self._context = ssl.create_default_context(cafile=sim.info["roots"])

    async def lines(self, count: int, once_open: Any = None) -> list[dict[str, Any]]:
        """So many events; ``once_open`` is called when the feed has begun."""
        timeout = aiohttp.ClientTimeout(total=15)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(self._url, headers=self._headers, ssl=self._context) as response,
        ):
            assert response.content_type == "application/x-ndjson"
            if once_open is not None:
                await asyncio.get_running_loop().run_in_executor(None, once_open)
            found: list[dict[str, Any]] = []
            while len(found) < count:
                line = await response.content.readline()
                assert line, "the feed ended"
                if line.strip():
                    found.append(json.loads(line))
            return found


def telemetry(device: PahoDevice, *bodies: str) -> None:
    for body in bodies:
        device.publish(f"devices/{NAME}/messages/events/room=4%20north", body)


def test_the_feed_follows_a_device(sim: Simulator, tmp_path: Path) -> None:
    def play() -> None:
        provision(sim.info, "bystander", tmp_path)
        with hub_device(sim.info, "bystander", tmp_path / "bystander.pem") as other, online(sim, tmp_path) as device:
            other.publish("devices/bystander/messages/events/", b"noise")
            telemetry(device, "1", "2")

    start = len(sim.events)
    with online(sim, tmp_path) as device:
        telemetry(device, "0")  # before the feed begins
    sim.wait_event("hub.disconnect", after=start, device=NAME)
    events = asyncio.run(Feed(sim, f"&deviceId={NAME}").lines(4, play))
    kinds = ["hub.connect", "hub.telemetry", "hub.telemetry", "hub.disconnect"]
    assert [(event["device"], event["event"]) for event in events] == [(NAME, kind) for kind in kinds]
    assert [event["body"] for event in events[1:3]] == ["1", "2"]
    assert events[1]["properties"] == {"room": "4 north"}


def test_the_feed_tells_the_past(sim: Simulator, tmp_path: Path) -> None:
    with online(sim, tmp_path) as device:
        telemetry(device, "unique-past")
    past = [event for event in sim.events if event["event"].startswith("hub.")]
    assert asyncio.run(Feed(sim, "&past=true").lines(len(past))) == past
    assert any(event.get("body") == "unique-past" for event in past)


def test_a_feed_that_was_left_is_forgotten(sim: Simulator, tmp_path: Path) -> None:
    with online(sim, tmp_path) as device:
        asyncio.run(Feed(sim, "&past=true").lines(1))
        deadline = time.monotonic() + 10
        while sim.log.listeners and time.monotonic() < deadline:
            telemetry(device, "is anybody there?")  # what is written shows that nobody reads
    assert sim.log.listeners == 0


def test_a_feed_does_not_hold_up_the_end(tmp_path: Path) -> None:
    begun, ended = threading.Event(), threading.Event()

    def read() -> None:
        with pytest.raises((AssertionError, aiohttp.ClientError)):
            asyncio.run(Feed(sim).lines(1, begun.set))
        ended.set()

    reader = threading.Thread(target=read)
    with serving(tmp_path / "sim", Options(retry_after=0, assigning=0)) as sim:
        reader.start()
        assert begun.wait(10)
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 3
    reader.join(10)
    assert ended.is_set()


def test_lists_and_pages_that_are_none(sim: Simulator) -> None:
    """What they are when all is well is in test_sdk_service.py."""
    query = {"query": "select * from devices"}
    assert api_call(sim.info, "GET", "/devices?api-version=2021-04-12&top=0") == (200, [])
    assert api_call(sim.info, "GET", "/devices?api-version=2021-04-12&top=-1")[0] == 400
    assert api_call(sim.info, "POST", "/devices/query", query)[0] == 200
    assert api_call(sim.info, "POST", "/devices/query", query, x_ms_max_item_count="all")[0] == 400
    assert api_call(sim.info, "POST", "/devices/query", query, x_ms_continuation="1x")[0] == 400
    for body in ({}, [], {"query": 1}):
        assert api_call(sim.info, "POST", "/devices/query", body)[0] == 400
    assert api_call(sim.info, "GET", "/devices", authorization="none")[0] == 401
