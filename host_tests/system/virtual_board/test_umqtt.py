"""The stand-in for umqtt.simple against a socket that plays a script: bytes out, bytes in, and the real one's faults.

The packets are spelled out by MQTT 3.1.1; no broker and no other MQTT code takes part. Each release of umqtt.simple is
looked at, by the MicroPython that froze it first.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from running import RELEASES

from espdps.paths import SHIMS

STAND_INS = SHIMS / "micropython"
CONNACK = b"\x20\x02\x00\x00"
Answer = tuple[int, bytes]


@pytest.fixture(params=[*((32, release) for release in RELEASES), (64, "1.29")], ids=lambda pair: f"{pair[0]}-{pair[1]}")
def pair(request: pytest.FixtureRequest) -> tuple[int, str]:
    bits, release = request.param
    return bits, release


@pytest.fixture
def release(pair: tuple[int, str]) -> str:
    return pair[1]


@pytest.fixture
def play(request: pytest.FixtureRequest, pair: tuple[int, str]) -> Callable[..., tuple[bytes, str]]:
    release = pair[1]
    micropython: Path = request.getfixturevalue(f"micropython{pair[0]}")

    def play(source: str, *script: Answer) -> tuple[bytes, str]:
        """Run the client; after each count of bytes received send the answer. Returns all bytes and the output."""
        received = bytearray()
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(20)

            def serve() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(20)
                    for count, answer in script:
                        while len(received) < count:
                            data = connection.recv(4096)
                            assert data, f"only {bytes(received)!r}"
                            received.extend(data)
                        connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    while data := connection.recv(4096):
                        received.extend(data)

            thread = threading.Thread(target=serve)
            thread.start()
            preamble = (
                f"import sys; sys.path.insert(0, {str(STAND_INS)!r})\nfrom umqtt.simple import MQTTClient, MQTTException\n"
                f"HOST, PORT = 'localhost', {server.getsockname()[1]}\n"
            )
            done = subprocess.run(
                [str(micropython), "-c", preamble + source],
                env={**os.environ, "BOARD_RELEASE": release},
                capture_output=True,
                text=True,
                timeout=40,
                check=False,
            )
            thread.join()
        assert done.returncode == 0, done.stderr + done.stdout
        return bytes(received), done.stdout

    return play


def test_connect_with_everything(play: Callable[..., tuple[bytes, str]]) -> None:
    source = """
c = MQTTClient("dev", HOST, PORT, user="u", password="pw", keepalive=300)
c.set_last_will("lw", "gone", retain=True, qos=1)
print(c.connect(clean_session=False))
c.ping()
c.disconnect()
"""
    packet = b"\x10\x20\x00\x04MQTT\x04\xec\x01\x2c\x00\x03dev\x00\x02lw\x00\x04gone\x00\x01u\x00\x02pw"
    sent, out = play(source, (len(packet), b"\x20\x02\x01\x00"))
    assert sent == packet + b"\xc0\x00" + b"\xe0\x00"
    assert out == "1\n"


def test_connect_with_a_long_user_name(play: Callable[..., tuple[bytes, str]]) -> None:
    source = "c = MQTTClient('d', HOST, PORT, user='u' * 120, password='')\nprint(c.connect())\nc.disconnect()"
    packet = b"\x10\x89\x01\x00\x04MQTT\x04\xc2\x00\x00\x00\x01d\x00\x78" + b"u" * 120 + b"\x00\x00"
    sent, out = play(source, (len(packet), CONNACK))
    assert sent == packet + b"\xe0\x00"
    assert out == "0\n"


def test_a_refusal_carries_its_code(play: Callable[..., tuple[bytes, str]]) -> None:
    source = "c = MQTTClient('d', HOST, PORT)\ntry: c.connect()\nexcept MQTTException as e: print(e.args[0])"
    assert play(source, (15, b"\x20\x02\x00\x05"))[1] == "5\n"


def test_what_is_no_connack_is_an_assertion(play: Callable[..., tuple[bytes, str]]) -> None:
    source = "c = MQTTClient('d', HOST, PORT)\ntry: c.connect()\nexcept AssertionError: print('assertion')"
    assert play(source, (15, b"\x30\x02\x00\x00"))[1] == "assertion\n"


def test_a_user_without_a_password_is_a_type_error(play: Callable[..., tuple[bytes, str]]) -> None:
    source = "c = MQTTClient('d', HOST, PORT, user='u')\ntry: c.connect()\nexcept TypeError: print('type')"
    assert play(source) == (b"", "type\n")


CONNECT = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01d"
CONNECTED = "c = MQTTClient(b'd', HOST, PORT)\nc.set_callback(lambda t, m: print(t, m))\nc.connect()\n"


def test_publish_and_its_acknowledgement(play: Callable[..., tuple[bytes, str]]) -> None:
    source = CONNECTED + "c.publish(b't', b'm')\nc.publish(b't', b'm' * 200, retain=True, qos=1)\nprint('done', c.pid)"
    first, second = b"\x30\x04\x00\x01tm", b"\x33\xcd\x01\x00\x01t\x00\x01" + b"m" * 200
    # An acknowledgement of another packet and a message come first: neither ends the wait.
    answers = b"\x40\x02\x00\x07" + b"\x30\x05\x00\x01abc" + b"\x40\x02\x00\x01"
    sent, out = play(source, (len(CONNECT), CONNACK), (len(CONNECT + first + second), answers))
    assert sent == CONNECT + first + second
    assert out == "b'a' b'bc'\ndone 1\n"


def test_subscribe_and_messages(play: Callable[..., tuple[bytes, str]]) -> None:
    source = CONNECTED + "c.subscribe(b'a/#', 1)\n" + "print(c.wait_msg(), c.wait_msg(), c.wait_msg())\n"
    packet = b"\x82\x08\x00\x01\x00\x03a/#\x01"
    messages = b"\x32\x08\x00\x02ab\x12\x34hi" + b"\xd0\x00" + b"\x30\x83\x01\x00\x01x" + b"y" * 128
    sent, out = play(source, (len(CONNECT), CONNACK), (len(CONNECT + packet), b"\x90\x03\x00\x01\x01" + messages))
    assert sent == CONNECT + packet + b"\x40\x02\x12\x34"
    assert out == f"b'ab' b'hi'\nb'x' b'{'y' * 128}'\n50 None 48\n"


def test_a_refused_subscription(play: Callable[..., tuple[bytes, str]]) -> None:
    source = CONNECTED + "try: c.subscribe(b'a')\nexcept MQTTException as e: print(e.args[0])"
    assert play(source, (len(CONNECT), CONNACK), (len(CONNECT) + 8, b"\x90\x03\x00\x01\x80"))[1] == "128\n"


def test_a_long_topic_gets_the_wrong_length_before_1_8(play: Callable[..., tuple[bytes, str]], release: str) -> None:
    source = CONNECTED + "c.subscribe(b'a' * 123)"
    length = b"\x80\x01" if release == "1.29" else b"\x80"
    packet = b"\x82" + length + b"\x00\x01\x00\x7b" + b"a" * 123 + b"\x00"
    sent, _ = play(source, (len(CONNECT), CONNACK), (len(CONNECT + packet), b"\x90\x03\x00\x01\x00"))
    assert sent == CONNECT + packet


def test_check_msg_returns_and_a_closed_connection_is_minus_one(play: Callable[..., tuple[bytes, str]]) -> None:
    source = CONNECTED + (
        "print(c.check_msg())\nc.ping()\ntry:\n  while True: c.wait_msg()\nexcept OSError as e: print(e.args[0])"
    )
    sent, out = play(source, (len(CONNECT), CONNACK), (len(CONNECT) + 2, b"\xd0\x00"))
    assert out == "None\n-1\n"
    assert sent == CONNECT + b"\xc0\x00"


def test_the_identifier_never_wraps(play: Callable[..., tuple[bytes, str]]) -> None:
    # Acknowledgement 0 does not fit 65,536: the client waits on, until the connection ends.
    source = (
        CONNECTED + "c.pid = 65535\ntry: c.publish(b't', b'm', qos=1)\nexcept OSError as e: print(c.pid, e.args[0])"
    )
    packet = b"\x32\x06\x00\x01t\x00\x00m"
    sent, out = play(source, (len(CONNECT), CONNACK), (len(CONNECT + packet), b"\x40\x02\x00\x00"))
    assert sent == CONNECT + packet
    assert out == "65536 -1\n"


def test_unsubscribe_from_1_7_on(play: Callable[..., tuple[bytes, str]], release: str) -> None:
    if release in ("1.24", "1.25"):
        assert play(CONNECTED + "print(hasattr(c, 'unsubscribe'))", (len(CONNECT), CONNACK))[1] == "False\n"
        return
    packet = b"\xa2\x05\x00\x01\x00\x01t"
    answers = (len(CONNECT), CONNACK), (len(CONNECT + packet), b"\xb0\x02\x00\x01")
    assert play(CONNECTED + "c.unsubscribe(b't')\nprint('done')", *answers) == (CONNECT + packet, "done\n")


SIGNATURES = """
c = MQTTClient("d", HOST, PORT)
try: c.connect(True, 5)
except TypeError: print("no timeout")
except (OSError, IndexError): print("timeout")  # there is nobody, or one who says nothing
try: print(MQTTClient("d", HOST, PORT, ssl_params={"a": 1}).ssl_params)
except TypeError: print("no ssl_params")
"""


def test_signatures(play: Callable[..., tuple[bytes, str]], release: str) -> None:
    _, out = play(SIGNATURES) if release != "1.24" else play("import socket\n" + SIGNATURES + CLOSES)
    assert out.split("\n")[:2] == (["no timeout", "no ssl_params"] if release == "1.24" else ["timeout", "{'a': 1}"])


CLOSES = "s = socket.socket()\ns.connect(socket.getaddrinfo(HOST, PORT)[0][-1])\ns.close()\n"


def test_an_old_socket_is_closed_from_1_8_on(play: Callable[..., tuple[bytes, str]], release: str) -> None:
    source = (
        "class Old:\n  def close(self): print('closed')\n"
        "c = MQTTClient('d', HOST, PORT)\nc.sock = Old()\nprint(c.connect())\nc.disconnect()"
    )
    assert play(source, (15, CONNACK))[1] == ("closed\n0\n" if release == "1.29" else "0\n")


def test_how_it_uses_the_socket_that_it_is_given(play: Callable[..., tuple[bytes, str]], release: str) -> None:
    source = """
class Wire:
    def __init__(self, answers): self.answers = answers
    def write(self, data, count=None): print("write", bytes(memoryview(data)[:count]), count)
    def read(self, count):
        data, self.answers = self.answers[:count], self.answers[count:]
        return data
    def setblocking(self, on): print("blocking", on)
    def close(self): print("close")
class Context:
    def wrap_socket(self, sock, server_hostname=None):
        print(server_hostname)
        self.bare = sock
        return Wire(b"\\x20\\x02\\x00\\x00\\x90\\x03\\x00\\x01\\x00")
context = Context()
c = MQTTClient("d", HOST, PORT, user="u", password="p", ssl=context)
c.cb = print
c.connect()
c.subscribe("t")
c.publish("t", "m", qos=0)
c.disconnect()
context.bare.close()
"""
    sent, out = play(source)
    assert sent == b""
    assert out.splitlines() == [
        "localhost",
        r"write b'\x10\x13\x00' 3",
        r"write b'\x04MQTT\x04\xc2\x00\x00' None",
        r"write b'\x00\x01' None", "write b'd' None",
        r"write b'\x00\x01' None", "write b'u' None",
        r"write b'\x00\x01' None", "write b'p' None",
        *(
            [r"write b'\x82\x06' 2", r"write b'\x00\x01' 2"]
            if release == "1.29"
            else [r"write b'\x82\x06\x00\x01' None"]
        ),
        r"write b'\x00\x01' None", "write b't' None", r"write b'\x00' None",
        "blocking True",
        r"write b'0\x04' 2",
        r"write b'\x00\x01' None", "write b't' None", "write b'm' None",
        r"write b'\xe0\x00' None",
        "close",
    ]  # fmt: skip
