"""What comes from the cloud, byte by byte: who is called with what, and when the Hub is told that it was."""

import json
from aziot.runtime import time

from aziot import hub, twin
from check import Folder, raises
from plain import Peer
from test_hub import CONNACK, DISCONNECT, PUBACK, Clock, session

TWIN = b"$iothub/twin/"
DESIRED = TWIN + b"PATCH/properties/desired/?$version="


def packet(topic, body=b"", pid=0):
    """A PUBLISH of the Hub; with a packet id it has QoS 1."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    rest = bytes([0, len(topic)]) + topic + (bytes([pid >> 8, pid & 255]) if pid else b"") + body
    size = bytes([len(rest)]) if len(rest) < 128 else bytes([len(rest) & 127 | 128, len(rest) >> 7])
    return (b"\x32" if pid else b"\x30") + size + rest


def message(body, bag=b"", pid=7):
    return packet(b"devices/dev-1/messages/devicebound/" + bag, body, pid)


def method(name, body, rid=b"1"):
    return packet(b"$iothub/methods/POST/" + name + b"/?$rid=" + rid, body)


class Hub:
    """The other end of a session, in the same thread: what it says is there before the session listens.

    With a clock that only the Hub moves, so that the ids of questions are known.
    """

    def __init__(self, **config):
        self.config = config
        self.subscribed = 0

    def __enter__(self):
        self.folder, self.peer = Folder(), Peer(CONNACK)
        self.real = twin.due
        twin.due = lambda ms: self.real(ms) if ms else 5
        root = self.folder.__enter__()
        self.session = session(root, self.peer.__enter__(), **self.config)
        return self

    def __exit__(self, *exc):
        twin.due = self.real
        self.session.close()
        self.peer.__exit__(*exc)
        self.folder.__exit__(*exc)

    def say(self, *packets):
        self.peer.socket.send(b"".join(packets))

    def suback(self):
        # Requests are numbered from 1 on by umqtt.simple and paho alike.
        self.subscribed += 1
        self.say(bytes([0x90, 3, 0, self.subscribed, 1]))

    def answer(self, status, body, version=None):
        tail = b"" if version is None else b"&$version=%d" % version
        self.say(packet(TWIN + b"res/%d/?$rid=5" % status + tail, body))

    def desire(self, handler, desired):
        self.suback()
        self.suback()
        self.answer(200, {"desired": desired, "reported": {"$version": 1}})
        self.session.on_desired(handler)

    def sent(self):
        """All flights since the last call, in one."""
        flights = self.peer.wire.flights
        data = b"".join(flights)
        del flights[:]
        return data

    def poll(self, ms=30):
        self.session.poll(ms)
        self.session.stream.flush()


def test_a_message_is_acknowledged_when_its_handler_has_returned():
    seen = []
    with Hub() as at:

        def handler(body, properties):
            at.session.stream.flush()
            seen.append((body, properties, at.sent()))

        at.suback()
        at.session.on_message(handler)
        assert at.sent().endswith(b"\x82\x29\x00\x01\x00\x24devices/dev-1/messages/devicebound/#\x01")
        at.say(message(b"\x00hello", b"%24.mid=a-1&name=gr%C3%BC%C3%9F%20%2F&empty=&none"))
        at.poll()
        assert seen == [(b"\x00hello", {"$.mid": "a-1", "name": "gr\u00fc\u00df /", "empty": "", "none": None}, b"")]
        assert at.sent() == PUBACK + b"\x07"
        at.say(message(b"", b"", 0x102), message(b"again", b"x=%zz", 3))
        at.poll()
        assert [(body, bag) for body, bag, _ in seen[1:]] == [(b"", {}), (b"again", {"x": "%zz"})]
        assert seen[2][2] == b"\x40\x02\x01\x02" and at.sent() == PUBACK + b"\x03"


def test_a_handler_that_fails_has_not_had_its_message():
    with Hub() as at:

        def handler(body, properties):
            raise ValueError("no good")

        at.suback()
        at.session.on_message(handler)
        at.sent()
        at.say(message(b"hello"))
        at.poll()
        assert at.sent() == b"" and at.session.lines == ["error app ValueError no good"]
        at.session.on_message(lambda body, properties: None)  # a second handler takes the place of the first
        at.say(message(b"again", pid=8))
        at.poll()
        assert at.sent() == PUBACK + b"\x08"


def test_a_message_while_something_is_sent_waits_and_its_handler_may_send():
    seen = []
    with Hub() as at:

        def handler(body, properties):
            seen.append(body)
            at.say(PUBACK + b"\x03")
            at.session.send(b"echo")

        at.suback()
        at.session.on_message(handler)
        at.say(message(b"hello"), PUBACK + b"\x02")
        at.session.send(b"raw")
        assert not seen
        at.sent()
        at.poll()
        assert seen == [b"hello"]
        echo = b"\x32\x26\x00\x1edevices/dev-1/messages/events/\x00\x03echo"
        assert at.sent() == echo + PUBACK + b"\x07"


def test_a_handler_that_polls_keeps_the_order_of_the_others():
    seen = []
    with Hub() as at:

        def handler(body, properties):
            seen.append(b"<" + body)
            at.session.poll(10)
            seen.append(body + b">")

        at.suback()
        at.session.on_message(handler)
        at.say(message(b"1", pid=1), message(b"2", pid=2))
        at.poll()
        assert seen == [b"<1", b"1>", b"<2", b"2>"]


def test_of_too_many_at_once_the_first_are_handled_and_the_others_come_by_the_next_connection():
    heard, connected = [], []
    with Hub() as at:
        at.suback()
        at.session.on_message(lambda body, properties: heard.append(body))
        at.session.device.connect = lambda: connected.append(len(heard))
        at.say(*[message(b"%d" % i, pid=i + 256) for i in range(40)])
        at.say(PUBACK + b"\x02")
        at.session.send(b"raw")
        at.sent()
        at.poll()
        assert heard == [b"%d" % i for i in range(16)] and connected == [16]
        acknowledged = b"".join([b"\x40\x02\x01" + bytes([i]) for i in range(16)])
        assert at.sent() == acknowledged  # the others not: the Hub keeps them


def test_methods():
    with Hub() as at:

        def blink(payload):
            return payload["status"], {"was": payload}

        def broken(payload):
            raise OSError(5)

        at.suback()
        at.session.on_method("blink it", blink)
        at.session.on_method("broken", broken)  # one subscription is enough
        at.session.on_method("nothing", lambda payload: None)
        at.session.on_method("empty", lambda payload: (204, payload))
        assert at.sent().endswith(b"\x82\x1b\x00\x01\x00\x16$iothub/methods/POST/#\x01")

        def called(name, body, rid=b"1"):
            at.say(method(name, body, rid))
            at.poll()
            data = at.sent()
            assert data[:2] == bytes([0x30, len(data) - 2])
            topic, body = data[4 : 4 + data[3]], data[4 + data[3] :]
            assert topic.startswith(b"$iothub/methods/res/")
            return topic[20:], json.loads(body)

        answer = called(b"blink%20it", {"status": 202}, b"a%2Fb")
        assert answer == (b"202/?$rid=a%2Fb", {"was": {"status": 202}})  # the id as it came
        assert called(b"empty", b"") == (b"204/?$rid=1", None)
        assert called(b"empty", None) == (b"204/?$rid=1", None)
        assert called(b"other", {}) == (b"404/?$rid=1", None)
        assert at.session.lines == []
        for name in (b"broken", b"nothing", b"blink it"):
            assert called(name, {}) == (b"500/?$rid=1", None)
        assert called(b"empty", b"}") == (b"400/?$rid=1", None)
        assert len(at.session.lines) == 3 and at.session.lines[0].startswith("error app OSError ")


def test_a_method_s_own_azure_error_is_not_swallowed():
    with Hub() as at:

        def lost(payload):
            raise hub.AzureError("closed", "hub.send")

        at.suback()
        at.session.on_method("lost", lost)
        at.say(method(b"lost", {}))
        raises("closed", at.session.poll, 30)


def test_a_slow_handler_is_no_dead_link():
    with Hub() as at, Clock() as clock:
        real = at.session.mqtt.wait

        def wait(ms):
            time.sleep_ms(2)  # an answer is not heard in the millisecond of its question
            real(1)
            clock.now += ms
            if ms > 1:
                at.say(b"\xd0\x00")

        def slow(body, properties):
            clock.now += 170000

        at.session.mqtt.wait = wait
        at.session._alive()
        at.suback()
        at.session.on_message(slow)
        at.sent()
        at.say(message(b""))
        at.session.poll(300000)
        assert at.sent().count(b"\xc0\x00") == 2


def test_an_application_that_seldom_polls_finds_its_answer_in_time():
    with Hub() as at, Clock() as clock:
        real = at.session.mqtt.wait

        def wait(ms):
            real(1)
            clock.now += ms

        at.session.mqtt.wait = wait
        at.session._alive()
        at.sent()
        for _ in range(4):
            clock.now += 100000
            at.session.poll(0)
            at.say(b"\xd0\x00")  # heard by the next poll() only
        at.session.stream.flush()
        assert at.sent().count(b"\xc0\x00") == 4


def test_the_twin():
    with Hub() as at:
        twin = {"desired": {"a": 1, "$version": 3}, "reported": {"$version": 9}}
        at.suback()
        at.say(packet(TWIN + b"res/200/?$rid=other", {"desired": {}}))  # an answer to somebody else
        at.answer(200, twin)
        assert at.session.twin() == twin
        assert at.sent().endswith(packet(TWIN + b"GET/?$rid=5"))
        at.answer(200, twin)
        at.session.twin()
        assert at.sent() == packet(TWIN + b"GET/?$rid=5")  # subscribed already
        at.answer(204, b"", 12)
        assert at.session.report({"x": {"y": None}}) == 12
        asked = at.sent()
        assert asked.startswith(packet(TWIN + b"PATCH/properties/reported/?$rid=5")[2:], 2)
        assert json.loads(asked[asked.index(b"{") :]) == {"x": {"y": None}}


def test_a_twin_that_says_no_or_nothing():
    with Hub() as at:
        at.suback()
        at.answer(429, {"errorCode": 429002, "trackingId": "t-1", "message": "slow down", "retryAfter": 7})
        e = raises(429002, at.session.twin)
        assert (e.step, e.text, e.tracking_id, e.retry_after, e.retriable) == ("hub.twin", "slow down", "t-1", 7, True)
        for status, body in ((400, b""), (500, b"{"), (413, b"[]"), (400, {"errorCode": "x", "retryAfter": "soon"})):
            at.answer(status, body)
            e = raises(status, at.session.report, {})
            assert (e.step, e.retry_after) == ("hub.twin", 0)
        for body in (b"", b"{", b"[]", b"null", {}, {"desired": None}, {"desired": {}}, {"desired": {"$version": "x"}}):
            at.answer(200, body)
            raises("protocol", at.session.twin)
        at.session.device.identity.timeout = 0
        raises("timeout", at.session.twin)


def test_desired_properties_come_at_once_and_then_change_by_change():
    seen = []
    with Hub() as at:
        at.desire(lambda *change: seen.append(change), {"a": 1, "n": {"x": 1, "y": 2}, "$version": 4})
        assert seen == [({"a": 1, "n": {"x": 1, "y": 2}}, 4)]
        at.say(
            packet(DESIRED + b"5", {"n": {"x": None}, "$version": 5}), packet(DESIRED + b"6", {"b": [], "$version": 6})
        )
        at.say(packet(DESIRED + b"5", {"a": 0, "$version": 5}))  # old news
        at.poll()
        assert seen[1:] == [({"n": {"x": None}}, 5), ({"b": []}, 6)]
        del seen[:]
        # One was missed: what changed is found by comparison, what was deleted as well.
        at.say(packet(DESIRED + b"9", {"c": True, "$version": 9}))
        at.answer(200, {"desired": {"n": {"y": 3}, "c": True, "$version": 9}})
        at.poll()
        assert seen == [({"a": None, "b": None, "n": {"y": 3}, "c": True}, 9)]
        for garbage in (b"{", b"[]", b"7", {}):
            at.say(packet(DESIRED + b"1", garbage))
        at.poll()
        assert len(seen) == 1


def test_no_desired_properties_are_an_answer_too():
    seen = []
    with Hub() as at:
        at.desire(lambda *change: seen.append(change), {"$version": 1})
        assert seen == [({}, 1)]


def test_a_handler_of_desired_properties_may_report_and_may_fail():
    with Hub() as at:

        def handler(patch, version):
            if version == 2:
                raise KeyError("x")
            at.answer(204, b"", 8)
            assert at.session.report(patch) == 8

        at.desire(handler, {"a": 1, "$version": 1})
        at.say(packet(DESIRED + b"2", {"a": 2, "$version": 2}), packet(DESIRED + b"3", {"a": 3, "$version": 3}))
        at.poll()
        assert at.session.lines == ["error app KeyError x"] or at.session.lines == ["error app KeyError 'x'"]
        assert at.sent().count(b"PATCH/properties/reported") == 2


def test_after_a_reconnect_all_is_subscribed_again_and_no_change_is_missed():
    seen = []
    with Hub() as at:
        at.suback()
        at.session.on_message(lambda body, properties: None)
        at.suback()
        at.session.on_method("m", lambda payload: (200, None))
        at.desire(lambda *change: seen.append(change), {"a": 1, "gone": 1, "$version": 1})
        at.say(
            message(b"never handled"),
            method(b"m", {}),
            packet(DESIRED + b"2", {"a": 2, "$version": 2}),
            PUBACK + b"\x05",  # the number that umqtt.simple gives, and paho's
            PUBACK + b"\x06",
        )
        at.session.send(b"raw")
        assert at.session.cloud.queue
        at.session.close()
        at.peer.says = CONNACK + b"".join([bytes([0x90, 3, 0, i, 1]) for i in (1, 2, 3, 4)])
        at.session.open(at.session.record)
        topics = (b"devices/dev-1/messages/devicebound/#", b"$iothub/methods/POST/#", b"$iothub/twin/res/#")
        again = at.sent()
        assert not [topic for topic in topics + (TWIN + b"PATCH/properties/desired/#",) if again.count(topic) != 1]
        assert seen == [({"a": 1, "gone": 1}, 1)]
        at.answer(200, {"desired": {"a": 3, "$version": 4}})
        at.poll()
        assert seen[1:] == [({"a": 3, "gone": None}, 4)] and b"methods/res" not in at.sent()
        at.poll()
        assert len(seen) == 2
        # The application starts anew: it hears of all there is, and of what has gone since it knew of it.
        at.answer(200, {"desired": {"b": {"c": 1, "d": {}}, "$version": 5}})
        at.session.on_desired(lambda *change: seen.append(change))
        assert seen[2:] == [({"a": None, "b": {"c": 1, "d": {}}}, 5)]
        at.answer(200, {"desired": {"b": {"d": {}}, "$version": 6}})
        at.session.on_desired(lambda *change: seen.append(change))
        assert seen[3:] == [({"b": {"c": None, "d": {}}}, 6)]
        # A twin that was made anew counts from one again.
        at.session.close()
        at.peer.says = CONNACK + b"".join([bytes([0x90, 3, 0, i, 1]) for i in (1, 2, 3, 4)])
        at.session.open(at.session.record)
        at.answer(200, {"desired": {"$version": 1}})
        at.poll()
        assert seen[4:] == [({"b": None}, 1)]
        at.sent()
        at.session.close()
        assert at.sent() == DISCONNECT
