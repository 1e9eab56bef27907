"""The commands `esp-dps hub …`: a person at a second terminal, and a script, with a device on the other side."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from simulator_client import PahoDevice, hub_device, provision

from espdps import locks
from espdps.errors import ToolError
from espdps.paths import ROOT
from espdps.simulator import Options, Simulator, serving

NAME = "bench-1"


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    folder = tmp_path_factory.mktemp("commands")
    with serving(folder, Options(retry_after=0, assigning=0)) as simulator:
        provision(simulator.info, NAME, folder)
        yield simulator


@pytest.fixture
def device(sim: Simulator) -> Iterator[PahoDevice]:
    with hub_device(sim.info, NAME, sim.directory / f"{NAME}.pem") as client:
        yield client


class Hub:
    """`esp-dps hub` with these words; it is let go on until its output is asked for."""

    def __init__(self, sim: Simulator | Path, *words: str, **environment: str) -> None:
        folder = sim if isinstance(sim, Path) else sim.directory
        command, *rest = words
        self._process = subprocess.Popen(
            [sys.executable, "-m", "espdps.cli", "hub", command, "--sim", str(folder), *rest],
            env={**os.environ, "PYTHONPATH": str(ROOT / "tools"), "COLUMNS": "120", "TZ": "UTC", **environment},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def done(self) -> tuple[int, str, str]:
        """Exit code, output, errors."""
        try:
            output, errors = self._process.communicate(timeout=60)
        finally:
            self._process.kill()
        return self._process.returncode, output, errors

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def test_monitor(sim: Simulator, device: PahoDevice) -> None:
    start = len(sim.events)
    device.publish(f"devices/{NAME}/messages/events/room=4%20north&flag", '{"t":21.5}')
    device.publish(f"devices/{NAME}/messages/events/", b"\x1b[31mred", qos=0)
    sim.wait_event("hub.telemetry", after=start, qos=0)
    count = len([event for event in sim.events if event["event"].startswith("hub.")])
    code, output, errors = Hub(sim, "monitor", "--past", "--count", str(count), NAME).done()
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert f"{NAME}              connect" in lines[0]
    assert "auth=x509" in lines[0]
    assert lines[-2].endswith('telemetry    {"t":21.5} room=4 north flag qos=1')
    assert lines[-1].endswith(r"telemetry    '\x1b[31mred' qos=0")
    as_json = Hub(sim, "monitor", "--past", "--count", str(count), "--json").done()[1]
    assert [json.loads(line)["event"] for line in as_json.splitlines()][-1] == "hub.telemetry"


def test_monitor_follows_and_ends_with_the_simulator(tmp_path: Path) -> None:
    with serving(tmp_path / "sim", Options(retry_after=0, assigning=0)) as sim:
        provision(sim.info, NAME, tmp_path)
        with hub_device(sim.info, NAME, tmp_path / f"{NAME}.pem"):
            pass
        hub = Hub(sim, "monitor", "--past", "--json")
        assert json.loads(hub.line())["event"] == "hub.connect"  # it listens
        with hub_device(sim.info, NAME, tmp_path / f"{NAME}.pem") as device:
            device.publish(f"devices/{NAME}/messages/events/", "news")
            while json.loads(hub.line()).get("body") != "news":
                pass
    code, _, errors = hub.done()
    assert (code, "stopped" in errors) == (1, True)


def test_send(sim: Simulator, device: PahoDevice) -> None:
    device.subscribe(f"devices/{NAME}/messages/devicebound/#")
    code, output, errors = Hub(sim, "send", NAME, "good morning", "-p", "urgency=low", "-p", "a=b=c").done()
    message = device.answer()
    assert (code, errors, message.body) == (0, "", b"good morning")
    assert "&urgency=low&a=b%3Dc" in message.topic
    assert output.startswith(f"queued for {NAME} as ")
    assert output.split()[-1] in message.topic
    code, output, _ = Hub(sim, "send", NAME, "-p", "x=1", "--json", "again").done()
    assert json.loads(output)["message_id"] in device.answer().topic


@pytest.mark.parametrize(("status", "code"), [(200, 0), (404, 1)])
def test_call(sim: Simulator, device: PahoDevice, status: int, code: int) -> None:
    device.subscribe("$iothub/methods/POST/#")
    for words, wanted in (((), f'{status} {{"hot": "ünï"}}\n'), (("--json",), None)):
        hub = Hub(sim, "call", NAME, "heat", '{"to": 50}', *words)
        request = device.answer(60)
        assert (request.topic.split("/?")[0], request.body) == ("$iothub/methods/POST/heat", {"to": 50})
        device.publish(f"$iothub/methods/res/{status}/?$rid={request.properties['$rid']}", '{"hot":"ünï"}')
        result = hub.done()
        assert (result[0], result[2]) == (code, "")
        if wanted is not None:
            assert result[1] == wanted
        else:
            assert json.loads(result[1]) == {"status": status, "payload": {"hot": "ünï"}}


def test_twin(sim: Simulator, device: PahoDevice) -> None:
    device.subscribe("$iothub/twin/PATCH/properties/desired/#")
    code, output, errors = Hub(sim, "twin", NAME, "--desired", '{"interval": 5}').done()
    assert (code, errors) == (0, "")
    version = device.answer().body["$version"]
    assert output.splitlines() == [
        f"{NAME}  enabled, connected",
        f'desired   {{"interval": 5, "$version": {version}}}',
        'reported  {"$version": 1}',
    ]
    twin: dict[str, Any] = json.loads(Hub(sim, "twin", NAME, "--json").done()[1])
    assert twin["properties"]["desired"]["interval"] == 5


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("call", NAME, "any"), 3, "not online"),
        (("twin", "nobody"), 3, "DeviceNotFound"),
        (("twin", NAME, "--desired", "{"), 2, "not JSON"),
        (("twin", NAME, "--desired", '{"a.b": 1}'), 3, "dot"),
        (("call", NAME, "any", "{"), 2, "not JSON"),
        (("send", NAME, "text", "-p", "novalue"), 2, "NAME=VALUE"),
        (("send", "../twins", "text"), 3, "404"),
    ],
)
def test_what_goes_wrong_is_said(sim: Simulator, words: tuple[str, ...], code: int, text: str) -> None:
    done = Hub(sim, *words).done()
    assert (done[0], text in done[2], done[1]) == (code, True, "")
    assert sim.info["service_policy"]["key"] not in done[2]


def test_without_a_simulator(sim: Simulator, tmp_path: Path) -> None:
    code, _, errors = Hub(tmp_path, "twin", NAME).done()
    assert (code, "sim.json is missing" in errors) == (1, True)
    (tmp_path / "sim.json").write_text(json.dumps({**sim.info, "https_port": 1}))
    code, _, errors = Hub(tmp_path, "twin", NAME, https_proxy="http://localhost:2").done()
    assert (code, "does not answer" in errors) == (1, True)
    code, output, _ = Hub(sim, "twin", NAME, https_proxy="http://localhost:2").done()
    assert (code, NAME in output) == (0, True)


@pytest.mark.parametrize("command", ["monitor", "send", "call", "twin"])
def test_help_with_an_example(sim: Simulator, command: str) -> None:
    code, output, _ = Hub(sim, command, "--help").done()
    assert (code, "EXAMPLE" in output, f"esp-dps hub {command}" in output) == (0, True, True)


def test_a_device_is_disabled_enabled_and_deleted(tmp_path: Path) -> None:
    with serving(tmp_path / "sim", Options(retry_after=0, assigning=0)) as sim:
        chain = provision(sim.info, "other", tmp_path)[1]
        with hub_device(sim.info, "other", chain) as client:
            assert Hub(sim, "device", "other").done() == (0, "other  enabled, connected\n", "")
            assert Hub(sim, "device", "other", "--disable").done()[1].startswith("other  disabled")
            client.disconnected.get(timeout=10)
        assert not sim.device("other").enabled
        code, output, _ = Hub(sim, "device", "other", "--enable", "--json").done()
        assert code == 0 and json.loads(output)["status"] == "enabled" and sim.device("other").enabled
        assert Hub(sim, "device", "other", "--delete", "--disable").done()[0] == 2
        assert Hub(sim, "device", "other", "--delete").done() == (0, "other  deleted\n", "")
        code, _, errors = Hub(sim, "device", "other").done()
        assert code == 3 and "DeviceNotFound" in errors


def simulate(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "espdps.cli", "sim", "--dir", str(folder), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools"), "COLUMNS": "120"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_command_right_after_the_simulators_waits_for_it(tmp_path: Path) -> None:
    process = simulate(tmp_path / "sim")
    try:
        code, output, errors = Hub(tmp_path / "sim", "device", "nobody").done()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=15)
    assert (code, "DeviceNotFound" in errors) == (3, True), output + errors


def test_a_simulator_is_waited_for_until_it_listens_or_gives_up(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        (tmp_path / "sim.json").write_text("of one that was killed")
        with locks.held(tmp_path):
            waiting = pool.submit(locks.wait, tmp_path)
            with pytest.raises(TimeoutError):
                waiting.result(1.5)  # longer than for one that is not there at all
            (tmp_path / "sim.json").touch()
            assert waiting.result(10)
        with locks.held(tmp_path):
            waiting = pool.submit(locks.wait, tmp_path)
            with pytest.raises(TimeoutError):
                waiting.result(1.5)
        begin = time.monotonic()
        assert not waiting.result(10) and time.monotonic() - begin < 5


def test_who_looks_for_a_simulator_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    with open(tmp_path / "ports.json", "a+") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        letting_go = threading.Timer(0.1, fcntl.flock, (file, fcntl.LOCK_UN))
        letting_go.start()
        with locks.held(tmp_path), pytest.raises(ToolError, match="another"), locks.held(tmp_path):
            pass
        letting_go.join()


def test_ports_of_ones_choice(tmp_path: Path) -> None:
    """In place of those of the last time; the others stay."""
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("127.0.0.1", 0))
        chosen = [one.getsockname()[1] for one in (first, second)]
    (tmp_path / "ports.json").write_text('{"mqtt_port": 1, "https_port": 1, "ntp_port": 0}')
    process = simulate(tmp_path, "--mqtt-port", str(chosen[0]), "--https-port", str(chosen[1]))
    try:
        assert process.stdout is not None
        assert f"mqtts://localhost:{chosen[0]}" in process.stdout.readline()
        info = json.loads((tmp_path / "sim.json").read_text())
        assert [info["mqtt_port"], info["https_port"]] == chosen
        assert json.loads((tmp_path / "ports.json").read_text())["mqtt_port"] == chosen[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=15)


def test_a_simulator_comes_back_where_it_was_and_alone(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        process = simulate(tmp_path, "--certificate-seconds", "77")
        try:
            assert process.stdout is not None
            assert "mqtts://localhost:" in process.stdout.readline()
            info = json.loads((tmp_path / "sim.json").read_text())
            seen.append({name: info[name] for name in ("mqtt_port", "https_port", "ntp_port", "id_scope", "groups")})
            second = simulate(tmp_path)
            _, errors = second.communicate(timeout=30)
            assert second.returncode == 1 and "another simulator runs in this folder" in errors
            assert (tmp_path / "sim.json").exists()  # the first is not disturbed
            leaf = x509.load_pem_x509_certificate(provision(info, "short", tmp_path)[1].read_bytes())
            assert (leaf.not_valid_after_utc - datetime.now(timezone.utc)).total_seconds() <= 77
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=15)
        assert process.returncode in (0, 130)
    assert seen[0] == seen[1]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", seen[0]["mqtt_port"]))
        taken.listen()
        process = simulate(tmp_path)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 1 and "ports.json" in errors and "Traceback" not in errors
