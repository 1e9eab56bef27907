import socket

from aziot.runtime import time

from aziot import stream
from aziot.mqtt import Mqtt
from aziot.packets import Packets
from aziot.stream import Stream
from check import Folder, raises, write
import plain
from plain import Peer, free_port

CONNACK = b"\x20\x02\x00\x00"
CONNECT = b"\x10\x1a\x00\x04MQTT\x04\xc2\x00\x3c\x00\x03dev\x00\x04user\x00\x03pwd"


def session(peer, heard=None, timeout=1):
    """A connected Mqtt with the peer; what it hears goes into the list heard."""
    with Folder() as root:
        write(root + "roots.pem", b"roots")
        stream = Stream("test", timeout, root + "roots.pem")
        hear = lambda t, b: heard.append((bytes(t), bytes(b)))  # noqa: E731
        return Mqtt(stream, hear, "127.0.0.1", peer.port, "dev", "user", "pwd", 60)


def by_packets(peer, heard):
    """As a hub is read."""
    mqtt = session(peer, heard)
    mqtt.stream.packets = Packets(mqtt.stream)
    return mqtt


def test_connect_is_one_flight_of_these_bytes():
    with Peer(CONNACK) as peer:
        mqtt = session(peer)
        assert peer.wire.flights == [CONNECT], peer.wire.flights
        assert peer.server_hostname == "127.0.0.1"
        assert peer.loaded == [b"roots"]
        mqtt.close()


def test_refusals_have_their_number():
    for code in range(1, 6):
        with Peer(b"\x20\x02\x00" + bytes([code])) as peer:
            e = raises("connack-%d" % code, session, peer)
            assert e.retriable == (code == 3) and e.step == "test"


def test_subscribe_is_one_flight_of_these_bytes():
    with Peer(CONNACK + b"\x90\x03\x00\x01\x00") as peer:
        mqtt = session(peer)
        mqtt.subscribe(b"$dps/registrations/res/#")
        assert peer.wire.flights[1:] == [b"\x82\x1d\x00\x01\x00\x18$dps/registrations/res/#\x00"]
        mqtt.close()


def test_a_refused_subscription():
    with Peer(CONNACK + b"\x90\x03\x00\x01\x80") as peer:
        mqtt = session(peer)
        raises("suback", mqtt.subscribe, b"a/#")
        mqtt.close()


def test_publish_with_acknowledgement_is_one_flight_of_these_bytes():
    with Peer(CONNACK + b"\x40\x02\x00\x01") as peer:
        mqtt = session(peer)
        mqtt.publish("a/b", b"hello", 1)
        assert peer.wire.flights[1:] == [b"\x32\x0c\x00\x03a/b\x00\x01hello"], peer.wire.flights
        mqtt.close()


def test_publish_without_acknowledgement_leaves_before_the_next_wait():
    with Peer(CONNACK) as peer:
        mqtt = session(peer)
        mqtt.publish("a/b", b"hello")
        mqtt.wait(10)
        assert peer.wire.flights[1:] == [b"\x30\x0a\x00\x03a/bhello"], peer.wire.flights
        mqtt.close()


def test_a_message_is_heard_and_acknowledged_with_what_is_sent_next():
    heard = []
    with Peer(CONNACK + b"\x32\x0c\x00\x03x/y\x00\x07hello\x40\x02\x00\x01") as peer:
        mqtt = session(peer, heard)
        mqtt.wait(1000)
        assert heard == [(b"x/y", b"hello")]
        assert len(peer.wire.flights) == 1
        mqtt.publish("a", b"b", 1)
        assert b"".join(peer.wire.flights[1:]).startswith(b"\x40\x02\x00\x07\x32")
        mqtt.close()


def test_no_message_is_no_error():
    with Peer(CONNACK) as peer:
        mqtt = session(peer)
        start = time.ticks_ms()
        mqtt.wait(60)
        assert time.ticks_diff(time.ticks_ms(), start) >= 60
        mqtt.close()


def test_silence_ends_by_itself():
    with Peer() as peer:
        raises("timeout", session, peer, None, 0.1)
    for call in (lambda mqtt: mqtt.subscribe(b"a/#"), lambda mqtt: mqtt.publish("a", b"b", 1)):
        with Peer(CONNACK) as peer:
            mqtt = session(peer, None, 0.1)
            mqtt.wait(10)  # whose end has nothing to do with what begins after it
            raises("timeout", call, mqtt)
            mqtt.close()
            raises("closed", call, mqtt)


def test_half_a_packet_ends_by_itself():
    for half in (b"\x30", b"\x30\x0a", b"\x30\x0a\x00\x03a/", b"\x30\x0a\x00\x03a/bhel"):
        with Peer(CONNACK + half) as peer:
            mqtt = session(peer, [], 0.1)
            raises("timeout", mqtt.wait, 50)
            mqtt.close()


def test_a_closed_connection_is_told_at_any_place():
    for says in (b"", b"\x20", b"\x20\x02\x00"):
        with Peer(says, closes=True) as peer:
            assert raises("closed", session, peer).retriable
    for says in (b"", b"\x90", b"\x30\x0a\x00\x03a/bhel"):
        with Peer(CONNACK + says, closes=True) as peer:
            mqtt = session(peer, [])
            raises("closed", wait_twice, mqtt)
            mqtt.close()


def test_half_a_message_is_not_heard():
    heard = []
    with Peer(CONNACK + b"\x30\x0a\x00\x03a/bhel", closes=True) as peer:
        mqtt = session(peer, heard)
        raises("closed", mqtt.wait, 1000)
        assert heard == []


def wait_twice(mqtt):
    mqtt.wait(1000)  # umqtt.simple hands an unexpected packet's first byte back without an error
    mqtt.wait(1000)


def test_what_is_not_mqtt():
    with Peer(b"HTTP/1.1 400 Bad Request\r\n" + b"x" * 100) as peer:
        e = raises("protocol", session, peer)
        assert e.step == "test"


def test_a_length_that_no_message_of_the_hub_has():
    # Of four bytes at most (MQTT 3.1.1, 2.2.3), and a message of IoT Hub has 256 KB at most.
    for length in (b"\xff\xff\x7f", b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff\x01", b"\xff" * 50):
        with Peer(CONNACK + b"\x30" + length + b"\x00\x03a/b") as peer:
            mqtt = by_packets(peer, [])
            raises("protocol", mqtt.wait, 1000)
            mqtt.close()


def test_nobody_there():
    with Peer() as peer:
        port = peer.port
    with Folder() as root:
        raises("tcp", Mqtt, Stream("test", 1, root), None, "127.0.0.1", port, "dev", "user", "pwd")
        e = raises("dns", Mqtt, Stream("test", 1, root), None, "no-such-host.invalid", port, "d", "u", "p")
        assert e.retriable


def test_every_wait_feeds_the_watchdog():
    fed = []
    real, stream.idle = stream.idle, lambda: fed.append(1)
    try:
        with Peer(CONNACK) as peer:
            mqtt = session(peer)
            mqtt.wait(700)
            assert len(fed) >= 3, fed
            mqtt.close()
        del fed[:]
        stream.pause(0.5)
        assert len(fed) >= 3, fed
    finally:
        stream.idle = real


def connect_with_certificate(peer, user):
    with Folder() as root:
        for name in ("roots.pem", "cert", "key"):
            write(root + name, name.encode() + (b"\n" * 90 if name == "cert" else b""))
        stream = Stream("test", 1, root + "roots.pem", root + "cert", root + "key", 4)  # the rest is padding
        Mqtt(stream, None, "127.0.0.1", peer.port, "dev", user, "").close()


def test_with_a_client_certificate_there_is_no_password():
    with Peer(CONNACK) as peer:
        connect_with_certificate(peer, "user")
        assert peer.loaded == [b"roots.pem", (b"cert", b"key")]
        assert peer.wire.flights == [b"\x10\x15\x00\x04MQTT\x04\x82\x00\x78\x00\x03dev\x00\x04user"]


def test_the_length_is_right_where_its_form_changes():
    # Remaining length without the password: 17 + user; MQTT 3.1.1, 2.2.3
    for size, length in ((110, b"\x7f"), (111, b"\x80\x01"), (112, b"\x81\x01"), (1000, b"\xf9\x07")):
        with Peer(CONNACK) as peer:
            connect_with_certificate(peer, "u" * size)
            assert peer.wire.flights[0].startswith(b"\x10" + length + b"\x00\x04MQTT\x04\x82")
            assert peer.wire.flights[0].endswith(b"u" * size)


def test_large_messages_are_sent_whole():
    with Peer(CONNACK + b"\x40\x02\x00\x01") as peer:
        mqtt = session(peer)
        body = bytes(range(256)) * 40
        mqtt.publish("a", body, 1)
        assert b"".join(peer.wire.flights[1:]) == b"\x32\x85\x50\x00\x01a\x00\x01" + body
        mqtt.close()


def test_a_fault_of_ours_or_of_the_platform_is_no_exception_of_another_kind():
    def fails(topic, body):
        raise TypeError("odd")

    with Peer(CONNACK + b"\x30\x0a\x00\x03x/yhello") as peer:
        mqtt = session(peer)
        mqtt.client.set_callback(fails)
        e = raises("platform", mqtt.wait, 1000)
        assert e.retriable and e.step == "test" and e.text == "TypeError: odd"


def test_the_bare_connection_has_a_deadline_of_its_own():
    # However long the timeout: nothing feeds the watchdog meanwhile.
    import umqtt.simple

    seconds = []
    real = umqtt.simple.MQTTClient.connect

    def connect(client, clean_session=True, *timeout):
        seconds.append(timeout[0] if timeout else client.timeout)
        return real(client, clean_session, *timeout)

    umqtt.simple.MQTTClient.connect = connect
    try:
        for timeout in (1, 15, 600):
            with Peer(CONNACK) as peer:
                session(peer, None, timeout).close()
    finally:
        umqtt.simple.MQTTClient.connect = real
    assert seconds == [1, 15, 15], seconds


def test_a_connection_that_nobody_takes_ends_by_itself():
    # A listener whose queue is full drops what asks for a connection, as a firewall does.
    listener, waiting = socket.socket(), []
    address = socket.getaddrinfo("127.0.0.1", free_port())[0][-1]
    try:
        listener.bind(address)
        listener.listen(0)
        for _ in range(2):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            try:
                waiting[-1].connect(address)
            except OSError:  # under way
                pass
        start = time.ticks_ms()
        with Folder() as root:
            port = plain.port
            e = raises(("timeout", "tcp"), Mqtt, Stream("test", 0.3, root), None, "127.0.0.1", port, "dev", "user", "pwd")
        assert e.retriable and 200 < time.ticks_diff(time.ticks_ms(), start) < 5000
    finally:
        for sock in waiting + [listener]:
            sock.close()


def test_a_stream_feeds_the_watchdog_before_what_cannot():
    fed = []
    real, stream.idle = stream.idle, lambda: fed.append(1)
    try:
        Stream("test", 1, "roots.pem")
        assert fed == [1]
    finally:
        stream.idle = real
