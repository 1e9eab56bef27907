import json

import vectors
from aziot import hub
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


def session(root, peer, timeout=1):
    write(
        root + "device.json",
        json.dumps({"registration_id": "contoso-0001", "id_scope": "0ne", "port": peer.port, "timeout": timeout}),
    )
    write(root + "secrets.json", json.dumps({"device_key": vectors.DEVICE_KEY}))
    write(root + "roots.pem", b"")
    lines = []
    opened = hub.Session(Identity(root, lambda step, text: lines.append(step + " " + text)), "127.0.0.1", "dev-1")
    opened.lines = lines
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
        opened._mqtt.client.pid = 65001
        opened.send(b"raw")
        assert opened._mqtt.client.pid in (0, 1)  # paho counts on its own
        opened.close()


def test_keepalive_and_a_dead_link():
    with Folder() as root, Peer(CONNACK) as peer, Clock() as clock:
        opened = session(root, peer)
        opened._stream.heard = 0
        waits = []

        def wait(ms):
            waits.append(ms)
            clock.now += ms

        opened._mqtt.wait = wait
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
