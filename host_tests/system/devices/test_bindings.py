"""Chips and registration ids: one to one, for many writers at once, and whatever is killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from espdps.devices import bindings
from espdps.devices.bindings import Binding
from espdps.errors import ToolError

CHIP, OTHER = "02a0b1c2d3e4", "02ffffffffff"


def test_a_chip_is_bound_then_complete(tmp_path: Path) -> None:
    assert bindings.read(tmp_path) == {}
    binding = bindings.bind(tmp_path, CHIP, "dev-1")
    assert binding == Binding(CHIP, "dev-1", 0) and bindings.read(tmp_path) == {"dev-1": binding}
    begun = int(time.time())
    done = bindings.complete(tmp_path, binding)
    assert begun <= done.flashed_at <= time.time()
    assert bindings.bind(tmp_path, CHIP, "dev-1") == done, "the same pair again changes nothing"
    table = tmp_path / ".esp-dps" / "boards.csv"
    assert table.read_text() == f"chip_id,registration_id,flashed_at\n{CHIP},dev-1,{done.flashed_at}\n"
    assert table.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.rglob("*")] == [".esp-dps", "boards.csv"]


def test_a_device_may_be_called_as_the_table_is(tmp_path: Path) -> None:
    (tmp_path / "boards.csv").mkdir()  # the folder of a device
    binding = bindings.bind(tmp_path, CHIP, "boards.csv")
    assert bindings.read(tmp_path) == {"boards.csv": binding} and (tmp_path / "boards.csv").is_dir()


def test_a_table_in_its_former_place_is_read_and_moves(tmp_path: Path) -> None:
    before = Binding("02", "dev-1", 1)
    (tmp_path / "boards.csv").write_text("chip_id,registration_id,flashed_at\n02,dev-1,1\n")
    assert bindings.read(tmp_path) == {"dev-1": before}
    after = bindings.bind(tmp_path, CHIP, "dev-2")
    assert bindings.read(tmp_path) == {"dev-1": before, "dev-2": after} and not (tmp_path / "boards.csv").exists()


@pytest.mark.parametrize(
    ("chip", "name", "says", "way_out"),
    [
        (CHIP, "dev-2", f"chip {CHIP} already carries dev-1", "flash dev-1 onto it, or --rebind"),
        (OTHER, "dev-1", f"dev-1 is already on chip {CHIP}", "--rebind"),
        (OTHER, "DEV-1", f"dev-1 is already on chip {CHIP}", "--rebind"),
    ],
)
def test_a_second_use_is_refused_unless_told(tmp_path: Path, chip: str, name: str, says: str, way_out: str) -> None:
    bindings.bind(tmp_path, CHIP, "dev-1")
    bindings.bind(tmp_path, "02000000", "bystander")
    with pytest.raises(ToolError, match=says) as caught:
        bindings.bind(tmp_path, chip, name)
    assert way_out in caught.value.hint
    assert bindings.read(tmp_path)["dev-1"].chip_id == CHIP
    bindings.bind(tmp_path, chip, name, rebind=True)
    assert set(bindings.read(tmp_path).values()) == {Binding("02000000", "bystander"), Binding(chip, name)}


def test_a_chip_without_an_id_is_not_bound(tmp_path: Path) -> None:
    for chip in ("", "xyz", "02A0", "020", "02,03"):
        with pytest.raises(ToolError, match="unique id"):
            bindings.bind(tmp_path, chip, "dev-1")
    assert bindings.read(tmp_path) == {}


def test_a_binding_taken_away_meanwhile_is_not_completed(tmp_path: Path) -> None:
    binding = bindings.bind(tmp_path, CHIP, "dev-1")
    bindings.bind(tmp_path, OTHER, "dev-1", rebind=True)
    with pytest.raises(ToolError, match="already on chip"):
        bindings.complete(tmp_path, binding)
    bindings.forget(tmp_path, OTHER)
    assert bindings.read(tmp_path) == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1"),
        ("a,b\n", "line 1"),
        ("chip_id,registration_id,flashed_at\n02,dev-1\n", "line 2"),
        ("chip_id,registration_id,flashed_at\n02,dev-1,0\n02,dev-2,0\n", "line 3.*second time"),
        ("chip_id,registration_id,flashed_at\n02,dev-1,0\n03,dev-1,0\n", "line 3.*second time"),
        ("chip_id,registration_id,flashed_at\n02,dev-1,yesterday\n", "line 2"),
    ],
)
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "boards.csv").write_text(text)
    with pytest.raises(ToolError, match=rf"boards\.csv, {says}"):
        bindings.bind(tmp_path, CHIP, "dev-1")
    assert (tmp_path / "boards.csv").read_text() == text


def test_a_missing_folder_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="No such file"):
        bindings.bind(tmp_path / "none", CHIP, "dev-1")


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda n: bindings.bind(tmp_path, f"{n:012x}", f"dev-{n}"), range(1, 65)))
        list(pool.map(lambda binding: bindings.complete(tmp_path, binding), made))
    read = bindings.read(tmp_path)
    assert len(read) == 64 and all(binding.flashed_at for binding in read.values())


def test_a_kill_in_the_middle_leaves_a_whole_file(tmp_path: Path) -> None:
    # Told each time a row is in: what was told must be there after the kill, and no half line.
    program = (
        "import sys, pathlib\nfrom espdps.devices import bindings\n"
        "for n in range(1, 100000):\n"
        " bindings.bind(pathlib.Path(sys.argv[1]), '%012x' % n, 'dev-%d' % n)\n print(n, flush=True)\n"
    )
    for round in range(3):
        folder = tmp_path / str(round)
        folder.mkdir()
        with subprocess.Popen(
            [sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout
            told = [writer.stdout.readline() for _ in range(20 + 7 * round)]
            os.kill(writer.pid, signal.SIGKILL)
            told += writer.stdout.readlines()
        read = bindings.read(folder)
        assert 0 <= len(read) - len(told) <= 1
        assert bindings.bind(folder, CHIP, "another") in bindings.read(folder).values(), "and the lock is free"
