"""Microsoft's service SDKs as they come from PyPI take the simulator for Azure, as far as they speak HTTPS.

What they exercise, without a changed file or function of their own. azure-iot-hub: a device and all devices of the
registry, disabling and enabling by etag, deleting, the counts, the query for all twins in pages, a twin with its tags
and desired properties, by etag too, and methods with all that may come of them. Its messages to devices go by AMQP,
which the simulator does not speak. azure-iot-deviceprovisioning (a beta is all there is of it): groups and individual
enrollments created, read, changed by etag and deleted, and a registration read and deleted.

How they get here: names at port 443 are built into them, so the environment names an HTTPS proxy that takes 443 to the
simulator's port (HTTPS_PROXY), and the simulator's root (REQUESTS_CA_BUNDLE): what any network with a proxy of its own
would set. They verify host names as always.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sdk import Proxy, Sdk, SdkError, proxy
from simulator_client import PahoDevice, derive, dps_device, finish, group_key, hub_device, provision

from espdps.simulator import Options, Simulator, serving

HUB = "hub-1.localhost"


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    options = Options(retry_after=0, assigning=0, hubs=(HUB, "hub-2.localhost"))
    with serving(tmp_path_factory.mktemp("sim"), options) as simulator:
        simulator.set_enrollment("boards", group=True, hubs=(HUB,))
        yield simulator


@pytest.fixture(scope="module")
def via(sim: Simulator) -> Iterator[Proxy]:
    with proxy(sim.info) as server:
        yield server


@pytest.fixture(scope="module")
def sdk(sim: Simulator, via: Proxy) -> Iterator[Sdk]:
    process = Sdk("sdk_service.py", via, sim.info["roots"])
    try:
        policy = sim.info["service_policy"]
        process.do("open", hub=HUB, dps="localhost", policy=policy["name"], key=policy["key"])
        yield process
    finally:
        process.close()


@contextmanager
def online(sim: Simulator, id: str, folder: Path) -> Iterator[PahoDevice]:
    """A device at the hub that takes methods and desired properties."""
    _, chain = provision(sim.info, id, folder)
    with hub_device(sim.info, id, chain) as device:
        device.subscribe("$iothub/methods/POST/#")
        device.subscribe("$iothub/twin/PATCH/properties/desired/#")
        yield device


def refused(status: int, sdk: Sdk, step: str, /, **arguments: Any) -> SdkError:
    with pytest.raises(SdkError) as raised:
        sdk.do(step, **arguments)
    assert raised.value.status == status, raised.value
    return raised.value


# The hub


def test_a_device_is_read_disabled_and_enabled(sdk: Sdk, sim: Simulator, via: Proxy, tmp_path: Path) -> None:
    with online(sim, "service-1", tmp_path) as device:
        via.asked.clear()
        record = sdk.do("device", id="service-1")
        assert (record["device_id"], record["status"], record["connection_state"]) == (
            "service-1",
            "enabled",
            "Connected",
        )
        assert record["authentication"]["type"] == "certificateAuthority"
        off = sdk.do("set_status", id="service-1", etag=record["etag"], status="disabled")
        assert (off["status"], off["etag"] == record["etag"]) == ("disabled", False)
        assert device.disconnected.get(timeout=10)
        assert set(via.asked) <= {f"{HUB}:443"}
    refused(412, sdk, "set_status", id="service-1", etag=record["etag"], status="enabled")
    assert not sim.device("service-1").enabled
    assert sdk.do("set_status", id="service-1", etag=off["etag"], status="enabled")["status"] == "enabled"
    assert sdk.do("set_status", id="service-1", etag=None, status="enabled")["connection_state"] == "Disconnected"


def test_a_device_is_deleted(sdk: Sdk, sim: Simulator, tmp_path: Path) -> None:
    provision(sim.info, "service-2", tmp_path)
    refused(412, sdk, "delete_device", id="service-2", etag="AAAA")
    sdk.do("delete_device", id="service-2")
    refused(404, sdk, "device", id="service-2")
    refused(404, sdk, "delete_device", id="service-2")


def test_the_registry(sdk: Sdk, sim: Simulator, tmp_path: Path) -> None:
    """And of this hub only."""
    for number in range(3):
        provision(sim.info, f"listed-{number}", tmp_path)
    sim.add_individual("elsewhere", key := derive(group_key(sim.info), "any"), hubs=("hub-2.localhost",))
    provision(sim.info, "elsewhere", tmp_path, key)
    sim.set_device("listed-1", False)
    listed = sdk.do("devices")
    here = {record["device_id"]: record["status"] for record in listed}
    assert here["listed-0"] == "enabled" and here["listed-1"] == "disabled" and "elsewhere" not in here
    statistics = sdk.do("statistics")
    total, disabled = len(listed), list(here.values()).count("disabled")
    assert statistics["registry"] == {
        "total_device_count": total, "enabled_device_count": total - disabled, "disabled_device_count": disabled,
    }  # fmt: skip
    with online(sim, "listed-2", tmp_path):
        assert sdk.do("statistics")["service"] == {"connected_device_count": 1}

    pages = [sdk.do("query", text="SELECT * FROM devices", page=2)]
    while pages[-1]["token"]:
        pages.append(sdk.do("query", text="SELECT * FROM devices", page=2, token=pages[-1]["token"]))
    assert len(pages) == (total + 1) // 2
    assert [twin["device_id"] for page in pages for twin in page["items"]] == list(here)
    refused(400, sdk, "query", text="DELETE FROM devices")


def test_the_twin(sdk: Sdk, sim: Simulator, tmp_path: Path) -> None:
    with online(sim, "service-3", tmp_path) as device:
        before = sdk.do("twin", id="service-3")
        after = sdk.do("update_twin", id="service-3", desired={"interval": 5}, tags={"room": "a"}, etag=before["etag"])
        patch = device.answer()
        assert patch.body == {"interval": 5, "$version": 2}
        assert after["tags"] == {"room": "a"}
        assert after["properties"]["desired"] == {"interval": 5, "$version": 2}
        assert after["version"] == before["version"] + 2
        refused(412, sdk, "update_twin", id="service-3", desired={"interval": 6}, etag=before["etag"])
        device.subscribe("$iothub/twin/res/#")
        device.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", '{"interval": 5}')
        assert device.answer().status == 204
    reported = sdk.do("twin", id="service-3")
    assert reported["properties"]["reported"] == {"interval": 5, "$version": 2}
    assert (reported["etag"], reported["version"]) == (after["etag"], after["version"] + 1)
    assert reported["device_etag"] == before["device_etag"] == sdk.do("device", id="service-3")["etag"]
    assert sdk.do("update_twin", id="service-3", desired={"interval": None})["properties"]["desired"] == {"$version": 3}
    refused(400, sdk, "update_twin", id="service-3", desired={"a b": 1})
    refused(404, sdk, "twin", id="nobody")


def test_methods(sdk: Sdk, sim: Simulator, tmp_path: Path) -> None:
    with online(sim, "service-4", tmp_path) as device:
        for status, result in ((200, {"done": [1, None]}), (500, "broken")):
            sdk.begin("call", id="service-4", method="blink", payload={"times": 3})
            call = device.answer()
            assert (call.topic.split("?")[0], call.body) == ("$iothub/methods/POST/blink/", {"times": 3})
            device.publish(f"$iothub/methods/res/{status}/?$rid={call.rid}", json.dumps(result))
            assert sdk.end() == {"status": status, "payload": result}
    refused(404, sdk, "call", id="service-4", method="blink", payload=None)


# DPS


def group(id: str, **fields: Any) -> dict[str, Any]:
    return {"enrollmentGroupId": id, "attestation": {"type": "symmetricKey", "symmetricKey": {}}, **fields}


def test_a_group(sdk: Sdk, sim: Simulator) -> None:
    made = sdk.do("enroll", kind="group", id="made", body=group("made", provisioningStatus="enabled"))
    assert (made["enrollmentGroupId"], made["provisioningStatus"]) == ("made", "enabled")
    key = sim.group("made").primary_key
    with dps_device(sim.info, "made-1", derive(key, "made-1")) as device:
        assert finish(device, "made-1")["status"] == "assigned"
    registration = sdk.do("registration", id="made-1")
    assert (registration["status"], registration["deviceId"]) == ("assigned", "made-1")
    sdk.do("delete_registration", id="made-1")
    refused(404, sdk, "registration", id="made-1")

    found = sdk.do("enrollment", kind="group", id="made")
    assert found["etag"] == made["etag"]
    off = sdk.do(
        "enroll", kind="group", id="made", body={**found, "provisioningStatus": "disabled"}, if_match=found["etag"]
    )
    assert (off["provisioningStatus"], sim.group("made").primary_key) == ("disabled", key)
    refused(409, sdk, "enroll", kind="group", id="made", body=found, if_match=found["etag"])
    refused(409, sdk, "unenroll", kind="group", id="made", if_match=found["etag"])
    sdk.do("unenroll", kind="group", id="made", if_match=off["etag"])
    refused(404, sdk, "enrollment", kind="group", id="made")


def test_an_individual_enrollment(sdk: Sdk, sim: Simulator) -> None:
    key = derive(group_key(sim.info), "whatever")
    attestation = {"type": "symmetricKey", "symmetricKey": {"primaryKey": key, "secondaryKey": key}}
    body = {"registrationId": "single", "deviceId": "pump-9", "attestation": attestation}
    made = sdk.do("enroll", kind="enrollment", id="single", body=body)
    assert (made["registrationId"], made["deviceId"]) == ("single", "pump-9")
    with dps_device(sim.info, "single", key) as device:
        assert finish(device, "single")["registrationState"]["deviceId"] == "pump-9"
    assert sdk.do("enrollment", kind="enrollment", id="single")["etag"] == made["etag"]
    sdk.do("unenroll", kind="enrollment", id="single")
    refused(404, sdk, "enrollment", kind="enrollment", id="single")


def test_a_wrong_policy_key_is_refused(sdk: Sdk, sim: Simulator, via: Proxy) -> None:
    other = Sdk("sdk_service.py", via, sim.info["roots"])
    try:
        wrong = derive(sim.info["service_policy"]["key"], "wrong")
        other.do("open", hub=HUB, dps="localhost", policy=sim.info["service_policy"]["name"], key=wrong)
        refused(401, other, "device", id="service-1")
        refused(401, other, "enrollment", kind="group", id="boards")
    finally:
        other.close()
