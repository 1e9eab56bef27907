"""A hub or DPS that refuses what is good, or knows other versions and keys than it did: what it costs, over real TLS."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Outcome, run
from units import edit, make_unit, stored

from espdps.credentials import keys
from espdps.simulator import Alert, Chain, Error, Options, Refuse, Simulator, Trouble, serving

BOARDS = ["micropython-32", "circuitpython"]
ID = "contoso-0001"
REFUSED = Trouble({"hub.connect": Refuse(5)})


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    with serving(tmp_path / "sim", Options(assigning=0)) as simulator:
        yield simulator
    assert not [event for event in simulator.events if event["event"] == "fault"]


def start(board: str, unit: Path, status: int = 0) -> Outcome:
    outcome = run(board, unit)
    assert outcome.status == status, outcome.text
    return outcome


def blank(folder: Path, sim: Simulator, **config: object) -> Path:
    unit = make_unit(folder, sim)
    edit(unit / "device.json", **{"ntp": [], **config})
    return unit


def requests(sim: Simulator) -> list[bool]:
    """Of each registration, whether with a CSR."""
    return [event["csr"] for event in sim.events if event["event"] == "dps.register"]


def notes(unit: Path) -> Path:
    return next(unit.rglob("notes.json"))


@pytest.mark.parametrize("board", BOARDS)
def test_an_outage_of_the_hub_s_sign_in_costs_no_certificate(board: str, sim: Simulator, tmp_path: Path) -> None:
    unit = blank(tmp_path, sim)
    start(board, unit)
    before = stored(unit)
    sim.trouble = REFUSED
    for _ in range(2):
        assert start(board, unit, 1).code == "connack-5"
    assert requests(sim) == [True]
    # Ten minutes later DPS is asked where the hub is, without a CSR
    noted = json.loads(notes(unit).read_text())
    noted["refused"] = [moment - 700 for moment in noted["refused"]]
    notes(unit).write_text(json.dumps(noted))
    assert start(board, unit, 1).code == "connack-5"
    assert requests(sim) == [True, False] and stored(unit) == before
    sim.trouble = Trouble()
    start(board, unit)
    assert requests(sim) == [True, False] and "refused" not in json.loads(notes(unit).read_text())


@pytest.mark.parametrize("board", BOARDS)
def test_a_certificate_that_was_issued_since_is_not_replaced_by_another(
    board: str, sim: Simulator, tmp_path: Path
) -> None:
    unit = blank(tmp_path, sim)
    start(board, unit)
    sim.revoke_issuer()
    assert start(board, unit, 1).code == "connack-5"
    noted = json.loads(notes(unit).read_text())
    noted["refused"] = [moment - 7300 for moment in noted["refused"]]
    notes(unit).write_text(json.dumps(noted))
    # A fresh one is refused for another reason than its age (that an older one is replaced: test_device.py)
    assert start(board, unit, 1).code == "connack-5" and requests(sim) == [True, False]


@pytest.mark.parametrize("board", BOARDS)
def test_an_alert_in_the_hub_s_place_costs_neither_identity_nor_dps(board: str, sim: Simulator, tmp_path: Path) -> None:
    unit = blank(tmp_path, sim)
    start(board, unit)
    before = stored(unit)
    sim.revoke_issuer()
    sim.trouble = Trouble({"hub.tls": Alert()})
    outcome = start(board, unit, 1)
    assert outcome.code == "tls-alert" and "dps.connect" not in outcome.names and stored(unit) == before


@pytest.mark.parametrize("board", BOARDS)
def test_a_preview_that_was_withdrawn_strands_nobody(board: str, sim: Simulator, tmp_path: Path) -> None:
    unit = blank(tmp_path, sim, dps_api="2025-07-01-preview")
    sim.set_api(dps=("2026-11-01",), hub=("2021-04-12",))
    first = start(board, unit, 1)
    assert first.names.count("dps.connect") == 2 and first.code == "connack-5", first.text
    second = start(board, unit)
    assert second.names.count("error") == 0 and "dps.connect" not in second.names, second.text
    again = start(board, unit)  # what works is known by now
    assert "error" not in again.names and "dps.connect" not in again.names, again.text
    assert requests(sim) == [True]


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("csr", [True, False])
def test_a_key_is_rolled_without_flashing_again(board: str, csr: bool, sim: Simulator, tmp_path: Path) -> None:
    group = sim.info["groups"][0]["id"]
    old, new = sim.info["groups"][0]["primary_key"], base64.b64encode(secrets.token_bytes(64)).decode()
    if not csr:
        sim.set_enrollment(group, group=True, credential_policy=None)
    unit = make_unit(tmp_path, sim, kind="ec-p384" if csr else None)
    edit(unit / "device.json", ntp=[])
    pair = [keys.derive_device_key(key, ID) for key in (new, old)]
    edit(unit / "secrets.json", device_key=pair[0], secondary_device_key=pair[1])
    first = start(board, unit)
    assert first.names.count("dps.connect") == 2 and first.code == "401000", first.text
    assert "error" not in start(board, unit).names


@pytest.mark.parametrize("board", BOARDS)
def test_roles_that_are_not_ready_are_waited_for(board: str, sim: Simulator, tmp_path: Path) -> None:
    unit = blank(tmp_path, sim)
    sim.trouble = Trouble({"register": Error(403, 403000, "Forbidden")})
    outcome = start(board, unit, 1)
    assert outcome.code == "403000" and outcome.names.count("dps.connect") == 1
    sim.trouble = Trouble()
    start(board, unit)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("form", ["pem", "base64-pem", "lines", "reversed"])
def test_forms_of_an_issued_chain(form: str, board: str, sim: Simulator, tmp_path: Path) -> None:
    sim.trouble = Trouble({"certificate": Chain(form)})
    unit = blank(tmp_path, sim)
    assert "certificate" in start(board, unit).names
    sim.trouble = Trouble()
    assert start(board, unit).names.count("dps.connect") == 0


@pytest.mark.parametrize("board", BOARDS)
def test_payload_and_model_are_settings(board: str, sim: Simulator, tmp_path: Path) -> None:
    told: list[dict[str, object]] = []
    sim.allocate = lambda context: told.append(context)  # type: ignore[assignment]
    model = "dtmi:com:example:Thermostat;1"
    unit = blank(tmp_path, sim, payload={"site": "Kiel", "größe": 7}, model_id=model)
    start(board, unit)
    assert told[0]["payload"] == {"site": "Kiel", "größe": 7, "modelId": model}
    connected = [event for event in sim.events if event["event"] == "hub.connect"]
    assert [event["model_id"] for event in connected] == [model]


class Portal:
    """A router between the board and its hub: what it does with each connection in turn, then it lets all through."""

    ALERT = bytes([0x15, 3, 3, 0, 2, 2, 40])  # TLS 1.2 (RFC 5246, 7.2): fatal, handshake_failure

    def __init__(self, through: int, *turns: int | bytes) -> None:
        """A turn is bytes to say, of which none is a hang-up, or another port to lead to."""
        self._through, self._turns = through, list(turns)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve)]

    def __enter__(self) -> Portal:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(20)

    def _serve(self) -> None:
        while True:
            try:
                board, _ = self._server.accept()
            except OSError:
                return
            turn = self._turns.pop(0) if self._turns else self._through
            if isinstance(turn, bytes):
                with board:
                    if turn:
                        board.recv(4096)
                        board.sendall(turn)
                continue
            hub = socket.create_connection(("127.0.0.1", turn))
            for pair in ((board, hub), (hub, board)):
                self._threads.append(threading.Thread(target=self._pass, args=pair))
                self._threads[-1].start()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("board", BOARDS)
def test_a_captive_portal_costs_neither_identity_nor_dps(board: str, sim: Simulator, tmp_path: Path) -> None:
    """Refused, then a page with a certificate of its own, then an alert in the hub's place, then all is well."""
    unit = blank(tmp_path, sim)
    start(board, unit)
    before = stored(unit)
    real = sim.info["mqtt_port"]
    with (
        serving(tmp_path / "other", Options()) as other,
        Portal(real, b"", b"", b"", other.info["mqtt_port"], Portal.ALERT, Portal.ALERT) as portal,
    ):
        hosts = {"BOARD_HOSTS": f"hub-1.localhost:{real}=127.0.0.1:{portal.port}"}
        outcome = run(board, unit, "0", script="life.py", environment=hosts)
    assert outcome.status == 0 and "dps.connect" not in outcome.names and "hub.sent" in outcome.names, outcome.text
    errors = [text.split()[1] for step, text in outcome.steps if step == "error"]
    assert len(errors) == 6 and errors[3] == "tls-root" and errors[4:] == ["tls-alert"] * 2, outcome.text
    assert stored(unit) == before


class Liar:
    """A time server that answers each question with the same datagram."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.asked = 0
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Liar:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(20)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            question, address = self._socket.recvfrom(100)
            if not question:
                return
            self.asked += 1
            self._socket.sendto(self._answer, address)


def ntp_answer(first: int, stratum: int, year: int) -> bytes:
    """RFC 4330: leap indicator, version and mode in the first byte; the transmit timestamp at 40, since 1900."""
    seconds = int(datetime.datetime(year, 6, 1, tzinfo=datetime.timezone.utc).timestamp()) + 2208988800
    return bytes([first, stratum]) + bytes(38) + (seconds % 2**32).to_bytes(4, "big") + bytes(4)


LIES = {
    "all zeros": bytes(48),
    "not synchronized": ntp_answer(0xE4, 2, 2027),
    "kiss of death": ntp_answer(0x24, 0, 2027),
    "a client": ntp_answer(0x23, 2, 2027),
    "2060": ntp_answer(0x24, 2, 2060),
    "2016": ntp_answer(0x24, 2, 2016),
    "half": ntp_answer(0x24, 2, 2027)[:30],
}


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("lie", LIES)
def test_a_time_server_that_does_not_know_the_time(lie: str, board: str, sim: Simulator, tmp_path: Path) -> None:
    unit = blank(tmp_path, sim)
    edit(unit / "device.json", ntp=["ntp-1.example", "ntp-2.example"])
    with Liar(LIES[lie]) as liar:
        ports = {"ntp-1.example": liar.port, "ntp-2.example": sim.info["ntp_port"]}
        hosts = ";".join(f"{name}:123=127.0.0.1:{port}" for name, port in ports.items())
        environment = {"BOARD_CLOCK": "unset", "BOARD_EPOCH": "2000", "BOARD_HOSTS": hosts}
        outcome = run(board, unit, environment=environment)
    assert outcome.status == 0 and liar.asked == 1, outcome.text
    assert dict(outcome.steps)["clock"].endswith("from ntp-2.example")
