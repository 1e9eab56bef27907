"""The simulator as a process: service API, clock, files, restart, and that no secret gets out."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from simulator_client import (
    api_call,
    derive,
    dps_device,
    dps_token,
    group_key,
    hub_device,
    make_csr,
    provision,
    service_token,
    token,
)

from espdps.simulator import Options, Shift, Silence, Simulator, Trouble, serving

API = "api-version=2021-10-01"


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("service"), Options(retry_after=0)) as simulator:
        yield simulator


# Service API


def policy_token(sim: Simulator, **changes: Any) -> str:
    return service_token(sim.info, **changes)


def call(sim: Simulator, *arguments: Any, **changes: str) -> tuple[int, Any]:
    """Status and body, as simulator_client.api_call."""
    return api_call(sim.info, *arguments, **changes)


SYMMETRIC = {"attestation": {"type": "symmetricKey"}}


def test_group_by_api_lets_its_devices_in(sim: Simulator) -> None:
    key = base64.b64encode(os.urandom(64)).decode()
    body = {
        "enrollmentGroupId": "api-group",
        "attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": key}},
        "credentialPolicyName": "default",
    }
    status, made = call(sim, "PUT", "/enrollmentGroups/api-group", body)
    assert status == 200
    assert made["provisioningStatus"] == "enabled"
    assert made["credentialPolicyName"] == "default"
    assert made["attestation"]["symmetricKey"]["primaryKey"] == key
    status, found = call(sim, "GET", "/enrollmentGroups/api-group")
    assert key not in json.dumps(found)
    assert (status, found) == (200, {**made, "attestation": {"type": "symmetricKey"}})
    with dps_device(sim.info, "by-api", derive(key, "by-api")) as device:
        device.register("by-api", make_csr("by-api"))
        device.poll(device.answer().body["operationId"])
        state = device.answer().body["registrationState"]
    assert state["symmetricKey"] == {"enrollmentGroupId": "api-group"}
    assert len(state["issuedCertificateChain"]) == 3
    status, registration = call(sim, "GET", "/registrations/by-api")
    assert status == 200
    assert (registration["assignedHub"], registration["status"]) == ("hub-1.localhost", "assigned")
    assert "issuedCertificateChain" not in registration
    assert call(sim, "DELETE", "/registrations/by-api") == (204, None)
    assert call(sim, "GET", "/registrations/by-api")[1]["errorCode"] == 404202
    assert call(sim, "DELETE", "/enrollmentGroups/api-group") == (204, None)
    assert call(sim, "GET", "/enrollmentGroups/api-group")[1]["errorCode"] == 404201


def test_individual_by_api_with_another_device_id(sim: Simulator, tmp_path: Path) -> None:
    key = base64.b64encode(os.urandom(32)).decode()
    body = {
        "registrationId": "reg-1",
        "deviceId": "dev-1",
        "credentialPolicyName": "default",
        "attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": key}},
        "iotHubs": ["hub-1.localhost"],
    }
    assert call(sim, "PUT", "/enrollments/reg-1", body)[0] == 200
    state, pem = provision(sim.info, "reg-1", tmp_path, key)
    assert state["deviceId"] == "dev-1"
    with hub_device(sim.info, "dev-1", pem) as device:
        assert device.connack.value == 0


def test_disable_by_api_needs_the_etag(sim: Simulator) -> None:
    _, made = call(sim, "PUT", "/enrollments/tagged", SYMMETRIC)
    body = {**SYMMETRIC, "provisioningStatus": "disabled"}
    for headers in ({}, {"If_Match": '"stale"'}):
        status, error = call(sim, "PUT", "/enrollments/tagged", body, **headers)
        assert (status, error["errorCode"]) == (409, 409203)
    key = sim._state.enrollment("tagged", False).primary_key  # type: ignore[union-attr]
    status, changed = call(sim, "PUT", "/enrollments/tagged", body, If_Match=made["etag"])
    assert (status, changed["provisioningStatus"]) == (200, "disabled")
    assert changed["etag"] != made["etag"]
    assert changed["createdDateTimeUtc"] == made["createdDateTimeUtc"]
    with dps_device(sim.info, "tagged", key) as device:  # keys left out stay as they were
        device.register("tagged")
        assert device.answer().body["status"] == "disabled"
    assert call(sim, "DELETE", "/enrollments/tagged", If_Match=made["etag"])[0] == 409
    assert call(sim, "DELETE", "/enrollments/tagged", If_Match="*")[0] == 204


@pytest.mark.parametrize(
    "changes",
    [
        {"key": base64.b64encode(b"x" * 64).decode()},
        {"expiry": 1},
        {"skn": "device"},
        {"skn": None},
        {"resource": "example.com"},
    ],
)
def test_unauthorized_calls(sim: Simulator, changes: dict[str, Any]) -> None:
    status, error = call(sim, "GET", "/enrollmentGroups/boards", authorization=policy_token(sim, **changes))
    assert (status, error["errorCode"]) == (401, 401002)
    assert error.keys() == {"errorCode", "trackingId", "message", "timestampUtc"}


def test_no_token_at_all(sim: Simulator) -> None:
    assert call(sim, "GET", "/enrollmentGroups/boards", authorization="Basic eDp5")[0] == 401


def test_policy_name_in_any_case(sim: Simulator) -> None:
    shouted = policy_token(sim, skn="ProvisioningServiceOwner")
    assert call(sim, "GET", "/enrollmentGroups/boards", authorization=shouted)[0] == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", 400012),
        (b"", 400012),
        (b"\xff", 400012),
        ([], 400012),
        ({}, 400004),
        ({**SYMMETRIC, "registrationId": "other"}, 400004),
        ({**SYMMETRIC, "provisioningStatus": "maybe"}, 400004),
        ({**SYMMETRIC, "iotHubs": ["hub-9.localhost"]}, 400004),
        ({**SYMMETRIC, "iotHubs": "hub-1.localhost"}, 400004),
        ({**SYMMETRIC, "credentialPolicyName": ["x"]}, 400004),
        ({"attestation": {"type": "symmetricKey", "symmetricKey": "key"}}, 400012),
        ({"attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": "short"}}}, 400004),
        ({"attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": 5}}}, 400004),
    ],
)
def test_bad_enrollments(sim: Simulator, body: Any, code: int) -> None:
    status, error = call(sim, "PUT", "/enrollments/bad", body)
    assert (status, error["errorCode"]) == (400, code)
    assert call(sim, "GET", "/enrollments/bad")[0] == 404


def test_bad_calls(sim: Simulator) -> None:
    assert call(sim, "GET", "/enrollments/a%20b")[1]["errorCode"] == 400004
    assert call(sim, "GET", "/enrollmentGroups/boards?x=1")[1]["errorCode"] == 400012  # no api-version
    status, error = call(sim, "GET", "/nothing")
    assert (status, error["errorCode"]) == (404, 404000)
    assert call(sim, "PATCH", "/enrollments/a")[0] == 405


# Clock


def ask_time(sim: Simulator, request: bytes, wait: float = 10.0) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(wait)
        client.sendto(request, ("127.0.0.1", sim.info["ntp_port"]))
        return client.recv(1024)


def test_time(sim: Simulator) -> None:
    sent = os.urandom(8)
    before = time.time()
    answer = ask_time(sim, b"\x1b" + b"\0" * 39 + sent)
    assert len(answer) == 48
    assert answer[0] == 0x1C  # no warning, version 3 as asked for, server
    assert 1 <= answer[1] <= 15
    assert answer[24:32] == sent
    seconds, fraction = struct.unpack("!II", answer[40:])
    assert before - 0.1 <= seconds + fraction / 2**32 - 2208988800 <= time.time() + 0.1
    assert ask_time(sim, b"\xe3" + b"\0" * 47)[0] == 0x24  # version 4


def test_time_in_trouble(sim: Simulator) -> None:
    request = b"\x1b" + b"\0" * 47
    try:
        sim.trouble = Trouble({"ntp": Shift(-86400 * 365)})
        seconds = struct.unpack("!I", ask_time(sim, request)[40:44])[0] - 2208988800
        assert abs(seconds + 86400 * 365 - time.time()) < 5
        sim.trouble = Trouble({"ntp": Silence()})
        with pytest.raises(TimeoutError):
            ask_time(sim, request, 0.2)
    finally:
        sim.trouble = Trouble()
    for wrong in (b"", b"\x1b", b"\x1c" + b"\0" * 47):  # too short, or an answer itself: two servers must not chat
        with pytest.raises(TimeoutError):
            ask_time(sim, wrong, 0.1)


# Files and restart


def test_files_are_private(sim: Simulator) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in sim.directory.iterdir()}
    assert {"sim.json", "service.json", "server.key", "issuing-root.key", "events.jsonl", "roots.pem"} <= modes.keys()
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(sim.directory.stat().st_mode) == 0o700


def test_sim_json(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    with serving(folder) as sim:
        info = json.loads((folder / "sim.json").read_text())
        assert info == sim.info
        assert info["host"] == "localhost"
        assert re.fullmatch(r"0ne[0-9A-F]{8}", info["id_scope"])
        assert info["roots"] == str(folder / "roots.pem")
        assert info["hubs"] == ["hub-1.localhost"]
        assert [(group["id"], group["attestation"]) for group in info["groups"]] == [("boards", "symmetricKey")]
        assert len(base64.b64decode(info["groups"][0]["primary_key"])) == 64
        assert info["service_policy"]["name"] == "provisioningserviceowner"
        for port in ("mqtt_port", "https_port"):
            socket.create_connection(("127.0.0.1", info[port]), 5).close()
    assert not (folder / "sim.json").exists()
    for port in ("mqtt_port", "https_port"):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", info[port]), 5)


def test_a_restart_keeps_roots_keys_and_scope(tmp_path: Path) -> None:
    with serving(tmp_path / "sim", Options(retry_after=0)) as sim:
        first, roots = sim.info, Path(sim.info["roots"]).read_bytes()
        state, _ = provision(sim.info, "veteran", tmp_path)
    options = Options(retry_after=0, mqtt_port=first["mqtt_port"], hubs=("hub-1.localhost", "hub-2.localhost"))
    with serving(tmp_path / "sim", options) as sim:
        assert Path(sim.info["roots"]).read_bytes() == roots
        for key in ("id_scope", "groups", "service_policy", "mqtt_port"):
            assert sim.info[key] == first[key]
        again, _ = provision(first, "veteran", tmp_path)  # with the facts of the first run
        assert again["issuedCertificateChain"][1:] == state["issuedCertificateChain"][1:]
        with dps_device(sim.info, "veteran") as device:
            assert device.connack.value == 0


def test_a_taken_port_is_said_and_nothing_stays(tmp_path: Path) -> None:
    with serving(tmp_path / "one") as sim:
        with (
            pytest.raises(OSError, match="in use"),
            serving(tmp_path / "two", Options(https_port=sim.info["https_port"])),
        ):
            pass
        assert not (tmp_path / "two" / "sim.json").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"hubs": ()},
        {"hubs": ("hub.example.com",)},
        {"address": "0.0.0.0"},
        {"retry_after": -1},
        {"assigning": -1},
        {"certificate_seconds": 0},
        {"connect_deadline": 0},
        {"token_grace": -1},
    ],
)
def test_options_out_of_bounds(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Options(**changes)


def test_a_key_that_is_none_is_refused_and_not_shown(sim: Simulator) -> None:
    with pytest.raises(ValueError, match="must be base64") as caught:
        sim.add_individual("mistyped", "s3cret!")
    assert "s3cret" not in str(caught.value)


def test_events_as_lines_and_by_callback(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    with serving(tmp_path, Options(retry_after=0), seen.append) as sim:
        with dps_device(sim.info, "logged") as device:
            device.register("logged")
            device.answer()
        sim.wait_event("closed", device="logged")
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert lines == sim.events == seen
    kinds = [event["event"] for event in seen]
    assert kinds == ["tls.open", "dps.connect", "dps.subscribe", "dps.register", "dps.assigning", "closed"]
    for event in seen:
        assert list(event)[:4] == ["time", "event", "connection", "device"]
    with pytest.raises(TimeoutError, match=r"dps\.connect"):
        sim.wait_event("hub.connect", timeout=0.01)


def test_waiting_ends_with_the_event(sim: Simulator) -> None:
    with ThreadPoolExecutor(1) as pool:
        begin = time.monotonic()
        waiting = pool.submit(sim.wait_event, "dps.connect", 10.0, device="awaited")
        with dps_device(sim.info, "awaited"):
            assert waiting.result(10)["device"] == "awaited"
    assert time.monotonic() - begin < 5


def test_main_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from espdps.simulator.server import main; "
        f"main(Path({str(tmp_path)!r}), open({str(tmp_path / 'ports.json')!r}, 'a+'))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        assert "mqtts://localhost:" in process.stdout.readline()
        info = json.loads((tmp_path / "sim.json").read_text())
        with dps_device(info, "seen") as device:
            device.register("seen")
            device.answer()
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=15)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert re.search(r"^\d\d:\d\d:\d\d\.\d{3} +1 seen +dps\.assigning +retry_after=3$", output, re.MULTILINE), output
    assert not (tmp_path / "sim.json").exists()


def test_no_secret_in_events_output_or_repr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Good and bad credentials of every kind; then everything that was told is searched for them."""
    with serving(tmp_path / "sim", Options(retry_after=0)) as sim:
        info = sim.info
        keys = [group_key(info), info["service_policy"]["key"], derive(group_key(info), "quiet")]
        own = sim.add_individual("quiet-2")
        keys += [own.primary_key, own.secondary_key, sim.group().secondary_key]
        _, pem = provision(info, "quiet", tmp_path)
        tokens = [
            dps_token(info, "quiet", keys[2]),
            dps_token(info, "quiet", keys[1]),
            dps_token(info, "quiet", keys[2], expiry=1),
            dps_token(info, "quiet", keys[2], skn="x") + "&broken",
        ]
        for password in tokens:
            with dps_device(info, "quiet", password=password) as device:
                if device.connack.value == 0:
                    device.register("quiet")
                    device.answer()
        tokens.append(token("hub-1.localhost/devices/quiet", keys[2], skn=None))
        for password in tokens:
            with hub_device(info, "quiet", password=password):
                pass
        with hub_device(info, "quiet", pem):
            pass
        tokens.append(policy_token(sim, skn="other"))
        call(sim, "GET", "/enrollments/quiet-2", authorization=tokens[-1])
        told = [repr(thing) for thing in (sim, sim.group(), own, sim.device("quiet"), sim._registry)]
        told += [json.dumps(sim.events), (tmp_path / "sim" / "events.jsonl").read_text(), *capfd.readouterr()]
    secrets = keys + [base64.b64decode(key).hex() for key in keys]
    secrets += [part for text in tokens for part in re.findall(r"sig=([^&]+)", text)]
    secrets += [line for line in pem.read_text().split("-----BEGIN CERT")[0].splitlines() if "-----" not in line]
    for text in told:
        assert not [secret for secret in secrets if secret in text]
    assert len(told[5]) > 1000
