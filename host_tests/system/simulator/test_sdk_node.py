"""Microsoft's SDKs for Node as they come from npm take the simulator for Azure; left out where npm is missing.

What they exercise, without a changed file or function of their own, in one process: azure-iot-provisioning-device with
a symmetric key and with a certificate; azure-iot-device with both: telemetry with properties, a message, a method, the
twin both ways; azure-iothub: devices with keys created, listed, disabled, deleted, twins with tags, queries in
pages, methods; azure-iot-provisioning-service: enrollments by symmetric key, their keys, queries, registrations.

How they get here: hosts at ports 8883 and 443 are built into them, so a module that Node loads first takes those two
ports to the simulator's, as a rule of a firewall would. They trust its root by Node's own NODE_EXTRA_CA_CERTS and verify
host names as always.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pki import Authority, private_pem
from sdk import Sdk, SdkError, proxy
from simulator_client import derive, group_key

from espdps.simulator import Options, Simulator, serving

HUB = "hub-1.localhost"


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with serving(tmp_path_factory.mktemp("sim"), Options(retry_after=1, assigning=1)) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sdk(sim: Simulator) -> Iterator[Sdk]:
    with proxy(sim.info) as via:
        process = Sdk("sdk_node.js", via, sim.info["roots"])
        try:
            policy = sim.info["service_policy"]
            process.do("open", hub=HUB, dps="localhost", policy=policy["name"], key=policy["key"])
            yield process
        finally:
            process.close()


def refused(status: int, sdk: Sdk, step: str, /, **words: Any) -> SdkError:
    with pytest.raises(SdkError) as raised:
        sdk.do(step, **words)
    assert raised.value.status == status, raised.value
    return raised.value


def test_a_device(sdk: Sdk, sim: Simulator) -> None:
    """Registered by a key derived from the group's, then everything that a device does, and the backend with it."""
    id, key = "node-1", derive(group_key(sim.info), "node-1")
    found = sdk.do("register", host="localhost", id=id, scope=sim.info["id_scope"], key=key, payload={"model": "c3"})
    assert (found["assignedHub"], found["deviceId"], found["status"]) == (HUB, id, "assigned")
    with pytest.raises(SdkError):
        sdk.do("register", host="localhost", id=id, scope=sim.info["id_scope"], key=derive(key, id))

    sdk.do("connect", host=HUB, id=id, key=key)
    sdk.do("send", body='{"t": 21.5}', properties={"ünit": "°C/%", "alert": "a & b"})
    event = sim.wait_event("hub.telemetry", device=id)
    assert (event["body"], event["qos"]) == ('{"t": 21.5}', 1)
    assert {"ünit": "°C/%", "alert": "a & b", "$.mid": "m 1", "$.ct": "application/json"}.items() <= event[
        "properties"
    ].items()

    number = sim.send_message(id, b"open the window", {"floor": "2 & 3"})
    heard = sdk.hear("message")
    assert (heard["body"], heard["id"]) == ("open the window", number)
    assert {"key": "floor", "value": "2 & 3"} in heard["properties"]
    sim.wait_event("hub.c2d", device=id, state="completed", message_id=number)

    assert sdk.do("call", id=id, name="echo", payload={"a": [1, "ü"]}) == {
        "status": 200,
        "payload": {"echo": {"a": [1, "ü"]}},
    }
    sdk.do("report", patch={"fan": {"rpm": 900}})
    assert sim.twin(id).reported == {"fan": {"rpm": 900}}
    after = sdk.do("update_twin", id=id, patch={"tags": {"ort": "Köln"}, "properties": {"desired": {"interval": 5}}})
    assert (after["tags"], after["properties"]["desired"]["interval"]) == ({"ort": "Köln"}, 5)
    while sdk.hear("desired")["patch"].get("interval") != 5:
        pass  # the SDK tells the twin as it was first
    after = sdk.do("update_twin", id=id, patch={"properties": {"desired": None}})
    assert after["properties"]["desired"].keys() == {"$version"}
    sdk.do("leave")
    refused(404, sdk, "call", id=id, name="echo", payload=None)


def test_a_device_with_a_certificate(sdk: Sdk, sim: Simulator, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = Authority("nobody").issue("node-x509", key)
    (tmp_path / "both.pem").write_bytes(certificate + private_pem(key))
    sim.add_individual("node-x509", certificates=[certificate])
    pem = str(tmp_path / "both.pem")
    found = sdk.do("register", host="localhost", id="node-x509", scope=sim.info["id_scope"], pem=pem)
    assert found["status"] == "assigned"
    sdk.do("connect", host=HUB, id="node-x509", pem=pem)
    assert sim.wait_event("hub.connect", device="node-x509")["auth"] == "x509"
    sdk.do("leave")


def test_the_registry(sdk: Sdk, sim: Simulator) -> None:
    made = sdk.do("create", device={"deviceId": "Shop(1)@site", "status": "enabled"})
    assert made["deviceId"] == "Shop(1)@site"
    assert made["generationId"]
    assert len(base64.b64decode(made["authentication"]["symmetricKey"]["primaryKey"])) >= 32
    again = refused(409, sdk, "create", device={"deviceId": "Shop(1)@site"})
    assert again.kind == "DeviceAlreadyExistsError"
    off = sdk.do("update", device={**made, "status": "disabled"})
    assert (off["status"], off["etag"] == made["etag"]) == ("disabled", False)
    refused(412, sdk, "update_twin", id="Shop(1)@site", patch={"tags": {"a": 1}}, etag="AAAA")
    for number in range(3):
        sdk.do("create", device={"deviceId": f"listed-{number}"})
    here = [one["deviceId"] for one in sdk.do("list")]
    assert {"Shop(1)@site", "listed-0", "listed-1", "listed-2"} <= set(here)
    pages = sdk.do("query", text="SELECT * FROM devices", size=2)
    assert [id for page in pages for id in page] == here and len(pages) == (len(here) + 1) // 2
    sdk.do("remove", id="Shop(1)@site")
    missing = refused(404, sdk, "get", id="Shop(1)@site")
    assert missing.kind == "DeviceNotFoundError"
    refused(501, sdk, "query", text="SELECT * FROM devices WHERE tags.a = 1", size=2)
    refused(501, sdk, "bulk", devices=[{"deviceId": "bulk-1"}])


def test_enrollments(sdk: Sdk, sim: Simulator) -> None:
    body = {"registrationId": "node-own", "deviceId": "pump-7", "attestation": {"type": "symmetricKey"}}
    made = sdk.do("enroll", body=body)
    keys = made["attestation"]["symmetricKey"]
    assert sdk.do("keys", id="node-own")["symmetricKey"] == keys
    found = sdk.do("register", host="localhost", id="node-own", scope=sim.info["id_scope"], key=keys["primaryKey"])
    assert found["deviceId"] == "pump-7"
    assert sdk.do("registration", id="node-own")["assignedHub"] == HUB
    for query in ({"query": "SELECT *"}, {"query": "*"}, {"query": "any"}):
        assert "node-own" in [one["registrationId"] for one in sdk.do("enrollments", query=query)]
    static = {**body, "registrationId": "node-static", "allocationPolicy": "static"}
    assert sdk.do("enroll", body=static)["allocationPolicy"] == "static"
    group = {
        "enrollmentGroupId": "node-group",
        "attestation": {"type": "symmetricKey"},
        "provisioningStatus": "enabled",
    }
    assert len(sdk.do("enroll_group", body=group)["attestation"]["symmetricKey"]["primaryKey"]) == 88
    assert sdk.do("registrations", query={"query": "*"}, group="node-group") == []
    refused(409, sdk, "unenroll", id="node-own", etag='"other"')
    sdk.do("unenroll", id="node-own", etag=made["etag"])
    refused(404, sdk, "enrollment", id="node-own")
