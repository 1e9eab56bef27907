"""A whole CIRCUITPY drive, boot.py and code.py and all, with the real adafruit_minimqtt: from blank to telemetry and
back, what the service says meanwhile, and each fault of the line in bounded time by its right name."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import secrecy
from faults import BOARD, SERVER, Fault, Proxy
from running import DRIVE, SHIMS, Outcome, fill_drive
from units import edit, make_unit

from espdps.simulator import Options, Simulator, serving

ID = "contoso-0001"
TIMEOUT = 2  # seconds, of device.json
CLEAN = 8.0  # seconds that starting and the rest of an attempt may take on a busy machine
BLANK = b"\n" * 12000


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    with serving(tmp_path / "sim", Options(assigning=0, retry_after=0)) as simulator:
        yield simulator


class Powered:
    """A drive that runs; wait() reads its console. Power goes as by a plug that is pulled."""

    def __init__(self, unit: Path, sim: Simulator, **environment: str) -> None:
        self.root = unit / DRIVE
        self.text = ""
        self._lines: queue.Queue[str] = queue.Queue()
        hosts = ";".join(
            f"{name}:123=127.0.0.1:{sim.info['ntp_port']}" for name in ("pool.ntp.org", "time.windows.com")
        )
        self._process = subprocess.Popen(
            [sys.executable, "-u", str(SHIMS / "circuitpython" / "run.py"), str(self.root)],
            env={"PATH": os.environ["PATH"], "BOARD_HOSTS": hosts, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def __enter__(self) -> Powered:  # noqa: PYI034 - Python 3.10 has no Self
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout
        self._process.stdout.close()
        secrecy.assert_clean(self.text, "what the drive printed")

    def wait(self, step: str, seconds: float = 15) -> Outcome:
        """All that was printed up to the next line of this step, which has to come in so many seconds."""
        end = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {step} after\n{self.text}") from None
            self.text += line
            assert line and "Traceback" not in line, self.text
            if f"] {step} " in line:
                return Outcome(self.text, 0)


def blank(tmp_path: Path, sim: Simulator, kind: str | None = "ec-p256", **settings: object) -> Path:
    """A device whose drive was just flashed."""
    unit = make_unit(tmp_path, sim, ID, kind)
    edit(unit / "device.json", timeout=TIMEOUT, **settings)
    edit(unit / "secrets.json", wifi_ssid="laboratory", wifi_password="not of this world")
    fill_drive(unit)
    for slot in ("identity.a", "identity.b"):
        (unit / DRIVE / slot).write_bytes(BLANK)
    return unit


def test_from_a_blank_drive_to_telemetry_and_again_without_dps(tmp_path: Path, sim: Simulator) -> None:
    unit = blank(tmp_path, sim)
    with Powered(unit, sim) as board:
        first = board.wait("hub.sent")
    assert first.names.index("clock") < first.names.index("dps.connect") < first.names.index("certificate"), first.text
    assert "error" not in first.names
    assert sim.wait_event("hub.telemetry", device=ID) and sim.wait_event("hub.connect")["auth"] == "x509"
    assert (unit / DRIVE / "identity.a").read_bytes() != BLANK
    before = len(sim.events)
    with Powered(unit, sim) as board:
        second = board.wait("hub.sent")
    assert "dps.connect" not in second.names and "error" not in second.names, second.text
    kinds = [event["event"] for event in sim.events[before:]]
    assert kinds.count("tls.open") == 1 and not any(kind.startswith("dps.") for kind in kinds), kinds


def test_what_the_service_says_is_heard(tmp_path: Path, sim: Simulator) -> None:
    unit = blank(tmp_path, sim)
    with Powered(unit, sim) as board:
        board.wait("hub.sent")
        sim.desire(ID, {"interval": 1})
        assert board.wait("interval").steps[-1] == ("interval", "1 s")
        assert sim.call_method(ID, "led", {"on": True}) == (200, {"on": True})
        assert sim.call_method(ID, "led", {})[0] == 500  # its handler fails, and the session goes on
        assert sim.call_method(ID, "other")[0] == 404
        sim.send_message(ID, "grüß".encode(), {"number": "7"})
        heard = board.wait("message").steps[-1][1]
        assert heard.startswith("grüß {") and "'number': '7'" in heard
        sim.wait_event("hub.c2d", state="completed")
        assert sim.twin(ID).reported["interval"] == 1


def test_a_message_whose_handler_fails_is_not_acknowledged(tmp_path: Path, sim: Simulator) -> None:
    unit = blank(tmp_path, sim)
    app = unit / DRIVE / "app.py"
    app.write_text(
        app.read_text().replace(
            "def message(body, properties):\n", "def message(body, properties):\n    1 / len(body)\n"
        )
    )
    with Powered(unit, sim) as board:
        board.wait("hub.sent")
        sim.send_message(ID, b"")
        assert "ZeroDivisionError" in board.wait("error").steps[-1][1]
        sim.send_message(ID, b"good")
        board.wait("message")
        sim.wait_event("hub.c2d", state="completed")
        done = [event for event in sim.events if event["event"] == "hub.c2d" and event["state"] == "completed"]
        queued = [event for event in sim.events if event["event"] == "hub.c2d" and event["state"] == "queued"]
    assert [event["message_id"] for event in done] == [queued[1]["message_id"]]


# (fault on the connection to DPS, codes it may be told by)
FAULTS = [
    (Fault("stall", BOARD, flight=1), {"timeout"}),
    (Fault("stall", BOARD, flight=3), {"timeout"}),
    (Fault("stall", SERVER, flight=4), {"timeout"}),
    (Fault("cut", SERVER, flight=1), {"closed"}),
    (Fault("cut", BOARD, flight=3), {"closed"}),
    (Fault("reset", SERVER, flight=3), {"closed"}),
    (Fault("half", BOARD, flight=3), {"closed"}),
    (Fault("corrupt", BOARD, flight=1, xor=255), {"tls"}),
    (Fault("corrupt", BOARD, flight=3, byte=7, xor=255), {"tls"}),
]


@pytest.mark.parametrize(
    ("fault", "codes"), FAULTS, ids=lambda value: str(value)[:40] if isinstance(value, Fault) else ""
)
def test_a_fault_of_the_line_ends_in_time(fault: Fault, codes: set[str], tmp_path: Path, sim: Simulator) -> None:
    with Proxy(sim.info["mqtt_port"]) as proxy:
        unit = blank(tmp_path, sim, port=proxy.port)
        proxy.arm(fault)
        with Powered(unit, sim) as board:
            bad = board.wait("error", 2 * TIMEOUT + CLEAN)
            assert proxy.struck and bad.step.startswith("dps.") and bad.code in codes, bad.text
            board.wait("hub.sent")  # and the next attempt gets through, by itself


@pytest.mark.parametrize("content", [b"", b"\n", b"garbage", b"-----BEGIN CERTIFICATE-----\nMIIB\n"])
def test_roots_that_are_none_never_mean_that_nothing_is_verified(
    content: bytes, tmp_path: Path, sim: Simulator
) -> None:
    unit = blank(tmp_path, sim)
    (unit / DRIVE / "roots.pem").write_bytes(content)
    with Powered(unit, sim) as board:
        outcome = board.wait("error")
    assert outcome.code == "config" and "/roots.pem" in outcome.message, outcome.text
    assert not [event for event in sim.events if event["event"].startswith("dps.")]


def test_a_key_that_is_none_is_named(tmp_path: Path, sim: Simulator) -> None:
    unit = blank(tmp_path, sim)
    with Powered(unit, sim) as board:
        board.wait("hub.sent")
    (unit / DRIVE / "device.key").write_bytes(b"garbage")
    with Powered(unit, sim) as board:
        outcome = board.wait("error")
    assert outcome.code == "config" and "/device.key" in outcome.message and "garbage" not in outcome.text, outcome.text


def test_wrong_roots_and_a_wrong_name(tmp_path: Path, sim: Simulator) -> None:
    unit = blank(tmp_path, sim)
    with serving(tmp_path / "other") as other:
        (unit / DRIVE / "roots.pem").write_bytes(Path(other.info["roots"]).read_bytes())
    with Powered(unit, sim) as board:
        assert board.wait("error").code == "tls-root"
    unit = blank(tmp_path, sim, dps_host="other.localhost")
    with Powered(unit, sim) as board:
        assert board.wait("error").code == "tls-name"


def test_a_name_that_is_none_and_a_port_where_nobody_is(tmp_path: Path, sim: Simulator) -> None:
    with Powered(blank(tmp_path, sim, dps_host="nowhere.example"), sim) as board:
        assert board.wait("error").code == "dns"
    with Proxy(1) as proxy:
        port = proxy.port  # nobody listens there any more
    with Powered(blank(tmp_path, sim, port=port), sim) as board:
        assert board.wait("error").code == "tcp"


def test_without_a_time_server(tmp_path: Path, sim: Simulator) -> None:
    with Powered(blank(tmp_path, sim), sim, BOARD_HOSTS="") as board:
        outcome = board.wait("error")
    assert (outcome.step, outcome.code) == ("clock", "ntp")


def test_a_drive_that_is_the_pc_s_gets_no_identity_and_says_so(tmp_path: Path, sim: Simulator) -> None:
    unit = blank(tmp_path, sim)
    edit(unit / DRIVE / "board.json", button="BUTTON")
    with Powered(unit, sim, BOARD_BUTTON="pressed") as board:
        outcome = board.wait("error")
    assert outcome.code == "store" and (unit / DRIVE / "identity.a").read_bytes() == BLANK, outcome.text
    assert "this drive is the PC's: reset without the button" in outcome.text
    # DPS was not even asked: at each retry it would issue another certificate that nobody keeps.
    assert not [event for event in sim.events if event["event"].startswith("dps.")]
    (unit / DRIVE / "board.json").write_text((unit / DRIVE / "board.json").read_text().replace("BUTTON", ""))
    with Powered(unit, sim) as board:
        board.wait("hub.sent")
    edit(unit / DRIVE / "board.json", button="BUTTON")
    with Powered(unit, sim, BOARD_BUTTON="pressed") as board:  # an identity that is there is used all the same
        assert "error" not in board.wait("hub.sent").names


def test_a_program_gets_no_more_than_circuitpython_has(tmp_path: Path, sim: Simulator) -> None:
    unit = blank(tmp_path, sim)
    probe = unit / DRIVE / "probe.py"
    probe.write_text(
        "import gc, hashlib, os, ssl, sys, time\n"
        "assert sys.implementation.name == 'circuitpython'\n"
        "for module, name in ((time, 'ticks_ms'), (time, 'sleep_ms'), (time, 'gmtime'), (gc, 'threshold'),\n"
        "                     (hashlib, 'sha256'), (ssl, 'CERT_REQUIRED')):\n"
        "    assert not hasattr(module, name), name\n"
        "for name in ('socket', 'machine_', 'subprocess', 'umqtt.robust', 'hmac'):\n"
        "    try:\n"
        "        exec('import ' + name)\n"
        "    except ImportError:\n"
        "        continue\n"
        "    raise AssertionError(name)\n"
        "open('/a', 'w').close()\n"
        "open('/b', 'w').close()\n"
        "try:\n"
        "    os.rename('/a', '/b')\n"
        "except OSError as e:\n"
        "    print('refused', e.args[0])\n"
        "assert time.time() < 1000000000\n"
    )
    done = subprocess.run(
        [sys.executable, str(SHIMS / "circuitpython" / "run.py"), str(unit / DRIVE), str(probe)],
        env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "refused 17\n"), done.stdout + done.stderr
