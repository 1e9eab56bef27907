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
        (b"$dps/registrations/res/401/", (401, None, 0)),
        (b"$dps/registrations/res/xx/?$rid=1", None),
        (b"$dps/registrations/res/202/?$rid=1&retry-after=soon", None),
        (b"$dps/registrations/res/202", None),
        (b"$dps/registrations/PUT/202/?$rid=1", None),
        (b"devices/x/messages/devicebound/", None),
        (b"\xff\xfe", None),
        (b"", None),
    ):
        assert dps.parse_topic(topic) == parsed, topic


def test_assigned():
    a = answer(200, {"status": "assigned", "registrationState": dict(STATE, issuedCertificateChain=["QQ=="], payload={"x": 1}), "new": 1})
    assert (a.assigned_hub, a.device_id, a.substatus) == ("hub.azure-devices.net", "contoso-0001", "initialAssignment")
    assert a.issued_certificate_chain == ["QQ=="] and a.payload == {"x": 1}
    a = answer(200, {"status": "assigned", "registrationState": dict(STATE, issuedCertificateChain=None)})
    assert a.issued_certificate_chain is None


def test_assigning_gives_the_operation():
    for status in (200, 202):
        for name in ("assigning", "unassigned"):
            assert answer(status, {"operationId": "op", "status": name}) == "op"


def test_refusals_keep_the_service_s_words():
    e = raises(401002, answer, 401, {"errorCode": 401002, "trackingId": "t-1", "message": "Unauthorized", "timestampUtc": ""})
    assert (e.step, e.text, e.tracking_id, e.retriable) == ("dps.register", "Unauthorized", "t-1", False)
    e = raises(429001, answer, 429, {"errorCode": 429001, "message": "Throttled"}, 17)
    assert e.retriable and e.retry_after == 17
    for body in (b"", b"not json", b"[]", b"\xff"):
        e = raises(503, answer, 503, body)
        assert e.retriable


def test_failed_and_disabled_come_with_status_200():
    e = raises(400207, answer, 200, {"status": "failed", "registrationState": {"errorCode": 400207, "errorMessage": "Custom allocation failed"}})
    assert e.text == "Custom allocation failed" and not e.retriable
    raises("failed", answer, 200, {"status": "failed", "registrationState": {}})
    raises("disabled", answer, 200, {"status": "disabled", "operationId": ""})


def test_answers_that_make_no_sense():
    for body in (
        b"",
        b"{",
        b"[]",
        b"{}",
        {"status": "assigned"},
        {"status": "assigned", "registrationState": {"deviceId": "x"}},
        {"status": "assigned", "registrationState": []},
        {"status": "assigning"},
        {"status": "thinking"},
        {"status": None},
    ):
        raises("protocol", answer, 200, body)
