import json
from binascii import a2b_base64, b2a_base64

import vectors
from aziot import dps
from check import raises

STATE = {
    "registrationId": "contoso-0001",
    "assignedHub": "hub.azure-devices.net",
    "deviceId": "contoso-0001",
    "status": "assigned",
    "substatus": "initialAssignment",
}


def answer(status, body, retry_after=0):
    return dps.parse_answer(status, body if isinstance(body, bytes) else json.dumps(body).encode(), retry_after)


def test_what_is_sent():
    assert (
        dps.username("0ne00C0FFEE", "contoso-0001", "2025-07-01-preview")
        == "0ne00C0FFEE/registrations/contoso-0001/api-version=2025-07-01-preview"
    )
    assert dps.register_topic(1) == "$dps/registrations/PUT/iotdps-register/?$rid=1"
    assert (
        dps.status_topic(2, "5.316aac5bdc130deb.b1e0")
        == "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId=5.316aac5bdc130deb.b1e0"
    )
    csr = a2b_base64(vectors.P384_CSR)
    assert json.loads(dps.request("contoso-0001", csr, {"a": 1})) == {
        "registrationId": "contoso-0001",
        "csr": b2a_base64(csr).strip().decode(),
        "payload": {"a": 1},
    }
    assert json.loads(dps.request("contoso-0001")) == {"registrationId": "contoso-0001"}


def test_topics_of_answers():
    for topic, parsed in (
        (b"$dps/registrations/res/202/?$rid=1&retry-after=3", (202, "1", 3)),
        (b"$dps/registrations/res/202/?retry-after=3&$rid=1", (202, "1", 3)),
        (b"$dps/registrations/res/202/?$rid=a-b&Retry-After=10", (202, "a-b", 10)),
        (b"$dps/registrations/res/200/?$rid=7", (200, "7", 0)),
        (b"$dps/registrations/res/200/?$rid=7&new=x", (200, "7", 0)),
        (b"$dps/registrations/res/401/", None),
        (b"$dps/registrations/res/xx/?$rid=1", None),
        # what can be read of those that do not quite fit is read
        (b"$dps/registrations/res/202/?$rid=1&retry-after=soon", (202, "1", 0)),
        (b"$dps/registrations/res/429/?$rid=1&retry-after=2.5", (429, "1", 3)),
        (b"$dps/registrations/res/429/?$rid=1&retry-after=Wed, 21 Oct 2026 07:28:00 GMT", (429, "1", 0)),
        (b"$dps/registrations/res/429/?$rid=1&retry-after=-3", (429, "1", 0)),
        (b"$dps/registrations/res/429/?$rid=1&retry-after=1000000000", (429, "1", 3600)),
        (b"$dps/registrations/res/200/?$rid=7&", (200, "7", 0)),
        (b"$dps/registrations/res/200/?&$rid=7&flag&a=b=c", (200, "7", 0)),
        (b"$dps/registrations/res/200?$rid=7", (200, "7", 0)),
        (b"$dps/registrations/res/200/?$rid", (200, "", 0)),
        (b"$dps/registrations/res/202", None),
        (b"$dps/registrations/PUT/202/?$rid=1", None),
        (b"devices/x/messages/devicebound/", None),
        (b"\xff\xfe", None),
        (b"", None),
    ):
        assert dps.parse_topic(topic) == parsed, topic


def test_assigned():
    a = answer(
        200,
        {
            "status": "assigned",
            "registrationState": dict(STATE, issuedCertificateChain=["QQ=="], payload={"x": 1}),
            "new": 1,
        },
    )
    assert (a.assigned_hub, a.device_id, a.substatus) == ("hub.azure-devices.net", "contoso-0001", "initialAssignment")
    assert [bytes(c, "utf-8") if isinstance(c, str) else bytes(c) for c in a.issued_certificate_chain] == [b"QQ=="]
    assert a.payload == {"x": 1}
    for chain in ({}, {"issuedCertificateChain": None}):
        a = answer(200, {"status": "assigned", "registrationState": dict(STATE, **chain)})
        assert a.issued_certificate_chain is None


def assigned(state):
    return answer(200, {"status": "assigned", "registrationState": state})


def test_connection_profile():
    # classic or Classic: data plane and control plane differ
    for profile in (None, "", "classic", "Classic", "CLASSIC"):
        assert assigned(dict(STATE, connectionProfile=profile)).device_id == "contoso-0001"
    for profile in ("mqttV5", "MqttV5", "other", 7, ["classic"]):
        e = raises("profile", assigned, dict(STATE, connectionProfile=profile))
        assert str(profile) in e.text and not e.retriable and e.step == "dps.register"


def test_assigned_to_nowhere():
    for state in (
        None, [], "x", {}, {"deviceId": "x"}, {"assignedHub": "x"}, {"assignedHub": "", "deviceId": "x"},
        {"assignedHub": None, "deviceId": "x"}, {"assignedHub": 1, "deviceId": 2}, {"assignedHub": [1], "deviceId": [2]},
    ):  # fmt: skip
        assert raises("protocol", assigned, state).text == "assigned"


def test_assigning_gives_the_operation():
    for status in (200, 202):
        for name in ("assigning", "unassigned"):
            assert answer(status, {"operationId": "op", "status": name}) == "op"


def test_refusals_keep_the_service_s_words():
    e = raises(
        401002, answer, 401, {"errorCode": 401002, "trackingId": "t-1", "message": "Unauthorized", "timestampUtc": ""}
    )
    assert (e.step, e.text, e.tracking_id, e.retriable) == ("dps.register", "Unauthorized", "t-1", False)
    e = raises(429001, answer, 429, {"errorCode": 429001, "message": "Throttled"}, 17)
    assert e.retriable and e.retry_after == 17


def test_every_class_of_refusal_with_and_without_a_body():
    for status in (400, 401, 404, 405, 409, 412, 415, 429, 500, 503, 504):
        for body in (b"", b"not json", b"[]", b"\xff", b"{}", b"null", b'"text"', b'{"errorCode":"x"}'):
            e = raises(status, answer, status, body)
            assert e.retriable == (status in (429, 500, 503, 504))
        raises(status * 1000 + 1, answer, status, {"errorCode": status * 1000 + 1})


def test_failed_and_disabled_come_with_status_200():
    e = raises(
        400207,
        answer,
        200,
        {"status": "failed", "registrationState": {"errorCode": 400207, "errorMessage": "Custom allocation failed"}},
    )
    assert e.text == "Custom allocation failed" and not e.retriable
    for state in ({}, None, [], "x", {"errorCode": None}):
        e = raises("failed", answer, 200, {"status": "failed", "registrationState": state})
        assert not e.retriable
        raises("disabled", answer, 200, {"status": "disabled", "operationId": "", "registrationState": state})


def test_answers_that_make_no_sense():
    for body in (
        b"",
        b"{",
        b"[]",
        b"{}",
        b"null",
        b"7",
        {"status": "assigning"},
        {"status": "assigning", "operationId": 7},
        {"status": "thinking"},
        {"status": None},
        {"status": ["assigned"]},
    ):
        raises("protocol", answer, 200, body)


def test_waiting():
    assert dps.wait_time(0, 3) == dps.wait_time(9, 3) == 3
    assert dps.wait_time(0, 1) == 2  # five times in ten seconds at most
    for attempt, middle in ((1, 2), (2, 4), (3, 8), (4, 16), (5, 30), (9, 30)):
        waits = [dps.wait_time(attempt, 0) for _ in range(50)]
        assert max(2, middle * 0.8) <= min(waits) <= max(waits) <= middle * 1.2, (attempt, waits)
        assert max(waits) > min(waits)


def test_the_older_api_s_names_and_form():
    from aziot import dps2021

    csr = a2b_base64(vectors.P384_CSR)
    body = json.loads(dps.request("contoso-0001", csr, None, dps2021))
    lines = body["clientCertificateCsr"].split("\n")
    assert lines[0] == "-----BEGIN CERTIFICATE REQUEST-----" and lines[-2:] == ["-----END CERTIFICATE REQUEST-----", ""]
    assert a2b_base64("".join(lines[1:-2])) == csr and "csr" not in body
    pem = "".join(
        "-----BEGIN CERTIFICATE-----\n%s\n%s\n-----END CERTIFICATE-----\n" % (c[:64], c[64:])
        for c in (vectors.P384_LEAF, vectors.ROOT)
    )
    body = {"status": "assigned", "registrationState": dict(STATE, issuedClientCertificate=pem, trustBundle={})}
    found = dps.parse_answer(200, json.dumps(body).encode(), 0, dps2021)
    assert found.issued_certificate_chain == [vectors.P384_LEAF, vectors.ROOT]
    for state in (STATE, dict(STATE, issuedClientCertificate=None), dict(STATE, issuedClientCertificate=7)):
        body["registrationState"] = state
        assert dps.parse_answer(200, json.dumps(body).encode(), 0, dps2021).issued_certificate_chain is None
