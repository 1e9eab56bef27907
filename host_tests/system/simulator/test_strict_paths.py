"""The HTTPS port: paths, API versions, tokens and errors as Azure has them, and clear words for what is not built.

Sources as in the simulator: L a live test of Microsoft's, C an official client, D documentation, S a specification.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from simulator_client import api_answer, api_call, derive, group_key, hub_code, service_token, token

from espdps.simulator import Options, Simulator, serving

HUB = "hub-1.localhost"


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with serving(tmp_path_factory.mktemp("paths"), Options(retry_after=0, assigning=0)) as simulator:
        assert api_call(simulator.info, "PUT", "/devices/dev", {})[0] == 200
        yield simulator


@pytest.mark.parametrize(
    "path", ["/enrollmentgroups/boards", "/ENROLLMENTGROUPS/BOARDS/", "/Devices/dev", "/devices/", "/TWINS/dev"]
)
def test_paths_in_any_case_and_with_a_slash(sim: Simulator, path: str) -> None:
    """L."""
    assert api_call(sim.info, "GET", path)[0] == 200


@pytest.mark.parametrize("version", ["2015-01-01", "2026-11-02-preview", "x"])
def test_unknown_api_versions(sim: Simulator, version: str) -> None:
    """C: the text of DPS and the hub's InvalidProtocolVersion."""
    status, error = api_call(sim.info, "GET", f"/enrollmentGroups/boards?api-version={version}")
    assert (status, error["errorCode"], error["message"]) == (400, 400004, "Unsupported API version.")
    status, error = api_call(sim.info, "GET", f"/devices/dev?api-version={version}")
    assert (status, hub_code(error)) == (400, 400001)


def test_a_hubs_errors_have_their_own_form(sim: Simulator) -> None:
    """L: ErrorPayload2 in Microsoft's service SDK for .NET."""
    status, error, headers = api_answer(sim.info, "GET", "/devices/nobody")
    assert (status, headers["iothub-errorcode"]) == (404, "DeviceNotFound")
    assert error.keys() == {"Message", "ExceptionMessage"}
    assert error["Message"].startswith("ErrorCode:DeviceNotFound;")
    assert error["ExceptionMessage"].startswith("Tracking ID:")


def test_a_device_that_takes_no_methods(sim: Simulator) -> None:
    """Seen in logs of the service: JSON within the text."""
    status, error = api_call(sim.info, "POST", "/twins/dev/methods", {"methodName": "a"})
    assert (status, hub_code(error)) == (404, 404103)
    assert json.loads(error["Message"]).keys() >= {"errorCode", "trackingId", "message", "timestampUtc"}


@pytest.mark.parametrize("resource", ["localhost", "https://localhost/", "localhost/enrollmentGroups", "LOCALHOST"])
def test_resources_of_a_token(sim: Simulator, resource: str) -> None:
    """C: with a protocol; D: a prefix of the resource, by segments."""
    allowed = service_token(sim.info, resource)
    assert api_call(sim.info, "GET", "/enrollmentGroups/boards", authorization=allowed)[0] == 200


@pytest.mark.parametrize("resource", ["localhost/enrollments", "localhost/enrollmentGroup", "https://", "localhos"])
def test_resources_that_are_not_asked_for(sim: Simulator, resource: str) -> None:
    refused = service_token(sim.info, resource)
    assert api_call(sim.info, "GET", "/enrollmentGroups/boards", authorization=refused)[0] == 401


@pytest.mark.parametrize(
    ("method", "path", "what"),
    [
        ("GET", "/$iothub/websocket", "WebSocket"),
        ("PUT", "/0ne00000000/registrations/dev/register", "HTTPS API for devices at DPS"),
        ("GET", "/0ne00000000/registrations/dev/operations/1", "HTTPS API for devices at DPS"),
        ("POST", "/devices/dev/messages/events", "HTTPS API for devices at a hub"),
        ("GET", "/devices/dev/messages/devicebound", "HTTPS API for devices at a hub"),
        ("POST", "/devices/dev/files", "file upload"),
        ("PUT", "/devices/dev/modules/m", "modules"),
        ("GET", "/twins/dev/modules/m", "modules"),
        ("POST", "/devices", "bulk operations"),
        ("POST", "/enrollments", "bulk operations"),
        ("POST", "/enrollmentGroups", "bulk operations"),
        ("GET", "/jobs/v2/1", "this API"),
    ],
)
@pytest.mark.parametrize("key", ["policy", "device"])
def test_what_is_not_built_says_so(sim: Simulator, method: str, path: str, what: str, key: str) -> None:
    """Whatever the token: 401 would send people to look for a wrong key."""
    device = token(f"{HUB}/devices/dev", derive(group_key(sim.info), "dev"), skn=None)
    authorization = service_token(sim.info) if key == "policy" else device
    status, error = api_call(
        sim.info, method, path, {"id": "x"} if method != "GET" else None, authorization=authorization
    )
    text = error.get("message") or error["Message"]
    assert status == 501
    assert "Not in this simulator" in text and what in text


def test_an_unknown_path_is_not_a_wrong_key(sim: Simulator) -> None:
    assert api_call(sim.info, "GET", "/nothing/here", authorization="none")[0] == 404
    assert api_call(sim.info, "PATCH", "/enrollments/a", {}, authorization="none")[0] == 405


def test_parts_that_are_not_built_say_so(sim: Simulator) -> None:
    where = {"query": "SELECT * FROM devices WHERE tags.site = 'north'"}
    status, error = api_call(sim.info, "POST", "/devices/query", where)
    assert (status, "Not in this simulator" in error["Message"]) == (501, True)
    status, error = api_call(sim.info, "PUT", "/enrollments/tpm-1", {"attestation": {"type": "tpm", "tpm": {}}})
    assert (status, "TPM" in error["message"]) == (501, True)
    status, error = api_call(sim.info, "POST", "/enrollments/query", {"query": "SELECT * WHERE a > 1"})
    assert (status, "Not in this simulator" in error["message"]) == (501, True)


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "application/octet-stream"])
def test_other_content_types(sim: Simulator, kind: str) -> None:
    """D: 415 is in the list of DPS's codes."""
    body = {"attestation": {"type": "symmetricKey"}}
    assert api_call(sim.info, "PUT", "/enrollments/typed", body, Content_Type=kind)[0] == 415
    status, error = api_call(sim.info, "PUT", "/devices/typed", {}, Content_Type=kind)
    assert (status, error["Message"].split(";")[0]) == (415, "ErrorCode:UnsupportedMediaType")
    good = "application/json; charset=utf-8"
    assert api_call(sim.info, "PUT", "/enrollments/typed", body, Content_Type=good)[0] == 200
    assert api_call(sim.info, "DELETE", "/enrollments/typed")[0] == 204


@pytest.mark.parametrize("body", [b'{"tags": {"a": NaN}}', b'{"tags": {"a": 1e999}}', '{"tags": {}}'.encode("utf-16")])
def test_what_is_no_json(sim: Simulator, body: bytes) -> None:
    """RFC 8259."""
    assert api_call(sim.info, "PATCH", "/twins/dev", body)[0] == 400
    assert api_call(sim.info, "GET", "/twins/dev")[1]["tags"] == {}


def test_answers_are_utf8_without_escapes(sim: Simulator) -> None:
    assert api_call(sim.info, "PATCH", "/twins/dev", {"tags": {"ort": "Köln 🔥"}})[0] == 200
    context = ssl.create_default_context(cafile=sim.info["roots"])
    connection = http.client.HTTPSConnection("localhost", sim.info["https_port"], timeout=10, context=context)
    plain = socket.create_connection(("127.0.0.1", sim.info["https_port"]), 10)
    connection.sock = context.wrap_socket(plain, server_hostname="localhost")
    try:
        headers = {"Authorization": service_token(sim.info)}
        connection.request("GET", "/twins/dev?api-version=2021-04-12", headers=headers)
        text = connection.getresponse().read()
    finally:
        connection.close()
    assert "Köln 🔥".encode() in text
    api_call(sim.info, "PATCH", "/twins/dev", {"tags": None})


def ids(body: Any, name: str) -> list[str]:
    return [one[name] for one in body]


# DPS


@pytest.mark.parametrize(
    "body", ["*", {"query": "*"}, {"query": "all of them"}, {"query": {"query": "SELECT *"}}, {"querySpec": 1}, {}, []]
)
def test_queries_that_dps_takes_for_all(sim: Simulator, body: Any) -> None:
    """L."""
    status, found = api_call(sim.info, "POST", "/enrollmentGroups/query", json.dumps(body).encode())
    assert (status, ids(found, "enrollmentGroupId")) == (200, ["boards"])


def test_the_query_of_a_groups_registrations_needs_no_body(sim: Simulator) -> None:
    """L."""
    assert api_call(sim.info, "POST", "/registrations/boards/query") == (200, [])


def test_an_enrollment_answers_with_the_keys_that_it_made(sim: Simulator) -> None:
    """L."""
    body = {"attestation": {"type": "symmetricKey"}}
    for path in ("/enrollments/keyed", "/enrollmentGroups/keyed"):
        made = api_call(sim.info, "PUT", path, body)[1]["attestation"]["symmetricKey"]
        told = api_call(sim.info, "POST", f"{path}/attestationmechanism")[1]["symmetricKey"]
        assert made == told and len(made["primaryKey"]) == 88
        assert "symmetricKey" not in api_call(sim.info, "GET", path)[1]["attestation"]
        assert api_call(sim.info, "DELETE", path)[0] == 204


def test_static_allocation_without_a_hub(sim: Simulator) -> None:
    """L: the PUT is taken; what has no hub to go to ends as 400208."""
    body = {"attestation": {"type": "symmetricKey"}, "allocationPolicy": "static"}
    status, made = api_call(sim.info, "PUT", "/enrollments/static", body)
    assert (status, made["allocationPolicy"], made["iotHubs"]) == (200, "static", [])
    assert api_call(sim.info, "DELETE", "/enrollments/static")[0] == 204


@pytest.mark.parametrize("id", ["other", "", None, 5])
def test_a_body_that_names_another_or_none(sim: Simulator, id: Any) -> None:
    """S: required."""
    enrollment = {"attestation": {"type": "symmetricKey"}, "registrationId": id, "enrollmentGroupId": id}
    for path in ("/enrollments/named", "/enrollmentGroups/named"):
        assert api_call(sim.info, "PUT", path, json.dumps(enrollment).encode())[0] == 400
        assert api_call(sim.info, "GET", path)[0] == 404
    assert api_call(sim.info, "PUT", "/devices/named", json.dumps({"deviceId": id}).encode())[0] == 400
    assert api_call(sim.info, "PUT", "/devices/named", b"{}")[0] == 400
    assert api_call(sim.info, "GET", "/devices/named")[0] == 404
