"""Whatever arrives, the session goes on: too large, malformed, too much, or before anybody wants it."""

import json

from aziot import clock, escapes, hub, packets, stream
from aziot.cloud import loads
from aziot.runtime import time
from check import Folder, raises
from plain import Peer
from test_cloud import DESIRED, TWIN, Hub, message, method, packet
from test_hub import CONNACK, PUBACK, session
from test_mqtt import by_packets
from test_mqtt import session as connected

PRESENT = b"\x20\x02\x01\x00"  # CONNACK: the session of before is still there (MQTT 3.1.1, 3.2.2.2)
LARGE = b'{"a": "' + b"x" * 1000 + b'"}'


class Full:
    """A heap whose largest piece has 500 bytes."""

    def __enter__(self):
        self.real, packets._room = packets._room, self.room
        return self

    def __exit__(self, *exc):
        packets._room = self.real

    def room(self, size):
        if size > 500:
            raise MemoryError


def skipped(at):
    return [line for line in at.session.lines if line.startswith("skipped")]


def test_a_message_too_large_for_the_heap_is_left_to_the_hub():
    heard = []
    with Full(), Hub(report=False) as at:
        at.suback()
        at.session.on_message(lambda body, bag: heard.append(body))
        at.sent()
        at.say(message(LARGE, pid=5), message(b"small", pid=6))
        at.poll()
        at.poll()
        assert heard == [b"small"]
        assert at.sent().endswith(PUBACK + b"\x06") and len(skipped(at)) == 1
        at.say(message(LARGE, pid=7), message(b"next", pid=8))
        at.poll()
        at.poll()
        assert heard == [b"small", b"next"] and at.sent() == PUBACK + b"\x08"
        assert len(skipped(at)) == 1  # said once


def test_it_is_reported_in_the_twin_once():
    with Full(), Hub() as at:
        at.suback()
        at.session.on_message(lambda body, bag: None)
        at.sent()
        at.say(message(LARGE), message(LARGE))
        at.poll()
        at.suback()  # the twin's answers are subscribed first
        at.poll()
        at.poll()
        assert at.sent().count(b'/reported/?$rid=r{"skipped":%d}' % len(LARGE)) == 1


def test_its_bytes_are_read_away_over_several_polls():
    with Full(), Hub(report=False) as at:
        at.suback()
        at.session.on_message(lambda body, bag: None)
        at.sent()
        whole = message(LARGE, pid=5)
        for part in (whole[:60], whole[60:400], whole[400:900], whole[900:] + message(b"x", pid=6)):
            at.say(part)
            at.poll()
        at.poll()
        assert at.sent().endswith(PUBACK + b"\x06")


def test_a_method_too_large_is_answered_with_413():
    with Full(), Hub(report=False) as at:
        at.suback()
        at.session.on_method("set", lambda payload: (200, None))
        at.sent()
        at.say(method(b"set", LARGE, b"9"))
        at.poll()
        assert b"$iothub/methods/res/413/?$rid=9null" in at.sent()
        at.say(method(b"set", b"{}", b"10"))
        at.poll()
        at.poll()
        assert b"$iothub/methods/res/200/?$rid=10null" in at.sent()


def test_desired_properties_too_large_are_left_alone_until_they_change():
    seen = []
    with Full(), Hub(report=False) as at:
        at.suback()
        at.suback()
        at.answer(200, {"desired": {"a": "x" * 1000, "$version": 4}, "reported": {"$version": 1}})
        at.session.on_desired(lambda patch, version: seen.append((patch, version)))
        assert seen == [] and len(skipped(at)) == 1
        at.sent()
        at.poll()
        assert b"twin/GET" not in at.sent()
        at.say(packet(DESIRED + b"5", {"a": "short", "$version": 5}))
        at.answer(200, {"desired": {"a": "short", "$version": 5}, "reported": {"$version": 1}})
        at.poll()
        assert seen == [({"a": "short"}, 5)]


def test_a_twin_too_large_is_an_error_for_whoever_asks_and_the_connection_stays():
    with Full(), Hub(report=False) as at:
        at.suback()
        at.answer(200, {"desired": {"a": "x" * 1000, "$version": 4}})
        raises("too-big", at.session.twin)
        at.say(PUBACK + b"\x02", PUBACK + b"\x03", PUBACK + b"\x04")  # its number differs
        at.session.send("on")


def test_no_room_to_read_its_json():
    def full(_):
        raise MemoryError

    from aziot import cloud

    with Hub() as at:
        at.suback()
        at.session.on_method("set", lambda payload: (200, None))
        at.sent()
        real, cloud.loads = cloud.loads, full
        try:
            at.say(method(b"set", b"{}", b"9"))
            at.poll()
        finally:
            cloud.loads = real
        assert b"$iothub/methods/res/413/?$rid=9null" in at.sent()


def test_topics_that_fit_no_pattern_are_dropped_and_the_application_is_not_blamed():
    heard = []
    topics = (
        b"devices/x", b"devices/dev-1/messages/devicebound/%", b"$iothub/twin/res/", b"$iothub/twin/res/x/?$rid=1",
        b"$iothub/twin/res/200/1/2/3", b"$iothub/methods/POST/", b"$iothub/methods/POST/set", b"$iothub/odd", b"\0",
        b"a/b/c",
    )  # fmt: skip
    with Hub() as at:
        at.suback()
        at.session.on_message(lambda body, bag: heard.append(body))
        at.suback()
        at.session.on_method("set", lambda payload: (200, None))
        at.session._twin()
        for topic in topics:
            at.say(packet(topic, b"{}"))
            at.poll()
        at.say(message(b"good"))
        at.poll()
        assert heard[-1] == b"good"
        lines = at.session.lines
        assert not [line for line in lines if line.startswith("error")] and len(lines) >= len(topics) - 2
        assert lines[0] == "dropped b'devices/x'"


def test_versions_of_another_form_are_no_news():
    seen = []
    with Hub() as at:
        at.desire(lambda patch, version: seen.append(version), {"$version": 1})
        for version in ("2", None, [2], {}):
            at.say(packet(DESIRED + b"2", {"a": 1, "$version": version}))
            at.poll()
        at.say(packet(DESIRED + b"2", {"a": 1, "$version": 2}))
        at.poll()
        assert seen == [1, 2]
        at.suback()
        at.say(packet(TWIN + b"res/204/?$rid=5&$version=x"))
        raises("protocol", at.session.report, {})


def test_a_flood_ends_no_later_than_poll_was_told():
    for flood in (b"\xd0\x00", packet(b"a/b", b"x")):
        with Hub() as at:
            at.say(flood * 400)
            begun = time.ticks_ms()
            at.session.poll(20)
            assert time.ticks_diff(time.ticks_ms(), begun) < 2000
            at.say(flood)
            at.session.poll(0)


def test_the_watchdog_is_fed_while_bytes_keep_coming():
    # Each read finds something at once: there is no wait in which the watchdog would be fed.
    fed = []
    real, stream.idle = stream.idle, lambda: fed.append(1)
    try:
        with Hub() as at:
            at.say(b"\xd0\x00" * 50)
            del fed[:]
            for _ in range(50):
                at.session.stream.link.fed = clock.due(0)
                at.session.mqtt.wait(1)
            assert len(fed) >= 50
    finally:
        stream.idle = real


def test_no_acknowledgement_is_a_timeout_whatever_else_comes():
    with Peer(CONNACK) as peer:
        mqtt = connected(peer, [])
        link = mqtt.stream.link
        real = link.readinto

        def readinto(buf):
            time.sleep_ms(5)
            peer.socket.send(packet(b"a/b", b"x", 3))
            return real(buf)

        link.readinto = readinto
        begun = time.ticks_ms()
        raises("timeout", mqtt.publish, "a", b"x", 1)
        assert time.ticks_diff(time.ticks_ms(), begun) < 5000


def test_a_late_acknowledgement_does_not_confuse_what_follows():
    heard = []
    with Peer(CONNACK + PUBACK + b"\x07" + packet(b"a/b", b"hello")) as peer:
        mqtt = by_packets(peer, heard)
        for _ in range(4):
            mqtt.wait(50)
        assert heard == [(b"a/b", b"hello")]


def test_what_json_has_no_form_for_is_refused_before_it_is_sent():
    bad = (
        float("nan"),
        float("inf"),
        b"x",
        {1, 2},
        object(),
        [1, (2, b"")],
        {"a": {"b": float("-inf")}},
        {(1, 2): 3},
        {b"k": 1},
    )
    with Hub() as at:
        at.sent()
        for value in bad:
            raises("message", at.session.send, {"v": value})
            raises("message", at.session.report, {"v": value})
        assert at.sent() == b""
    for value in ({"a": [1, 2.5, None, True, "x", (3,)], "b": {}}, [], {1: 2}):
        assert json.loads(hub.dumps(value)) == json.loads(json.dumps(value))


def test_a_method_s_answer_without_a_form_in_json_is_a_500():
    answers = [(200, float("nan")), (200, b"x"), (-1, None), (10**12, None), ("a", None), (200, "x" * 131072), None]
    with Hub() as at:
        at.suback()
        at.session.on_method("set", lambda payload: answers.pop())
        while answers:
            at.sent()
            before = len(at.session.lines)
            at.say(method(b"set", b"{}", b"9"))
            at.poll()
            assert b"$iothub/methods/res/500/?$rid=9null" in at.sent()
            assert at.session.lines[before].startswith("error app ")


def test_method_names_are_matched_without_regard_to_case():
    with Hub() as at:
        at.suback()
        at.session.on_method("SetLed", lambda payload: (200, payload))
        at.sent()
        at.say(method(b"setLED", b"1", b"9"))
        at.poll()
        assert b"$iothub/methods/res/200/?$rid=91" in at.sent()


def test_two_escapes_that_are_one_character():
    # RFC 8259, 7: U+1D11E is \uD834\uDD1E
    for text, meant in (
        (b'"\\uD834\\uDD1E"', "\U0001d11e"), (b'"\\ud83d\\ude00!"', "\U0001f600!"), (b'"\\u00fc"', "\u00fc"),
        (b'"\\\\ud83d\\\\ude00"', "\\ud83d\\ude00"), (b'"\\\\\\ud83d\\ude00"', "\\\U0001f600"),
        (b'"\\ud83d"', "\ufffd"), (b'"\\ude00x"', "\ufffdx"), (b'"\\ud83d\\u0041"', "\ufffdA"),
    ):  # fmt: skip
        assert loads(text) == meant, text
    for text in (b'"\\ud8', b'"\\uzzzz"', b'"\\'):
        try:
            loads(text)
            raise AssertionError(text)
        except ValueError:
            pass
    assert bytes(escapes.joined(b'{"a": "\\n\\u0041"}')) == b'{"a": "\\n\\u0041"}'


def again(root, first, filters):
    """A connection on which the Hub says whether it has the session of before; what is subscribed on it."""
    with Peer(first) as peer:
        opened = session(root, peer)
        del peer.wire.flights[:]
        for number, subscribe in enumerate(filters, 1):
            peer.socket.send(bytes([0x90, 3, 0, number, 1]))
            subscribe(opened)
        opened.mqtt.stream.flush()
        sent = b"".join(peer.wire.flights)
        opened.close()
        return [name for name in (b"devicebound/#", b"methods/POST/#") if name in sent]


def test_what_the_hub_still_has_is_not_subscribed_again():
    messages = lambda opened: opened.on_message(lambda body, bag: None)  # noqa: E731
    methods = lambda opened: opened.on_method("a", lambda payload: (200, None))  # noqa: E731
    with Folder() as root:
        assert again(root, CONNACK, [messages]) == [b"devicebound/#"]
        assert again(root, PRESENT, [messages]) == []
        assert again(root, PRESENT, [messages, methods]) == [b"methods/POST/#"]  # a new application wants more
        assert again(root, PRESENT, [methods, messages]) == []
        assert again(root, CONNACK, [messages, methods]) == [b"devicebound/#", b"methods/POST/#"]  # the Hub forgot
        assert again(root, CONNACK, [messages]) == [b"devicebound/#"]
        assert again(root, PRESENT, [messages, methods]) == [b"methods/POST/#"]  # and so did the note
        with open(root + "subscribed", "r+") as f:  # cut short, as by a power cut
            content = f.read()
        with open(root + "subscribed", "w") as f:
            f.write(content[:-1])
        assert again(root, PRESENT, [messages]) == [b"devicebound/#"]
        with open(root + "subscribed", "w") as f:
            f.write(content.replace("127.0.0.1", "other-hub"))
        assert again(root, PRESENT, [messages]) == [b"devicebound/#"]


def test_the_session_at_the_hub_is_kept():
    # Without it nothing that was said while the board was away is delivered. The flag is bit 1 (MQTT 3.1.1, 3.1.2.4).
    with Hub() as at:
        connect = at.sent()
        flags = connect[connect.find(b"MQTT\x04") + 5]
        assert not flags & 2


def test_what_waited_is_not_acknowledged_before_a_handler_has_had_it():
    heard = []
    with Folder() as root, Peer(PRESENT + message(b"one", pid=1) + message(b"two", pid=2)) as peer:
        opened = session(root, peer)
        opened.poll(20)
        opened.stream.flush()
        assert PUBACK not in b"".join(peer.wire.flights)
        peer.socket.send(b"\x90\x03\x00\x01\x01" + message(b"three", pid=3))
        opened.on_message(lambda body, bag: heard.append(body))
        opened.poll(20)
        opened.stream.flush()
        assert heard == [b"one", b"two", b"three"]
        assert b"".join(peer.wire.flights).endswith(PUBACK + b"\1" + PUBACK + b"\2" + PUBACK + b"\3")
        opened.close()


def test_of_what_nobody_wants_only_so_much_is_kept():
    with Folder() as root, Peer(PRESENT) as peer:
        opened = session(root, peer)
        for number in range(40):
            peer.socket.send(message(b"x" * 200, pid=number + 1))
            opened.poll(2)
        opened.poll(20)
        assert len(opened.cloud.early) <= 16
        opened.stream.flush()
        assert PUBACK not in b"".join(peer.wire.flights)
        connects = []
        opened.device.connect = lambda: connects.append(opened.cloud.resume())
        peer.socket.send(b"\x90\x03\x00\x01\x01" * 1)
        opened.on_message(lambda body, bag: None)
        peer.socket.send(b"\x90\x03\x00\x02\x01")
        opened.poll(5)
        assert len(connects) == 1  # the Hub says the others again on a new connection
        opened.close()
