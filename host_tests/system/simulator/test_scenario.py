"""What a scenario file scripts, and the limits of the service: to whom, how often, and what is wrong with a file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from simulator_client import RESPONSES, RawClient, dps_device, finish, hub_device, make_csr, provision

from espdps.simulator import Options, Simulator, serving
from espdps.simulator.trouble.scenario import parse

HUB = "hub-1.localhost"
THROTTLED = 'do = "error"\nstatus = 429\nerror_code = 429001\nmessage = "slower"\nretry_after = 7\n'


def playing(folder: Path, text: str, assigning: int = 0) -> Any:
    return serving(folder, Options(retry_after=0, assigning=assigning, scenario=parse(text)))


def statuses(sim: Simulator, id: str, count: int) -> list[int]:
    """Of so many registrations in a row, on one connection."""
    found = []
    with dps_device(sim.info, id) as device:
        for _ in range(count):
            device.register(id)
            found.append(device.answer().status)
    return found


def test_so_often_to_whom_and_then_the_next_rule(tmp_path: Path) -> None:
    text = f"""
        [[trouble]]
        at = "register"
        devices = "Green*"
        count = 2
        {THROTTLED}
        [[trouble]]
        at = "register"
        skip = 1
        count = 1
        do = "raw"
        body = "no JSON"
        status = 500
    """
    with playing(tmp_path, text) as sim:
        # The second rule is asked for the first time at the third registration, and leaves that one alone.
        assert statuses(sim, "greenhouse", 5) == [429, 429, 200, 500, 200]
        assert statuses(sim, "barn", 3) == [200, 500, 200]
        assert statuses(sim, "greenhouse", 1) == [200]  # another connection of the same device
        with dps_device(sim.info, "green-2") as device:
            device.register("green-2")
            answer = device.answer()
            assert (answer.properties["retry-after"], answer.body["errorCode"]) == ("7", 429001)


def test_assigning_chains_and_final_states(tmp_path: Path) -> None:
    text = """
        trouble = [
            { at = "assigning", do = "assigning", times = 3 },
            { at = "certificate", do = "chain", kind = "null", count = 1 },
            { at = "poll", do = "state", status = "disabled", devices = "off" },
        ]
    """
    with playing(tmp_path, text) as sim:
        with dps_device(sim.info, "dev") as device:
            assert finish(device, "dev", make_csr("dev"))["registrationState"]["issuedCertificateChain"] is None
            assert sum(event["event"] == "dps.assigning" for event in sim.events) == 3
            state = finish(device, "dev", make_csr("dev"))["registrationState"]
            assert len(state["issuedCertificateChain"]) == 3
        with dps_device(sim.info, "off") as device:
            assert finish(device, "off")["status"] == "disabled"


def test_connects_are_refused_delayed_cut_and_not_answered(tmp_path: Path) -> None:
    text = """
        trouble = [
            { at = "connect", do = "refuse", count = 1 },
            { at = "connect", do = "delay", seconds = 0.5, count = 1 },
            { at = "connect", do = "cut", after = 3, count = 1 },
            { at = "subscribe", do = "silence" },
        ]
    """
    with playing(tmp_path, text) as sim:
        with RawClient(sim.info) as client:
            client.dps_connect(sim.info, "dev")
            assert client.packet() == (0x20, b"\0\5")
        with RawClient(sim.info) as client:
            begin = time.monotonic()
            client.dps_connect(sim.info, "dev")
            assert client.packet() == (0x20, b"\0\0")
            assert time.monotonic() - begin >= 0.5
        with RawClient(sim.info) as client:
            client.dps_connect(sim.info, "dev")
            assert client.ended()
        with RawClient(sim.info) as client:
            client.dps_connect(sim.info, "dev")
            assert client.packet() == (0x20, b"\0\0")
            client.send(
                b"\x82" + bytes([5 + len(RESPONSES)]) + b"\0\1\0" + bytes([len(RESPONSES)]) + RESPONSES.encode() + b"\1"
            )
            assert client.silent()


def test_the_hub_and_a_delay_counted_once(tmp_path: Path) -> None:
    """A delayed request is one occasion, although it is looked at before and after."""
    text = """
        trouble = [
            { at = "hub.twin", do = "delay", seconds = 0.3, count = 1 },
            { at = "hub.twin", do = "error", status = 503, error_code = 503001, message = "busy", count = 1 },
        ]
    """
    with playing(tmp_path, text) as sim:
        _, chain = provision(sim.info, "dev", tmp_path)
        with hub_device(sim.info, "dev", chain) as device:
            device.subscribe("$iothub/twin/res/#")
            found = []
            for number in range(3):
                device.publish(f"$iothub/twin/GET/?$rid={number}")
                found.append(device.answer().status)
        assert found == [200, 503, 200]


def drawn(folder: Path, seed: int, id: str) -> list[int]:
    text = f'seed = {seed}\n[[trouble]]\nat = "register"\nprobability = 0.5\n{THROTTLED}'
    with playing(folder, text) as sim:
        statuses(sim, "another", 3)  # has lots of its own
        return statuses(sim, id, 24)


def test_lots_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    first = drawn(tmp_path / "a", 1, "dev")
    assert {200, 429} == set(first)
    assert drawn(tmp_path / "b", 1, "dev") == first
    assert drawn(tmp_path / "c", 2, "dev") != first
    assert drawn(tmp_path / "d", 1, "other") != first


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[trouble", "not TOML"),
        ("sead = 1", "nothing else"),
        ('seed = "x"', "nothing else"),
        ("trouble = 1", "nothing else"),
        ("trouble = [1]", "trouble 1: not a table"),
        ('trouble = [{ at = "connect", do = "explode" }]', "do: one of alert, "),
        ('trouble = [{ at = "lunch", do = "silence" }]', "no place 'lunch'"),
        ('trouble = [{ do = "silence" }]', "no place"),
        ('trouble = [{ at = "connect", do = "chain", kind = "null" }]', "connect: cannot be Chain"),
        ('trouble = [{ at = "certificate", do = "chain", kind = "iron" }]', "no chain 'iron'"),
        ('trouble = [{ at = "certificate", do = "chain" }]', "chain needs kind"),
        ('trouble = [{ at = "connect", do = "silence", seconds = 1 }]', "silence has no seconds"),
        ('trouble = [{ at = "connect", do = "delay", seconds = "long" }]', "seconds: 'long'"),
        ('trouble = [{ at = "connect", do = "cut", after = true }]', "after: True"),
        ('trouble = [{ at = "poll", do = "raw", body = 1 }]', "trouble 1: "),
        ('trouble = [{ at = "connect", do = "silence", count = -1 }]', "skip, count"),
        ('trouble = [{ at = "connect", do = "silence", skip = 1.5 }]', "skip, count"),
        ('trouble = [{ at = "connect", do = "silence", probability = 2 }]', "probability"),
        ('trouble = [{ at = "connect", do = "silence", devices = 1 }]', "devices"),
    ],
)
def test_what_is_no_scenario(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(text)


def test_limits_of_the_service(tmp_path: Path) -> None:
    options = Options(retry_after=0, assigning=9, registrations_a_minute=3, polls_in_10_seconds=2)
    with serving(tmp_path, options) as sim, dps_device(sim.info, "dev") as device:
        device.register("dev")
        operation = device.answer().body["operationId"]
        found = []
        for _ in range(3):
            device.poll(operation)
            found.append(device.answer())
        assert [answer.status for answer in found] == [202, 202, 429]
        assert found[2].body["errorCode"] == 429001
        assert 1 <= int(found[2].properties["retry-after"]) <= 10
        with dps_device(sim.info, "other") as other:  # polls count for each, registrations for all
            other.register("other")
            other.poll(other.answer().body["operationId"])
            assert other.answer().status == 202
        answers = []
        for _ in range(2):
            device.register("dev")
            answers.append(device.answer())
        assert [answer.status for answer in answers] == [202, 429]
        assert 1 <= int(answers[1].properties["retry-after"]) <= 60


def test_there_is_room_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    from espdps.simulator import throttle

    now = 1000.0
    monkeypatch.setattr(throttle.time, "monotonic", lambda: now)
    limit = throttle.Throttle(2, 10)
    assert (limit.wait("a"), limit.wait("a"), limit.wait("b")) == (0, 0, 0)
    now += 3.5
    assert limit.wait("a") == 7
    now += 6.5
    assert (limit.wait("a"), limit.wait("a"), limit.wait("a")) == (0, 0, 10)
    assert throttle.Throttle(None, 10).wait() == 0


def command(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "espdps.cli", "sim", "--dir", str(folder), *words],
        env={**os.environ, "COLUMNS": "80"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_the_command_with_a_scenario_and_a_log_in_json(tmp_path: Path) -> None:
    """Each line is an object, and no line has a key or a token in it."""
    scenario, folder = tmp_path / "bad-day.toml", tmp_path / "sim"
    scenario.write_text(f'[[trouble]]\nat = "register"\ncount = 1\n{THROTTLED}')
    with command(folder, "--scenario", str(scenario), "--limits", "--log", "json") as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            info = json.loads((folder / "sim.json").read_text())
            assert (ready["event"], ready["mqtt_port"]) == ("ready", info["mqtt_port"])
            with dps_device(info, "dev") as device:
                device.register("dev")
                assert device.answer().status == 429
                device.register("dev")
                assert device.answer().status == 202
        finally:
            process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    events = [json.loads(line) for line in output.splitlines()]
    kinds = [event["event"] for event in events if event["device"] == "dev"]
    assert kinds[:3] == ["dps.connect", "dps.subscribe", "dps.answer"]
    assert (kinds[-1], process.returncode) == ("closed", 0)
    for secret in (info["groups"][0]["primary_key"], info["service_policy"]["key"], "SharedAccessSignature", "sig="):
        assert secret not in output and secret not in json.dumps(ready)


def test_the_command_says_what_is_wrong_with_a_scenario(tmp_path: Path) -> None:
    scenario = tmp_path / "bad-day.toml"
    scenario.write_text('trouble = [{ at = "connect", do = "explode" }]')
    process = command(tmp_path / "sim", "--scenario", str(scenario))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "bad-day.toml: trouble 1: do: one of alert" in " ".join(errors.split())
    assert not (tmp_path / "sim").exists()
