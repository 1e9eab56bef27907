"""Device folders: what is in them, who may read them, and that none is ever half there or lost."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from espdps.credentials import keys, roots
from espdps.devices import folders
from espdps.errors import ToolError

KEY = base64.b64encode(bytes(range(64))).decode()
ROOTS = roots.azure_roots()
PLAN = folders.Plan(
    registration_id="greenhouse-1", id_scope="0ne00ABCDEF", board="ESP32_GENERIC_C3", device_key=KEY, roots=ROOTS
)


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_holds_what_a_board_needs(tmp_path: Path) -> None:
    folder = folders.create(replace(PLAN, wifi_ssid="Greenhouse", wifi_password="12345678"), tmp_path)
    assert folder == tmp_path / "greenhouse-1"
    files = listing(folder)
    assert files.keys() == {"device.json", "secrets.json", "device.key", "device.csr", "roots.pem", "manifest.json"}
    config = json.loads(files["device.json"])
    assert config.pop("ntp")[0] == "pool.ntp.org"
    assert config == {
        "registration_id": "greenhouse-1",
        "id_scope": "0ne00ABCDEF",
        "dps_host": "global.azure-devices-provisioning.net",
        "port": 8883,
        "dps_api": "2026-11-01",
        "hub_api": "2025-08-01-preview",
        "auth": "symmetric-key",
    }
    wifi = {"wifi_ssid": "Greenhouse", "wifi_password": "12345678"}
    assert json.loads(files["secrets.json"]) == {"device_key": KEY} | wifi
    manifest = json.loads(files["manifest.json"])
    assert manifest["csr_sha256"] == hashlib.sha256(files["device.csr"]).hexdigest()
    assert (manifest["board"], manifest["key_type"]) == ("ESP32_GENERIC_C3", "ec-p384")
    public = [
        subprocess.run(["openssl", *words], capture_output=True, check=True, timeout=30).stdout
        for words in (
            ("pkey", "-inform", "DER", "-in", str(folder / "device.key"), "-pubout"),
            ("req", "-inform", "DER", "-in", str(folder / "device.csr"), "-noout", "-pubkey"),
        )
    ]
    assert public[0] == public[1]


def test_only_the_owner_may_look(tmp_path: Path) -> None:
    folder = folders.create(PLAN, tmp_path / "devices")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_secrets_are_in_the_secret_files_only(tmp_path: Path) -> None:
    folder = folders.create(replace(PLAN, wifi_ssid="Greenhouse", wifi_password="12345678"), tmp_path)
    for name in ("device.json", "manifest.json", "roots.pem", "device.csr"):
        assert KEY.encode() not in (folder / name).read_bytes()
        assert b"12345678" not in (folder / name).read_bytes()
    assert KEY not in repr(PLAN)
    assert "12345678" not in repr(replace(PLAN, wifi_password="12345678"))


def test_nothing_is_overwritten_unless_forced(tmp_path: Path) -> None:
    before = listing(folders.create(PLAN, tmp_path))
    with pytest.raises(ToolError, match="is there already") as caught:
        folders.create(PLAN, tmp_path)
    assert "--force" in caught.value.hint
    assert listing(tmp_path / "greenhouse-1") == before
    after = listing(folders.create(PLAN, tmp_path, force=True))
    assert after.keys() == before.keys()
    assert after["device.key"] != before["device.key"]
    assert [path.name for path in tmp_path.iterdir()] == ["greenhouse-1"]


def test_ids_that_differ_in_case_are_one_device(tmp_path: Path) -> None:
    folders.create(PLAN, tmp_path)
    with pytest.raises(ToolError, match="is there already"):
        folders.create(replace(PLAN, registration_id="GreenHouse-1"), tmp_path, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["greenhouse-1"]


@pytest.mark.parametrize(
    "change",
    [
        {"registration_id": "../x"},
        {"id_scope": "0ne 00"},
        {"board": "ESP99"},
        {"device_key": "short"},
        {"key_kind": "dsa"},
        {"port": 0},
        {"wifi_ssid": ""},
        {"wifi_ssid": "x" * 33},
        {"wifi_ssid": "x", "wifi_password": "short"},
        {"registration_id": "a" * 65},
    ],
)
def test_a_wrong_plan_leaves_nothing_behind(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(ToolError):
        folders.create(replace(PLAN, **change), tmp_path / "devices")  # type: ignore[arg-type]
    assert list(tmp_path.rglob("*")) == []


def test_an_interrupted_creation_keeps_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = listing(folders.create(PLAN, tmp_path))
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name.startswith(".new-"):
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="Input/output"):
        folders.create(PLAN, tmp_path, force=True)
    assert listing(tmp_path) == {f"greenhouse-1/{name}": content for name, content in before.items()}


def test_a_folder_of_another_program_costs_nobody_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = listing(folders.create(PLAN, tmp_path))
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name.startswith(".new-"):  # at this moment another program makes the folder
            Path(target).mkdir()
            (Path(target) / "theirs").write_text("x")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(ToolError, match="the old device is in") as caught:
        folders.create(PLAN, tmp_path, force=True)
    monkeypatch.undo()
    folders.create(replace(PLAN, registration_id="another"), tmp_path)  # which tidies up
    kept = Path(caught.value.message.rpartition(" ")[2])
    assert listing(kept) == before and (tmp_path / "greenhouse-1/theirs").is_file()


KILL = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_folders import PLAN
from espdps.devices import folders
real, count = Path.rename, 0
def rename(self, target):
    global count
    count += 1
    if count > {renames}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
Path.rename = rename
folders.create(PLAN, Path({folder!r}), force=True)
"""


@pytest.mark.parametrize("renames", [0, 1])
def test_what_a_kill_leaves_the_next_run_puts_right(tmp_path: Path, renames: int) -> None:
    before = listing(folders.create(PLAN, tmp_path))
    program = KILL.format(tests=str(Path(__file__).parent), folder=str(tmp_path), renames=renames)
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL and len(os.listdir(tmp_path)) > 1
    folders.create(replace(PLAN, registration_id="another"), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["another", "greenhouse-1"], "no private key lies about"
    assert listing(tmp_path / "greenhouse-1") == before, "the one whose key is on a board"


def test_without_a_csr_there_is_no_private_key(tmp_path: Path) -> None:
    folder = folders.create(replace(PLAN, key_kind=None, registration_id="a" * 100), tmp_path)
    assert not {"device.key", "device.csr"} & listing(folder).keys()
    assert json.loads((folder / "manifest.json").read_bytes())["csr_sha256"] is None


def test_a_folder_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    folder = folders.create(PLAN, tmp_path)
    assert folders.find("greenhouse-1", tmp_path) == folders.find(str(folder), tmp_path / "none") == folder
    device = folders.load(folder)
    assert (device.registration_id, device.profile.name) == ("greenhouse-1", "ESP32_GENERIC_C3")
    assert folders.device_key(folder) == KEY
    with pytest.raises(ToolError, match="no device 'other'"):
        folders.find("other", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("device.json", b"{", "device.json is not a JSON object"),
        ("device.json", b"{}", "device.json: 'registration_id' is missing"),
        ("manifest.json", b"[]", "manifest.json is not a JSON object"),
        ("manifest.json", None, "manifest.json: No such file"),
        ("secrets.json", None, "secrets.json is missing"),
        ("roots.pem", None, "roots.pem is missing"),
    ],
)
def test_a_damaged_folder_is_named(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    folder = folders.create(PLAN, tmp_path)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(ToolError, match=says):
        folders.load(folder)


def test_damaged_secrets_are_not_quoted(tmp_path: Path) -> None:
    folder = folders.create(PLAN, tmp_path)
    (folder / "secrets.json").write_text('{"device_key": ' + KEY)
    with pytest.raises(ToolError) as caught:
        folders.device_key(folder)
    assert KEY not in str(caught.value) and caught.value.__cause__ is None


def test_azures_roots_are_the_two_of_its_documentation(tmp_path: Path) -> None:
    blocks = ROOTS.decode().split("-----END CERTIFICATE-----")[:-1]
    assert len(blocks) == 2
    for block, (name, fingerprint) in zip(blocks, roots.AZURE.items(), strict=True):
        command = ["openssl", "x509", "-noout", "-subject", "-fingerprint", "-sha256", "-checkend", "31536000"]
        pem = (block + "-----END CERTIFICATE-----\n").encode()
        said = subprocess.run(command, input=pem, capture_output=True, check=True, timeout=30).stdout.decode()
        assert name in said
        assert fingerprint in said.replace(":", "").lower()


def test_only_certificates_get_out_of_a_file_of_roots(tmp_path: Path) -> None:
    key = subprocess.run(["openssl", "genpkey", "-algorithm", "ED25519"], capture_output=True, check=True, timeout=30)
    path = tmp_path / "bundle.pem"
    path.write_bytes(b"# ours\n" + key.stdout + ROOTS)
    assert roots.read_roots(path) == ROOTS
    path.write_bytes(key.stdout)
    with pytest.raises(ToolError, match="holds no certificate"):
        roots.read_roots(path)


def test_a_simulator_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"sim.json is missing") as caught:
        folders.read_simulator(tmp_path)
    assert "esp-dps sim" in caught.value.hint
    (tmp_path / "sim.json").write_text('{"host": "localhost"}')
    with pytest.raises(ToolError, match="mqtt_port"):
        folders.read_simulator(tmp_path)


def test_a_key_as_service_makes_it_is_taken() -> None:
    assert len(keys.decode_key(KEY)) == 64


def test_a_request_that_does_not_fit_is_found_before_a_board_is_touched(tmp_path: Path) -> None:
    folder = folders.create(PLAN, tmp_path)
    folders.load(folder)
    good = {name: (folder / name).read_bytes() for name in ("device.csr", "device.key")}
    other = keys.new_key()
    for name, content, words in (
        ("device.key", keys.key_der(other), "not a pair"),
        ("device.csr", keys.csr_der(other, "greenhouse-1"), "not a pair"),
        ("device.csr", b"0", "cannot be read"),
        ("device.csr", b"-----BEGIN CERTIFICATE REQUEST-----", "cannot be read"),
        ("device.key", b"", "is empty"),
    ):
        (folder / name).write_bytes(content)
        with pytest.raises(ToolError, match=words):
            folders.load(folder)
        (folder / name).write_bytes(good[name])
    (folder / "device.key").write_bytes(keys.key_der(other))
    (folder / "device.csr").write_bytes(keys.csr_der(other, "greenhouse-2"))
    with pytest.raises(ToolError, match="is for greenhouse-2, not for greenhouse-1"):
        folders.load(folder)
    (folder / "device.key").unlink()
    with pytest.raises(ToolError, match=r"device\.key is missing"):
        folders.load(folder)


def test_an_onboarding_certificate_goes_into_the_folder(tmp_path: Path) -> None:
    key = keys.new_key()
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    subprocess.run(
        ["openssl", "req", "-x509", "-key", "key.pem", "-subj", "/CN=Greenhouse-1", "-days", "2", "-out", "cert.pem"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    pair = (tmp_path / "cert.pem").read_bytes(), (tmp_path / "key.pem").read_bytes()
    plan = replace(PLAN, device_key=None, onboarding=pair)
    folder = folders.create(plan, tmp_path / "devices")
    assert json.loads((folder / "device.json").read_text())["auth"] == "x509"
    assert json.loads((folder / "secrets.json").read_text()) == {}
    assert (folder / "onboarding.key").read_bytes() == keys.key_der(key)
    assert (folder / "onboarding.crt").stat().st_mode & 0o777 == 0o600
    for wrong, words in (
        ((pair[0], keys.key_der(keys.new_key())), "another key"),
        ((b"x", pair[1]), "holds no certificate"),
        ((pair[0], b"x"), "is no private key"),
    ):
        with pytest.raises(ToolError, match=words):
            folders.create(replace(plan, onboarding=wrong), tmp_path / "more")
    with pytest.raises(ToolError, match="is for Greenhouse-1"):
        folders.create(replace(plan, registration_id="greenhouse-2"), tmp_path / "more")
    with pytest.raises(ToolError, match="no device key and no onboarding"):
        folders.create(replace(plan, onboarding=None), tmp_path / "more")
    assert not (tmp_path / "more").exists()
