import json

import vectors
from aziot import hub, store
from aziot.device import Device
from aziot.identity import Identity
from check import Folder, raises, write
from plain import Peer

CONNACK = b"\x20\x02\x00\x00"
PUBACK = b"\x40\x02\x00"
PINGREQ = b"\xc0\x00"
DISCONNECT = b"\xe0\x00"


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
        assert b"\x00\x04MQTT\x04\xc0\x00\x78\x00\x05dev-1" in connect  # keepalive 120 s
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
        peer.says += b"\x90\x03\x00\x01\x01"
        opened = session(root, peer, lambda: record, **config)
        connected = len(peer.wire.flights)
        opened.renew_at, renew_at = 0, opened.renew_at
        opened.poll(0)
        opened.renew_at = renew_at
        opened.mqtt.stream.flush()
        peer.first = b"".join(peer.wire.flights[connected:])
        opened.mqtt.close()
        return peer, opened


def test_an_issued_certificate_speaks_for_the_board_and_its_dates_are_reported():
    peer, opened = with_certificate(1800000000)
    assert peer.loaded == [b"roots.pem", (b"identity", b"device.key")]  # as much of the file as the record says
    assert b"\x00\x04MQTT\x04\x80\x00\x78\x00\x05dev-1" in peer.wire.flights[0]  # a user name, no password
    assert b"SharedAccessSignature" not in peer.wire.flights[0]
    # The answers are subscribed before something is reported; only the first poll() does it, after the first message.
    subscribe = b"\x82\x17\x00\x01\x00\x12$iothub/twin/res/#\x01"
    assert sent(peer).startswith(subscribe)
    report = sent(peer)[len(subscribe) :]
    head, body = report[3:].split(b"{", 1)  # after the type and the two bytes of the length
    assert report[0] == 0x30 and head == b"\x00\x2e$iothub/twin/PATCH/properties/reported/?$rid=r"
    assert json.loads(b"{" + body) == {
        "certificate": {"validFrom": "2027-01-15T08:00:00Z", "validUntil": "2027-01-16T11:46:40Z"}
    }
    assert sent(with_certificate(1800000000, report=False)[0]) == b""


def test_a_record_counts_once_the_hub_has_taken_it():
    accepted = []
    real, store.activate = store.activate, accepted.append
    try:
        _, opened = with_certificate(1800000000, active=False)
        assert accepted == [opened.record]
        with_certificate(1800000000)
        with Folder() as root, Peer(b"\x20\x02\x00\x05") as peer:
            raises("connack-5", session, root, peer)
    finally:
        store.activate = real
    assert len(accepted) == 1


def test_no_room_to_write_that_down_is_not_the_end():
    def full(record):
        raise hub.AzureError("store", "certificate", "28")

    real, store.activate = store.activate, full
    try:
        _, opened = with_certificate(1800000000, active=False)
        assert [line for line in opened.lines if line.startswith("hub.ready")]
    finally:
        store.activate = real


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
        write(root + "onboarding.crt", b"")
        write(root + "onboarding.key", b"")
        opened = session(root, peer, auth="x509")
        assert opened.renew_at == 0  # there is nothing to renew
        opened.close()


def test_a_token_is_renewed_by_a_new_connection_in_a_quiet_moment():
    with Folder() as root, Peer(CONNACK) as peer, Now(1800000000) as now:
        opened = session(root, peer, token_life=1000)
        # As from the flash, where this record is not.
        opened.device.connect = lambda: (opened.close(), opened.open(opened.record))
        assert opened.renew_at == 1800000800
        opened.poll(1)
        now.now += 799
        opened.poll(1)
        first = peer.wire
        assert len(first.flights) == 1
        now.now += 1
        opened.poll(1)
        assert first.flights[-1] == DISCONNECT and peer.wire is not first
        assert b"&se=1800005400" in peer.wire.flights[0] and opened.renew_at == 1800001600
        assert opened.lines == ["hub.ready dev-1 on 127.0.0.1"]
        opened.renew()  # the application wants it now
        first = peer.wire
        opened.poll(1)
        assert peer.wire is not first
        opened.close()
        assert peer.wire.flights[-1] == DISCONNECT


def test_a_will_is_the_device_s_own_telemetry():
    with Folder() as root, Peer(CONNACK) as peer:
        session(root, peer, will="gone \u00e9").close()
        # MQTT 3.1.1, 3.1.2.3: user, password, will of QoS 1, clean session; 3.1.3.2: topic, then message
        connect = peer.wire.flights[0]
        assert b"\x00\x04MQTT\x04\xcc\x00\x78\x00\x05dev-1\x00\x1edevices/dev-1/messages/events/" in connect
        assert b"\x00\x07gone \xc3\xa9\x00\x27127.0.0.1/dev-1/" in connect


def test_closing_twice_or_a_lost_connection_is_no_error():
    with Folder() as root, Peer(CONNACK) as peer:
        opened = session(root, peer)
        opened.close()
        opened.close()
        raises("closed", opened.send, b"raw")
        raises("closed", opened.poll, 0)
        raises("closed", opened.report, {})
        opened.close()
        assert peer.wire.flights[1:] == [DISCONNECT]


def test_telemetry_is_one_flight_of_these_bytes():
    with Folder() as root, Peer(CONNACK + PUBACK + b"\x01" + PUBACK + b"\x02") as peer:
        opened = session(root, peer)
        opened.send(b"raw")
        assert sent(peer) == b"\x32\x25\x00\x1edevices/dev-1/messages/events/\x00\x01raw"
        opened.send({"t": 1}, {"a b": "c d", "e": "\u00e9"})
        tail = peer.wire.flights[2]
        for part in (b"a%20b=c%20d", b"e=%C3%A9", b"$.ct=application%2Fjson", b"$.ce=utf-8", b'{"t": 1}'):
            assert part in tail, tail
        assert opened.lines == ["hub.sent message 1", "hub.sent message 2"]
        opened.close()


def telemetry(body, properties=None, qos=0):
    """Topic's last part and body as they are sent."""
    with Folder() as root, Peer(CONNACK) as peer:
        opened = session(root, peer)
        opened.send(body, properties, qos)
        opened.close()
        packet = sent(peer)[: -len(DISCONNECT)]
        at = 2 if packet[1] < 128 else 3
        assert packet[0] == 0x30 and len(packet) - at == packet[1] & 127 | (packet[2] << 7 if at == 3 else 0)
        end = at + 2 + packet[at] * 256 + packet[at + 1]
        assert packet[at + 2 : end].startswith(b"devices/dev-1/messages/events/")
        return packet[at + 32 : end], packet[end:]


def test_properties_and_bodies_of_every_kind():
    assert telemetry(b"\x00@\xff") == (b"", b"\x00@\xff")
    assert telemetry("gr\u00fc\u00df") == (b"", b"gr\xc3\xbc\xc3\x9f")  # as many bytes as there are, not characters
    assert json.loads(telemetry({"t": "\u00b0C"})[1]) == {"t": "\u00b0C"}
    assert telemetry(b"", {"n": 1.5}) == (b"n=1.5", b"")
    assert telemetry(b"", {"empty": ""}) == (b"empty=", b"")
    assert telemetry(b"", {"none": None}) == (b"none", b"")
    assert telemetry(b"", {"\u00e9&=": "+/%"}) == (b"%C3%A9%26%3D=%2B%2F%25", b"")
    assert telemetry(b"", {"$.mid": "7"}) == (b"%24.mid=7", b"")
    assert telemetry([1]) == (b"$.ct=application%2Fjson&$.ce=utf-8", b"[1]")
    assert telemetry([1], {"$.ct": "a/b"}) == (b"%24.ct=a%2Fb", b"[1]")


def test_what_the_hub_will_never_take_is_refused_here():
    with Folder() as root, Peer(CONNACK) as peer:
        opened = session(root, peer)
        raises("message", opened.send, b"", None, 2)
        raises("message", opened.send, bytes(262145), None, 0)
        raises("message", opened.send, bytes(262140), {"name": "value"}, 0)
        assert sent(peer) == b"" and not opened.stream.out
        opened.send(b"small", None, 0)  # and the session goes on
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
        opened.stream.heard = 0
        waits = []

        def wait(ms):
            waits.append(ms)
            clock.now += ms

        opened.mqtt.wait = wait
        e = raises("timeout", opened.poll, 1000000)
        # A ping every half of 120 s, and the next one is due while the last has no answer: sooner than the 1.5 times
        # 120 s after which the Hub would end it.
        assert waits == [60000, 1] * 2 and e.step == "hub.poll" and clock.now == 120002
        opened.stream.flush()
        assert sent(peer) == PINGREQ
        opened.close()


def test_a_link_that_answers_lives_and_telemetry_without_acknowledgement_is_no_answer():
    with Folder() as root, Peer(CONNACK) as peer, Clock() as clock:
        opened = session(root, peer)
        opened.stream.heard = 0

        def wait(ms):
            clock.now += ms
            opened.stream.heard = clock.now

        opened.mqtt.wait = wait
        opened.poll(1000000)
        clock.now += 500000  # the application was busy: that is not the link's fault
        opened.poll(1)

        def silence(ms):
            clock.now += ms

        opened.mqtt.wait = silence
        before = clock.now
        try:
            while clock.now - before < 500000:
                opened.send(b"raw", None, 0)
                opened.poll(10000)
        except hub.AzureError as e:
            assert e.code == "timeout" and clock.now - before <= 180000
        else:
            raise AssertionError("not found dead")
        opened.close()


def test_a_short_poll_does_not_ping():
    with Folder() as root, Peer(CONNACK) as peer:
        opened = session(root, peer)
        opened.poll(30)
        assert sent(peer) == b""
        opened.close()
