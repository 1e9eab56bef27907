"""The unit tests again, the same files, on real MicroPython and under CircuitPython's restrictions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import bench
import pytest
from running import DRIVE, RELEASES, SHIMS, fill_drive

from espdps.devices import folders
from espdps.paths import ROOT
from espdps.virtual_board.micropython import interpreter, newest

RUN = ROOT / "host_tests" / "unit" / "run.py"


# Each umqtt.simple and ntptime with the width of a board; what the interpreter's own release freezes on the others.
CASES = [*(("32", release) for release in RELEASES), ("64", "")]
CASES += [("newest", "")] if newest() else []  # no wheel for every machine


@pytest.mark.parametrize(("which", "release"), CASES)
def test_unit_tests_on_micropython(which: str, release: str, tmp_path: Path) -> None:
    program = newest() if which == "newest" else interpreter(int(which))
    assert program
    done = subprocess.run(
        [program, "-X", "heapsize=2m", RUN],
        env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin", "BOARD_RELEASE": release},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    print(f"MicroPython {which} {release}: {done.stdout.splitlines()[-1:]}")
    assert done.returncode == 0, done.stdout
    assert int(done.stdout.split()[-4]) >= 50 and done.stdout.endswith("0 failed\n")


# MiniMQTT's packets are other ones than umqtt.simple's (packet ids from 2 on, a keepalive for DPS too), it waits for the
# answer to a ping at once, and files for TLS are paths: what looks at just that does not hold there.
OTHERWISE = {
    "test_mqtt.py:test_connect_is_one_flight_of_these_bytes",
    "test_mqtt.py:test_with_a_client_certificate_there_is_no_password",
    "test_hub.py:test_an_issued_certificate_speaks_for_the_board_and_its_dates_are_reported",
    "test_hub.py:test_a_link_that_answers_lives_and_telemetry_without_acknowledgement_is_no_answer",
    "test_hub.py:test_keepalive_and_a_dead_link",
    "test_cloud.py:test_a_slow_handler_is_no_dead_link",
    "test_cloud.py:test_an_application_that_seldom_polls_finds_its_answer_in_time",
}


def test_unit_tests_on_circuitpython(tmp_path: Path) -> None:
    unit = folders.create(bench.PLAN, tmp_path / "devices")
    fill_drive(unit)
    drive = unit / DRIVE
    shutil.copytree(RUN.parent, drive / "unit")
    (drive / "tmp").mkdir()
    (drive / "unit" / "socket.py").touch()  # the peers of these tests may use the PC's
    done = subprocess.run(
        [sys.executable, SHIMS / "circuitpython" / "run.py", drive, drive / "unit" / "run.py"],
        env={**os.environ, "BOARD_CLOCK": "kept"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    failed = dict(re.findall(r"^FAILED (\S+)\n((?:(?!FAILED ).*\n)*)", done.stdout, re.M))
    assert failed.keys() == OTHERWISE, {name: failed[name] for name in failed.keys() - OTHERWISE}
    assert int(done.stdout.split()[-4]) >= 150, done.stdout
