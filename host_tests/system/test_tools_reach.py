"""esp-dps doctor --network: the endpoint as a board would reach it. Only loopback is asked, by closed ports."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from units import edit, make_unit
from workshop import esp_dps

from espdps import reach, roots
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
    assert done.code == 0 and "CN=esp-dps simulator server root" in done.out and "days left" in done.out, done.out + done.err
    assert "reached" not in esp_dps("doctor", unit).out  # only when asked for


def test_another_root(unit: Path) -> None:
    (unit / "roots.pem").write_bytes(roots.azure_roots())
    done = esp_dps("doctor", unit, "--network")
    assert done.code == 1 and "its certificate is not taken" in done.out and "--roots" in done.out, done.out


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


@pytest.mark.parametrize("ahead", [0, 4000])
def test_the_clock(sim: Simulator, unit: Path, monkeypatch: pytest.MonkeyPatch, ahead: int) -> None:
    now = time.time
    monkeypatch.setattr(reach, "NTP_PORT", sim.info["ntp_port"])
    monkeypatch.setattr(reach, "time", SimpleNamespace(time=lambda: now() + ahead))
    found = list(reach._clock(["127.0.0.1"]))
    monkeypatch.undo()
    assert [finding.where for finding in found] == (["this PC's clock"] if ahead else [])
