"""What goes wrong with a CIRCUITPY drive: one clear line each, nothing secret on the wrong board, the next run goes on.
A full drive is the real thing, /dev/full; a read-only one is what statvfs and open say of such a mount."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drive_bench import BOARD, UID, DriveBench, blank_drive, boot_out, working
from workshop import esp_dps, made

from espdps.board import drive_finder
from espdps.devices import drive_content, folders, profiles
from espdps.errors import ToolError


@pytest.fixture
def bench(tmp_path: Path) -> DriveBench:
    return working(tmp_path)


def flash(bench: DriveBench, *words: str | Path) -> Any:
    where = "--devices", bench.device.folder.parent, "--firmware", bench.firmware
    return esp_dps("flash", "dev-1", *where, *words)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "is no CIRCUITPY drive: boot_out.txt"),
        ("", "names no version of CircuitPython"),
        ("Adafruit CircuitPython 10.3.0 on 2026-08-31; X with Y\nBoard ID:x\n", "names no UID"),
        ("Adafruit CircuitPython 10.3.0 on 2026-08-31; X with Y\nUID:00\n", "names no Board ID"),
        (boot_out(board="adafruit_metro_esp32s2"), f"is a adafruit_metro_esp32s2, and the device was made for {BOARD}"),
        (boot_out(release="9.1.4"), "has CircuitPython 9.1.4, which is too old"),
        (boot_out(uid="xyz"), "names 'xyz' as its unique id"),
    ],
)
def test_a_drive_that_is_not_the_devices(bench: DriveBench, text: str | None, says: str) -> None:
    if text is None:
        (bench.root / "boot_out.txt").unlink()
    else:
        (bench.root / "boot_out.txt").write_text(text)
    before = sorted(bench.root.rglob("*"))
    with pytest.raises(ToolError, match=says):
        bench.flash()
    assert sorted(bench.root.rglob("*")) == before


def test_a_newer_and_an_odd_release_are_read(tmp_path: Path) -> None:
    for number, (release, version) in enumerate({"10.0.0-beta.2": (10, 0), "9.2.5-12-gabcdef": (9, 2)}.items()):
        found = drive_finder.read(blank_drive(tmp_path / str(number), boot_out(release=release)))
        assert (found.release, found.version, found.board_id, found.uid) == (release, version, BOARD, UID.lower())


def mount(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *roots: Path, kind: str = "vfat") -> None:
    table = tmp_path / "mounts"
    lines = [f"/dev/sd{n} {str(root).replace(' ', chr(92) + '040')} {kind} rw 0 0\n" for n, root in enumerate(roots)]
    table.write_text("proc /proc proc rw 0 0\n" + "".join(lines))
    monkeypatch.setattr(drive_finder, "MOUNTS", table)


def test_the_drive_that_is_mounted_is_found(bench: DriveBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spaced = bench.root.rename(tmp_path / "my CIRCUITPY")
    (tmp_path / "USB stick").mkdir()
    mount(monkeypatch, tmp_path, spaced, tmp_path / "USB stick")
    done = flash(bench)
    assert done.code == 0 and str(spaced) in done.out and "reset the board" in done.out
    assert (spaced / "device.key").exists()


def test_no_drive_and_several_are_told(bench: DriveBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount(monkeypatch, tmp_path)
    assert "no CIRCUITPY drive is mounted" in flash(bench).err
    mount(monkeypatch, tmp_path, bench.root, kind="nfs")
    assert "no CIRCUITPY drive is mounted" in flash(bench).err
    other = blank_drive(tmp_path / "other", boot_out(board="other_board"))
    mount(monkeypatch, tmp_path, bench.root, other)
    done = flash(bench)
    assert done.code == 1 and f"{bench.root} ({BOARD}), {other} (other_board)" in done.err and "--drive" in done.err
    assert flash(bench, "--drive", bench.root).code == 0


def test_a_read_only_drive_says_how_to_get_it_back(bench: DriveBench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs

    def statvfs(path: Any) -> Any:
        values = list(real(path))[:10]
        values[8] |= os.ST_RDONLY
        return os.statvfs_result(values)

    monkeypatch.setattr(os, "statvfs", statvfs)
    before = sorted(bench.root.rglob("*"))
    done = flash(bench, "--drive", bench.root)
    assert done.code == 1 and "is read-only: boot.py has given the drive to the board" in done.err
    assert "hold the button BUTTON" in done.err and sorted(bench.root.rglob("*")) == before
    assert flash(bench, "--drive", bench.root, "--verify").code == 1  # to compare, it need not be written to


def test_a_drive_that_turns_read_only_in_the_middle(bench: DriveBench, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = Path.open

    def refuse(path: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
        if path.name == "app.py" and "w" in mode:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, mode, *args, **more)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ToolError, match="is read-only"):
        bench.flash()
    assert not (bench.root / "device.key").exists() and not (bench.root / "code.py").exists()


def test_a_drive_without_room_is_not_begun(bench: DriveBench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs

    def statvfs(path: Any) -> Any:
        values = list(real(path))[:10]
        values[1] = 4096
        values[4] = 10
        return os.statvfs_result(values)

    monkeypatch.setattr(os, "statvfs", statvfs)
    before = sorted(bench.root.rglob("*"))
    with pytest.raises(ToolError, match=r"is full: \d\d\d KB to copy, 40 KB free"):
        bench.flash()
    assert sorted(bench.root.rglob("*")) == before


def test_a_drive_that_gets_full_and_the_next_run(bench: DriveBench) -> None:
    (bench.root / "device.csr").symlink_to("/dev/full")
    with pytest.raises(ToolError, match="CIRCUITPY is full") as caught:
        bench.flash()
    assert "it goes on" in caught.value.hint
    assert (bench.root / "app.py").exists() and not (bench.root / "device.key").exists()
    assert not (bench.root / "code.py").exists()
    (bench.root / "device.csr").unlink()
    assert bench.flash().copied == ["/device.csr", "/device.key", "/settings.toml", "/code.py"]


def test_a_drive_that_vanishes_and_the_next_run(bench: DriveBench, tmp_path: Path) -> None:
    def unplug(step: str, text: str) -> None:
        if text.startswith("/boot.py"):
            bench.root.rename(tmp_path / "unplugged")
            bench.root.mkdir()  # where it was mounted

    with pytest.raises(ToolError, match="CIRCUITPY went away") as caught:
        bench.flash(tell=unplug)
    assert "it goes on" in caught.value.hint and not list(bench.root.iterdir())  # no secret onto the PC's own disk
    bench.root.rmdir()
    (tmp_path / "unplugged").rename(bench.root)
    assert not (bench.root / "code.py").exists() and not (bench.root / "settings.toml").read_bytes()
    assert bench.flash().copied[:2] == ["/hardware.py", "/lib/aziot/__init__.py"] and (bench.root / "code.py").exists()


def test_a_users_own_programs_are_kept(bench: DriveBench) -> None:
    (bench.root / "code.py").write_text("print('mine')\n")
    (bench.root / "boot.py").write_text('print("Hello World!")\n')  # as on a new drive: nobody's
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "espdps.board.flash_drive._write", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "unplugged"))
        )
        with pytest.raises(ToolError, match="went away"):
            bench.flash()
    said = [text for step, text in bench.said if step == "note"]
    assert said == ["/code.py was a program of yours: kept as code.py.before"]
    bench.flash()  # goes on
    assert bench.text("code.py.before") == "print('mine')\n" and not (bench.root / "boot.py.before").exists()
    (bench.root / "code.py").write_text("an older one of ours\n")
    bench.flash()
    assert bench.text("code.py.before") == "print('mine')\n"


def test_a_program_that_was_kept_is_not_lost_to_the_next(bench: DriveBench) -> None:
    for name in ("app.py", "app.py.before"):
        (bench.root / name).write_text(f"# {name}\n")
    with pytest.raises(ToolError, match=r"has app.py and app.py.before"):
        bench.flash()
    assert bench.text("app.py") == "# app.py\n" and bench.text("app.py.before") == "# app.py.before\n"


def test_a_copy_that_arrives_damaged(bench: DriveBench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fsync(handle: int) -> None:  # of a medium that loses what was written to one file
        real(handle)
        if os.readlink(f"/proc/self/fd/{handle}").endswith("/app.py"):
            os.ftruncate(handle, 3)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ToolError, match="/app.py arrived damaged"):
        bench.flash()
    assert not (bench.root / "device.key").exists() and not (bench.root / "code.py").exists()


def test_lines_of_a_user_outlive_a_copy_that_is_broken_off(bench: DriveBench, monkeypatch: pytest.MonkeyPatch) -> None:
    (bench.root / "settings.toml").write_text('TOKEN = "x"\n')
    (bench.root / ".esp-dps.new").symlink_to("/dev/full")
    with pytest.raises(ToolError, match="is full"):
        bench.flash()
    assert bench.text("settings.toml") == 'TOKEN = "x"\n'


def test_another_program_that_runs_first_is_told(bench: DriveBench) -> None:
    (bench.root / "code.txt").write_text("")
    bench.flash()
    assert any(step == "note" and "/code.txt" in text for step, text in bench.said)


def test_wrong_combinations_are_wrong_use(bench: DriveBench, tmp_path: Path) -> None:
    done = flash(bench, "--port", "/dev/null")
    assert done.code == 2 and "has CircuitPython: it has a drive, no --port" in done.err
    folder = bench.device.folder.parent
    key = tmp_path / "device.key"
    key.write_text(drive_content.read_json(bench.device.folder / "secrets.json")["device_key"])
    made("new", "dev-m", "--board", "ESP32_GENERIC", "--id-scope", "0ne00ABCDEF", "--device-key-file", key,
         "--devices", folder)  # fmt: skip
    done = esp_dps("flash", "dev-m", "--drive", bench.root, "--devices", folder)
    assert done.code == 2 and "has MicroPython: it has a port, no --drive" in done.err
    plan = tmp_path / "plan.csv"
    plan.write_text("registration_id\ndev-1\n")
    done = esp_dps("flash", "--all", plan, "--drive", bench.root, "--devices", folder)
    assert done.code == 2 and "--all is for boards with MicroPython" in done.err
    done = esp_dps("board", "--dir", tmp_path / "board", "--board", BOARD)
    assert done.code == 2 and f"{BOARD} is a real board with CircuitPython" in done.err


def test_a_key_cannot_be_on_a_drive_alone(bench: DriveBench, tmp_path: Path) -> None:
    words = ("--board", BOARD, "--id-scope", "0ne00ABCDEF", "--shred-after-flash", "--devices", tmp_path)
    done = esp_dps("new", "dev-2", *words)
    assert done.code == 2 and "whoever plugs its drive in may read and change it" in done.err
    manifest = bench.device.folder / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "shred_after_flash": True}))
    with pytest.raises(ToolError, match="which a CIRCUITPY drive cannot keep"):
        bench.flash()
    done = esp_dps("doctor", "dev-1", "--devices", bench.device.folder.parent, "--firmware", bench.firmware)
    assert done.code == 1 and "shred_after_flash" in done.out


def test_doctor_looks_at_what_the_drive_needs(bench: DriveBench, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("doctor", "dev-1", "--devices", bench.device.folder.parent, "--firmware", bench.firmware)
    done = esp_dps(*words)
    assert done.code == 0 and "nothing wrong" in done.out and "note" not in done.out
    config = bench.device.folder / "device.json"
    config.write_text(json.dumps({**bench.device.config, "chain": False}))
    done = esp_dps(*words)
    assert done.code == 0 and "CircuitPython shows the whole chain" in done.out
    (bench.firmware / "circuitpython" / "boot.py").write_text("if\n")
    assert "/boot.py: is no Python" in esp_dps(*words).out
    (bench.firmware / "circuitpython" / "boot.py").unlink()
    assert "holds no firmware for CircuitPython" in esp_dps(*words).out
    monkeypatch.setattr(drive_content, "LIBRARIES", ("adafruit-circuitpython-none",))
    done = esp_dps(*words)
    assert done.code == 1 and "the package adafruit-circuitpython-none is not installed" in done.out


def test_list_and_fleet_know_such_boards(bench: DriveBench, tmp_path: Path) -> None:
    listed = made("list", "--json", "--devices", bench.device.folder.parent).table
    assert (listed["board"], listed["fault"]) == (BOARD, "")
    plan, key = tmp_path / "plan.csv", tmp_path / "group.key"
    plan.write_text("registration_id\nunit-1\n")
    key.write_text(drive_content.read_json(bench.device.folder / "secrets.json")["device_key"])
    words = ("fleet", plan, "--board", BOARD, "--id-scope", "0ne00ABCDEF", "--group-key-file", key)
    made(*words, "--devices", tmp_path / "fleet")
    assert folders.load(tmp_path / "fleet" / "unit-1").profile.circuitpython
    done = esp_dps(*words, "--devices", tmp_path / "other", "--shred-after-flash")
    assert done.code == 1 and "whoever plugs its drive in" in done.out + done.err


GOOD = '# a board\nchip = "ESP32S3"\nruntime = "circuitpython"\nmin_version = "9.0"\nnetwork = "wifi"\nwatchdog = 0\n'


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('heap = "64k"', "'heap' means nothing for circuitpython"),
        ("epoch = 2000", "'epoch' means nothing for circuitpython"),
        ('mpy = ["-O2"]', "'mpy' means nothing for circuitpython"),
        ("led = 2", "'led' must be the name of a pin"),
        ('button = "no pin"', "'button' must be the name of a pin"),
        ('butten = "BUTTON"', "unknown key 'butten'"),
    ],
)
def test_a_wrong_profile_is_named_by_line(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "mine.toml").write_text(GOOD + line + "\n")
    with pytest.raises(ToolError, match=f"mine.toml:7: {says}"):
        profiles.load("mine", tmp_path)


def test_a_button_means_nothing_for_micropython(tmp_path: Path) -> None:
    text = (profiles.BOARDS / "ESP32_GENERIC.toml").read_text()
    (tmp_path / "MINE.toml").write_text(text + 'button = "BUTTON"\n')
    with pytest.raises(ToolError, match="'button' means nothing for micropython"):
        profiles.load("MINE", tmp_path)


def test_the_profiles_for_circuitpython_that_are_here() -> None:
    found = {name: profiles.load(name) for name in profiles.names()}
    chips = {name: profile.chip for name, profile in found.items() if profile.circuitpython}
    assert chips == {
        "adafruit_feather_esp32s2": "ESP32S2", BOARD: "ESP32S3", "UNIX_CIRCUITPYTHON": "unix",
    }  # fmt: skip
    assert found[BOARD].board_json() == {
        "board": BOARD, "network": "wifi", "led": "LED", "led_on": 1, "watchdog": 120, "button": "BUTTON",
    }  # fmt: skip
