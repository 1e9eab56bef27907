"""What the simulator can say instead of the usual: every manner of an answer, and the payload that goes both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from simulator_client import (
    POLL,
    REGISTER,
    RESPONSES,
    RawClient,
    dps_device,
    finish,
    hub_device,
    make_csr,
    provision,
    publish_packet,
    subscribe_packet,
)

from espdps.simulator import (
    Assigning,
    Early,
    Error,
    Late,
    Options,
    Profile,
    Rid,
    Simulator,
    Spelling,
    State,
    Trouble,
    Vanished,
    serving,
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("answers"), Options(retry_after=7)) as simulator:
        yield simulator
    assert not [event for event in simulator.events if event["event"] == "fault"]


@pytest.fixture
def sim(service: Simulator) -> Any:
    yield service
    service.trouble = Trouble()
    service.allocate = None


def ask(client: RawClient, topic: str, body: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
    topic, answer = client.request(topic, json.dumps(body or {}).encode())
    return topic, json.loads(answer)


def test_properties_in_another_order_and_case(sim: Simulator) -> None:
    sim.trouble = Trouble({"answer": Spelling()})
    with RawClient(sim.info) as client:
        client.dps_ready(sim.info, "dev")
        topic, answer = ask(client, REGISTER + "retry-after")  # a rid that looks like the other property
        assert topic == "$dps/registrations/res/202/?Retry-After=7&$rid=retry-after"
        topic, answer = ask(client, f"{POLL}r2&operationId={answer['operationId']}")
        assert topic == "$dps/registrations/res/200/?$rid=r2"
        assert answer["status"] == "assigned"
        sim.trouble = Trouble({"answer": Spelling(), "register": Error(429, 429001, "Throttled", retry_after=3)})
        assert ask(client, REGISTER + "r3")[0] == "$dps/registrations/res/429/?Retry-After=3&$rid=r3"


def test_late_answers(sim: Simulator) -> None:
    sim.trouble = Trouble({"answer": Late(), "assigning": Assigning(2, 0)})
    with RawClient(sim.info) as client:
        client.dps_ready(sim.info, "dev")
        topic, body = client.request(REGISTER + "r1")
        first = (topic, body)
        poll = f"&operationId={json.loads(body)['operationId']}"
        assert client.request(POLL + "r2" + poll) == first
        second = client.answer()
        assert "$rid=r2" in second[0]
        assert client.request(POLL + "r3" + poll) == second
        topic, body = client.answer()
        assert "$rid=r3" in topic
        assert json.loads(body)["status"] == "assigned"
        assert client.silent(0.1)
    with RawClient(sim.info) as client:  # nothing of one connection gets into another
        client.dps_ready(sim.info, "dev")
        assert "$rid=r9" in client.request(REGISTER + "r9")[0]


@pytest.mark.parametrize("qos", [0, 1])
def test_an_answer_before_the_suback(sim: Simulator, tmp_path: Path, qos: int) -> None:
    topic = "$dps/registrations/res/202/?$rid=1"
    sim.trouble = Trouble({"subscribe": Early(topic, b'{"operationId":"x","status":"assigning"}')})
    with RawClient(sim.info) as client:
        client.dps_connect(sim.info, "dev")
        assert client.packet() == (0x20, b"\0\0")
        client.send(subscribe_packet(RESPONSES, qos))
        assert client.answer() == (topic, b'{"operationId":"x","status":"assigning"}')
        assert client.packet() == (0x90, bytes([0, 1, qos]))
        client.send(publish_packet(REGISTER + "1"))
        assert json.loads(client.answer()[1])["operationId"] != "x"


def test_an_early_message_of_the_hub(sim: Simulator, tmp_path: Path) -> None:
    _, pem = provision(sim.info, "dev", tmp_path)
    topic = "$iothub/twin/res/200/?$rid=0"
    sim.trouble = Trouble({"hub.subscribe": Early(topic, b"{}")})
    with hub_device(sim.info, "dev", pem) as device:
        assert device.subscribe("$iothub/twin/res/#") == [1]
        assert device.answer().topic == topic
        # What does not match the filter is not sent at all, as by any broker.
        assert device.subscribe("$iothub/methods/POST/#") == [1]
        assert device.answer().topic == topic
        assert device.answers.empty()


def test_an_operation_that_vanishes(sim: Simulator) -> None:
    sim.trouble = Trouble({"poll": Vanished()})
    with dps_device(sim.info, "dev") as device:
        device.register("dev", make_csr("dev"))
        operation = device.answer().body["operationId"]
        for _ in range(2):  # it does not come back
            device.poll(operation)
            answer = device.answer()
            assert (answer.status, answer.body["errorCode"]) == (404, 404203)
        body = finish(device, "dev", make_csr("dev"))
        assert body["operationId"] != operation
        assert len(body["registrationState"]["issuedCertificateChain"]) == 3


@pytest.mark.parametrize("status", ["unassigned", "pondering", ""])
def test_other_words_for_assigning(sim: Simulator, status: str) -> None:
    sim.trouble = Trouble({"assigning": Assigning(1, 4, status)})
    with RawClient(sim.info) as client:
        client.dps_ready(sim.info, "dev")
        topic, answer = ask(client, REGISTER + "1")
        assert topic == "$dps/registrations/res/202/?$rid=1&retry-after=4"
        assert answer["status"] == status
        assert ask(client, f"{POLL}2&operationId={answer['operationId']}")[1]["status"] == "assigned"


def test_an_unknown_state_in_the_end(sim: Simulator) -> None:
    sim.trouble = Trouble({"poll": State("quarantined")})
    with RawClient(sim.info) as client:
        client.dps_ready(sim.info, "dev")
        operation = ask(client, REGISTER + "1")[1]["operationId"]
        topic, answer = ask(client, f"{POLL}2&operationId={operation}")
    assert topic == "$dps/registrations/res/200/?$rid=2"
    assert answer["status"] == answer["registrationState"]["status"] == "quarantined"


@pytest.mark.parametrize("value", [None, "classic", "mqtt5", {"name": "x"}])
def test_connection_profile(sim: Simulator, value: Any) -> None:
    with dps_device(sim.info, "dev") as device:
        assert "connectionProfile" not in finish(device, "dev")["registrationState"]
        sim.trouble = Trouble({"assigned": Profile(value)})
        assert finish(device, "dev")["registrationState"]["connectionProfile"] == value


@pytest.mark.parametrize(
    ("at", "error"),
    [
        ({"poll": State("unassigned")}, ValueError),
        ({"poll": State("assigning")}, ValueError),
        ({"assigning": Assigning(1, status="assigned")}, ValueError),
        ({"assigning": Assigning(1, status="disabled")}, ValueError),
        ({"register": Vanished()}, TypeError),
        ({"connect": Early("x", b"")}, TypeError),
        ({"answer": Rid()}, TypeError),
        ({"poll": Late()}, TypeError),
    ],
)
def test_trouble_that_cannot_be(at: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Trouble(at)


def test_key_types_that_cannot_be() -> None:
    for key_types in ((), ("ec-p521",), ("ec-p384", "dsa")):
        with pytest.raises(ValueError, match="key_types"):
            Options(key_types=key_types)


# Payload


def test_payload_goes_to_the_allocation_and_comes_back(sim: Simulator) -> None:
    asked: list[dict[str, Any]] = []

    def allocate(context: dict[str, Any]) -> dict[str, Any]:
        asked.append(context)
        return {"payload": {"echo": context["payload"], "list": [1, None]}}

    sim.allocate = allocate
    start = len(sim.events)
    with dps_device(sim.info, "dev") as device:
        body = finish(device, "dev", payload={"model": "x-1", "größe": 3})
        assert body["registrationState"]["payload"] == {"echo": {"model": "x-1", "größe": 3}, "list": [1, None]}
        device.poll(body["operationId"])
        assert device.answer().body == body
    assert asked == [
        {
            "registrationId": "dev",
            "symmetricKey": {"enrollmentGroupId": "boards"},
            "payload": {"model": "x-1", "größe": 3},
        }
    ]
    assert sim.wait_event("dps.register", after=start)["payload"] is True


@pytest.mark.parametrize("given", [None, {}, {"iotHubHostName": "hub-1.localhost"}])
def test_allocation_without_a_payload(sim: Simulator, given: dict[str, Any] | None) -> None:
    asked: list[dict[str, Any]] = []
    sim.allocate = lambda context: (asked.append(context), given)[1]
    start = len(sim.events)
    with dps_device(sim.info, "dev") as device:
        assert "payload" not in finish(device, "dev", payload=None)["registrationState"]
    assert "payload" not in asked[0]
    assert sim.wait_event("dps.register", after=start)["payload"] is False


@pytest.mark.parametrize("payload", [0, False, "", [], {}])
def test_any_json_is_a_payload(sim: Simulator, payload: Any) -> None:
    """The empty ones too, in both directions."""
    sim.allocate = lambda context: {"payload": context["payload"]}
    with dps_device(sim.info, "dev") as device:
        assert finish(device, "dev", payload=payload)["registrationState"]["payload"] == payload


def test_nobody_allocates(sim: Simulator) -> None:
    with dps_device(sim.info, "dev") as device:
        assert "payload" not in finish(device, "dev", payload={"a": 1})["registrationState"]
