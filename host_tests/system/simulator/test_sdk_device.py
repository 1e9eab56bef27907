"""azure-iot-device, Microsoft's own device SDK as it comes from PyPI, takes the simulator for Azure.

What it exercises, without a changed file or function of its own: registration by ProvisioningDeviceClient with a
symmetric key (individual, and derived from a group's) and with X.509 (individual, and by a group's signer), its payload
to custom allocation and the answer's, refusals and throttling; IoTHubDeviceClient with token, with the enrolled
certificate and with one that DPS has issued: telemetry with properties, messages to the device, methods (answered,
unknown, failing, and without a device that takes them), the twin and its patches both ways, what it does after a
cut and when its token ends.

How it gets here: hosts at port 8883 are built into it, so it is given an HTTP proxy (its option ``proxy_options``) that
takes 8883 to the simulator's port, and the simulator's root (its option ``server_verification_cert``). It verifies host
names as always. It sends no CSR (no release of it does), so the issued certificate is fetched by another client.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pki import Authority, private_pem
from sdk import Proxy, Sdk, SdkError, proxy
from simulator_client import derive, group_key, provision

from espdps.simulator import Assigning, Cut, Error, Options, Simulator, State, Trouble, serving

HUB = "hub-1.localhost"


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with serving(tmp_path_factory.mktemp("sim"), Options(assigning=0)) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def via(sim: Simulator) -> Iterator[Proxy]:
    with proxy(sim.info) as server:
        yield server


@pytest.fixture
def sdk(sim: Simulator, via: Proxy) -> Iterator[Sdk]:
    process = Sdk("sdk_device.py", via, sim.info["roots"])
    try:
        yield process
    finally:
        process.close()
        sim.trouble = Trouble()


def register(sdk: Sdk, sim: Simulator, via: Proxy, id: str, **credential: Any) -> dict[str, Any]:
    result: dict[str, Any] = sdk.do(
        "register", host="localhost", id=id, scope=sim.info["id_scope"], roots=sim.info["roots"], proxy=via.port,
        **credential,
    )  # fmt: skip
    return result


def connect(sdk: Sdk, sim: Simulator, via: Proxy, id: str, **credential: Any) -> None:
    sdk.do("connect", hub=HUB, id=id, roots=sim.info["roots"], proxy=via.port, **credential)


def client_certificate(folder: Path, name: str, authority: Authority) -> tuple[Path, bytes]:
    """A PEM with certificate and key, and the certificate alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority.issue(name, key)
    path = folder / f"{name}.pem"
    path.write_bytes(certificate + private_pem(key))
    return path, certificate


# Registration


def test_a_key_derived_from_the_groups(sdk: Sdk, sim: Simulator, via: Proxy) -> None:
    via.asked.clear()
    result = register(sdk, sim, via, "sdk-derived", key=derive(group_key(sim.info), "sdk-derived"))
    assert via.asked == ["localhost:8883"]
    assert result["status"] == "assigned"
    assert (result["hub"], result["device"], result["substatus"]) == (HUB, "sdk-derived", "initialAssignment")
    assert result["operation"] and result["etag"]
    assert sim.wait_event("dps.connect", device="sdk-derived")["auth"] == "sas"


def test_an_individual_key_and_another_device_id(sdk: Sdk, sim: Simulator, via: Proxy) -> None:
    enrollment = sim.add_individual("sdk-own-key", device_id="pump-7")
    result = register(sdk, sim, via, "sdk-own-key", key=enrollment.primary_key)
    assert (result["status"], result["device"]) == ("assigned", "pump-7")


def test_an_individual_certificate(sdk: Sdk, sim: Simulator, via: Proxy, tmp_path: Path) -> None:
    """At DPS and then at the hub."""
    pem, certificate = client_certificate(tmp_path, "sdk-own-cert", Authority("nobody"))
    sim.add_individual("sdk-own-cert", certificates=[certificate])
    assert register(sdk, sim, via, "sdk-own-cert", pem=str(pem))["status"] == "assigned"
    connect(sdk, sim, via, "sdk-own-cert", pem=str(pem))
    assert sim.wait_event("hub.connect", device="sdk-own-cert")["auth"] == "x509"


def test_a_certificate_by_the_signer_of_a_group(sdk: Sdk, sim: Simulator, via: Proxy, tmp_path: Path) -> None:
    root = Authority("sdk root")
    sim.add_group("sdk-signed", signers=[root.pem])
    pem, _ = client_certificate(tmp_path, "sdk-signed-1", root)
    assert register(sdk, sim, via, "sdk-signed-1", pem=str(pem))["status"] == "assigned"
    connect(sdk, sim, via, "sdk-signed-1", pem=str(pem))
    assert sim.wait_event("hub.connect", device="sdk-signed-1")["auth"] == "x509"


def test_waits_while_assigning(sdk: Sdk, sim: Simulator, via: Proxy) -> None:
    sim.set_trouble("sdk-waits", Trouble({"assigning": Assigning(2, 1)}))
    assert register(sdk, sim, via, "sdk-waits", key=derive(group_key(sim.info), "sdk-waits"))["status"] == "assigned"
    assert (
        len([event for event in sim.events if (event["event"], event["device"]) == ("dps.assigning", "sdk-waits")]) == 2
    )


def test_registers_again_when_throttled(sdk: Sdk, sim: Simulator, via: Proxy) -> None:
    sim.set_trouble("sdk-slower", Trouble({"register": Error(429, 429001, "too many", 1)}))
    before = len(sim.events)
    sdk.begin(
        "register", host="localhost", id="sdk-slower", scope=sim.info["id_scope"], roots=sim.info["roots"], proxy=via.port,
        key=derive(group_key(sim.info), "sdk-slower"),
    )  # fmt: skip
    sim.wait_event("dps.answer", after=before, device="sdk-slower", status=429)
    sim.set_trouble("sdk-slower", Trouble())
    assert sdk.end()["status"] == "assigned"


def test_payload_and_what_custom_allocation_answers(sdk: Sdk, sim: Simulator, via: Proxy) -> None:
    seen: list[dict[str, Any]] = []

    def allocate(context: dict[str, Any]) -> dict[str, Any]:
        seen.append(context)
        return {"payload": {"room": 12, "for": context["payload"]["model"]}}

    sim.allocate = allocate
    try:
        key = derive(group_key(sim.info), "sdk-payload")
        result = register(sdk, sim, via, "sdk-payload", key=key, payload={"model": "x 1"})
    finally:
        sim.allocate = None
    assert seen[0]["payload"] == {"model": "x 1"}
    assert result["payload"] == {"room": 12, "for": "x 1"}


def test_failed_and_disabled_are_told(sdk: Sdk, sim: Simulator, via: Proxy) -> None:
    sim.set_trouble("sdk-failed", Trouble({"register": State("failed", 400207, "no hub")}))
    with pytest.raises(SdkError) as raised:
        register(sdk, sim, via, "sdk-failed", key=derive(group_key(sim.info), "sdk-failed"))
    assert "failed registration status" in str(raised.value)
    disabled = sim.add_individual("sdk-disabled", provisioning_status="disabled")
    with pytest.raises(SdkError) as raised:
        register(sdk, sim, via, "sdk-disabled", key=disabled.primary_key)
    assert "disabled" in str(raised.value)


def test_a_wrong_key_and_a_strange_scope_are_refused(sdk: Sdk, sim: Simulator, via: Proxy) -> None:
    with pytest.raises(SdkError) as raised:
        register(sdk, sim, via, "sdk-wrong", key=derive(derive(group_key(sim.info), "x"), "sdk-wrong"))
    assert "401" in str(raised.value)
    with pytest.raises(SdkError) as raised:
        sdk.do(
            "register", host="localhost", id="sdk-wrong", scope="0ne0", roots=sim.info["roots"], proxy=via.port,
            key=group_key(sim.info),
        )  # fmt: skip
    assert raised.value.kind in ("CredentialError", "ConnectionFailedError")


# The hub


@pytest.fixture
def device(sdk: Sdk, sim: Simulator, via: Proxy, request: pytest.FixtureRequest) -> str:
    """Registered and connected; its id."""
    id = request.node.name.replace("_", "-").removeprefix("test-")
    key = derive(group_key(sim.info), id)
    assert register(sdk, sim, via, id, key=key)["status"] == "assigned"
    connect(sdk, sim, via, id, key=key)
    assert sdk.hear("connection")["connected"]
    return id


def test_telemetry_with_properties(sdk: Sdk, sim: Simulator, device: str) -> None:
    sdk.do("send", body='{"t": 21.5}', properties={"alert": "a & b = c", "ünit": "°C/%"}, message_id="m+1")
    event = sim.wait_event("hub.telemetry", device=device)
    assert (event["body"], event["qos"]) == ('{"t": 21.5}', 1)
    assert event["properties"] == {
        "$.mid": "m+1", "$.cid": "c 1/2", "$.ct": "application/json", "$.ce": "utf-8", "alert": "a & b = c", "ünit": "°C/%",
    }  # fmt: skip


def test_messages_to_the_device(sdk: Sdk, sim: Simulator, device: str) -> None:
    number = sim.send_message(device, b"open the window", {"floor": "2 & 3"})
    heard = sdk.hear("message")
    assert (heard["body"], heard["id"], heard["properties"]) == ("open the window", number, {"floor": "2 & 3"})
    sim.wait_event("hub.c2d", device=device, state="completed", message_id=number)


def test_methods(sdk: Sdk, sim: Simulator, device: str) -> None:
    assert sim.call_method(device, "echo", {"a": [1, None, "ü"]}) == (200, {"echo": {"a": [1, None, "ü"]}})
    assert sim.call_method(device, "broken") == (500, {"why": "it broke"})
    assert sim.call_method(device, "unheard-of", 5) == (404, None)
    assert [sdk.hear("method")["payload"] for _ in range(3)] == [{"a": [1, None, "ü"]}, None, 5]


def test_the_twin_both_ways(sdk: Sdk, sim: Simulator, device: str) -> None:
    assert sdk.do("twin") == {"desired": {"$version": 1}, "reported": {"$version": 1}}
    sdk.do("report", patch={"fan": {"rpm": 900, "mode": "auto"}, "gone": 1})
    sdk.do("report", patch={"fan": {"mode": "off"}, "gone": None})
    assert sim.twin(device).reported == {"fan": {"rpm": 900, "mode": "off"}}
    version = sim.desire(device, {"interval": 5, "old": None})
    assert sdk.hear("desired")["patch"] == {"interval": 5, "old": None, "$version": version}
    assert sdk.do("twin")["desired"] == {"interval": 5, "$version": version}
    with pytest.raises(SdkError) as raised:
        sdk.do("report", patch={"too": {"much": "x" * 5000}})
    assert "400" in str(raised.value)


def test_an_answer_429_of_the_hub_is_an_error(sdk: Sdk, sim: Simulator, device: str) -> None:
    sim.set_trouble(device, Trouble({"hub.twin": Error(429, 429001, "too many", 10)}))
    with pytest.raises(SdkError) as raised:
        sdk.do("twin")
    assert "429" in str(raised.value)


def test_comes_back_after_a_cut(sdk: Sdk, sim: Simulator, device: str) -> None:
    """Subscriptions too: a message that waited arrives, and methods work."""
    sim.set_trouble(device, Trouble({"hub.telemetry": Cut()}))
    before = len(sim.events)
    sdk.do("send_later", body="lost and sent again", properties={})
    sim.wait_event("closed", device=device, reason="cut by script", after=before)
    sim.set_trouble(device, Trouble())
    while not sdk.hear("connection")["connected"]:
        pass
    assert sim.wait_event("hub.telemetry", device=device, after=before)["body"] == "lost and sent again"
    sim.send_message(device, b"again", {})
    assert sdk.hear("message")["body"] == "again"
    assert sim.call_method(device, "echo", 1) == (200, {"echo": 1})


def test_renews_its_token(sdk: Sdk, sim: Simulator, via: Proxy) -> None:
    """The SDK does so two minutes before its end, by another connection with the same subscriptions."""
    key, before = derive(group_key(sim.info), "sdk-renews"), len(sim.events)
    register(sdk, sim, via, "sdk-renews", key=key)
    connect(sdk, sim, via, "sdk-renews", key=key, token_life=122)
    first = sim.wait_event("hub.connect", device="sdk-renews", after=before)
    sim.wait_event("hub.connect", device="sdk-renews", after=sim.events.index(first) + 1, timeout=60)
    assert sim.call_method("sdk-renews", "echo", 1) == (200, {"echo": 1})


def test_an_issued_certificate_is_as_good_as_any(sdk: Sdk, sim: Simulator, via: Proxy, tmp_path: Path) -> None:
    _, pem = provision(sim.info, "sdk-issued", tmp_path)
    connect(sdk, sim, via, "sdk-issued", pem=str(pem))
    sdk.do("send", body="{}", properties={})
    assert sim.wait_event("hub.connect", device="sdk-issued")["auth"] == "x509"
    sim.wait_event("hub.telemetry", device="sdk-issued")


def test_disabled_and_unknown_devices_are_refused(sdk: Sdk, sim: Simulator, via: Proxy, device: str) -> None:
    sim.set_device(device, False)
    while sdk.hear("connection")["connected"]:
        pass
    for id in (device, "sdk-nobody"):
        with pytest.raises(SdkError) as raised:
            connect(sdk, sim, via, id, key=derive(group_key(sim.info), id))
        assert raised.value.kind == "CredentialError"
