"""The virtual CIRCUITPY drive: made as CircuitPython makes one, run as long as it has power, run anew when flashed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from workshop import made

from espdps.board import drive_finder
from espdps.devices import profiles
from espdps.errors import ToolError
from espdps.simulator import Options, serving
from espdps.virtual_board import virtual_drive
from espdps.virtual_board.virtual_drive import VirtualDrive


def test_a_blank_drive_is_one_for_its_profile_and_made_once(tmp_path: Path) -> None:
    virtual_drive.make_blank(tmp_path / "drive")
    first = drive_finder.read(tmp_path / "drive")
    drive_finder.check(first, profiles.load(virtual_drive.BOARD))
    (tmp_path / "drive" / "code.py").write_text("mine")
    virtual_drive.make_blank(tmp_path / "drive")
    assert drive_finder.read(tmp_path / "drive") == first and (tmp_path / "drive" / "code.py").read_text() == "mine"
    virtual_drive.make_blank(tmp_path / "other")
    assert drive_finder.read(tmp_path / "other").uid != first.uid


def test_what_it_prints_are_events_and_its_end_is_told(tmp_path: Path) -> None:
    with VirtualDrive(tmp_path / "drive") as board:
        (board.root / "code.py").write_text("print('[   0.100] hub.ready    dev-1')\nprint('last', end='')\n")
        board.power_on()
        seen: list[tuple[str, str]] = []
        with pytest.raises(ToolError, match="the program on the drive has ended"):
            for event in board.events(30):
                seen += [(event.step, event.text)] if event else []
        assert seen == [("hub.ready", "dev-1"), ("", "last")]


def test_silence_ends_and_the_plug_ends_the_program(tmp_path: Path) -> None:
    with VirtualDrive(tmp_path / "drive") as board:
        (board.root / "code.py").write_text("while True:\n    pass\n")
        board.power_on()
        with pytest.raises(ToolError, match="not connected within 0 s"):
            list(board.events(0.2))
        process = board._process
        assert process and process.poll() is None
    assert process.returncode == -signal.SIGKILL


def test_the_command_runs_it_anew_when_it_was_flashed_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "espdps.cli", "board", "--dir", str(tmp_path / "d")]
    run = subprocess.Popen([*command, "--board", virtual_drive.BOARD], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert run.stdout
        _until(run.stdout.fileno(), b"Hello World!")
        program = tmp_path / "d" / "code.py"
        program.unlink()
        program.write_text("print('second')\nwhile True:\n    pass\n")
        _until(run.stdout.fileno(), b"second")
        run.terminate()
        assert run.wait(30) == 0
        with pytest.raises(ProcessLookupError):  # the program was of the same session
            os.killpg(run.pid, 0)
    finally:
        run.kill()
        run.wait()


def test_by_hand_from_a_blank_drive_to_its_hub(tmp_path: Path) -> None:
    """As README has it: simulator, drive, new, flash, each by its command; and the hub can call the board."""
    with serving(tmp_path / "sim", Options()) as sim:
        words = (
            "board",
            "--dir",
            str(tmp_path / "drive"),
            "--board",
            virtual_drive.BOARD,
            "--sim",
            str(tmp_path / "sim"),
        )
        command = [sys.executable, "-m", "espdps.cli", *words]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            assert run.stdout
            _until(run.stdout.fileno(), b"Hello World!")
            folder = tmp_path / "devices"
            made("new", "bench-1", "--sim", tmp_path / "sim", "--board", virtual_drive.BOARD, "--devices", folder)
            made("flash", "bench-1", "--drive", tmp_path / "drive", "--devices", folder)
            _until(run.stdout.fileno(), b"hub.sent")
            assert sim.wait_event("hub.telemetry", timeout=30)["device"] == "bench-1"
            called = made("hub", "call", "--sim", tmp_path / "sim", "bench-1", "led", '{"on": true}')
            assert "200" in called.out
            # What was issued is on the drive, and that is no reason to copy anything again
            again = made("flash", "bench-1", "--drive", tmp_path / "drive", "--devices", folder, "--verify")
            assert "files are the same" in again.out
            assert (tmp_path / "drive" / "identity.a").read_bytes().startswith(b"A ")
        finally:
            run.terminate()
            assert run.wait(30) == 0


def _until(console: int, words: bytes) -> None:
    heard, end = b"", time.monotonic() + 30
    while words not in heard:
        left = end - time.monotonic()
        assert left > 0 and select.select([console], [], [], left)[0], heard
        heard += os.read(console, 4096)
