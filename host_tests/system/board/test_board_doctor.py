"""esp-dps doctor --port: what is said of a board that is well, of one that is blank, and of each thing at fault."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import secrecy
from bench import KEY, PASSWORD, Bench, working
from issued import Issued
from workshop import esp_dps

from espdps.board import board_doctor, repl
from espdps.devices.folder_doctor import Finding


@pytest.fixture
def bench(tmp_path: Path, micropython32: Path) -> Iterator[Bench]:
    with working(tmp_path, micropython32) as made:
        secrecy.note(made.device.folder)
        yield made


def findings(bench: Bench, **settings: Any) -> list[Finding]:
    with repl.opened(bench.board.port) as board:
        found = board_doctor.examine(board, **settings)
        board.restart()
    return found


def said(found: list[Finding], where: str) -> str:
    return " | ".join(finding.message for finding in found if finding.where == where)


def wrong(found: list[Finding]) -> list[str]:
    return [f"{finding.where}: {finding.message}" for finding in found if finding.wrong]


def test_a_blank_board(bench: Bench) -> None:
    found = findings(bench)
    assert len(wrong(found)) == 2
    assert "/main.py" in said(found, "files") and "/lib/aziot" in said(found, "files")
    assert said(found, "identity") == "the board carries no device"
    assert all(finding.remedy for finding in found if finding.wrong)


def test_a_board_that_is_well(bench: Bench, tmp_path: Path) -> None:
    bench.flash(follow=None)
    found = findings(bench)
    assert not wrong(found) and "none issued yet" in said(found, "identity") and not said(found, "start")
    assert "micropython 1." in said(found, "runtime") and "KB" in said(found, "heap")
    Issued(bench, tmp_path).issue()
    found = findings(bench)
    assert not wrong(found)
    assert (
        said(found, "identity") == "dev-1 on hub-1.azure-devices.net as dev-1, certificate until 2030-03-17 17:46 UTC"
    )
    late = findings(bench, now=1_900_000_001)
    assert "the certificate has ended" in said(late, "identity") and not wrong(late)
    assert "0.5 days left" in said(findings(bench, now=1_900_000_000 - 43200), "identity")


def test_files_that_are_missing(bench: Bench) -> None:
    bench.flash(follow=None)
    bench.mpremote("fs", "rm", ":/roots.pem")
    found = findings(bench)
    assert wrong(found) == ["files: missing: /roots.pem"]


def test_clocks() -> None:
    def clock(there: float) -> Finding:
        return next(iter(board_doctor._clock(int(there), 1_800_000_000)))

    assert not clock(946684800).wrong and "not set" in clock(946684800).message
    assert not clock(1_800_000_200).wrong
    assert clock(1_800_000_400).wrong and "+400 s" in clock(1_800_000_400).message


def test_wifi() -> None:
    def wifi(**state: Any) -> str:
        return " | ".join(finding.message for finding in board_doctor._wifi(state))

    assert wifi() == "this runtime has none"
    assert "not joined" in wifi(joined=False)
    assert wifi(joined=True, rssi=-60) == "joined, -60 dBm"
    assert "weak" in wifi(joined=True, rssi=-90)


def test_the_command_says_it_and_the_program_runs_on(bench: Bench) -> None:
    blank = esp_dps("doctor", "--port", bench.board.port)
    assert blank.code == 1 and "2 wrong" in blank.out and "esp-dps flash" in blank.out
    bench.flash(follow=None)
    done = esp_dps("doctor", bench.device.folder, "--port", bench.board.port)
    assert done.code == 0 and done.out.count("nothing wrong") == 2, done.out + done.err
    assert KEY not in done.out and PASSWORD not in done.out
    deadline = time.monotonic() + 20
    started = esp_dps("monitor", "--port", bench.board.port, "--reset", "--seconds", "2", "--json")
    assert "hub.ready" in started.out and time.monotonic() < deadline


def test_wrong_use(tmp_path: Path) -> None:
    assert esp_dps("doctor").code == 2
    gone = esp_dps("doctor", "--port", tmp_path / "ttyUSB0")
    assert gone.code == 1 and "is not there" in gone.err
