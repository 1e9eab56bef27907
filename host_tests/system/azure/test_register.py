"""esp-dps register: a set-up checked from the PC, against the simulator; the device folder stays as it is."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from units import content, edit, make_unit
from workshop import esp_dps, made

from espdps.simulator import Options, Simulator, serving


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with serving(tmp_path_factory.mktemp("sim"), Options(assigning=0)) as simulator:
        yield simulator


def test_registers_and_writes_nothing(sim: Simulator, tmp_path: Path) -> None:
    unit = make_unit(tmp_path, sim, "reg-1")
    before = content(unit)
    done = esp_dps("register", unit)
    assert done.code == 0, done.out + done.err
    at = -1
    for words in ("load credential", "TLS to DPS", "register", "assigned", "certificate issued", "registered"):
        found = done.out.find(words, at + 1)
        assert found > at, f"{words!r} missing in:\n{done.out}"
        at = found
    assert "TLS to Hub" not in done.out
    assert content(unit) == before


def test_goes_on_to_the_hub_for_a_script(sim: Simulator, tmp_path: Path) -> None:
    done = esp_dps("register", make_unit(tmp_path, sim, "reg-2"), "--hub", "--json")
    assert done.code == 0, done.out + done.err
    steps = [json.loads(line)["step"] for line in done.out.splitlines()]
    assert steps[0] == "identity" and steps[-2:] == ["hub.ready", "hub.sent"] and steps.count("hub.sent") == 1


def test_keeps_the_identity_when_told(sim: Simulator, tmp_path: Path) -> None:
    unit = make_unit(tmp_path, sim, "reg-3")
    before = content(unit)
    for _ in range(2):  # the second in the place of the first
        assert esp_dps("register", unit, "--hub", "--keep").code == 0
        after = content(unit)
        assert set(after) - set(before) == {"identity.a"} and after["identity.a"].startswith(b"A ")
        assert b"BEGIN CERTIFICATE" in after["identity.a"]
        assert (unit / "identity.a").stat().st_mode & 0o777 == 0o600


def test_refused_by_the_service(sim: Simulator, tmp_path: Path) -> None:
    unit = make_unit(tmp_path, sim, "reg-4")
    edit(unit / "secrets.json", device_key="AAAA" * 11 + "AAA=")
    done = esp_dps("register", unit)
    assert done.code == 3 and "not registered: dps.register 401000" in done.err, done.out + done.err
    assert "What to do:" in done.out
    fault = json.loads(esp_dps("register", unit, "--json").out.splitlines()[-1])["fault"]
    assert fault["explanation"]["refused"] and fault["explanation"]["remedy"]


def test_an_endpoint_that_is_not_there(sim: Simulator, tmp_path: Path) -> None:
    unit = make_unit(tmp_path, sim, "reg-5")
    with socket.socket() as closed:  # bound, so that nobody else gets it, and not listening
        closed.bind(("127.0.0.1", 0))
        edit(unit / "device.json", port=closed.getsockname()[1], dps_host="127.0.0.1")
        done = esp_dps("register", unit)
    assert done.code == 1 and "not registered: dps.connect" in done.err, done.out + done.err
    assert "What to do:" in done.out


def test_keys_on_the_board_only(sim: Simulator, tmp_path: Path) -> None:
    unit = make_unit(tmp_path, sim, "reg-6")
    edit(unit / "manifest.json", shredded={"device.key": "0" * 64})
    done = esp_dps("register", unit)
    assert done.code == 1 and "on the board only" in done.err


def test_the_timeline_as_a_picture(sim: Simulator, tmp_path: Path) -> None:
    unit = make_unit(tmp_path, sim, "reg-svg")
    picture = tmp_path / "timeline.svg"
    assert esp_dps("register", unit, "--svg", picture).code == 0
    text = picture.read_text()
    assert "reg-svg, from this PC" in text and "TLS to DPS" in text and "certificate issued" in text


@pytest.mark.parametrize("device_id", ["dev@site", "dev%41", "dev(1)!", "it's", "a$b=c", "a,b*c?d"])
def test_a_device_id_has_every_character_that_iot_hub_allows(sim: Simulator, tmp_path: Path, device_id: str) -> None:
    name = f"named-{device_id.encode().hex()}"
    (tmp_path / "k").write_text("QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=")
    made("enroll", "create", name, "--sim", sim.directory, "--device-id", device_id, "--key-file", tmp_path / "k")
    new = ("new", name, "--sim", sim.directory, "--board", "UNIX", "--devices", tmp_path, "--no-csr")
    made(*new, "--device-key-file", tmp_path / "k")
    done = esp_dps("register", name, "--devices", tmp_path, "--hub")
    assert done.code == 0 and f"{device_id} on " in done.out, done.out + done.err


@pytest.mark.parametrize("device_id", ["dev#1", "dev+1", "dev/1", "dev&1", "dev 1", "d\u00e9v", "d" * 129])
def test_a_device_id_that_no_hub_or_topic_takes_is_refused(sim: Simulator, tmp_path: Path, device_id: str) -> None:
    done = esp_dps("enroll", "create", "odd", "--sim", sim.directory, "--device-id", device_id)
    assert done.code == 2 and "not a device id" in done.err
