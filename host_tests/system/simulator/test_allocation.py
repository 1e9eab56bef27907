"""Which hub a device is given, by each policy of allocation, and what moves with it when that is another one."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from simulator_client import api_call, derive, dps_device, finish, group_key, make_csr

from espdps.simulator import Link, Options, Simulator, serving

HUBS = ONE, TWO, THREE = "hub-1.localhost", "hub-2.localhost", "hub-3.localhost"
NAME = "roamer"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    options = Options(
        retry_after=0, assigning=0, hubs=HUBS, webhook_delays=(0.0, 0.0), links={TWO: Link(weight=3, latency=10)}
    )
    with serving(tmp_path_factory.mktemp("allocation"), options) as simulator:
        yield simulator
    assert not [event for event in simulator.events if event["event"] == "fault"]


@pytest.fixture
def sim(service: Simulator) -> Simulator:
    api_call(service.info, "DELETE", f"/registrations/{NAME}")
    for device in service._state.devices(NAME):
        service._state.remove_device(device)
    return service


def enroll(sim: Simulator, allocation: str = "hashed", **fields: Any) -> None:
    """The group, by API: what is left out is as the service has it."""
    key = {"symmetricKey": {"primaryKey": group_key(sim.info)}, "type": "symmetricKey"}
    body = {"attestation": key, "credentialPolicyName": "default", "allocationPolicy": allocation, **fields}
    status, answer = api_call(sim.info, "PUT", "/enrollmentGroups/boards", body, If_Match="*")
    assert status == 200, answer


def outcome(sim: Simulator, name: str = NAME, **fields: Any) -> dict[str, Any]:
    with dps_device(sim.info, name) as device:
        state: dict[str, Any] = finish(device, name, **fields)["registrationState"]
    return state


def hub_of(sim: Simulator, name: str = NAME, **fields: Any) -> str:
    return str(outcome(sim, name, **fields)["assignedHub"])


# Built-in policies


def test_hashed_by_weight(sim: Simulator) -> None:
    """Weights 1, 3 and 1: of 60 devices about 36 go to the second hub, and each goes there again."""
    enroll(sim)
    given = {f"unit-{n}": hub_of(sim, f"unit-{n}") for n in range(60)}
    counts = Counter(given.values())
    assert 26 <= counts[TWO] <= 46
    assert min(counts[ONE], counts[THREE]) >= 4
    for name in list(given)[:10]:
        api_call(sim.info, "DELETE", f"/registrations/{name}")
        assert hub_of(sim, name) == given[name]


def test_by_latency(sim: Simulator) -> None:
    enroll(sim, "geoLatency")
    assert hub_of(sim) == TWO
    sim.set_link(THREE, latency=2.5)
    try:
        assert hub_of(sim) == THREE
        enroll(sim, "geoLatency", iotHubs=[ONE, TWO])
        assert hub_of(sim) == TWO
    finally:
        sim.set_link(THREE, latency=50.0)
    for wrong in ({"latency": -1.0}, {"weight": 0}, {"weight": 1001}):
        with pytest.raises(ValueError):
            sim.set_link(THREE, **wrong)
    with pytest.raises(ValueError, match="links"):
        Options(links={"hub-9.localhost": Link()})


def test_static(sim: Simulator) -> None:
    for hub in (THREE, ONE):
        enroll(sim, "static", iotHubs=[hub])
        assert hub_of(sim) == hub


# Custom


class Webhook(ThreadingHTTPServer):
    """An HTTP server that answers what it is told to, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        hook = self
        self.asked: list[dict[str, Any]] = []
        self.answers: Iterator[tuple[int, Any]] = iter(())
        self.release = threading.Event()
        self.release.set()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                hook.release.wait(20)
                status, body = next(hook.answers)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/api/choose?code=s3cret"


@pytest.fixture
def webhook(sim: Simulator) -> Iterator[Webhook]:
    with Webhook() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        definition = {"webhookUrl": server.url, "apiVersion": "2021-10-01"}
        enroll(sim, "custom", iotHubs=[ONE, TWO], customAllocationDefinition=definition)
        yield server
        server.shutdown()
        thread.join()


def test_a_webhook_chooses(sim: Simulator, webhook: Webhook) -> None:
    twin = {"tags": {"kind": "toaster"}, "properties": {"desired": {"state": "ready"}}}
    webhook.answers = iter(
        [(200, {"iotHubHostName": ONE, "initialTwin": twin, "payload": {"hello": 1}}), (200, {"iotHubHostName": TWO})]
    )
    state = outcome(sim, payload={"model": "c3"})
    assert (state["assignedHub"], state["payload"]) == (ONE, {"hello": 1})
    assert (sim.twin(NAME).tags, sim.twin(NAME).desired) == ({"kind": "toaster"}, {"state": "ready"})
    state = outcome(sim)
    assert (state["assignedHub"], state["substatus"]) == (TWO, "deviceDataMigrated")
    first, second = webhook.asked
    assert first.keys() == {"enrollmentGroup", "deviceRuntimeContext", "linkedHubs"}
    assert first["linkedHubs"] == [ONE, TWO]
    assert first["enrollmentGroup"]["enrollmentGroupId"] == "boards"
    assert first["enrollmentGroup"]["attestation"] == {"type": "symmetricKey"}  # and no key
    context = first["deviceRuntimeContext"]
    assert (context["registrationId"], context["payload"]) == (NAME, {"model": "c3"})
    assert "currentIotHubHostName" not in context
    assert second["deviceRuntimeContext"]["currentIotHubHostName"] == ONE
    assert second["deviceRuntimeContext"]["currentDeviceId"] == NAME


def test_the_key_of_a_webhook_is_not_told(sim: Simulator, webhook: Webhook) -> None:
    group = api_call(sim.info, "GET", "/enrollmentGroups/boards")[1]
    assert group["customAllocationDefinition"]["webhookUrl"].endswith("/api/choose?****")
    changed = {**group, "provisioningStatus": "enabled", "attestation": {"type": "symmetricKey"}}
    status, again = api_call(sim.info, "PUT", "/enrollmentGroups/boards", changed, If_Match=group["etag"])
    assert status == 200
    assert sim.group().webhook == webhook.url  # what is sent back as it was shown stays
    assert "s3cret" not in json.dumps([group, again, sim.events]) + repr(sim.group())


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ([(401, b"")], 400209),
        ([(403, b"")], 400207),
        ([(404, b"")], 400207),
        ([(302, b"")], 400207),
        ([(200, b"{")], 400207),
        ([(200, b"")], 400207),
        ([(200, [])], 400207),
        ([(200, {"iotHubHostName": 7})], 400207),
        ([(200, {"iotHubHostName": ONE, "initialTwin": {"properties": []}})], 400207),
        ([(200, {"iotHubHostName": THREE})], 400207),  # not one of the enrollment's
        ([(200, {"iotHubHostName": ""})], 400208),
        ([(200, {"iotHubHostName": None})], 400208),
        ([(200, {})], 400208),
        ([(500, b""), (429, b""), (503, b"")], 400207),
        ([(500, b""), (429, b""), (200, {"iotHubHostName": ONE})], None),
    ],
)
def test_webhooks_that_fail(sim: Simulator, webhook: Webhook, answers: list[Any], code: int | None) -> None:
    webhook.answers = iter(answers)
    state = outcome(sim)
    assert state.get("errorCode") == code
    assert state["status"] == ("failed" if code else "assigned")
    assert len(webhook.asked) == len(answers)


def test_a_webhook_that_is_not_there(sim: Simulator, webhook: Webhook) -> None:
    start = len(sim.events)
    webhook.shutdown()
    webhook.server_close()
    state = outcome(sim)
    assert (state["errorCode"], "nothing" in state["errorMessage"]) == (400207, True)
    tries = [event["status"] for event in sim.events[start:] if event["event"] == "dps.webhook"]
    assert tries == [None] * 3


def test_a_device_polls_while_a_webhook_thinks(sim: Simulator, webhook: Webhook) -> None:
    webhook.answers = iter([(200, {"iotHubHostName": TWO})])
    webhook.release.clear()
    start = len(sim.events)
    with dps_device(sim.info, NAME) as device:
        device.register(NAME, make_csr(NAME))
        answer = device.answer()
        for _ in range(3):
            assert (answer.status, answer.body["status"]) == (202, "assigning")
            device.poll(answer.body["operationId"])
            answer = device.answer()
        webhook.release.set()
        sim.wait_event("dps.webhook", after=start)
        while answer.body["status"] == "assigning":
            device.poll(answer.body["operationId"])
            answer = device.answer()
    assert answer.body["registrationState"]["assignedHub"] == TWO
    assert len(answer.body["registrationState"]["issuedCertificateChain"]) == 3
    assert len(webhook.asked) == 1


# Reprovisioning


def reprovision(update: bool, migrate: bool) -> dict[str, Any]:
    return {"reprovisionPolicy": {"updateHubAssignment": update, "migrateDeviceData": migrate}}


@pytest.mark.parametrize(
    ("policy", "hub", "substatus", "reported", "desired"),
    [
        (reprovision(True, True), TWO, "deviceDataMigrated", {"seen": 1}, {"a": 2}),
        (reprovision(True, False), TWO, "deviceDataReset", {}, {"a": 1}),
        (reprovision(False, False), ONE, "initialAssignment", {"seen": 1}, {"a": 2}),
        ({}, TWO, "deviceDataMigrated", {"seen": 1}, {"a": 2}),  # the service's default
    ],
)
def test_reprovisioning(
    sim: Simulator, policy: dict[str, Any], hub: str, substatus: str, reported: Any, desired: Any
) -> None:
    twin = {"initialTwin": {"properties": {"desired": {"a": 1}}}}
    enroll(sim, "static", iotHubs=[ONE], **twin)
    first = outcome(sim)
    assert (first["assignedHub"], first["substatus"]) == (ONE, "initialAssignment")
    assert outcome(sim)["substatus"] == "initialAssignment"  # again at the same hub is no other assignment
    sim.desire(NAME, {"a": 2})
    sim.twin(NAME).report({"seen": 1})
    enroll(sim, "static", iotHubs=[TWO], **twin, **policy)
    second = outcome(sim)
    assert (second["assignedHub"], second["substatus"]) == (hub, substatus)
    assert second["createdDateTimeUtc"] == first["createdDateTimeUtc"]
    assert (sim.twin(NAME).reported, sim.twin(NAME).desired) == (reported, desired)
    assert [one.hub for one in sim._state.devices(NAME)] == [hub]
    assert api_call(sim.info, "GET", f"/registrations/{NAME}")[1]["substatus"] == substatus


def test_a_key_of_the_group_goes_along(sim: Simulator) -> None:
    enroll(sim, "static", iotHubs=[ONE])
    outcome(sim)
    enroll(sim, "static", iotHubs=[TWO])
    outcome(sim)
    assert derive(group_key(sim.info), NAME) in sim.device(NAME).keys
