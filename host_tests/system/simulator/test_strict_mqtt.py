"""What a device may send over MQTT, and what becomes of it, as Azure has it.

Sources as in the simulator: L a live test of Microsoft's, C an official client, D documentation, S MQTT 3.1.1.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from simulator_client import (
    PahoDevice,
    RawClient,
    api_call,
    derive,
    dps_device,
    finish,
    group_key,
    hub_code,
    hub_device,
    hub_username,
    packet,
    provision,
    text,
    token,
)

from espdps.simulator import Error, Options, Simulator, Trouble, serving
from espdps.simulator.errors import ServiceError

HUB = "hub-1.localhost"
NAME = "dev"
KEY = base64.b64encode(b"k" * 32).decode()


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with serving(tmp_path_factory.mktemp("strict"), Options(retry_after=0, assigning=0)) as simulator:
        simulator.set_enrollment("boards", group=True, credential_policy=None)
        make(simulator, NAME)
        yield simulator


def make(sim: Simulator, id: str) -> int:
    body = {"deviceId": id, "authentication": {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}}
    return api_call(sim.info, "PUT", f"/devices/{quote(id, safe='')}", body)[0]


def online(sim: Simulator, id: str = NAME, **changes: object):  # type: ignore[no-untyped-def]  # a context manager
    return hub_device(sim.info, id, password=token(f"{HUB}/devices/{id}", KEY, skn=None), **changes)


# Filters


@pytest.mark.parametrize("topic_filter", ["devices/+/messages/devicebound/#", f"devices/{NAME}/messages/devicebound/#"])
def test_filters_for_messages(sim: Simulator, topic_filter: str) -> None:
    """C: the embedded SDK for C leaves the device's ID out."""
    with online(sim) as device:
        assert device.subscribe(topic_filter) == [1]
        sim.send_message(NAME, b"hello")
        answer = device.answer()
        assert (answer.topic.split("/messages/")[0], answer.body) == (f"devices/{NAME}", b"hello")


def test_filters_of_a_published_client(sim: Simulator) -> None:
    with online(sim) as device:
        assert device.subscribe("$iothub/methods/#") == [1]
        assert device.subscribe("$iothub/twin/res/200/#") == [1]
        device.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", "{}", qos=0)  # 204: not subscribed to
        device.publish("$iothub/twin/GET/?$rid=2", b"", qos=0)
        assert device.answer().rid == "2"


@pytest.mark.parametrize(
    "topic_filter",
    ["#", "$iothub/#", "devices/#", "devices/other/messages/devicebound/#", f"devices/{NAME}/messages/events/#"],
)
def test_filters_that_are_refused(sim: Simulator, topic_filter: str) -> None:
    with online(sim) as device:
        assert device.subscribe(topic_filter) == [128]


def test_five_subscriptions_and_no_more(sim: Simulator) -> None:
    filters = (
        f"devices/{NAME}/messages/devicebound/#", "$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#",
        "$iothub/methods/POST/#", "$iothub/methods/#",
    )  # fmt: skip
    with online(sim, clean=True) as device:
        assert [device.subscribe(one) for one in filters] == [[1]] * 5
        assert device.subscribe("$iothub/twin/res/200/#") == [128]
        assert device.subscribe(filters[0]) == [1]


# CONNECT


def test_mqtt_5_is_told_so(sim: Simulator) -> None:
    """S: return code 1 (MQTT-3.1.2-2), then the end. A CONNECT of MQTT 5 has properties that 3.1.1 cannot read."""
    five = packet(0x10, text("MQTT") + b"\5\2\0\x3c" + b"\5\x11\0\0\0\x0a" + text("dev"))
    with RawClient(sim.info) as client:
        client.send(five)
        assert client.packet() == (0x20, b"\0\1")
        assert client.ended()


def will_packet(sim: Simulator) -> bytes:
    username, password = hub_username(HUB, NAME), token(f"{HUB}/devices/{NAME}", KEY, skn=None)
    flags = 0x80 | 0x40 | 0x04 | 0x02  # user name, password, will, clean session
    parts = (NAME, f"devices/{NAME}/messages/events/kind=last", "gone", username, password)
    return packet(0x10, text("MQTT") + bytes([4, flags]) + struct.pack("!H", 60) + b"".join(map(text, parts)))


@pytest.mark.parametrize("graceful", [False, True])
def test_a_will_is_telemetry(sim: Simulator, graceful: bool) -> None:
    """D: iot-hub-mqtt-support. S: not after a DISCONNECT."""
    start = len(sim.events)
    with RawClient(sim.info, HUB) as client:
        client.send(will_packet(sim))
        assert client.packet() == (0x20, b"\0\0")
        if graceful:
            client.send(b"\xe0\0")
    sim.wait_event("hub.disconnect", after=start, device=NAME)
    wills = [event for event in sim.events[start:] if event["event"] == "hub.telemetry"]
    assert [(will["body"], will["properties"]) for will in wills] == (
        [] if graceful else [("gone", {"kind": "last", "iothub-MessageType": "Will"})]
    )


# Sizes


@pytest.mark.parametrize(("body", "value", "fits"), [(262138, 5, True), (262139, 5, False), (262000, 200, False)])
def test_properties_count_with_a_message(sim: Simulator, body: int, value: int, fits: bool) -> None:
    """D: 256 KB with the names and values of properties, and the values of system properties."""
    start = len(sim.events)
    with online(sim) as device:
        topic = f"devices/{NAME}/messages/events/p={'%C3%BC' * (value // 2)}{'v' * (value % 2)}"
        device.publish(topic, b"x" * body, qos=0)
        if fits:
            assert sim.wait_event("hub.telemetry", after=start, device=NAME)["properties"]["p"]
        else:
            assert device.disconnected.get(timeout=10)


def test_sizes_of_a_twin(sim: Simulator) -> None:
    """D: iot-hub-devguide-device-twins. Names and texts by characters, numbers 8, booleans 4; 8 KB of tags."""
    umlauts = {f"k{number}": "ü" * 2000 for number in range(8)}  # 16 KB counted, 32 KB of UTF-8, 96 KB of escapes
    assert api_call(sim.info, "PATCH", f"/twins/{NAME}", {"properties": {"desired": umlauts}})[0] == 200
    api_call(sim.info, "PATCH", f"/twins/{NAME}", {"properties": {"desired": None}})
    for tags, fits in (
        ({"a": "x" * 4095, "b": "x" * 4095}, True),
        ({"a": "x" * 4095, "b": "x" * 4094, "c": 1}, False),
        ({"a": "x" * 4095, "b": "x" * 4083, "c": 1, "d": True}, False),
        ({"a": "x" * 4095, "b": "x" * 4081, "c": 1, "d": True}, True),
        ({"a": "x" * 4095, "b": {"c": ["x" * 4095]}}, False),
    ):
        status, answer = api_call(sim.info, "PUT", f"/twins/{NAME}", {"tags": tags})
        assert status == (200 if fits else 400), tags.keys()
        assert (answer.get("tags") == tags) == fits
    api_call(sim.info, "PATCH", f"/twins/{NAME}", {"tags": None})


@pytest.mark.parametrize(
    "patch",
    [
        '{"list":[1,null]}',
        '{"list":[[null]]}',
        json.dumps({"ü" * 513: 1}, ensure_ascii=False),  # 1,026 bytes
        '{"a":NaN}',
        '{"a":-Infinity}',
        '{"a":1e400}',
        '{"a":"\\ud800"}',
        b'{"a":"\xff"}',
        '{"a":1}'.encode("utf-16"),
    ],
)
def test_what_cannot_be_reported(sim: Simulator, patch: str | bytes) -> None:
    with online(sim) as device:
        device.subscribe("$iothub/twin/res/#")
        before = sim.twin(NAME).reported_version
        device.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", patch, qos=0)
        answer = device.answer()
        assert (answer.status, answer.body["errorCode"], sim.twin(NAME).reported_version) == (400, 400004, before)


def test_letters_are_sent_as_they_are(sim: Simulator) -> None:
    with online(sim) as device:
        device.subscribe("$iothub/twin/PATCH/properties/desired/#")
        device.subscribe("$iothub/methods/POST/#")
        raw: list[bytes] = []
        device.client.on_message = lambda client, data, message: (raw.append(message.payload), device._done.put(1))  # type: ignore[misc]
        sim.desire(NAME, {"ort": "Köln 🔥"})
        device._done.get(timeout=10)
    assert "Köln 🔥".encode() in raw[0]
    sim.desire(NAME, {"ort": None})


def test_a_method_that_answers_nan(sim: Simulator) -> None:
    with online(sim) as device:
        device.subscribe("$iothub/methods/POST/#")
        device.client.on_message = lambda client, data, message: client.publish(  # type: ignore[assignment]
            f"$iothub/methods/res/200/?{message.topic.partition('?')[2]}", '{"a": NaN}'
        )
        with pytest.raises(ServiceError) as caught:
            sim.call_method(NAME, "odd")
    assert caught.value.status == 502


@pytest.mark.parametrize("name", ["a\x01", "a\x7f", "a\n", "a\u0085"])
def test_method_names_without_control_characters(sim: Simulator, name: str) -> None:
    status, error = api_call(sim.info, "POST", f"/twins/{NAME}/methods", {"methodName": name})
    assert (status, hub_code(error)) == (400, 400004)


def test_a_methods_payload_is_128_kb_at_most(sim: Simulator) -> None:
    """D: iot-hub-devguide-direct-methods. One of that size gets as far as the device, which is not there."""
    for size, status in ((131070, 404), (131071, 413)):
        body = {"methodName": "a", "payload": "x" * size}
        assert api_call(sim.info, "POST", f"/twins/{NAME}/methods", body)[0] == status


# Twins at the service side


def test_null_empties_a_section(sim: Simulator) -> None:
    """L. A device is told what is gone."""
    api_call(
        sim.info, "PATCH", f"/twins/{NAME}", {"tags": {"a": 1}, "properties": {"desired": {"b": 1, "c": {"d": 2}}}}
    )
    with online(sim) as device:
        device.subscribe("$iothub/twin/PATCH/properties/desired/#")
        patch = {"tags": None, "properties": {"desired": None}}
        status, twin = api_call(sim.info, "PATCH", f"/twins/{NAME}", patch)
        version = twin["properties"]["desired"]["$version"]
        assert (status, twin["tags"], twin["properties"]["desired"]) == (200, {}, {"$version": version})
        assert device.answer().body == {"b": None, "c": None, "$version": version}


def test_a_twin_is_replaced(sim: Simulator) -> None:
    """L: PUT. What is not in it goes; the service's own fields and what the device reported are not touched."""
    before = {"tags": {"a": 1, "b": 2}, "properties": {"desired": {"x": 1, "y": {"z": 1, "w": 1}}}}
    twin = api_call(sim.info, "PATCH", f"/twins/{NAME}", before)[1]
    twin["tags"] = {"b": 3}
    twin["properties"]["desired"]["y"] = {"z": 2}
    twin["properties"]["desired"]["$metadata"] = {"$lastUpdated": "2026-01-01T00:00:00Z"}
    status, after = api_call(sim.info, "PUT", f"/twins/{NAME}", twin, If_Match=f'"{twin["etag"]}"')
    assert (status, after["tags"]) == (200, {"b": 3})
    version = after["properties"]["desired"].pop("$version")
    assert (after["properties"]["desired"], version) == (
        {"x": 1, "y": {"z": 2}},
        twin["properties"]["desired"]["$version"] + 1,
    )
    api_call(sim.info, "PUT", f"/twins/{NAME}", {"tags": {}, "properties": {"desired": {}}})
    assert api_call(sim.info, "GET", f"/twins/{NAME}")[1]["tags"] == {}


def test_a_version_within_a_patch_is_taken(sim: Simulator) -> None:
    """C."""
    patch = {"properties": {"desired": {"$version": 77, "n": 1}}}
    status, twin = api_call(sim.info, "PATCH", f"/twins/{NAME}", patch)
    assert (status, twin["properties"]["desired"]["n"]) == (200, 1)
    assert twin["properties"]["desired"]["$version"] != 77
    api_call(sim.info, "PATCH", f"/twins/{NAME}", {"properties": {"desired": None}})


# IDs


SPECIAL = "aZ9-.+%_#*?!(),:=@$'"


@pytest.mark.parametrize(
    "id", ["dev@site", "dev%41", "dev(1)", "it's", "a$b", "a,b", "a=b", "a*b", "a!b", "a?b", "a+b", "a#b", SPECIAL]
)
def test_device_ids(sim: Simulator, id: str) -> None:
    """D: in the user name as they are, in topics escaped (as the SDKs do) or not."""
    assert make(sim, id) == 200
    assert api_call(sim.info, "GET", f"/devices/{quote(id, safe='')}")[1]["deviceId"] == id
    start = len(sim.events)
    with online(sim, id) as device:
        assert device.connack.value == 0
        level = quote(id, safe="")
        assert device.subscribe(f"devices/{level}/messages/devicebound/#") == [1]
        device.publish(f"devices/{level}/messages/events/", b"escaped")
        assert sim.wait_event("hub.telemetry", after=start, device=id)["body"] == "escaped"
        sim.send_message(id, b"down")
        assert device.answer().topic.startswith(f"devices/{level}/messages/devicebound/")
        if not set("+#") & set(id):
            device.publish(f"devices/{id}/messages/events/", b"plain")
            sim.wait_event("hub.telemetry", after=start, device=id, body="plain")


@pytest.mark.parametrize("id", ["a b", "a&b", "a/b", "dév", "a;b", "a~b", "x" * 129])
def test_what_is_no_device_id(sim: Simulator, id: str) -> None:
    assert make(sim, id) in (400, 404)


def test_an_enrollment_may_name_such_a_device(sim: Simulator) -> None:
    body = {"attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY}}, "deviceId": "pump (1)"}
    assert api_call(sim.info, "PUT", "/enrollments/reg-1", body)[0] == 400
    assert api_call(sim.info, "PUT", "/enrollments/reg-1", {**body, "deviceId": "pump(1)@site"})[0] == 200
    with dps_device(sim.info, "reg-1", KEY) as device:
        assert finish(device, "reg-1")["registrationState"]["deviceId"] == "pump(1)@site"


def test_case_counts_at_a_hub(sim: Simulator) -> None:
    """D."""
    assert make(sim, "Pump") == make(sim, "pump") == 200
    generations = {api_call(sim.info, "GET", f"/devices/{id}")[1]["generationId"] for id in ("Pump", "pump")}
    assert len(generations) == 2
    assert api_call(sim.info, "GET", "/devices/PUMP")[0] == 404
    start = len(sim.events)
    with online(sim, "Pump") as one, online(sim, "pump") as two:
        two.publish("devices/pump/messages/events/", b"mine")
        sim.wait_event("hub.telemetry", after=start, device="pump")
        one.publish("devices/pump/messages/events/", b"not mine", qos=0)
        assert one.disconnected.get(timeout=10)
    assert api_call(sim.info, "DELETE", "/devices/pump", If_Match="*")[0] == 204
    assert api_call(sim.info, "GET", "/devices/Pump")[0] == 200


def test_another_spelling_does_not_take_a_device_over(sim: Simulator) -> None:
    """D: a registration ID is the same in any case, a device's is not: the first spelling is the device."""
    keys = {id: derive(group_key(sim.info), id) for id in ("Board-1", "board-1")}
    start = len(sim.events)
    for id, key in keys.items():
        with dps_device(sim.info, id, key) as device:
            assert finish(device, id)["registrationState"]["deviceId"] == "Board-1"
    for id, key in keys.items():
        password = token(f"{HUB}/devices/{id}", key, skn=None)
        with hub_device(sim.info, id, password=password) as at_hub:
            assert (at_hub.connack.value == 0) == (id == "Board-1")
    assert [
        one["deviceId"] for one in api_call(sim.info, "GET", "/devices")[1] if one["deviceId"].lower() == "board-1"
    ] == ["Board-1"]
    assert start < len(sim.events)


def test_a_device_is_deleted_with_if_match_alone(sim: Simulator) -> None:
    """D: the header is required."""
    make(sim, "kept")
    status, error = api_call(sim.info, "DELETE", "/devices/kept")
    assert (status, hub_code(error)) == (412, 412001)
    assert api_call(sim.info, "DELETE", "/devices/kept", If_Match="*")[0] == 204


# Renewal


def test_400037_with_and_without_info(tmp_path: Path) -> None:
    """Seen with credentialMessage and credentialError, which some answers lack: both can be had."""
    with serving(tmp_path / "sim", Options(retry_after=0, assigning=0)) as sim:
        _, pem = provision(sim.info, "dev", tmp_path)
        with hub_device(sim.info, "dev", pem, version="2025-08-01-preview") as device:
            device.subscribe("$iothub/credentials/res/#")
            bad = renewed(device, "1111")
            assert (bad["errorCode"], bad["info"]["credentialError"]) == (400037, "400000")
            for info in (None, {"credentialMessage": "CSR did not pass verification"}):
                sim.trouble = Trouble({"hub.renewal.result": Error(400, 400037, "no", info=info)})
                assert renewed(device, "2222")["info"] == info


def renewed(device: PahoDevice, rid: str) -> dict[str, object]:
    """The last answer to a request with a CSR that is none."""
    body = json.dumps({"id": "dev", "csr": base64.b64encode(b"no CSR").decode()})
    device.publish(f"$iothub/credentials/POST/issueCertificate/?$rid={rid}", body)
    assert device.answer().status == 202
    answer: dict[str, object] = device.answer().body
    return answer


def test_a_body_at_dps_is_utf8(sim: Simulator) -> None:
    with dps_device(sim.info, "utf") as device:
        device.publish("$dps/registrations/PUT/iotdps-register/?$rid=1", '{"payload":NaN}')
        assert device.answer().body["errorCode"] == 400012
        device.publish("$dps/registrations/PUT/iotdps-register/?$rid=2", '{"registrationId":"utf"}'.encode("utf-16"))
        assert device.answer().body["errorCode"] == 400012
