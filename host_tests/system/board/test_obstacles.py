"""A user's own files on a board: what keeps the firmware from starting is named, and nothing of it is removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import STARTS, Bench, working

from espdps.board.obstacles import imported
from espdps.errors import ToolError
from espdps.paths import FIRMWARE


@pytest.fixture
def bench(tmp_path: Path, micropython32: Path) -> Iterator[Bench]:
    with working(tmp_path, micropython32) as bench:
        yield bench


def put(bench: Bench, name: str, text: str) -> None:
    source = bench.firmware.parent / "mine"
    source.write_text(text)
    bench.mpremote("fs", "cp", str(source), f":{name}")


def notes(bench: Bench) -> str:
    return "\n".join(text for step, text in bench.said if step == "note")


@pytest.mark.parametrize(
    ("name", "folder"), [("app.py", True), ("device.json", True), ("identity.a", True), ("lib", False)]
)
def test_what_is_in_the_place_of_a_file_or_folder_is_named(bench: Bench, name: str, folder: bool) -> None:
    if folder:
        bench.mpremote("fs", "mkdir", f":{name}")
    else:
        put(bench, name, "mine")
    with pytest.raises(ToolError, match=f"^/{name} on the board is a f") as caught:
        bench.flash()
    assert f"mpremote fs rm -r :{name}" in caught.value.hint and "erase" not in caught.value.hint
    assert name in bench.mpremote("fs", "ls", ":/")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import os\nos.mkdir('/data')\nos.chdir('/data')\n", "/boot.py changes the folder to /data"),
        ("def broken(:\n", "/boot.py ends in SyntaxError"),
        ("1 / 0\n", "/boot.py ends in ZeroDivisionError: divide by zero"),
    ],
)
def test_a_boot_file_that_keeps_main_from_starting_is_named(bench: Bench, text: str, says: str) -> None:
    put(bench, "boot.py", text.replace("os.mkdir", "'data' in os.listdir('/') or os.mkdir"))
    with pytest.raises(ToolError, match="ended before it was connected") as caught:
        bench.flash(follow=20)
    assert says in caught.value.hint and says in notes(bench)


def test_a_boot_file_without_end_does_not_keep_the_tool_out(bench: Bench) -> None:
    put(bench, "boot.py", "while True:\n    pass\n")
    with pytest.raises(ToolError, match="not connected within") as caught:
        bench.flash(follow=2)
    assert "/boot.py had not ended" in caught.value.hint
    assert "main.py" in bench_files(bench), "all of it was copied"


def bench_files(bench: Bench) -> str:
    with open(bench.board.port, "wb", buffering=0) as line:
        line.write(b"\x03")
    return bench.mpremote("fs", "ls", ":/")


def test_a_boot_file_that_only_takes_its_time_is_no_obstacle(bench: Bench) -> None:
    put(bench, "boot.py", "print('boots')\nimport time\ntime.sleep_ms(1)\n")
    assert bench.flash().connected and notes(bench) == ""


def test_a_module_with_a_name_of_pythons_is_named(bench: Bench) -> None:
    (bench.firmware / "aziot" / "one.py").write_text("import json\nNAME = json.dumps('one')\n")
    put(bench, "json.py", "x = 1\n")
    put(bench, "app2.py", "x = 1\n")
    bench.main(STARTS)
    with pytest.raises(ToolError) as caught:
        bench.flash(follow=20)
    assert "/json.py takes the place of the module json" in caught.value.hint
    assert "app2" not in notes(bench)


def test_the_firmware_imports_what_can_be_taken_away() -> None:
    sources = {path.stem: path.read_bytes() for path in (FIRMWARE / "aziot").glob("*.py")}
    assert {"json", "os", "time"} <= imported(sources) and not {"aziot", "hub", "umqtt"} & imported(sources)
