"""The device registry's namespace: authorities and their policies, devices of all hubs, revocation; by API and by command."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from simulator_client import (
    RENEWAL_API,
    api_answer,
    api_call,
    dps_device,
    finish,
    hub_device,
    make_csr,
    provision,
)
from typer.testing import CliRunner

from espdps.cli import app
from espdps.errors import REFUSED as REFUSED_CODE
from espdps.errors import WRONG_USE, ToolError
from espdps.simulator import Options, Simulator, serving

ONE, TWO = "hub-1.localhost", "hub-2.localhost"
REFUSED = 135  # paho's name for CONNACK 5
AUTHORITIES = "/namespaces/default/certificateAuthorities"
POLICIES = f"{AUTHORITIES}/issuer/certificatePolicies"
DEVICES = "/namespaces/default/registryDevices"
ICA = {"properties": {"certificateAuthorityType": "ICA", "keyType": "ECC", "issuer": {"issuerType": "Microsoft"}}}


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    with serving(tmp_path / "sim", Options(retry_after=0, assigning=0, hubs=(ONE, TWO))) as simulator:
        simulator.set_enrollment("boards", group=True, hubs=(ONE,))
        yield simulator
    assert not [event for event in simulator.events if event["event"] == "fault"]


def put_policy(sim: Simulator, name: str, **terms: Any) -> tuple[int, Any]:
    return api_call(sim.info, "PUT", f"{POLICIES}/{name}", {"properties": {"certificate": terms}})


def life(state: dict[str, Any]) -> datetime.timedelta:
    """What is left of an issued certificate."""
    leaf = x509.load_der_x509_certificate(base64.b64decode(state["issuedCertificateChain"][0]))
    return leaf.not_valid_after_utc - datetime.datetime.now(datetime.timezone.utc)


def connects(sim: Simulator, name: str, pem: Path, hub: str = ONE) -> bool:
    with hub_device(sim.info, name, pem, hub=hub) as device:
        assert device.connack.value in (0, REFUSED)
        return bool(device.connack.value == 0)


def reason(sim: Simulator) -> str:
    return str([event for event in sim.events if event["event"] == "hub.refused"][-1]["reason"])


# Policies


def test_a_policys_life_and_issuer(sim: Simulator, tmp_path: Path) -> None:
    day = datetime.timedelta(days=1)
    usual, _ = provision(sim.info, "unit", tmp_path)
    for leaf, low, high in (
        ({"validityPeriodInDays": 7}, 7 * day - day / 24, 7 * day),
        ({"validityPeriodInSeconds": 600}, day * 0, day / 144),
    ):
        assert put_policy(sim, "short", **leaf)[0] == 200
        sim.set_enrollment("boards", group=True, credential_policy="short")
        state, pem = provision(sim.info, "unit", tmp_path)
        assert low < life(state) <= high
        assert connects(sim, "unit", pem)
        chain = [base64.b64decode(text) for text in state["issuedCertificateChain"]]
        leaf_, issuer, root = map(x509.load_der_x509_certificate, chain)
        leaf_.verify_directly_issued_by(issuer)
        issuer.verify_directly_issued_by(root)
        assert state["issuedCertificateChain"][1:] == usual["issuedCertificateChain"][1:]  # of one authority


def test_strict_p384(sim: Simulator) -> None:
    assert put_policy(sim, "strict", keyTypes=["ec-p384"])[1]["properties"]["certificate"] == {"keyTypes": ["ec-p384"]}
    sim.set_enrollment("boards", group=True, credential_policy="strict")
    for key, good in (
        (ec.generate_private_key(ec.SECP384R1()), True),
        (ec.generate_private_key(ec.SECP256R1()), False),
        (rsa.generate_private_key(65537, 2048), False),
    ):
        with dps_device(sim.info, "unit") as device:
            device.register("unit", make_csr("unit", key))
            answer = device.answer()
        assert (answer.status, answer.body.get("errorCode")) == ((200, None) if good else (400, 400004))


def test_a_renewal_is_by_the_policy_too(sim: Simulator, tmp_path: Path) -> None:
    put_policy(sim, "strict", keyTypes=["ec-p384"], validityPeriodInSeconds=600)
    sim.set_enrollment("boards", group=True, credential_policy="strict")
    _, pem = provision(sim.info, "unit", tmp_path)
    for key, status in ((ec.generate_private_key(ec.SECP256R1()), 400), (ec.generate_private_key(ec.SECP384R1()), 200)):
        with hub_device(sim.info, "unit", pem, version=RENEWAL_API) as device:
            device.subscribe("$iothub/credentials/res/#")
            body = {"id": "unit", "csr": base64.b64encode(make_csr("unit", key)).decode()}
            device.publish(f"$iothub/credentials/POST/issueCertificate/?$rid=rid-{status}", json.dumps(body))
            answers = [device.answer(), device.answer()]
        assert [answer.status for answer in answers] == [202, status]
    assert life({"issuedCertificateChain": answers[1].body["certificates"]}) <= datetime.timedelta(minutes=10)


def test_policies_are_listed_and_deleted(sim: Simulator, tmp_path: Path) -> None:
    put_policy(sim, "Gone")
    names = [one["name"] for one in api_call(sim.info, "GET", POLICIES)[1]["value"]]
    assert names == ["default", "Gone"]
    sim.set_enrollment("boards", group=True, credential_policy="gone")
    _, pem = provision(sim.info, "unit", tmp_path)
    assert api_call(sim.info, "DELETE", f"{POLICIES}/gone", If_Match='"old"')[0] == 409
    assert api_call(sim.info, "DELETE", f"{POLICIES}/GONE") == (204, None)
    assert api_call(sim.info, "GET", f"{POLICIES}/gone")[1]["errorCode"] == 404001
    assert connects(sim, "unit", pem)  # its authority is trusted as before
    with dps_device(sim.info, "unit") as device:
        body = finish(device, "unit", make_csr("unit"))
    assert (body["status"], body["registrationState"]["errorCode"]) == ("failed", 404001)


# Authorities


def test_authorities_and_their_policies(sim: Simulator, tmp_path: Path) -> None:
    """Names and forms: REST specification of Microsoft.DeviceRegistry, 2026-11-01, and its examples."""
    status, made = api_call(sim.info, "PUT", f"{AUTHORITIES}/line-7", ICA)
    properties = made["properties"]
    assert (status, made["name"], properties["certificateAuthorityType"]) == (200, "line-7", "ICA")
    assert properties["issuer"]["issuerType"] == "Microsoft"
    assert properties["issuer"]["certificateAuthorityResourceId"].endswith("/certificateAuthorities/root")
    listed = api_call(sim.info, "GET", AUTHORITIES)[1]["value"]
    kinds = [(one["name"], one["properties"]["certificateAuthorityType"]) for one in listed]
    assert kinds == [("root", "Root"), ("issuer", "ICA"), ("line-7", "ICA")]
    mine, body = (
        f"{AUTHORITIES}/line-7/certificatePolicies",
        {"properties": {"certificate": {"validityPeriodInDays": 7}}},
    )
    assert (
        api_call(sim.info, "PUT", f"{mine}/default", body)[1]["properties"]["certificate"]["validityPeriodInDays"] == 7
    )
    assert (
        api_call(sim.info, "GET", f"{POLICIES}/default")[1]["properties"]["certificate"].get("validityPeriodInDays")
        is None
    )
    usual, _ = provision(sim.info, "unit", tmp_path)
    sim.set_enrollment("boards", group=True, credential_policy="line-7/default")
    state, pem = provision(sim.info, "unit", tmp_path)
    assert state["issuedCertificateChain"][1] != usual["issuedCertificateChain"][1]
    assert state["issuedCertificateChain"][2] == usual["issuedCertificateChain"][2]  # one root a namespace
    assert api_call(sim.info, "DELETE", f"{AUTHORITIES}/line-7")[0] == 409  # it has a policy
    assert api_call(sim.info, "DELETE", f"{mine}/default")[0] == 204
    assert connects(sim, "unit", pem)
    assert api_call(sim.info, "DELETE", f"{AUTHORITIES}/line-7")[0] == 204
    assert not connects(sim, "unit", pem)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (f"{AUTHORITIES}/ab", ICA, 400),
        (f"{AUTHORITIES}/root", ICA, 409),
        (f"{AUTHORITIES}/other", {}, 400),
        (f"{AUTHORITIES}/other", {"properties": []}, 400),
        (f"{AUTHORITIES}/other", {"properties": {"certificateAuthorityType": "ICA", "issuer": "x"}}, 400),
        (f"{AUTHORITIES}/other", {"properties": {"certificateAuthorityType": "Root"}}, 400),
        (f"{AUTHORITIES}/root/certificatePolicies/default", {}, 409),
        (f"{AUTHORITIES}/nobody/certificatePolicies/default", {}, 404),
        ("/namespaces/default/credentials/default/policies/default", {}, 404),  # withdrawn with the preview
        ("/namespaces/other/certificateAuthorities/line-7", ICA, 404),
    ],
)
def test_authorities_that_cannot_be(sim: Simulator, path: str, body: Any, status: int) -> None:
    assert api_call(sim.info, "PUT", path, body)[0] == status
    assert len(api_call(sim.info, "GET", AUTHORITIES)[1]["value"]) == 2


def test_one_authority_is_revoked_and_no_other(sim: Simulator, tmp_path: Path) -> None:
    sim.add_issuer("other")
    sim.add_policy("other/default")
    key = sim.add_individual("apart", credential_policy="other/default").primary_key
    _, mine = provision(sim.info, "unit", tmp_path)
    _, other = provision(sim.info, "apart", tmp_path, key)
    assert api_call(sim.info, "POST", f"{AUTHORITIES}/other/revokeAndRotate") == (204, None)
    assert api_call(sim.info, "GET", f"{AUTHORITIES}/other")[1]["properties"]["revoked"] == 1
    assert connects(sim, "unit", mine)
    with hub_device(sim.info, "apart", other, hub=sim.device("apart").hub) as device:
        assert device.connack.value == REFUSED
    assert "authority that issued the certificate was revoked" in reason(sim)
    _, other = provision(sim.info, "apart", tmp_path, key)
    assert connects(sim, "apart", other, sim.device("apart").hub)


@pytest.mark.parametrize(
    ("name", "leaf"),
    [
        ("ab", {}),
        ("-abc", {}),
        ("a.b", {}),
        ("a" * 64, {}),
        ("good", {"validityPeriodInDays": 91}),
        ("good", {"validityPeriodInDays": 0}),
        ("good", {"validityPeriodInDays": "7"}),
        ("good", {"validityPeriodInDays": True}),
        ("good", {"validityPeriodInSeconds": 0}),
        ("good", {"validityPeriodInSeconds": 91 * 86400}),
        ("good", {"keyTypes": ["ed25519"]}),
        ("good", {"keyTypes": "rsa"}),
    ],
)
def test_policies_that_cannot_be(sim: Simulator, name: str, leaf: dict[str, Any]) -> None:
    status, error = put_policy(sim, name, **leaf)
    assert (status, error["errorCode"]) == (400, 400004)
    assert len(api_call(sim.info, "GET", POLICIES)[1]["value"]) == 1


# Devices


def test_devices_of_all_hubs_with_tags_and_attributes(sim: Simulator, tmp_path: Path) -> None:
    for name, hub in (("a", ONE), ("b", TWO), ("c", TWO)):
        sim.set_enrollment("boards", group=True, hubs=(hub,))
        provision(sim.info, name, tmp_path)
    patch = {"tags": {"site": "north"}, "properties": {"attributes": {"model": "c3", "ports": {"n": 2}}}}
    status, device = api_call(sim.info, "PATCH", f"{DEVICES}/b", patch)
    assert (status, device["tags"], device["properties"]["attributes"]["ports"]) == (200, {"site": "north"}, {"n": 2})
    assert device["properties"]["assignedHub"] == TWO
    api_call(sim.info, "PATCH", f"{DEVICES}/c", {"tags": {"site": "north", "old": "yes"}})
    again = api_call(sim.info, "PATCH", f"{DEVICES}/c", {"tags": {"old": None}})[1]
    assert again["tags"] == {"site": "north"}
    assert [one["name"] for one in api_call(sim.info, "GET", DEVICES)[1]["value"]] == ["a", "b", "c"]
    query = {"query": "SELECT * FROM devices WHERE tags.site = 'north'"}
    _, page, headers = api_answer(sim.info, "POST", f"{DEVICES}/query", query, x_ms_max_item_count="1")
    assert [one["name"] for one in page] == ["b"]
    _, page, headers = api_answer(
        sim.info, "POST", f"{DEVICES}/query", query, x_ms_continuation=headers["x-ms-continuation"]
    )
    assert ([one["name"] for one in page], "x-ms-continuation" in headers) == (["c"], False)
    query = {"query": "SELECT * WHERE properties.attributes.ports.n = 2"}
    assert [one["name"] for one in api_call(sim.info, "POST", f"{DEVICES}/query", query)[1]] == ["b"]
    assert api_call(sim.info, "PATCH", f"{DEVICES}/b", patch, If_Match='"old"')[0] == 409
    for wrong in (
        {"tags": {"n": 1}},
        {"tags": []},
        {"properties": {"enablementState": True}},
        {"properties": {"enablementState": []}},
        {"properties": []},
        [],
    ):
        assert api_call(sim.info, "PATCH", f"{DEVICES}/b", wrong)[1]["errorCode"] == 400004
    assert api_call(sim.info, "GET", f"{DEVICES}/nobody")[1]["errorCode"] == 404001


def test_a_device_is_revoked_by_another_identifier(sim: Simulator, tmp_path: Path) -> None:
    _, pem = provision(sim.info, "unit", tmp_path)
    _, other = provision(sim.info, "peer", tmp_path)
    before = api_call(sim.info, "GET", f"{DEVICES}/unit")[1]["properties"]["uuid"]
    with hub_device(sim.info, "unit", pem) as device:
        status, after = api_call(sim.info, "POST", f"{DEVICES}/unit/revoke")
        device.disconnected.get(timeout=10)
    assert (status, after["properties"]["uuid"] != before, after["properties"]["enablementState"]) == (
        200,
        True,
        "Enabled",
    )
    assert not connects(sim, "unit", pem)
    assert "the device's certificates were revoked" in reason(sim)
    assert connects(sim, "peer", other)
    _, pem = provision(sim.info, "unit", tmp_path)  # it comes back through DPS
    assert connects(sim, "unit", pem)


def test_a_device_that_is_disabled_gets_no_certificate(sim: Simulator, tmp_path: Path) -> None:
    _, pem = provision(sim.info, "unit", tmp_path)
    with hub_device(sim.info, "unit", pem) as device:
        revoked = api_call(sim.info, "POST", f"{DEVICES}/unit/revoke", {"disable": True})[1]
        assert revoked["properties"]["enablementState"] == "Disabled"
        device.disconnected.get(timeout=10)
    with dps_device(sim.info, "unit") as device:
        assert finish(device, "unit", make_csr("unit"))["status"] == "disabled"
    assert api_call(sim.info, "GET", "/devices/unit")[1]["status"] == "disabled"
    api_call(sim.info, "PATCH", f"{DEVICES}/unit", {"properties": {"enablementState": "Enabled"}})
    _, pem = provision(sim.info, "unit", tmp_path)
    assert connects(sim, "unit", pem)
    with hub_device(sim.info, "unit", pem) as device:
        api_call(sim.info, "PATCH", f"{DEVICES}/unit", {"properties": {"enablementState": "Disabled"}})
        device.disconnected.get(timeout=10)


def test_only_with_the_policys_token(sim: Simulator) -> None:
    for method, path in (
        ("GET", POLICIES),
        ("POST", f"{AUTHORITIES}/issuer/revokeAndRotate"),
        ("GET", "/certificates"),
    ):
        assert api_call(sim.info, method, path, authorization="")[1]["errorCode"] == 401002


# Commands


def run(sim: Simulator, *words: str) -> str:
    """The output of `esp-dps registry` with these words. Raises ToolError."""
    command, *rest = words
    result = CliRunner().invoke(app, ["registry", command, "--sim", str(sim.directory), *rest], env={"COLUMNS": "80"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def rows(sim: Simulator, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(sim, *words, "--json").splitlines()]


def test_commands(sim: Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        _, pem = provision(sim.info, "unit", tmp_path)
        (policy,) = rows(sim, "policy", "short", "--seconds", "90", "--key-type", "ec-p384")
        assert policy == {"policy": "issuer/short", "life": "90 s", "keys": ["ec-p384"]}
        assert rows(sim, "authority", "line-7")[0]["type"] == "ICA"
        run(sim, "policy", "line-7/own", "--days", "9")
        assert [row["policy"] for row in rows(sim, "policies")] == ["issuer/default", "issuer/short", "line-7/own"]
        assert "CA 3 issues from now on" in run(sim, "revoke", "--authority", "line-7")
        shown = {row["authority"]: (row["type"], row["revoked"]) for row in rows(sim, "authorities")}
        assert shown == {"root": ("Root", 0), "issuer": ("ICA", 0), "line-7": ("ICA", 1)}
        run(sim, "policy", "issuer/short", "--delete")
        run(sim, "policy", "line-7/own", "--delete")
        assert [row["policy"] for row in rows(sim, "policies")] == ["issuer/default"]
        run(sim, "authority", "line-7", "--delete")
        (device,) = rows(sim, "device", "unit", "--tag", "site=north", "--attribute", "model=c3")
        assert (device["tags"], device["attributes"], device["hub"]) == ({"site": "north"}, {"model": "c3"}, ONE)
        assert device["policy"] == "issuer/default"
        assert rows(sim, "devices", "--where", "tags.site = 'south'") == []
        assert len(rows(sim, "devices", "--where", "tags.site = 'north'")) == 1
        (device,) = rows(sim, "device", "unit", "--tag", "site=")
        assert device["tags"] == {}
        assert connects(sim, "unit", pem)
        run(sim, "revoke", "unit", "--disable")
        assert not connects(sim, "unit", pem)
        assert rows(sim, "devices")[0]["status"] == "disabled"
        assert rows(sim, "device", "unit", "--enable")[0]["status"] == "enabled"


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("policy", "short", "--days", "1", "--seconds", "1"), WRONG_USE, "exclude"),
        (("policy", "short", "--days", "1", "--delete"), WRONG_USE, "--delete"),
        (("policy", "x"), REFUSED_CODE, "3 to 63"),
        (("policy", "other/short"), REFUSED_CODE, "authority does not exist"),
        (("authority", "root"), REFUSED_CODE, "type"),
        (("authority", "issuer", "--delete"), REFUSED_CODE, "has certificate policies"),
        (("policy", "short", "--key-type", "dsa"), REFUSED_CODE, "keyTypes"),
        (("policy", "unknown", "--delete"), REFUSED_CODE, "does not exist"),
        (("device", "nobody"), REFUSED_CODE, "not in the namespace"),
        (("device", "nobody", "--tag", "site"), WRONG_USE, "NAME=VALUE"),
        (("devices", "--where", "tags"), REFUSED_CODE, "query"),
        (("revoke",), WRONG_USE, "revoke takes"),
        (("revoke", "unit", "--authority", "issuer"), WRONG_USE, "revoke takes"),
        (("revoke", "--authority", "issuer", "--disable"), WRONG_USE, "revoke takes"),
    ],
)
def test_what_goes_wrong_is_said(sim: Simulator, words: tuple[str, ...], code: int, text: str) -> None:
    with pytest.raises(ToolError) as caught:
        run(sim, *words)
    assert (caught.value.exit_code, text in caught.value.message) == (code, True)


@pytest.mark.parametrize("command", ["authorities", "authority", "policies", "policy", "devices", "device", "revoke"])
def test_help_with_an_example(command: str) -> None:
    shown = CliRunner().invoke(app, ["registry", command, "--help"], env={"COLUMNS": "80"}).output
    assert ("EXAMPLE" in shown, f"esp-dps registry {command}" in shown) == (True, True)
    assert max(map(len, shown.splitlines())) <= 80
