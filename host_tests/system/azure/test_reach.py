"""esp-dps doctor --network: the endpoint as a board would reach it. Only loopback is asked, by closed ports."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from pki import Authority, private_pem
from units import edit, make_unit
from workshop import esp_dps

from espdps.azure import reach
from espdps.credentials import keys, roots
from espdps.simulator import Options, Simulator, serving


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with serving(tmp_path_factory.mktemp("sim"), Options()) as simulator:
        yield simulator


@pytest.fixture
def unit(sim: Simulator, tmp_path: Path) -> Path:
    made = make_unit(tmp_path, sim, "net-1")
    edit(made / "device.json", ntp=["127.0.0.1"])
    return made


def test_a_set_up_that_works(unit: Path) -> None:
    done = esp_dps("doctor", unit, "--network")
    assert done.code == 0 and "CN=esp-dps simulator server root" in done.out and "days left" in done.out, (
        done.out + done.err
    )
    assert "reached" not in esp_dps("doctor", unit).out  # only when asked for


def test_another_root(unit: Path) -> None:
    (unit / "roots.pem").write_bytes(roots.azure_roots())
    done = esp_dps("doctor", unit, "--network")
    assert done.code == 1 and "its certificate is not taken" in done.out and "--roots" in done.out, done.out
    assert "this board" not in done.out  # it is this PC that looked


def test_a_closed_port(unit: Path) -> None:
    with socket.socket() as closed:  # bound and not listening
        closed.bind(("127.0.0.1", 0))
        edit(unit / "device.json", port=closed.getsockname()[1], dps_host="127.0.0.1")
        done = esp_dps("doctor", unit, "--network")
    assert done.code == 1 and "no connection: Connection refused" in done.out, done.out


def test_a_name_that_is_none(unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    edit(unit / "device.json", dps_host="dps.invalid")
    monkeypatch.setattr(reach.socket, "getaddrinfo", unknown)
    found = [finding for finding in reach.examine(unit) if finding.wrong]
    assert [(finding.where, finding.message) for finding in found] == [("dps.invalid", "its name cannot be resolved")]


class Server:
    """Something that listens, and answers each connection as it is told."""

    def __init__(self, answer: Callable[[socket.socket], object]) -> None:
        self._line = socket.create_server(("127.0.0.1", 0))
        self.port = self._line.getsockname()[1]
        self._answer = answer
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            line, _ = self._line.accept()
            with line:
                if not line.recv(1, socket.MSG_PEEK):  # the end
                    return
                self._answer(line)

    def __enter__(self) -> Server:  # noqa: PYI034 - Python 3.10 has no Self
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join()
        self._line.close()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda line: line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "no TLS: wrong version number"),
        (lambda line: line.recv(4096), "no TLS: "),  # and closes
        (lambda line: [line.recv(4096), line.recv(1)], "no TLS: it is silent for 1 s"),
    ],
)
def test_a_port_where_something_else_answers(
    unit: Path, monkeypatch: pytest.MonkeyPatch, answer: Callable[[socket.socket], object], says: str
) -> None:
    monkeypatch.setattr(reach, "WAIT", 1.0)
    with Server(answer) as server:
        edit(unit / "device.json", port=server.port, dps_host="127.0.0.1")
        begun = time.monotonic()
        done = esp_dps("doctor", unit, "--network")
        assert time.monotonic() - begun < 10
    assert done.code == 1 and f"connected, but {says}" in done.out and "Check host and port" in done.out, done.out


@pytest.mark.parametrize("strangers", [0, 1, 2], ids=["alone", "before others", "between others"])
@pytest.mark.parametrize(
    ("name", "days", "says", "remedy"),
    [
        ("other.localhost", 30, "Hostname mismatch", "Use the service's own host name"),
        ("localhost", -1, "certificate has expired", "Check this PC's clock"),
        ("localhost", 30, None, None),
    ],
)
def test_what_the_right_root_has_against_it(
    unit: Path, tmp_path: Path, name: str, days: int, says: str | None, remedy: str | None, strangers: int
) -> None:
    """It is said, whichever roots there are besides, and with the remedy for it."""
    root = Authority("The root")
    key = keys.new_key("ec-p256")
    (tmp_path / "server.pem").write_bytes(private_pem(key) + server_certificate(root, key, name, days))
    others = [Authority(f"Stranger {number}").pem for number in range(strangers)]
    (unit / "roots.pem").write_bytes(b"".join([*others[:-1], root.pem, *others[-1:]]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")

    def answer(line: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(line, server_side=True) as secure:
            secure.recv(1)

    with Server(answer) as server:
        edit(unit / "device.json", port=server.port, dps_host="localhost")
        done = esp_dps("doctor", unit, "--network")
    if says is None:
        assert done.code == 0 and "reached; root CN=The root" in done.out, done.out
    else:
        assert done.code == 1 and says in done.out and str(remedy) in done.out, done.out


def server_certificate(root: Authority, key: keys.PrivateKey, name: str, days: int) -> bytes:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.load_pem_x509_certificate(root.pem).subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=40))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(root.key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )


def test_a_time_server_that_knows_no_time(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such an answer, of stratum 0, says to ask no more (RFC 5905, 7.4): no reason to call this PC's clock wrong."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        monkeypatch.setattr(reach, "NTP_PORT", server.getsockname()[1])

        def answer() -> None:
            _, client = server.recvfrom(512)
            server.sendto(b"\x1c\0" + bytes(46), client)

        thread = threading.Thread(target=answer)
        thread.start()
        found = list(reach._clock(["127.0.0.1"]))
        thread.join()
    assert [(finding.where, finding.wrong) for finding in found] == [("ntp", False)]


def test_a_kept_identity_is_no_stranger(unit: Path) -> None:
    assert esp_dps("register", unit, "--keep").code == 0
    assert (unit / "identity.a").exists() and "nothing reads it" not in esp_dps("doctor", unit).out


@pytest.mark.parametrize("ahead", [0, 4000])
def test_the_clock(sim: Simulator, unit: Path, monkeypatch: pytest.MonkeyPatch, ahead: int) -> None:
    now = time.time
    monkeypatch.setattr(reach, "NTP_PORT", sim.info["ntp_port"])
    monkeypatch.setattr(reach, "time", SimpleNamespace(time=lambda: now() + ahead))
    found = list(reach._clock(["127.0.0.1"]))
    monkeypatch.undo()
    assert [finding.where for finding in found] == (["this PC's clock"] if ahead else [])
