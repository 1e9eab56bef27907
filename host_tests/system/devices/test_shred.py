"""Private values leave the PC once a board is verified to have them: never before, and they never leave the board."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bench import PLAN, STARTS, Bench, working

from espdps.board import flash
from espdps.devices import folders, shred
from espdps.errors import ToolError


@pytest.fixture
def bench(tmp_path: Path, micropython32: Path) -> Iterator[Bench]:
    with working(tmp_path, micropython32) as bench:
        plan = replace(PLAN, shred_after_flash=True)
        bench.device = folders.load(folders.create(plan, tmp_path / "devices", force=True))
        yield bench


def key_on_board(bench: Bench) -> str:
    return bench.mpremote("fs", "sha256sum", ":/device.key") + bench.mpremote("fs", "sha256sum", ":/secrets.json")


def test_the_keys_go_when_the_board_has_them_and_later_flashing_works(bench: Bench) -> None:
    folder = bench.device.folder
    key = (folder / "device.key").read_bytes()
    done = bench.flash()
    assert done.shredded == ["secrets.json", "device.key"] and done.connected
    left = json.loads((folder / "secrets.json").read_bytes())
    assert sorted(left) == ["wifi_password", "wifi_ssid"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "device.csr", "device.json", "manifest.json", "roots.pem", "secrets.json",
    ]  # fmt: skip
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())
    assert all(key not in path.read_bytes() for path in folder.parent.rglob("*") if path.is_file())
    assert json.loads((folder / "manifest.json").read_bytes())["shredded_at"] > 1_700_000_000
    before = key_on_board(bench)
    bench.device = folders.load(folder)
    bench.main(STARTS + "# newer\nprint('[   0.100] hub.ready    dev-1 on a hub')\n")
    bench.mpremote("exec", "with open('/identity.a', 'r+b') as f: f.write(b'P')")
    again = bench.flash()
    assert again.copied == ["/main.py"] and not again.removed and not again.shredded and again.connected
    assert key_on_board(bench) == before
    assert bench.flash(verify=True).differs == []


def test_no_other_board_is_flashed_from_what_is_left(bench: Bench) -> None:
    bench.flash(follow=None)
    bench.device = folders.load(bench.device.folder)
    bench.mpremote("exec", "import os\nos.remove('/device.key')")
    with pytest.raises(ToolError, match="does not have the /device.key of dev-1, and this PC has it no more"):
        bench.flash()
    assert "secrets.json" in bench.mpremote("fs", "ls", ":/"), "nothing was removed"


def test_a_copy_that_fails_leaves_the_keys_where_they_are(bench: Bench) -> None:
    before = {path.name: path.read_bytes() for path in bench.device.folder.iterdir()}

    def unplug(step: str, text: str) -> None:
        if text.startswith("/device.key"):
            bench.board.stop()

    with pytest.raises(ToolError):
        flash.flash(bench.device, bench.board.port, firmware=bench.firmware, tell=unplug)
    assert {path.name: path.read_bytes() for path in bench.device.folder.iterdir()} == before


def test_without_the_wish_nothing_goes(tmp_path: Path) -> None:
    folder = folders.create(PLAN, tmp_path / "devices")
    assert not shred.wanted(folder) and shred.on_board(folder) == {}


@pytest.mark.parametrize("call", range(6))
def test_a_kill_at_any_moment_is_finished_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    # Each rename, sync and unlink is the last thing that happens, in turn.
    folder = folders.create(replace(PLAN, shred_after_flash=True), tmp_path / "devices")
    key = (folder / "device.key").read_bytes()
    count = 0

    def dies(real):  # type: ignore[no-untyped-def]
        def wrapper(*words, **more):  # type: ignore[no-untyped-def]
            nonlocal count
            count += 1
            if count > call:
                raise KeyboardInterrupt
            return real(*words, **more)

        return wrapper

    with monkeypatch.context() as patch:
        patch.setattr(shred.os, "fsync", dies(os.fsync))
        for name in ("rename", "unlink"):
            patch.setattr(Path, name, dies(getattr(Path, name)))
        try:
            shred.shred(folder)
        except KeyboardInterrupt:
            pass
    folders.load(folder)  # whatever is left is a device that can be flashed
    recorded = shred.on_board(folder)
    assert "device.key" in recorded or (folder / "device.key").read_bytes() == key
    shred.shred(folder)
    assert sorted(shred.on_board(folder)) == ["device.key", "secrets.json"]
    assert not (folder / "device.key").exists()
    assert "device_key" not in json.loads((folder / "secrets.json").read_bytes())
    assert folders.load(folder).on_board_only
