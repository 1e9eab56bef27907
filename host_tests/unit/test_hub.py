import json

import vectors
from aziot import hub
from aziot.device import Device
from aziot.identity import Identity
from check import Folder, raises, write
from plain import Peer

CONNACK = b"\x20\x02\x00\x00"
PUBACK = b"\x40\x02\x00"
PINGREQ = b"\xc0\x00"


class Clock:
    """Milliseconds that pass only when a session waits."""

    def __init__(self):
        self.now = 0
        self.real = hub.due, hub.left

    def __enter__(self):
        hub.due, hub.left = (lambda ms: self.now + ms), (lambda end: end - self.now)
        return self

    def __exit__(self, *exc):
        hub.due, hub.left = self.real


class Record:
    """One of the store's, which the Hub has accepted."""

    hub = "127.0.0.1"
    device_id = "dev-1"
    active = True
    not_before = not_after = size = spread = 0


def session(root, peer, record=Record, **config):
    config = dict({"registration_id": "contoso-0001", "id_scope": "0ne", "port": peer.port, "timeout": 1}, **config)
    write(root + "device.json", json.dumps(config))
    write(root + "secrets.json", json.dumps({"device_key": vectors.DEVICE_KEY}))
    for name in ("roots.pem", "device.key", "identity.a"):
        write(root + name, name.encode())
    lines = []
    opened = hub.Session(Device(Identity(root, lambda step, text: lines.append(step + " " + text))))
    opened.open(record())
    opened.lines = lines
    if record is Record:
        del lines[:]
    return opened


def sent(peer):
    return b"".join(peer.wire.flights[1:])


def test_who_connects_and_how():
    with Folder() as root, Peer(CONNACK) as peer:
        session(root, peer).close()
        connect = peer.wire.flights[0]
        assert b"\x00\x04MQTT\x04\xc2\x00\x78\x00\x05dev-1" in connect  # keepalive 120 s
        assert b"\x00\x27127.0.0.1/dev-1/?api-version=2021-04-12" in connect
        assert b"SharedAccessSignature sr=127.0.0.1%2Fdevices%2Fdev-1&sig=" in connect and b"skn" not in connect


class Certified(Record):
    not_before = 1800000000
    not_after = 1800000000 + 100000
    size = 8


class Now:
    """A clock that stands."""

    def __init__(self, now):
        self.now = now

    def __enter__(self):
        self.real, hub.clock.now = hub.clock.now, lambda: self.now
        return self

    def __exit__(self, *exc):
        hub.clock.now = self.real


def with_certificate(now, spread=0, active=True, **config):
    """A session by an issued certificate: what was sent, and when it wants to renew."""
    with Folder() as root, Peer(CONNACK) as peer, Now(now):
        record = Certified()
        record.path = root + "identity.a"
        record.spread = spread
        record.active = active
        opened = session(root, peer, lambda: record, **config)
        opened.mqtt.stream.flush()
        opened.close()
        return peer, opened


def test_an_issued_certificate_speaks_for_the_board_and_its_dates_are_reported():
    peer, opened = with_certificate(1800000000)
    assert peer.loaded == [b"roots.pem", (b"identity", b"device.key")]  # as much of the file as the record says
    assert b"\x00\x04MQTT\x04\x82\x00\x78\x00\x05dev-1" in peer.wire.flights[0]  # a user name, no password
    assert b"SharedAccessSignature" not in peer.wire.flights[0]
    head, body = sent(peer)[3:].split(b"{", 1)  # after the type and the two bytes of the length
    assert sent(peer)[0] == 0x30 and head == b"\x00\x2e$iothub/twin/PATCH/properties/reported/?$rid=r"
    assert json.loads(b"{" + body) == {
        "certificate": {"validFrom": "2027-01-15T08:00:00Z", "validUntil": "2027-01-16T11:46:40Z"}
    }
    assert sent(with_certificate(1800000000, report=False)[0]) == b""


def test_a_record_counts_once_the_hub_has_taken_it():
    accepted = []
    real, hub.store.activate = hub.store.activate, accepted.append
    try:
        _, opened = with_certificate(1800000000, active=False)
        assert accepted == [opened.record]
        with_certificate(1800000000)
        with Folder() as root, Peer(b"\x20\x02\x00\x05") as peer:
            raises("connack-5", session, root, peer)
    finally:
        hub.store.activate = real
    assert len(accepted) == 1


def test_no_room_to_write_that_down_is_not_the_end():
    def full(record):
        raise hub.AzureError("store", "certificate", "28")

    real, hub.store.activate = hub.store.activate, full
    try:
        _, opened = with_certificate(1800000000, active=False)
        assert [line for line in opened.lines if line.startswith("hub.ready")]
    finally:
        hub.store.activate = real


def test_a_renewal_that_was_begun_goes_on_at_once():
    with Folder() as root, Peer(CONNACK + CONNACK) as peer, Now(1800000000):
        record = Certified()
        record.path = root + "identity.a"
        opened = session(root, peer, lambda: record)
        opened.close()
        opened.device.renewal = "something"
        peer.says = CONNACK
        opened.open(record)
        assert opened.renew_at == 1
        opened.close()


def test_when_a_certificate_is_renewed():
    start, life = Certified.not_before, 100000
    assert with_certificate(start)[1].renew_at == start + life * 66 // 100
    assert with_certificate(start, renew=50)[1].renew_at == start + life // 2
    # Every certificate has its own lot, up to 5 % of its life
    assert with_certificate(start, 255)[1].renew_at == start + life * 61 // 100
    assert with_certificate(start, 51)[1].renew_at == start + life * 65 // 100
    # Overdue: a tenth of what is left, within bounds
    assert with_certificate(start + 90000)[1].renew_at == start + 90000 + 1000
    assert with_certificate(start + 66001)[1].renew_at == start + 66001 + 3399
    assert with_certificate(start + 61000, renew=10)[1].renew_at == start + 61000 + 3600
    assert with_certificate(start + 99999)[1].renew_at == start + 99999 + 2
    with Folder() as root, Peer(CONNACK) as peer:
        opened = session(root, peer)
        assert opened.renew_at == 0  # there is nothing to renew
        opened.close()


def test_telemetry_is_one_flight_of_these_bytes():
    with Folder() as root, Peer(CONNACK + PUBACK + b"\x01" + PUBACK + b"\x02") as peer:
        opened = session(root, peer)
        opened.send(b"raw")
        assert sent(peer) == b"\x32\x25\x00\x1edevices/dev-1/messages/events/\x00\x01raw"
        opened.send({"t": 1}, {"a b": "c d", "e": "\u00e9"})
        tail = peer.wire.flights[2]
        for part in (b"a b=c%20d", b"e=%C3%A9", b"$.ct=application%2Fjson", b"$.ce=utf-8", b'{"t": 1}'):
            assert part in tail, tail
        assert opened.lines == ["hub.sent message 1 acknowledged", "hub.sent message 2 acknowledged"]
        opened.close()


def test_without_an_acknowledgement_it_is_not_sent():
    with Folder() as root, Peer(CONNACK) as peer:
        opened = session(root, peer)
        raises("timeout", opened.send, b"raw")
        assert opened.lines == []
        raises("closed", opened.send, b"raw")


def test_packet_ids_stay_within_two_bytes():
    with Folder() as root, Peer(CONNACK + PUBACK + b"\x01") as peer:
        opened = session(root, peer)
        opened.mqtt.client.pid = 65001
        opened.send(b"raw")
        assert opened.mqtt.client.pid in (0, 1)  # paho counts on its own
        opened.close()


def test_keepalive_and_a_dead_link():
    with Folder() as root, Peer(CONNACK) as peer, Clock() as clock:
        opened = session(root, peer)
        opened._stream.heard = 0
        waits = []

        def wait(ms):
            waits.append(ms)
            clock.now += ms

        opened.mqtt.wait = wait
        e = raises("timeout", opened.poll, 1000000)
        # A ping every half of 120 s; three without an answer are 1.5 times the keepalive, as the server counts.
        assert waits == [60000] * 4 and e.step == "hub.poll" and clock.now == 240000
        opened._stream.flush()
        assert sent(peer) == PINGREQ * 3
        opened.close()


def test_a_short_poll_does_not_ping():
    with Folder() as root, Peer(CONNACK) as peer:
        opened = session(root, peer)
        opened.poll(30)
        assert sent(peer) == b""
        opened.close()
