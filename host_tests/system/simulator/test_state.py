"""What a simulator remembers in its state file: all of it after a restart, nothing half after a sudden end."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from simulator_client import api_call, derive, dps_device, finish, hub_device, provision, token
from simulator_pki import made, pem_file, registered

from espdps.paths import ROOT
from espdps.simulator import Options, Simulator, StateFileError, serving

HUB = "hub-1.localhost"
REFUSED = 135
AUTHORITIES = "/namespaces/default/certificateAuthorities"
POLICIES = f"{AUTHORITIES}/line-7/certificatePolicies"


def options(folder: Path, **more: Any) -> Options:
    return Options(retry_after=0, assigning=0, state=folder / "state.db", **more)


def let_in(sim: Simulator, name: str, pem: Path) -> bool:
    with hub_device(sim.info, name, pem) as device:
        assert device.connack.value in (0, REFUSED)
        return bool(device.connack.value == 0)


def test_a_restart_remembers(tmp_path: Path) -> None:
    root = made("Contoso root", ca=True)
    twin = {"tags": {"site": "north"}, "properties": {"desired": {"interval": 5}}}
    body = {"attestation": {"type": "symmetricKey"}, "initialTwin": twin, "namespaceName": "default"}
    body.update(certificateAuthorityName="line-7", certificatePolicyName="short")
    upload = {"properties": {"certificate": root.pem.decode(), "isVerified": True}}
    named = {"attestation": {"type": "x509", "x509": {"caReferences": {"primary": "contoso"}}}}
    leaf = {"validityPeriodInSeconds": 3600, "keyTypes": ["ec-p384"]}
    signed = made("signed", root)

    with serving(tmp_path / "sim", options(tmp_path)) as sim:
        sim.add_issuer("line-7")
        api_call(sim.info, "PUT", f"{POLICIES}/short", {"properties": {"certificate": leaf}})
        api_call(sim.info, "PUT", "/enrollments/unit?api-version=2026-11-01", body)
        api_call(sim.info, "PUT", "/certificates/contoso", upload)
        api_call(sim.info, "PUT", "/enrollmentGroups/named", named)
        sim.add_group("own", signers=[root.pem], provisioning_status="disabled")
        key = api_call(sim.info, "POST", "/enrollments/unit/attestationmechanism")[1]["symmetricKey"]["primaryKey"]
        _, revoked = provision(sim.info, "unit", tmp_path, key)
        revoked = revoked.rename(tmp_path / "revoked.pem")
        sim.revoke_issuer("line-7")
        state, pem = provision(sim.info, "unit", tmp_path, key)
        _, old = provision(sim.info, "other", tmp_path)
        old = old.rename(tmp_path / "old.pem")
        api_call(sim.info, "POST", "/namespaces/default/registryDevices/other/revoke")
        _, new = provision(sim.info, "other", tmp_path)
        registered(sim.info, "signed", pem_file(tmp_path, signed))
        api_call(sim.info, "PATCH", "/namespaces/default/registryDevices/unit", {"tags": {"line": "7"}})
        by_hand = api_call(sim.info, "PUT", "/devices/by-hand", {}, host=HUB)[1]["authentication"]["symmetricKey"]
        sim.set_enrollment("boards", group=True, provisioning_status="disabled")
        sim.desire("unit", {"interval": 9})
        sim.twin("unit").report({"seen": [1, {"deep": True}]})
        sim.set_device("signed", False)
        sim.remove_enrollment("own", group=True)
        api_call(sim.info, "DELETE", "/registrations/other")
        told = {
            path: api_call(sim.info, "GET", path)[1]
            for path in (
                "/enrollments/unit", "/enrollmentGroups/named", "/enrollmentGroups/boards", "/certificates/contoso",
                "/registrations/unit", "/registrations/signed", "/devices/by-hand", "/twins/unit", "/twins/signed",
                f"{POLICIES}/short", POLICIES, AUTHORITIES, "/enrollments/unit?api-version=2026-11-01", "/namespaces/default/registryDevices",
            )
        }  # fmt: skip

    assert stat.S_IMODE((tmp_path / "state.db").stat().st_mode) == 0o600
    with serving(tmp_path / "sim", options(tmp_path)) as sim:
        assert {path: api_call(sim.info, "GET", path)[1] for path in told} == told
        for path in ("/enrollmentGroups/own", "/registrations/other"):
            assert api_call(sim.info, "GET", path)[0] == 404
        assert let_in(sim, "unit", pem)
        assert let_in(sim, "other", new)
        assert not let_in(sim, "other", old)
        assert not let_in(sim, "unit", revoked)
        assert "was revoked" in [event for event in sim.events if event["event"] == "hub.refused"][-1]["reason"]
        assert not let_in(sim, "signed", pem_file(tmp_path, signed))  # still disabled
        password = token(f"{HUB}/devices/by-hand", by_hand["secondaryKey"], skn=None)
        with hub_device(sim.info, "by-hand", password=password) as device:
            assert device.connack.value == 0
        again, _ = provision(sim.info, "unit", tmp_path, key)
        assert again["createdDateTimeUtc"] == state["createdDateTimeUtc"]
        assert again["issuedCertificateChain"][1:] == state["issuedCertificateChain"][1:]
        with dps_device(sim.info, "late") as device:
            assert finish(device, "late")["status"] == "disabled"


def test_a_group_that_was_deleted_does_not_come_back(tmp_path: Path) -> None:
    with serving(tmp_path / "sim", options(tmp_path)) as sim:
        sim.remove_enrollment("boards", group=True)
    with serving(tmp_path / "sim", options(tmp_path)) as sim:
        assert sim.info["groups"] == []


def test_without_a_state_file_nothing_is_remembered(tmp_path: Path) -> None:
    for _ in range(2):
        with serving(tmp_path / "sim", Options(retry_after=0, assigning=0)) as sim:
            assert api_call(sim.info, "GET", "/registrations/unit")[0] == 404
            provision(sim.info, "unit", tmp_path)
    assert not list((tmp_path / "sim").glob("*.db*"))


def test_a_sudden_end_loses_nothing(tmp_path: Path) -> None:
    """SIGKILL right behind an answer: what was answered is there."""
    words = ["sim", "--dir", str(tmp_path / "sim"), "--state", str(tmp_path / "state.db"), "--hub", HUB]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools"), "PYTHONUNBUFFERED": "1"}
    for round_ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-m", "espdps.cli", *words], stdout=subprocess.PIPE, text=True, env=environment
        )
        try:
            assert process.stdout is not None
            process.stdout.readline()
            info = json.loads((tmp_path / "sim" / "sim.json").read_text())
            if round_ == 0:
                for number in range(20):
                    path = f"/enrollments/unit-{number}"
                    assert api_call(info, "PUT", path, {"attestation": {"type": "symmetricKey"}})[0] == 200
            else:
                assert len(api_call(info, "POST", "/enrollments/query", {"query": "SELECT *"})[1]) == 20
                key = derive(info["groups"][0]["primary_key"], "unit")
                with dps_device(info, "unit", key) as device:
                    device.register("unit")
                    assert device.answer().status == 202
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=30)


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "state.db"
    for content in (b"dear diary\n" * 200, None):
        text.unlink(missing_ok=True)
        if content is None:
            with sqlite3.connect(text) as database:
                database.execute("CREATE TABLE music (title)")
            database.close()
        else:
            text.write_bytes(content)
        text.chmod(0o644)
        before = text.read_bytes()
        with pytest.raises(StateFileError, match=r"state\.db: not the state"):
            Simulator(tmp_path / "sim", options(tmp_path))
        assert (text.read_bytes(), stat.S_IMODE(text.stat().st_mode)) == (before, 0o644)


def test_a_file_of_two_simulators(tmp_path: Path) -> None:
    with serving(tmp_path / "one", options(tmp_path)) as sim:
        with pytest.raises(StateFileError, match="another simulator has it"):
            Simulator(tmp_path / "two", options(tmp_path))
        provision(sim.info, "unit", tmp_path)


def test_a_broken_row_is_said(tmp_path: Path) -> None:
    with serving(tmp_path / "sim", options(tmp_path)):
        pass
    with sqlite3.connect(tmp_path / "state.db") as database:
        database.execute("UPDATE record SET body = '{\"id\": 1}' WHERE kind = 'Enrollment'")
    database.close()
    with pytest.raises(StateFileError, match="broken Enrollment"):
        Simulator(tmp_path / "sim", options(tmp_path))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--hub", "north"], "hubs"),
        (["--hub", "north.localhost,weight=many"], "cannot be read"),
        (["--hub", "north.localhost,height=3"], "cannot be read"),
        (["--hub", "north.localhost,weight=0"], "cannot be read"),
        (["--state", "/"], "state"),
    ],
)
def test_sim_says_what_is_wrong(tmp_path: Path, words: list[str], text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "espdps.cli", "sim", "--dir", str(tmp_path / "sim"), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode in (1, 2), text in done.stderr, "Traceback" in done.stderr) == (True, True, False)
