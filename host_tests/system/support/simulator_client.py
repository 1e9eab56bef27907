"""Clients for the tests of the simulator: paho-mqtt, and plain sockets with packets written out by hand.

Nothing of espdps may be used here: what the simulator is checked with has to be of another origin.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import queue
import socket
import ssl
import struct
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from typing_extensions import Self

DPS_API = "2025-07-01-preview"
HUB_API = "2021-04-12"
REGISTRY_API = "2026-11-01"  # of the resource manager
RENEWAL_API = "2025-08-01-preview"  # of the hub, where it renews certificates
RESPONSES = "$dps/registrations/res/#"
WAIT = 10.0

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def derive(group_key: str, registration_id: str) -> str:
    return base64.b64encode(
        hmac.new(base64.b64decode(group_key), registration_id.encode(), hashlib.sha256).digest()
    ).decode()


def token(resource: str, key: str, expiry: int | None = None, skn: str | None = "registration") -> str:
    """As protocol documents have it: the signed text is the encoded resource, a newline, the expiry."""
    encoded, expiry = quote(resource, safe=""), expiry if expiry is not None else int(time.time()) + 3600
    digest = hmac.new(base64.b64decode(key), f"{encoded}\n{expiry}".encode(), hashlib.sha256).digest()
    text = f"SharedAccessSignature sr={encoded}&sig={quote(base64.b64encode(digest).decode(), safe='')}&se={expiry}"
    return text + (f"&skn={skn}" if skn else "")


def dps_token(info: dict[str, Any], registration_id: str, key: str, **changes: Any) -> str:
    return token(f"{info['id_scope']}/registrations/{registration_id}", key, **changes)


def dps_username(info: dict[str, Any], registration_id: str, version: str = DPS_API) -> str:
    return f"{info['id_scope']}/registrations/{registration_id}/api-version={version}"


def group_key(info: dict[str, Any]) -> str:
    return str(info["groups"][0]["primary_key"])


def make_csr(common_name: str, key: Key | None = None, digest: hashes.SHA256 | hashes.SHA384 | None = None) -> bytes:
    key = key or ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, digest or hashes.SHA384())
    return request.public_bytes(Encoding.DER)


def save_key(path: Path, key: Key) -> Path:
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


class HostContext(ssl.SSLContext):
    """Verifies and asks for ``host`` although the socket goes to 127.0.0.1: names below .localhost need no resolver."""

    host = "localhost"

    def wrap_socket(self, sock: socket.socket, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        kwargs["server_hostname"] = self.host
        return super().wrap_socket(sock, *args, **kwargs)


def tls_context(info: dict[str, Any], host: str = "localhost", chain: Path | None = None) -> HostContext:
    """``chain``: PEM with certificates and the private key."""
    context = HostContext(ssl.PROTOCOL_TLS_CLIENT)
    context.host = host
    context.load_verify_locations(info["roots"])
    if chain is not None:
        context.load_cert_chain(chain)
    return context


@dataclass
class Answer:
    """A message of the service, taken apart."""

    topic: str
    body: Any
    qos: int

    @property
    def status(self) -> int:
        return int(self.topic.partition("/res/")[2].split("/")[0])

    @property
    def rid(self) -> str:
        return self.properties["$rid"]

    @property
    def properties(self) -> dict[str, str]:
        return dict(part.split("=", 1) for part in self.topic.split("?", 1)[1].split("&"))


class PahoDevice:
    """A device by paho-mqtt: connects, waits for every acknowledgement, collects what arrives."""

    def __init__(
        self,
        port: int,
        context: ssl.SSLContext,
        client_id: str,
        username: str,
        password: str | None = None,
        keep_alive: int = 60,
        will: str | None = None,
        clean: bool = True,
    ) -> None:
        self.answers: queue.Queue[Answer] = queue.Queue()
        self._done: queue.Queue[Any] = queue.Queue()
        self.disconnected: queue.Queue[Any] = queue.Queue()
        client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv311, reconnect_on_failure=False,
            clean_session=clean,
        )  # fmt: skip
        client.username_pw_set(username, password)
        client.tls_set_context(context)
        if will is not None:
            client.will_set(will, b"gone")
        client.on_connect = lambda client, data, flags, reason, properties: self._done.put(reason)
        client.on_subscribe = lambda client, data, number, codes, properties: self._done.put(codes)
        client.on_message = self._message
        client.on_disconnect = lambda client, data, flags, reason, properties: self.disconnected.put(reason)
        self.client = client
        client.connect("127.0.0.1", port, keep_alive)
        client.loop_start()
        self.connack = self._done.get(timeout=WAIT)

    def _message(self, client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
        try:
            body = json.loads(message.payload)
        except ValueError:
            body = message.payload
        self.answers.put(Answer(message.topic, body, message.qos))

    def subscribe(self, topic_filter: str, qos: int = 1) -> list[int]:
        self.client.subscribe(topic_filter, qos)
        return [code.value for code in self._done.get(timeout=WAIT)]

    def publish(self, topic: str, body: bytes | str | None = None, qos: int = 1, retain: bool = False) -> None:
        info = self.client.publish(topic, body, qos, retain)
        if qos:  # without an acknowledgement there is nothing to wait for, and the connection may end by it
            info.wait_for_publish(WAIT)

    def register(self, registration_id: str, csr: Any = None, **fields: Any) -> str:
        """Sends the request, a CSR in bytes as base64 and any other as it is; returns its request id."""
        body = {"registrationId": registration_id, **fields}
        if csr is not None:
            body["csr"] = base64.b64encode(csr).decode() if isinstance(csr, bytes) else csr
        rid = uuid.uuid4().hex
        self.publish(f"$dps/registrations/PUT/iotdps-register/?$rid={rid}", json.dumps(body))
        return rid

    def poll(self, operation_id: str) -> str:
        rid = uuid.uuid4().hex
        self.publish(f"$dps/registrations/GET/iotdps-get-operationstatus/?$rid={rid}&operationId={operation_id}", b" ")
        return rid

    def answer(self, timeout: float = WAIT) -> Answer:
        return self.answers.get(timeout=timeout)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextmanager
def dps_device(
    info: dict[str, Any], registration_id: str, key: str | None = None, **changes: Any
) -> Iterator[PahoDevice]:
    """A device at DPS: by default with the key derived from the group's, subscribed with QoS 1 when let in.

    ``changes``: client_id, username, password, version, qos, port.
    """
    key = key or derive(group_key(info), registration_id)
    device = PahoDevice(
        changes.get("port", info["mqtt_port"]),
        tls_context(info, chain=changes.get("chain")),
        changes.get("client_id", registration_id),
        changes.get("username", dps_username(info, registration_id, changes.get("version", DPS_API))),
        changes.get("password", dps_token(info, registration_id, key)),
        will=changes.get("will"),
    )
    try:
        if device.connack.value == 0:
            assert device.subscribe(RESPONSES, changes.get("qos", 1)) == [min(changes.get("qos", 1), 1)]
        yield device
    finally:
        device.close()


def finish(device: PahoDevice, registration_id: str, csr: bytes | None = None, **fields: Any) -> dict[str, Any]:
    """Register, poll until it is over; the last answer's body."""
    rid = device.register(registration_id, csr, **fields)
    answer = device.answer()
    assert answer.rid == rid
    while answer.body.get("status") == "assigning":
        rid = device.poll(answer.body["operationId"])
        answer = device.answer()
        assert answer.rid == rid
    assert answer.status == 200
    body: dict[str, Any] = answer.body
    return body


def provision(
    info: dict[str, Any], registration_id: str, folder: Path, device_key: str | None = None, key: Key | None = None
) -> tuple[dict[str, Any], Path]:
    """Registers with a CSR; returns the registrationState and a PEM of leaf and private key."""
    key = key or ec.generate_private_key(ec.SECP384R1())
    with dps_device(info, registration_id, device_key) as device:
        state = finish(device, registration_id, make_csr(registration_id, key))["registrationState"]
    leaf = x509.load_der_x509_certificate(base64.b64decode(state["issuedCertificateChain"][0]))
    pem = save_key(folder / f"{registration_id}.pem", key)
    with pem.open("ab") as file:
        file.write(leaf.public_bytes(Encoding.PEM))
    return state, pem


def hub_username(hub: str, device_id: str, version: str = HUB_API) -> str:
    return f"{hub}/{device_id}/?api-version={version}"


@contextmanager
def hub_device(info: dict[str, Any], device_id: str, chain: Path | None = None, **changes: Any) -> Iterator[PahoDevice]:
    """A device at its hub, by client certificate unless ``password`` is given."""
    hub = changes.get("hub", info["hubs"][0])
    device = PahoDevice(
        info["mqtt_port"],
        tls_context(info, hub, chain),
        changes.get("client_id", device_id),
        changes.get("username", hub_username(hub, device_id, changes.get("version", HUB_API))),
        changes.get("password"),
        will=changes.get("will"),
        clean=changes.get("clean", False),  # as Microsoft's SDKs
    )
    try:
        yield device
    finally:
        device.close()


# Service APIs

_ID_FIELDS = {"enrollments": "registrationId", "enrollmentGroups": "enrollmentGroupId", "devices": "deviceId"}


def service_token(info: dict[str, Any], resource: str = "localhost", **changes: Any) -> str:
    """A token of the service's policy; ``changes``: key, expiry, skn."""
    policy = info["service_policy"]
    return token(resource, changes.pop("key", policy["key"]), **{"skn": policy["name"], **changes})


def service_version(path: str) -> str:
    """The api-version in use for a service, where a test names none: of DPS the last that names a policy by itself."""
    kind = path.split("/")[1].lower()
    if kind == "namespaces":
        return REGISTRY_API
    return DPS_API if kind in ("enrollments", "enrollmentgroups", "registrations", "certificates") else HUB_API


def api_call(info: dict[str, Any], method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
    """Status and body, as api_answer."""
    return api_answer(info, method, path, body, **more)[:2]


def api_answer(
    info: dict[str, Any],
    method: str,
    path: str,
    body: Any = None,
    authorization: str | None = None,
    host: str = "localhost",
    **headers: str,
) -> tuple[int, Any, dict[str, str]]:
    """Status, body and headers; those that are sent with ``_`` for ``-``.

    A PUT of an enrollment or device gets the ID of its path into a body that is an object, as all clients send it.
    Without one in the path the api-version is that of the service which has the path.
    """
    kind, _, id = path.strip("/").partition("?")[0].partition("/")
    if method == "PUT" and isinstance(body, dict) and kind in _ID_FIELDS:
        body = {_ID_FIELDS[kind]: unquote(id), **body}
    context = ssl.create_default_context(cafile=info["roots"])
    # The name is verified as the host's, the socket goes to 127.0.0.1: some machines resolve it to ::1 first.
    connection = http.client.HTTPSConnection(host, info["https_port"], timeout=WAIT, context=context)
    plain = socket.create_connection(("127.0.0.1", info["https_port"]), WAIT)
    connection.sock = context.wrap_socket(plain, server_hostname=host)
    try:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        given["Authorization"] = service_token(info, host) if authorization is None else authorization
        connection.request(method, path if "?" in path else f"{path}?api-version={service_version(path)}", data, given)
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text else None, dict(response.getheaders())
    finally:
        connection.close()


# Names of a hub's errors, as Microsoft's service SDK for .NET numbers them (ErrorCode).
_HUB_CODES = {
    "InvalidProtocolVersion": 400001,
    "ArgumentInvalid": 400004,
    "IotHubFormatError": 400006,
    "IotHubUnauthorizedAccess": 401002,
    "DeviceMaximumQueueDepthExceeded": 403004,
    "DeviceNotFound": 404001,
    "DeviceAlreadyExists": 409001,
    "PreconditionFailed": 412001,
    "MessageTooLarge": 413001,
}


def hub_code(body: dict[str, str]) -> int:
    """The number of a hub's error, out of its texts: a name, or JSON in JSON."""
    assert body.keys() == {"Message", "ExceptionMessage"}, body
    message = body["Message"]
    if message.startswith("ErrorCode:"):
        assert body["ExceptionMessage"].startswith("Tracking ID:")
        return _HUB_CODES[message[len("ErrorCode:") :].split(";")[0]]
    return int(json.loads(message)["errorCode"])


# Packets by hand (MQTT 3.1.1, chapters 2 and 3)


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(data)) + data


def packet(first: int, body: bytes) -> bytes:
    length, size = bytearray(), len(body)
    while True:
        size, digit = divmod(size, 128)
        length.append(digit | (0x80 if size else 0))
        if not size:
            return bytes([first]) + bytes(length) + body


def connect_packet(
    client_id: str, username: str, password: str | None, keep_alive: int = 60, level: int = 4, clean: bool = True
) -> bytes:
    flags = 0x80 | clean << 1 | (0x40 if password is not None else 0)
    body = text("MQTT") + bytes([level, flags]) + struct.pack("!H", keep_alive) + text(client_id) + text(username)
    return packet(0x10, body + (text(password) if password is not None else b""))


def subscribe_packet(topic_filter: str, qos: int = 1, number: int = 1) -> bytes:
    return packet(0x82, struct.pack("!H", number) + text(topic_filter) + bytes([qos]))


def publish_packet(topic: str, body: bytes = b"", qos: int = 0, number: int = 2) -> bytes:
    return packet(0x30 | qos << 1, text(topic) + (struct.pack("!H", number) if qos else b"") + body)


REGISTER = "$dps/registrations/PUT/iotdps-register/?$rid="
POLL = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid="
DISCONNECT = b"\xe0\x00"


class RawClient:
    """A TLS socket and packets as bytes, for what a proper client would not do."""

    def __init__(self, info: dict[str, Any], host: str = "localhost", chain: Path | None = None) -> None:
        self.socket: socket.socket = socket.create_connection(("127.0.0.1", info["mqtt_port"]), WAIT)
        try:
            self.socket = tls_context(info, host, chain).wrap_socket(self.socket)
        except OSError:
            self.socket.close()
            raise
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def packet(self) -> tuple[int, bytes]:
        """First byte and body of the next packet. Raises EOFError at the end, TimeoutError when none comes."""
        first, length, shift = self._take(1)[0], 0, 0
        while True:
            digit = self._take(1)[0]
            length |= (digit & 0x7F) << shift
            shift += 7
            if digit < 0x80:
                return first, self._take(length)

    def _take(self, size: int) -> bytes:
        while len(self._rest) < size:
            try:
                part = self.socket.recv(65536)
            except (ssl.SSLEOFError, ConnectionResetError):
                part = b""  # TCP ended without close_notify
            if not part:
                raise EOFError
            self._rest += part
        part, self._rest = self._rest[:size], self._rest[size:]
        return part

    def ended(self) -> bool:
        """Whether the server ends the connection without another packet."""
        try:
            self.packet()
        except EOFError:
            return True
        return False

    def silent(self, seconds: float = 0.3) -> bool:
        """Whether nothing comes, and the connection stays, for this long."""
        self.socket.settimeout(seconds)
        try:
            self.packet()
        except TimeoutError:
            return True
        except EOFError:
            return False
        finally:
            self.socket.settimeout(WAIT)
        return False

    def dps_connect(self, info: dict[str, Any], registration_id: str, key: str | None = None) -> None:
        key = key or derive(group_key(info), registration_id)
        self.send(
            connect_packet(registration_id, dps_username(info, registration_id), dps_token(info, registration_id, key))
        )

    def dps_ready(self, info: dict[str, Any], registration_id: str, key: str | None = None) -> None:
        """Connected and subscribed with QoS 0."""
        self.dps_connect(info, registration_id, key)
        assert self.packet() == (0x20, b"\0\0")
        self.send(subscribe_packet(RESPONSES, 0))
        assert self.packet() == (0x90, b"\0\1\0")

    def request(self, topic: str, body: bytes = b"") -> tuple[str, bytes]:
        """Publishes with QoS 0; returns topic and body of the answer."""
        self.send(publish_packet(topic, body))
        return self.answer()

    def answer(self) -> tuple[str, bytes]:
        first, body = self.packet()
        assert first & 0xF0 == 0x30, hex(first)
        size = struct.unpack("!H", body[:2])[0] + 2
        return body[2:size].decode(), body[size + (2 if first & 6 else 0) :]
