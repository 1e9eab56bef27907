"""Telemetry that waits for a connection: what is kept, in which order it goes, and what is lost."""

from aziot.device import Device
from aziot.errors import AzureError
from aziot.hub import packed
from check import raises


class Identity:
    notes = {}
    outbox = 3

    def __init__(self):
        self.lines = []

    def log(self, step, text):
        self.lines.append(step + " " + text)


class Session:
    """Takes messages while it is up, and notes them."""

    def __init__(self):
        self.code = None
        self.sent = []

    def send(self, body, properties=None):
        if self.code:
            raise AzureError(self.code, "hub.send")
        self.sent.append((body, properties))


def device(session=None):
    made = Device(Identity())
    made.session = session
    return made


def test_what_the_hub_has_taken_is_not_kept():
    session = Session()
    at = device(session)
    assert at.send({"t": 1}, {"name": "value"}) is True and at.send(b"raw") is True
    assert session.sent == [('{"t": 1}', "$.ct=application%2Fjson&$.ce=utf-8&name=value"), (b"raw", "")]
    for body, properties in session.sent:  # which Session.send() sends as they are
        assert packed(body, properties) == (body, properties)
    assert at.outbox == [] and at.dropped == 0 and at.identity.lines == []


def test_while_there_is_no_connection_the_newest_are_kept_and_a_counter_tells():
    at = device()
    for n in range(5):
        assert at.send(str(n)) is False
    assert [body for body, _ in at.outbox] == ["2", "3", "4"] and at.dropped == 2
    assert at.identity.lines == ["outbox 1 lost", "outbox 2 lost"]
    at.session = session = Session()
    assert at.send("5") is True
    assert [body for body, _ in session.sent] == ["3", "4", "5"] and at.dropped == 3


def test_what_was_not_acknowledged_goes_first_after_the_reconnect():
    session = Session()
    at = device(session)
    session.code = "closed"
    assert at.send("1") is False and at.send("2") is False  # it does not raise: poll() will
    assert at.identity.lines == ["error hub.send closed"] * 2
    session.code = None
    at.identity.lines.clear()

    def connect(payload, renew):
        at.identity.log("hub.ready", "")

    at._connect = connect
    session.close = lambda: None
    assert at.connect() is session
    assert [body for body, _ in session.sent] == ["1", "2"] and at.outbox == []
    assert at.identity.lines == ["hub.ready "]
    session.code = "timeout"  # lost again at once: that is for the next poll() to say
    at.send("3")
    assert at.connect() is session and len(at.outbox) == 1


def test_what_can_never_be_sent_is_refused_at_once_and_does_not_stop_the_others():
    session = Session()
    at = device(session)
    session.code = "closed"
    at.send(b"1")
    raises("message", at.send, b"x" * 262145)
    for body, properties in ((21.5, None), (None, None), (b"", {5: "x"})):  # not while there is a connection again
        try:
            at.send(body, properties)
        except (TypeError, AttributeError):
            continue
        raise AssertionError("no error")
    assert [body for body, _ in at.outbox] == [b"1"] and at.dropped == 0
    session.code = None
    assert at.send(b"2") is True
    assert [body for body, _ in session.sent] == [b"1", b"2"]


def test_what_is_kept_stays_as_it_was_when_it_was_sent():
    at = device()
    reading, properties = {"t": 1}, {"unit": "K"}
    at.send(reading, properties)
    reading["t"] = 2
    properties["unit"] = "C"
    assert at.outbox == [('{"t": 1}', "$.ct=application%2Fjson&$.ce=utf-8&unit=K")]
