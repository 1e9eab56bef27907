import json

import vectors
from aziot import clock, dps, stream
from aziot.identity import Identity
from check import Folder, raises, write
from plain import Peer

CONNACK = b"\x20\x02\x00\x00"
SUBACK = b"\x90\x03\x00\x01\x00"
STATE = {"assignedHub": "hub-1", "deviceId": "contoso-0001", "substatus": "initialAssignment"}
ASSIGNED = {"operationId": "op", "status": "assigned", "registrationState": STATE}
ASSIGNING = {"operationId": "op", "status": "assigning"}


def message(tail, body, qos=0):
    """A PUBLISH from DPS: tail is what follows res/ in the topic."""
    topic = b"$dps/registrations/res/" + tail.encode()
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    rest = bytes([len(topic) >> 8, len(topic) & 255]) + topic + (b"\x00\x09" if qos else b"") + body
    size = len(rest)
    return bytes([0x30 | qos << 1, size & 127 | 128, size >> 7]) + rest


class Run:
    """One register() against a peer that says all this; pauses are not slept but kept."""

    def __init__(self, *says, **config):
        self.pauses = []
        self.said = []
        timeout = config.pop("overall", 120)
        payload = config.pop("payload", None)
        real, stream.pause = stream.pause, self.pauses.append
        try:
            with Folder() as root, Peer(CONNACK + b"".join(says), config.pop("closes", False)) as peer:
                for name, content in (
                    (
                        "device.json",
                        dict(
                            {
                                "registration_id": "contoso-0001",
                                "id_scope": "0ne",
                                "dps_host": "127.0.0.1",
                                "port": peer.port,
                                "timeout": 1,
                            },
                            **config,
                        ),
                    ),
                    ("secrets.json", {"device_key": vectors.DEVICE_KEY}),
                ):
                    write(root + name, json.dumps(content))
                write(root + "roots.pem", b"")
                self.peer = peer
                try:
                    identity = Identity(root, lambda step, text: self.said.append(step))
                    self.assignment = dps.register(identity, payload, timeout)
                finally:
                    self.sent = b"".join(peer.wire.flights)
                    self.flights = len(peer.wire.flights)
        finally:
            stream.pause = real


def fails(code, *says, **config):
    return raises(code, Run, *says, **config)


def test_the_whole_dialogue_is_four_flights_of_these_bytes():
    real, clock.now = clock.now, lambda: 1900000000 - 7200
    try:
        run = Run(
            SUBACK,
            message("202/?$rid=1&retry-after=3", ASSIGNING),
            message("200/?$rid=2", ASSIGNED),
            id_scope="0ne00C0FFEE",
        )
    finally:
        clock.now = real
    assert run.assignment.assigned_hub == "hub-1" and run.pauses == [3] and run.flights == 4
    assert run.said == ["dps.connect", "dps.register", "dps.assigning", "dps.assigned"]
    token = vectors.DPS_TOKEN.encode()
    assert run.sent == (
        b"\x10"
        + bytes([89 + len(token) & 127 | 128, 89 + len(token) >> 7])
        + b"\x00\x04MQTT\x04\xc2\x00\x78\x00\x0ccontoso-0001"
        + b"\x00\x3d0ne00C0FFEE/registrations/contoso-0001/api-version=2026-11-01"
        + bytes([len(token) >> 8, len(token) & 255])
        + token
        + b"\x82\x1d\x00\x01\x00\x18$dps/registrations/res/#\x00"
        + b"\x30\x52\x00\x2e$dps/registrations/PUT/iotdps-register/?$rid=1"
        + b'{"registrationId": "contoso-0001"}'
        + b"\x30\x4a\x00\x48$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId=op"
    ), run.sent


def test_assigned_at_once_and_after_many_questions():
    assert Run(SUBACK, message("200/?$rid=1", ASSIGNED)).pauses == []
    many = [message("202/?$rid=%d&retry-after=2" % n, ASSIGNING) for n in range(1, 31)]
    run = Run(SUBACK, *many, message("200/?$rid=31", ASSIGNED), overall=600)
    assert run.pauses == [2] * 30 and run.flights == 33


def test_without_retry_after_the_questions_grow_rarer():
    many = [message("202/?$rid=%d" % n, dict(ASSIGNING, status="unassigned")) for n in range(1, 8)]
    run = Run(SUBACK, *many, message("200/?$rid=8", ASSIGNED), overall=600)
    for seconds, middle in zip(run.pauses, (1, 2, 4, 8, 16, 30, 30)):
        assert max(2, middle * 0.8) <= seconds <= max(2, middle * 1.2), run.pauses


def test_answers_with_qos_1_are_acknowledged():
    run = Run(SUBACK, message("202/?retry-after=3&$rid=1", ASSIGNING, 1), message("200/?$rid=2", ASSIGNED, 1))
    assert run.flights == 4 and b"\x40\x02\x00\x09\x30" in run.sent  # the PUBACK goes with the next question


def test_answers_to_others_are_not_taken():
    for stranger in ("200/?$rid=7", "200/", "200/?retry-after=3", "401/?$rid=0", "garbage", ""):
        run = Run(
            SUBACK,
            message(stranger, dict(ASSIGNED, registrationState=dict(STATE, deviceId="stranger"))),
            message("200/?$rid=1", ASSIGNED),
        )
        assert run.assignment.device_id == "contoso-0001", stranger


def test_a_late_answer_to_an_earlier_question_is_not_taken():
    run = Run(
        SUBACK,
        message("202/?$rid=1&retry-after=3", ASSIGNING),
        message("200/?$rid=1", dict(ASSIGNED, registrationState=dict(STATE, deviceId="late"))),
        message("200/?$rid=2", ASSIGNED),
    )
    assert run.assignment.device_id == "contoso-0001"


def test_an_answer_before_the_suback_is_kept():
    assert Run(message("200/?$rid=1", ASSIGNED), SUBACK).assignment.device_id == "contoso-0001"


def test_refusals_stop_at_once():
    for status in (400, 401, 404, 405, 409, 412, 415):
        e = fails(
            status * 1000 + 2,
            SUBACK,
            message("%d/?$rid=1" % status, {"errorCode": status * 1000 + 2, "message": "no", "trackingId": "t"}),
        )
        assert (e.text, e.tracking_id, e.step) == ("no", "t", "dps.register")
        fails(status, SUBACK, message("%d/?$rid=1" % status, b"<html>"))
        fails(status, SUBACK, message("%d/?$rid=1" % status, b""))


def test_throttling_and_server_faults_are_waited_out():
    for status in (429, 500, 503):
        run = Run(
            SUBACK,
            message("%d/?$rid=1&retry-after=11" % status, {"errorCode": status * 1000 + 1}),
            message("%d/?$rid=2" % status, b""),
            message("200/?$rid=3", ASSIGNED),
        )
        assert run.pauses[0] == 11 and 1.6 <= run.pauses[1] <= 2.4
        assert run.sent.count(b"iotdps-register") == 3
    run = Run(
        SUBACK,
        message("202/?$rid=1&retry-after=3", ASSIGNING),
        message("503/?$rid=2&retry-after=5", b""),
        message("200/?$rid=3", ASSIGNED),
    )
    assert run.pauses == [3, 5] and run.sent.count(b"operationId=op") == 2


def test_an_operation_that_vanishes_is_begun_again():
    run = Run(
        SUBACK,
        message("202/?$rid=1&retry-after=3", ASSIGNING),
        message("404/?$rid=2", {"errorCode": 404203}),
        message("202/?$rid=3&retry-after=3", dict(ASSIGNING, operationId="op2")),
        message("200/?$rid=4", ASSIGNED),
    )
    assert run.sent.count(b"iotdps-register") == 2 and run.sent.count(b"operationId=op2") == 1
    fails(404203, SUBACK, message("404/?$rid=1", {"errorCode": 404203}))


def test_final_states_that_come_with_200():
    fails("disabled", SUBACK, message("200/?$rid=1", {"status": "disabled"}))
    fails(
        400207,
        SUBACK,
        message("202/?$rid=1", ASSIGNING),
        message("200/?$rid=2", {"status": "failed", "registrationState": {"errorCode": 400207}}),
    )
    fails("protocol", SUBACK, message("200/?$rid=1", {"status": "resting"}))


def test_the_caller_s_deadline_holds():
    e = fails("timeout", SUBACK, message("202/?$rid=1&retry-after=50", ASSIGNING), overall=40)
    assert e.retriable and e.text == "assigning" and e.retry_after == 50


def test_a_refusal_that_asks_for_more_time_than_there_is_comes_with_it():
    for wait, floor in ((150, 150), (3600, 3600), (10**9, 3600)):
        e = fails(429001, SUBACK, message("429/?$rid=1&retry-after=%d" % wait, {"errorCode": 429001}))
        assert e.retriable and e.retry_after == floor
    # Roles of DPS that are not ready yet: not asked again every few seconds.
    assert 60 <= fails(403000, SUBACK, message("403/?$rid=1", {"errorCode": 403000})).retry_after <= 600


def test_an_answer_is_not_waited_for_past_the_caller_s_deadline():
    from time import time

    begun = time()
    e = fails("timeout", SUBACK, overall=1, timeout=30)
    assert time() - begun < 10 and e.step == "dps.register"


def test_silence_and_hanging_up():
    assert fails("timeout", SUBACK).step == "dps.register"
    assert fails("timeout").step == "dps.register"
    assert fails("closed", SUBACK, closes=True).step == "dps.register"


def test_a_message_too_big_is_refused_before_it_is_read():
    fails("too-big", SUBACK, b"\x30\xff\xff\x7f\x00\x03a/b")


def test_custom_payload_goes_and_comes():
    state = dict(STATE, payload={"place": ["here"]})
    run = Run(SUBACK, message("200/?$rid=1", dict(ASSIGNED, registrationState=state)), payload={"model": 7})
    assert run.assignment.payload == {"place": ["here"]}
    assert b'"payload": {"model": 7}' in run.sent


def test_the_session_ends_without_a_flight_of_its_own():
    # DPS keeps no session and has no will to send: closing the connection says enough.
    assert not Run(SUBACK, message("200/?$rid=1", ASSIGNED)).sent.endswith(b"\xe0\x00")
