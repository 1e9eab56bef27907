"""umqtt.simple's interface over paho-mqtt, so that another implementation of MQTT judges what the firmware says.

It must never read ahead or wait on its own: the stream given as ssl= has the deadlines."""

import os
import socket
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho

# paho speaks of MQTT 3.1.1 refusals in MQTT 5 codes
_CONNACK = {132: 1, 133: 2, 136: 3, 134: 4, 135: 5}


class MQTTException(Exception):
    pass


class _Socket(socket.socket):
    # A MicroPython socket: readinto and write, None where CPython raises BlockingIOError.
    def readinto(self, buf: Any) -> int | None:
        try:
            return self.recv_into(buf)
        except BlockingIOError:
            return None

    def write(self, data: Any) -> int | None:
        try:
            return self.send(data)
        except BlockingIOError:
            return None


class _Adapter:
    """The context that paho wraps its socket with, and the socket that it gets back."""

    check_hostname = True  # the stream beneath has done that

    def __init__(self, client: "MQTTClient") -> None:
        self._client = client
        self.failure: BaseException | None = None
        self.received = b""

    def wrap_socket(self, sock: socket.socket, **_: Any) -> "_Adapter":
        raw = _Socket(fileno=sock.detach())
        self._client.sock = raw
        self.stream = self._client.sock = self._guard(self._client.ssl.wrap_socket, raw, self._client.server)
        return self

    def _guard(self, call: Callable[..., Any], *args: Any) -> Any:
        # paho turns every failure into "connection lost": keep the true one.
        try:
            return call(*args)
        except BaseException as e:
            self.failure = e
            raise OSError from e

    def recv(self, size: int) -> bytes:
        data = self._guard(self.stream.read, size)
        if data is None:
            raise BlockingIOError
        self.stream.setblocking(True)
        self.received = (self.received + data)[-4:]
        return bytes(data)

    def send(self, data: bytes) -> int:
        self._guard(self.stream.write, data)
        return len(data)

    def setblocking(self, _: bool) -> None:
        pass

    settimeout = setblocking

    def do_handshake(self) -> None:
        pass

    def pending(self) -> int:
        return 0

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self.stream.close()


class MQTTClient:
    def __init__(
        self, client_id: str, server: str, port: int = 0, user: str | None = None, password: str | None = None,
        keepalive: int = 0, ssl: Any = None, ssl_params: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.server = server
        self.port = port
        self.ssl = ssl
        self.ssl_params = ssl_params
        self.keepalive = keepalive
        self.sock: Any = None
        self.pid = 0  # paho has its own
        self.cb: Callable[[bytes, bytes], None] | None = None
        self._answers: dict[Any, Any] = {}
        self._adapter = _Adapter(self)
        self._present = False
        self._paho = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, reconnect_on_failure=False)
        self._paho.username_pw_set(user, password)
        self._paho.tls_set_context(self._adapter)  # type: ignore[arg-type]
        self._paho.on_connect = self._on_connect
        self._paho.on_subscribe = lambda c, u, mid, codes, p: self._answers.update({mid: codes[0]})
        self._paho.on_publish = lambda c, u, mid, code, p: self._answers.update({mid: code})
        self._paho.on_message = self._on_message

    def _on_connect(self, _client: Any, _userdata: Any, flags: Any, code: Any, _properties: Any) -> None:
        self._present = flags.session_present
        self._answers["connect"] = code

    def _on_message(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        if self.cb:
            self.cb(message.topic.encode(), message.payload)

    def set_callback(self, f: Callable[[bytes, bytes], None]) -> None:
        self.cb = f

    def set_last_will(self, topic: str, msg: bytes, retain: bool = False, qos: int = 0) -> None:
        self._paho.will_set(topic, msg, qos, retain)

    def _check(self, code: int) -> None:
        if self._adapter.failure:
            failure, self._adapter.failure = self._adapter.failure, None
            raise failure
        if code == paho.MQTT_ERR_PROTOCOL:
            raise AssertionError  # as umqtt.simple has it
        if code not in (paho.MQTT_ERR_SUCCESS, paho.MQTT_ERR_AGAIN):
            raise OSError(-1, paho.error_string(code))

    def _until(self, key: Any) -> Any:
        while key not in self._answers:
            code = self._paho.loop_read()
            if key not in self._answers:  # a refusal is an answer, though paho calls it an error too
                self._check(code)
        return self._answers.pop(key)

    def connect(self, clean_session: bool = True, timeout: float | None = None) -> bool:
        if timeout:
            self._paho.connect_timeout = timeout
        self._paho._clean_session = clean_session  # paho takes it when a client is made, umqtt.simple here
        # RFC 6761: names below localhost are this machine, whatever the resolver thinks.
        host = "127.0.0.1" if ("." + self.server).endswith(".localhost") else self.server
        try:
            self._check(self._paho.connect(host, self.port, self.keepalive))
        except (OSError, ValueError) as e:  # ValueError: paho looks at the socket that was taken from it
            if self._adapter.failure:
                raise self._adapter.failure from None
            number = e.errno if isinstance(e, OSError) else None
            raise OSError(
                number or 110, getattr(e, "strerror", None) or str(e)
            ) from None  # socket.timeout has no number
        try:
            code = self._until("connect")
        except AssertionError:
            if self._adapter.received == b"\x20\x02\x00\x01":
                raise MQTTException(1) from None  # paho would try an older protocol instead of telling
            raise
        if code.value:
            raise MQTTException(_CONNACK.get(code.value, code.value))
        return self._present

    def disconnect(self) -> None:
        self._paho.disconnect()
        self.sock.close()

    def ping(self) -> None:
        self._check(self._paho._send_pingreq())  # not to be had otherwise without paho's own keepalive

    def publish(self, topic: str, msg: Any, retain: bool = False, qos: int = 0) -> None:
        info = self._paho.publish(_text(topic), msg, qos, retain)
        self._check(info.rc)
        if qos:
            self._until(info.mid)

    def subscribe(self, topic: str, qos: int = 0) -> None:
        code, mid = self._paho.subscribe(_text(topic), qos)
        self._check(code)
        if self._until(mid).value >= 0x80:
            raise MQTTException(0x80)

    def wait_msg(self) -> None:
        self._check(self._paho.loop_read())

    def check_msg(self) -> None:
        self.sock.setblocking(False)
        self.wait_msg()


def _text(topic: str | bytes) -> str:
    return topic.decode() if isinstance(topic, bytes) else os.fspath(topic)
