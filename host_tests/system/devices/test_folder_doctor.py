"""What doctor finds before a board is flashed, and that it knows the same settings as the firmware."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from workshop import esp_dps

from aziot.identity import Identity
from espdps.board import flash
from espdps.credentials import keys, roots
from espdps.devices import folder_doctor, folders, inventory, settings, shred
from espdps.errors import ToolError

KEY = base64.b64encode(bytes(range(64))).decode()
PLAN = folders.Plan(
    registration_id="dev-1", id_scope="0ne00ABCDEF", board="UNIX", key_kind="ec-p256", roots=roots.azure_roots(),
    device_key=keys.derive_device_key(KEY, "dev-1"), shred_after_flash=True,
)  # fmt: skip


def change(name: str, **values: object) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        table = json.loads((folder / name).read_text()) | values
        (folder / name).write_text(json.dumps({key: value for key, value in table.items() if value is not None}))

    return do


def test_the_settings_are_those_of_the_firmware() -> None:
    known = {name: value for name, value in vars(Identity).items() if not name.startswith("_") and not callable(value)}
    assert {name: setting.default for name, setting in settings.SETTINGS.items()} == known
    for name, setting in settings.SETTINGS.items():
        assert setting.default == "" or setting.holds(setting.default), name


def test_a_new_folder_has_nothing_wrong(tmp_path: Path) -> None:
    assert folder_doctor.examine(folders.create(PLAN, tmp_path), group_key=KEY) == []


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (change("device.json", tiemout=3), "no setting is called 'tiemout'"),
        (change("device.json", timeout="30"), "timeout has to be a number"),
        (change("device.json", port=True), "port has to be a number"),
        (change("device.json", port=0), "port cannot be 0"),
        (change("device.json", ntp=[]), "ntp cannot be"),
        (change("device.json", dps_host="https://x"), "dps_host cannot be"),
        (change("device.json", id_scope=None), "id_scope is missing"),
        (change("device.json", registration_id="dev-2"), "device.csr is for dev-1"),
        (change("device.json", auth="x509"), "auth is x509"),
        (change("secrets.json", device_key=None), "device_key is missing"),
        (change("secrets.json", device_key="x"), "not a key in base64"),
        (change("secrets.json", wifi_ssid="x" * 33), "1 to 32 bytes"),
        (change("manifest.json", board="ESP99"), "no board profile"),
        (lambda folder: (folder / "device.key").chmod(0o644), "others may use it"),
        (lambda folder: (folder / "device.key").write_bytes(keys.key_der(keys.new_key())), "not a pair"),
        (lambda folder: (folder / "device.key").unlink(), "is missing"),
        (lambda folder: (folder / "device.csr").write_bytes(b"0" * 2048), "more than the board takes"),
        (lambda folder: (folder / "roots.pem").write_text(""), "holds no certificate"),
        (lambda folder: (folder / "device.json").write_text("{"), "not a JSON object"),
        (lambda folder: (folder / "manifest.json").unlink(), "is missing"),
        (lambda folder: (folder / "device.json").write_text('{"a":' * 5000 + "1" + "}" * 5000), "not a JSON object"),
        (lambda folder: replace_by_pipe(folder / "device.json"), "a pipe or a device"),
        (lambda folder: replace_by_pipe(folder / "device.csr"), "a pipe or a device"),
        (lambda folder: marked(folder / "secrets.json"), "byte-order mark"),
        (lambda folder: marked(folder / "roots.pem"), "byte-order mark"),
    ],
)
def test_each_fault_is_found_and_no_secret_said(tmp_path: Path, damage: Callable[[Path], None], says: str) -> None:
    folder = folders.create(PLAN, tmp_path)
    damage(folder)
    found = [finding for finding in folder_doctor.examine(folder, firmware=None) if finding.wrong]
    assert any(says in finding.message for finding in found), found
    assert PLAN.device_key not in str(found)


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def marked(path: Path) -> None:
    path.write_bytes(path.read_text().encode("utf-8-sig"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: replace_by_pipe(folder / "device.json"),
        lambda folder: replace_by_pipe(folder / "secrets.json"),
        lambda folder: (folder / "secrets.json").write_text("[" * 100_000),
        lambda folder: (folder / "manifest.json").write_text("[" * 100_000),
    ],
)
def test_other_commands_end_with_one_line_as_well(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(folders.create(PLAN, tmp_path))
    for words in (("sas", "dev-1"), ("register", "dev-1"), ("list",)):
        done = esp_dps(*words, "--devices", tmp_path)
        assert done.code in (0, 1, 2) and "Traceback" not in done.err


@pytest.mark.parametrize(("length", "notes"), [(91, 0), (92, 1)])
def test_an_id_too_long_for_old_subscriptions_is_a_note(tmp_path: Path, length: int, notes: int) -> None:
    # By umqtt.simple 1.4: 2 for the packet id, 2 for the topic's length, the topic, 1 for QoS; 128 needs a second byte.
    assert (2 + 2 + len(f"devices/{'x' * length}/messages/devicebound/#") + 1 > 127) == bool(notes)
    found = folder_doctor.examine(
        folders.create(replace(PLAN, registration_id="x" * length, key_kind=None), tmp_path), firmware=None
    )
    assert [(finding.where, finding.wrong) for finding in found] == [("device.json", False)] * notes


def test_a_timeout_that_the_watchdog_undercuts_is_a_note(tmp_path: Path) -> None:
    folder = folders.create(PLAN, tmp_path)
    watchdog = folders.load(folder).profile.watchdog
    for timeout, notes in ((watchdog - 1, 0), (watchdog, 1)):
        change("device.json", timeout=timeout)(folder)
        found = folder_doctor.examine(folder, group_key=KEY)
        assert [finding.wrong for finding in found] == [False] * notes
        assert all("is not below the watchdog" in finding.message for finding in found)


def test_what_is_wrong_is_refused_by_whoever_flashes(tmp_path: Path) -> None:
    folder = folders.create(PLAN, tmp_path)
    assert folder_doctor.admit(folder) == []
    (folder / "stray").write_text("")
    assert [finding.where for finding in folder_doctor.admit(folder)] == ["stray"]
    change("device.json", outbox=0, will=3)(folder)
    with pytest.raises(ToolError) as caught:
        flash.flash(folders.load(folder), str(tmp_path / "no-port"))
    assert "device.json: outbox cannot be 0" in caught.value.message
    assert "from 1" in caught.value.hint and "1 more: esp-dps doctor dev-1" in caught.value.hint


def test_another_groups_key_is_noticed(tmp_path: Path) -> None:
    found = folder_doctor.examine(
        folders.create(PLAN, tmp_path), group_key=base64.b64encode(bytes(64)).decode(), firmware=None
    )
    assert ["not derived from this group key" in finding.message for finding in found] == [True]


def test_an_expired_onboarding_certificate(tmp_path: Path) -> None:
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k -out c -subj /CN=dev-1 -days 2"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True, timeout=30)
    from datetime import datetime, timedelta, timezone

    pair = (tmp_path / "c").read_bytes(), (tmp_path / "k").read_bytes()
    folder = folders.create(replace(PLAN, device_key=None, onboarding=pair), tmp_path / "d")
    assert [finding.wrong for finding in folder_doctor.examine(folder, firmware=None)] == [False]  # ends soon: a note
    for days, says in ((3, "expired on"), (-1, "not valid before")):
        now = datetime.now(timezone.utc) + timedelta(days=days)
        assert any(
            says in finding.message
            for finding in folder_doctor.examine(folder, firmware=None, now=now)
            if finding.wrong
        )
    (folder / "onboarding.key").unlink()
    assert any(
        "onboarding.key" in finding.where for finding in folder_doctor.examine(folder, firmware=None) if finding.wrong
    )


def test_a_shredded_folder_is_understood(tmp_path: Path) -> None:
    folder = folders.create(PLAN, tmp_path)
    shred.shred(folder)
    assert sorted(os.listdir(folder)) == ["device.csr", "device.json", "manifest.json", "roots.pem", "secrets.json"]
    assert folders.load(folder).on_board_only
    found = folder_doctor.examine(folder, group_key=KEY, firmware=None)
    assert found and not any(finding.wrong for finding in found)
    (entry,) = inventory.read(tmp_path)
    assert entry.on_board_only and (entry.key_type, entry.auth, entry.flashed_at) == ("ec-p256", "symmetric-key", None)


def test_the_list_has_what_was_flashed_and_what_is_damaged(tmp_path: Path) -> None:
    folders.create(PLAN, tmp_path)
    (tmp_path / "dev-2").mkdir()
    (tmp_path / "boards.csv").write_text("chip_id,registration_id,flashed_at\naabb01,dev-1,1700000000\n")
    first, second = inventory.read(tmp_path)
    assert (first.registration_id, first.chip_id, first.flashed_at) == ("dev-1", "aabb01", 1700000000)
    assert second.registration_id == "dev-2" and "manifest.json" in second.fault
