"""What was issued to a board, saved and put back: the firmware's own store writes it and reads it again."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bench import KEY, PASSWORD, PLAN, working
from cryptography.hazmat.primitives.asymmetric import ec
from issued import END, Issued

from aziot import store
from espdps.board import identity_backup, repl
from espdps.board.flash import SLOT_BYTES
from espdps.devices import bindings, folders
from espdps.errors import ToolError


@pytest.fixture
def board(tmp_path: Path, micropython32: Path) -> Iterator[Issued]:
    with working(tmp_path, micropython32) as bench:
        bench.flash(follow=None)
        yield Issued(bench, tmp_path)


def test_what_was_issued_is_saved_and_put_back(board: Issued) -> None:
    none = board.esp_dps("backup", str(board.backup))
    assert none.returncode == 1 and "no issued identity" in none.stderr and not board.backup.exists()
    board.issue("hub-1.azure-devices.net")
    board.issue("hub-2.azure-devices.net")
    before = board.fetch()
    assert before == [("hub-2.azure-devices.net", 2, True)]
    done = board.esp_dps("backup", str(board.backup))
    assert done.returncode == 0, done.stderr
    assert done.stdout.replace("\n", "").endswith(": dev-1 on hub-2.azure-devices.net, until 2030-03-17 17:46 UTC")
    assert board.backup.stat().st_mode & 0o777 == 0o600
    key = (board.bench.device.folder / "device.key").read_bytes()
    saved = board.backup.read_text()
    assert all(secret not in saved for secret in (KEY, PASSWORD, base64.b64encode(key).decode(), "PRIVATE"))
    refused = board.esp_dps("backup", str(board.backup))
    assert refused.returncode == 1 and "never overwritten" in refused.stderr
    board.bench.mpremote("exec", "for n in 'ab': open('/identity.' + n, 'wb').close()")
    assert board.fetch() == []
    back = board.esp_dps("restore", str(board.backup), "--json")
    assert back.returncode == 0, back.stderr
    assert json.loads(back.stdout) == {"device_id": "dev-1", "hub": "hub-2.azure-devices.net", "sequence": 2, "not_after": END}  # fmt: skip
    assert board.fetch() == before
    assert all(len((board._slots / name).read_bytes()) == SLOT_BYTES for name in ("identity.a", "identity.b"))


def save(board: Issued) -> None:
    with repl.opened(board.port) as opened:
        identity_backup.backup(opened, board.backup)


def restore(board: Issued, **how: bool) -> None:
    with repl.opened(board.port) as opened:
        identity_backup.restore(opened, board.backup, **how)


def test_never_onto_another_device(board: Issued, tmp_path: Path) -> None:
    board.issue()
    save(board)
    other = folders.create(replace(PLAN, registration_id="dev-2"), tmp_path / "devices")
    board.bench.device = folders.load(other)
    board.bench.flash(follow=None, rebind=True)
    with pytest.raises(ToolError, match="registration_id is dev-2, and .* is for dev-1"):
        restore(board)
    again = folders.create(PLAN, tmp_path / "devices", force=True)
    board.bench.device = folders.load(again)
    board.bench.flash(follow=None, rebind=True)
    with pytest.raises(ToolError, match="not for the board's private key"):
        restore(board)
    assert board.fetch() == []


def test_not_in_the_place_of_a_newer_one(board: Issued) -> None:
    board.issue("hub-1")
    save(board)
    board.issue("hub-2")
    with pytest.raises(ToolError, match="newer identity, until 2030"):
        restore(board)
    assert board.fetch()[0] == ("hub-2", 2, True)
    restore(board, force=True)
    assert board.fetch() == [("hub-1", 1, True)]


def test_a_backup_that_was_changed_is_refused(board: Issued) -> None:
    board.issue()
    save(board)
    text = board.backup.read_text()
    for wrong, says in (
        (text.replace("hub-1.azure", "hub-9.azure"), "identity.a is damaged"),
        (text.replace("esp-dps identity 1", "esp-dps identity 9"), "no backup of an identity"),
        (text[:-20], "no backup of an identity"),
        (json.dumps(json.loads(text) | {"slots": {"identity.a": None, "identity.b": None}}), "holds no identity"),
    ):
        board.backup.write_text(wrong)
        with pytest.raises(ToolError, match=says):
            restore(board)


def test_a_record_that_the_firmware_does_not_take_is_not_saved(board: Issued) -> None:
    board.issue("hub-1")
    for path in board._slots.iterdir():
        path.write_bytes(path.read_bytes().replace(b"hub-1", b"hub-x"))
    board.send()
    with pytest.raises(ToolError, match="no issued identity"):
        save(board)
    for path in board._slots.iterdir():
        path.unlink()
    board.issue("hub-1")
    store.refuse(store.load(board._root)[0])
    board.send()
    with pytest.raises(ToolError, match="no issued identity"):
        save(board)
    for path in board._slots.iterdir():
        path.unlink()
    board.issue(key=ec.generate_private_key(ec.SECP256R1()).public_key())
    with pytest.raises(ToolError, match="not for the board's private key"):
        save(board)


def test_erase_takes_what_is_secret_and_frees_the_chip(board: Issued) -> None:
    board.issue()
    folder = board.bench.device.folder.parent
    asked = board.esp_dps("erase", "--devices", str(folder))
    assert asked.returncode == 2 and "--yes" in asked.stderr and "device.key" in board.bench.mpremote("fs", "ls", ":/")
    done = board.esp_dps("erase", "--yes", "--devices", str(folder))
    assert done.returncode == 0 and "7 files of dev-1 removed" in done.stdout, done.stderr
    left = board.bench.mpremote("fs", "ls", ":/")
    for name in ("device.key", "secrets.json", "identity.a", "identity.b", "device.json", "device.csr"):
        assert name not in left
    assert "main.py" in left and "lib" in left
    assert bindings.read(folder) == {}
    nobody = board.esp_dps("backup", str(board.backup))
    assert nobody.returncode == 1 and "carries no device" in nobody.stderr
    again = board.esp_dps("erase", "--yes", "--json", "--devices", str(folder))
    assert json.loads(again.stdout) == {"registration_id": "no device", "removed": []}
