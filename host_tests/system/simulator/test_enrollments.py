"""Enrollments by the service API: X.509 of all kinds, certificates of authorities and their proof, queries, new devices."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from simulator_client import (
    api_answer,
    api_call,
    derive,
    dps_device,
    finish,
    hub_code,
    hub_device,
    make_csr,
    provision,
    token,
)
from simulator_pki import Party, answered, made, pem_file, registered

from espdps.simulator import Options, Simulator, serving
from espdps.simulator.names import DPS_API

HUB = "hub-1.localhost"
ROOT = made("Contoso root", ca=True)
LINE = made("Contoso line 7", ROOT, ca=True)
NOT_FOUND = (401, 401002, "CA certificate not found.")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    options = Options(retry_after=0, assigning=0, dps_api=(*DPS_API, "2026-11-15-preview"))
    with serving(tmp_path_factory.mktemp("enrollments"), options) as simulator:
        yield simulator
    assert not [event for event in simulator.events if event["event"] == "fault"]


@pytest.fixture
def sim(service: Simulator) -> Iterator[Simulator]:
    """With nothing enrolled but the group that is there from the start."""
    yield service
    for kind, name in (("enrollments", "registrationId"), ("enrollmentGroups", "enrollmentGroupId")):
        for one in api_call(service.info, "POST", f"/{kind}/query", {"query": "SELECT *"})[1]:
            if one[name] != "boards":
                assert api_call(service.info, "DELETE", f"/{kind}/{one[name]}")[0] == 204
    for one in api_call(service.info, "GET", "/certificates")[1]["value"]:
        assert api_call(service.info, "DELETE", f"/certificates/{one['name']}", If_Match="*")[0] == 204


def put(sim: Simulator, path: str, body: Any, **headers: str) -> dict[str, Any]:
    status, answer = api_call(sim.info, "PUT", path, body, **headers)
    assert status == 200, answer
    result: dict[str, Any] = answer
    return result


def x509(way: str, *values: Any) -> dict[str, Any]:
    pair = dict(zip(("primary", "secondary"), values, strict=False))
    return {"attestation": {"type": "x509", "x509": {way: pair}}}


def certificate(party: Party) -> dict[str, str]:
    return {"certificate": party.pem.decode()}


# X.509


def test_a_group_by_its_signers(sim: Simulator, tmp_path: Path) -> None:
    der = base64.b64encode(LINE.certificate.public_bytes(Encoding.DER)).decode()
    other = made("next root", ca=True)
    answer = put(sim, "/enrollmentGroups/line", x509("signingCertificates", {"certificate": der}, certificate(other)))
    info = answer["attestation"]["x509"]["signingCertificates"]["primary"]["info"]
    assert (info["subjectName"], info["issuerName"]) == ("CN=Contoso line 7", "CN=Contoso root")
    for issuer, chain in ((LINE, [LINE]), (other, [])):
        state = registered(sim.info, "unit", pem_file(tmp_path, made("unit", issuer), *chain))
        assert state["x509"]["enrollmentGroupId"] == "line"
    assert answered(sim.info, "unit", pem_file(tmp_path, made("unit", ROOT), ROOT)) == NOT_FOUND


def test_an_individual_by_its_certificates(sim: Simulator, tmp_path: Path) -> None:
    first, second = made("unit"), made("unit")
    put(sim, "/enrollments/unit", x509("clientCertificates", certificate(first), certificate(second)))
    for party in (first, second):
        pem = pem_file(tmp_path, party)
        assert "certificateInfo" in registered(sim.info, "unit", pem)["x509"]
        with hub_device(sim.info, "unit", pem) as device:
            assert device.connack.value == 0
    with dps_device(sim.info, "unit", chain=pem_file(tmp_path, made("unit")), password=None) as device:
        assert device.connack.value == 135


def proof(sim: Simulator, name: str, signer: Party, code: str | None = None, **headers: str) -> tuple[int, Any]:
    """Asks for a code and answers with a certificate for it."""
    told = api_call(sim.info, "POST", f"/certificates/{name}/generateVerificationCode", If_Match="*")[1]
    leaf = made(code or told["properties"]["verificationCode"], signer)
    der = base64.b64encode(leaf.certificate.public_bytes(Encoding.DER)).decode()
    path = f"/certificates/{name}/verify"
    return api_call(sim.info, "POST", path, {"certificate": der}, **{"If_Match": told["etag"], **headers})


def test_a_group_by_an_authority_that_proved_its_key(sim: Simulator, tmp_path: Path) -> None:
    uploaded = put(sim, "/certificates/contoso", {"properties": certificate(ROOT)})
    assert (uploaded["properties"]["isVerified"], uploaded["properties"]["subject"]) == (False, "CN=Contoso root")
    group = x509("caReferences", "contoso")
    assert api_call(sim.info, "PUT", "/enrollmentGroups/named", group)[1]["errorCode"] == 400004  # not verified yet
    assert proof(sim, "contoso", made("Contoso root", ca=True))[0] == 400
    assert proof(sim, "contoso", ROOT, code="another")[0] == 400
    assert proof(sim, "contoso", ROOT, If_Match='"old"')[0] == 409
    assert not api_call(sim.info, "GET", "/certificates/contoso")[1]["properties"]["isVerified"]
    status, verified = proof(sim, "contoso", ROOT)
    assert (status, verified["properties"]["isVerified"]) == (200, True)
    assert put(sim, "/enrollmentGroups/named", group)["attestation"] == {
        "type": "x509",
        "x509": {"caReferences": {"primary": "contoso", "secondary": None}},
    }
    pem = pem_file(tmp_path, made("unit", LINE), LINE)
    assert registered(sim.info, "unit", pem)["x509"]["enrollmentGroupId"] == "named"
    with hub_device(sim.info, "unit", pem) as device:
        assert device.connack.value == 0
    put(sim, "/certificates/contoso", {"properties": certificate(ROOT)}, If_Match=verified["etag"])  # unverified again
    assert answered(sim.info, "unit", pem) == NOT_FOUND


def test_an_authority_may_be_uploaded_as_verified(sim: Simulator, tmp_path: Path) -> None:
    put(sim, "/certificates/a", {"properties": {**certificate(ROOT), "isVerified": True}})
    put(sim, "/certificates/b", {"properties": {**certificate(made("b", ca=True)), "isVerified": True}})
    put(sim, "/enrollmentGroups/two", x509("caReferences", "b", "A"))
    registered(sim.info, "unit", pem_file(tmp_path, made("unit", ROOT)))
    assert [one["name"] for one in api_call(sim.info, "GET", "/certificates")[1]["value"]] == ["a", "b"]
    for match, status in ((None, 409), ('"old"', 409), ("*", 204)):
        headers = {} if match is None else {"If_Match": match}
        assert api_call(sim.info, "DELETE", "/certificates/a", **headers)[0] == status
    assert api_call(sim.info, "GET", "/certificates/a")[1]["errorCode"] == 404001
    assert api_call(sim.info, "PUT", "/certificates/c", {"properties": {"certificate": "MA=="}})[0] == 400


def test_what_is_revoked_is_told_apart(sim: Simulator, tmp_path: Path) -> None:
    """One device by a disabled individual enrollment, an intermediate by a disabled group (documented for DPS)."""
    put(sim, "/enrollmentGroups/all", x509("signingCertificates", certificate(ROOT)))
    off = {"provisioningStatus": "disabled"}
    lost = made("lost", ROOT)
    put(sim, "/enrollments/lost", {**x509("clientCertificates", certificate(lost)), **off})
    put(sim, "/enrollmentGroups/stolen", {**x509("signingCertificates", certificate(LINE)), **off})
    for party, chain, status in (
        (lost, [], "disabled"),
        (made("by-line", LINE), [LINE], "disabled"),
        (made("good", ROOT), [], "assigned"),
    ):
        name = party.certificate.subject.rfc4514_string().removeprefix("CN=")
        with dps_device(sim.info, name, chain=pem_file(tmp_path, party, *chain), password=None) as device:
            assert finish(device, name)["status"] == status


@pytest.mark.parametrize(
    ("path", "attestation"),
    [
        ("/enrollmentGroups/x", x509("clientCertificates", certificate(ROOT))),
        ("/enrollments/x", x509("signingCertificates", certificate(ROOT))),
        ("/enrollments/x", x509("caReferences", "contoso")),
        ("/enrollmentGroups/x", x509("caReferences", "contoso")),
        ("/enrollmentGroups/x", x509("caReferences", {"name": "contoso"})),
        ("/enrollmentGroups/x", x509("signingCertificates", {"certificate": "not base64!"})),
        ("/enrollmentGroups/x", x509("signingCertificates", {"certificate": (ROOT.pem + LINE.pem).decode()})),
        ("/enrollmentGroups/x", x509("signingCertificates", "text")),
        ("/enrollmentGroups/x", x509("signingCertificates")),
        ("/enrollmentGroups/x", x509("signingCertificates", None, certificate(ROOT))),
        ("/enrollmentGroups/x", {"attestation": {"type": "x509"}}),
        ("/enrollmentGroups/x", {"attestation": {"type": "symmetricKey"}, "credentialPolicyName": "unknown"}),
        ("/enrollmentGroups/x", {"attestation": {"type": "symmetricKey"}, "initialTwin": []}),
        ("/enrollmentGroups/x", {"attestation": {"type": "symmetricKey"}, "initialTwin": {"tags": {"a.b": 1}}}),
        ("/enrollmentGroups/x", {"attestation": {"type": "symmetricKey"}, "allocationPolicy": "random"}),
        ("/enrollmentGroups/x", {"attestation": {"type": "symmetricKey"}, "allocationPolicy": "custom"}),
    ],
)
def test_enrollments_that_are_refused(sim: Simulator, path: str, attestation: Any) -> None:
    status, error = api_call(sim.info, "PUT", path, attestation)
    assert (status, error["errorCode"]) == (400, 400004)
    assert api_call(sim.info, "GET", path)[0] == 404


# Keys


def test_the_attestation_mechanism_tells_the_keys(sim: Simulator) -> None:
    put(sim, "/enrollmentGroups/keys", {"attestation": {"type": "symmetricKey"}})
    told = api_call(sim.info, "POST", "/enrollmentGroups/keys/attestationmechanism")[1]
    keys = told["symmetricKey"]
    assert told["type"] == "symmetricKey"
    for number, key in enumerate((keys["primaryKey"], keys["secondaryKey"])):
        with dps_device(sim.info, f"unit-{number}", derive(key, f"unit-{number}")) as device:
            assert finish(device, f"unit-{number}")["status"] == "assigned"
    put(sim, "/enrollments/one", {"attestation": {"type": "symmetricKey"}})
    keys = api_call(sim.info, "POST", "/enrollments/one/attestationmechanism")[1]["symmetricKey"]
    for key in (keys["primaryKey"], keys["secondaryKey"]):
        with dps_device(sim.info, "one", key) as device:
            assert finish(device, "one")["status"] == "assigned"
    put(sim, "/enrollmentGroups/certs", x509("signingCertificates", certificate(ROOT)))
    shown = api_call(sim.info, "POST", "/enrollmentGroups/certs/attestationmechanism")[1]
    assert shown["x509"]["signingCertificates"]["primary"]["certificate"] == ROOT.pem.decode()
    assert api_call(sim.info, "POST", "/enrollments/nobody/attestationmechanism")[1]["errorCode"] == 404201


# New devices


def test_a_new_device_gets_twin_capabilities_and_its_own_id(sim: Simulator, tmp_path: Path) -> None:
    twin = {"tags": {"site": "north"}, "properties": {"desired": {"interval": 5}}}
    body = {
        "attestation": {"type": "symmetricKey"},
        "deviceId": "dev-9",
        "credentialPolicyName": "Default",  # names of policies are the same in any case
        "initialTwin": twin,
        "capabilities": {"iotEdge": True},
    }
    answer = put(sim, "/enrollments/reg-9", body)
    assert (answer["initialTwin"], answer["capabilities"]) == (twin, {"iotEdge": True})
    key = api_call(sim.info, "POST", "/enrollments/reg-9/attestationmechanism")[1]["symmetricKey"]["primaryKey"]
    state, pem = provision(sim.info, "reg-9", tmp_path, key)
    assert state["deviceId"] == "dev-9"
    with hub_device(sim.info, "dev-9", pem) as device:
        device.subscribe("$iothub/twin/res/#")
        device.publish("$iothub/twin/GET/?$rid=1", b"")
        assert device.answer().body["desired"] == {"interval": 5, "$version": 1}
    shown = api_call(sim.info, "GET", "/twins/dev-9")[1]
    assert (shown["tags"], shown["capabilities"]) == ({"site": "north"}, {"iotEdge": True})
    sim.desire("dev-9", {"interval": 9})
    provision(sim.info, "reg-9", tmp_path, key)  # what is known of a device stays
    assert sim.twin("dev-9").desired == {"interval": 9}
    sim.delete_device("dev-9")
    state, _ = provision(sim.info, "reg-9", tmp_path, key)
    assert (sim.twin("dev-9").desired, state["substatus"]) == ({"interval": 5}, "reprovisionedToInitialAssignment")


def test_without_a_policy_the_key_is_the_hubs_too(sim: Simulator) -> None:
    put(sim, "/enrollments/plain", {"attestation": {"type": "symmetricKey"}})
    key = api_call(sim.info, "POST", "/enrollments/plain/attestationmechanism")[1]["symmetricKey"]["secondaryKey"]
    with dps_device(sim.info, "plain", key) as device:
        state = finish(device, "plain", make_csr("plain"))["registrationState"]
    assert "issuedCertificateChain" not in state
    with hub_device(sim.info, "plain", password=token(f"{HUB}/devices/plain", key, skn=None)) as device:
        assert device.connack.value == 0


# Queries


def ask(sim: Simulator, path: str, query: str, size: int | None = None, after: str = "") -> tuple[list[Any], str]:
    """The ids of a page, and the token of the next."""
    headers = ({"x_ms_max_item_count": str(size)} if size else {}) | ({"x_ms_continuation": after} if after else {})
    status, found, told = api_answer(sim.info, "POST", path, {"query": query}, **headers)
    assert status == 200, found
    ids = [one.get("enrollmentGroupId") or one["registrationId"] for one in found]
    return ids, told.get("x-ms-continuation", "")


def test_queries_in_pages(sim: Simulator) -> None:
    for name in ("c", "a", "e", "b", "d"):
        status = "disabled" if name in "ce" else "enabled"
        put(sim, f"/enrollments/{name}", {"attestation": {"type": "symmetricKey"}, "provisioningStatus": status})
    first, after = ask(sim, "/enrollments/query", "SELECT * FROM enrollments", 2)
    assert first == ["a", "b"]
    api_call(sim.info, "DELETE", "/enrollments/b")
    second, after = ask(sim, "/enrollments/query", "SELECT * FROM enrollments", 2, after)
    third, end = ask(sim, "/enrollments/query", "SELECT * FROM enrollments", 2, after)
    assert (second, third, end) == (["c", "d"], ["e"], "")
    where = "select * from enrollments where provisioningStatus = 'disabled' AND attestation.type != 'x509'"
    assert ask(sim, "/enrollments/query", where) == (["c", "e"], "")
    assert ask(sim, "/enrollments/query", "SELECT * WHERE capabilities.iotEdge = true") == ([], "")
    assert ask(sim, "/enrollmentGroups/query", "SELECT *") == (["boards"], "")
    _, _, told = api_answer(sim.info, "POST", "/enrollments/query", {"query": "SELECT *"})
    assert told["x-ms-item-type"] == "enrollment"


def test_registrations_of_a_group(sim: Simulator, tmp_path: Path) -> None:
    put(sim, "/enrollmentGroups/fleet", {"attestation": {"type": "symmetricKey"}})
    key = api_call(sim.info, "POST", "/enrollmentGroups/fleet/attestationmechanism")[1]["symmetricKey"]["primaryKey"]
    for name in ("fleet-2", "fleet-1"):
        provisioned = derive(key, name)
        with dps_device(sim.info, name, provisioned) as device:
            finish(device, name)
    provision(sim.info, "stranger", tmp_path)
    assert ask(sim, "/registrations/Fleet/query", "SELECT *")[0] == ["fleet-1", "fleet-2"]
    assert api_call(sim.info, "DELETE", "/registrations/fleet-1", If_Match='"old"')[0] == 409
    assert api_call(sim.info, "DELETE", "/registrations/fleet-1")[0] == 204
    assert ask(sim, "/registrations/fleet/query", "SELECT *")[0] == ["fleet-2"]
    assert ask(sim, "/registrations/nobody/query", "SELECT *")[0] == []


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        (b"{", {}, 400012),
        ({"query": "SELECT *"}, {"x_ms_max_item_count": "0"}, 400004),
        ({"query": "SELECT *"}, {"x_ms_max_item_count": "many"}, 400004),
        ({"query": "SELECT *"}, {"x_ms_continuation": "%"}, 400004),
    ],
)
def test_bad_queries(sim: Simulator, body: Any, headers: dict[str, str], code: int) -> None:
    status, error = api_call(sim.info, "POST", "/enrollments/query", body, **headers)
    assert (status, error["errorCode"]) == (400, code)


# The policy, by api-version

KEY = {"attestation": {"type": "symmetricKey"}}
FULL = {"namespaceName": "default", "certificateAuthorityName": "issuer", "certificatePolicyName": "default"}
BEFORE, NOW, LATER = "2025-07-01-preview", "2026-11-01", "2026-11-15-preview"


def policy_names(sim: Simulator, path: str, version: str) -> dict[str, Any]:
    """What an enrollment says of its policy; from a GET and from a query, which agree."""
    shown = api_call(sim.info, "GET", f"{path}?api-version={version}")[1]
    base, _, id = path.rpartition("/")
    found = api_call(sim.info, "POST", f"{base}/query?api-version={version}", {"query": "SELECT *"})[1]
    assert shown in found
    return {name: value for name, value in shown.items() if name in (*FULL, "credentialPolicyName")}


@pytest.mark.parametrize("version", [NOW, LATER])
@pytest.mark.parametrize("path", ["/enrollments/full", "/enrollmentGroups/full"])
def test_a_policy_has_three_names_since_2026_11(sim: Simulator, tmp_path: Path, path: str, version: str) -> None:
    """REST specification 2026-11-01, IndividualEnrollment and EnrollmentGroup."""
    answer = put(sim, f"{path}?api-version={version}", {**KEY, **FULL})
    assert {name: answer[name] for name in FULL} == FULL and "credentialPolicyName" not in answer
    assert policy_names(sim, path, version) == FULL
    assert policy_names(sim, path, BEFORE) == {"credentialPolicyName": "default"}
    assert policy_names(sim, path, "2021-10-01") == {}
    key = api_call(sim.info, "POST", f"{path}/attestationmechanism")[1]["symmetricKey"]["primaryKey"]
    state, _ = provision(sim.info, "full", tmp_path, derive(key, "full") if "Groups" in path else key)
    assert len(state["issuedCertificateChain"]) == 3
    # A PUT replaces all of it: without the names there is no policy.
    put(sim, f"{path}?api-version={version}", KEY, If_Match="*")
    assert policy_names(sim, path, version) == {}


def test_a_policy_has_one_name_before(sim: Simulator) -> None:
    put(sim, f"/enrollments/old?api-version={BEFORE}", {**KEY, "credentialPolicyName": "Default"})
    assert policy_names(sim, "/enrollments/old", BEFORE) == {"credentialPolicyName": "Default"}
    assert policy_names(sim, "/enrollments/old", NOW) == FULL


@pytest.mark.parametrize(
    ("version", "names", "code"),
    [
        (NOW, {"credentialPolicyName": "default"}, 400012),
        (LATER, {"credentialPolicyName": "default"}, 400012),
        (NOW, {**FULL, "credentialPolicyName": "default"}, 400012),
        (BEFORE, FULL, 400012),
        (BEFORE, {"namespaceName": "default"}, 400012),
        ("2021-10-01", {"credentialPolicyName": "default"}, 400012),
        ("2021-10-01", FULL, 400012),
        *[(NOW, {name: FULL[name] for name in FULL if name != left_out}, 400004) for left_out in FULL],
        *[(NOW, {name: FULL[name]}, 400004) for name in FULL],
        *[(NOW, {**FULL, name: "other"}, 400004) for name in FULL],
        (NOW, {**FULL, "certificatePolicyName": "a/b"}, 400004),
        (NOW, {**FULL, "certificateAuthorityName": ["issuer"]}, 400004),
    ],
)
def test_a_version_refuses_what_it_does_not_know(
    sim: Simulator, version: str, names: dict[str, Any], code: int
) -> None:
    for path in ("/enrollments/never", "/enrollmentGroups/never"):
        status, error = api_call(sim.info, "PUT", f"{path}?api-version={version}", {**KEY, **names})
        assert (status, error["errorCode"]) == (400, code)
        assert api_call(sim.info, "GET", path)[0] == 404


def test_null_names_no_policy(sim: Simulator) -> None:
    """As SDKs write back what they read."""
    body = {**KEY, "credentialPolicyName": None, **dict.fromkeys(FULL)}
    for version in (BEFORE, NOW):
        put(sim, f"/enrollments/plain?api-version={version}", body, If_Match="*")
        assert not any(policy_names(sim, "/enrollments/plain", version).values())


# Microsoft Entra ID


def test_a_bearer_token_of_its_own_making(sim: Simulator) -> None:
    """RFC 6750, 2.1. What Microsoft Entra ID would make is out of reach here."""
    bearer = sim.info["service_bearer"]
    for path in ("/enrollmentGroups/boards", "/devices", "/namespaces/default/certificateAuthorities"):
        for scheme in ("Bearer", "bearer"):
            assert api_call(sim.info, "GET", path, authorization=f"{scheme} {bearer}")[0] == 200
        for wrong in (
            f"Bearer {bearer}x",
            f"Bearer {bearer[:-1]}",
            "Bearer ",
            "Bearer",
            f"Basic {bearer}",
            bearer,
            "Bearer \xe9",
        ):
            status, error = api_call(sim.info, "GET", path, authorization=wrong)
            code = hub_code(error) if path == "/devices" else error["errorCode"]
            assert (status, code) == (401, 401002), wrong
