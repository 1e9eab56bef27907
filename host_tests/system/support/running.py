"""Runs the firmware as it is, on CPython or real MicroPython, with a device's files in a plain folder as its flash.

It must never look into the firmware: what it knows is what the console says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import secrecy

from espdps.paths import FIRMWARE, SHIMS

HERE = Path(__file__).resolve().parent

RUNTIMES = ("cpython", "circuitpython", "micropython-64", "micropython-32")
# The first MicroPython with each umqtt.simple -> that umqtt.simple
RELEASES = {"1.24": "1.4", "1.25": "1.6", "1.27": "1.7", "1.29": "1.8"}
DRIVE = "CIRCUITPY"  # below a device's folder: what is on its drive
_LINE = re.compile(r"\[ *(\d+\.\d+)\] (\S+) +(.*)")
_ERROR = re.compile(r"(\S+) (\S+)(?: tracking (\S+))?(?: (.*))?")


@dataclass
class Outcome:
    """What one run said: steps in order as (name, text), and the last error's parts, "" without one."""

    text: str
    status: int
    steps: list[tuple[str, str]] = field(default_factory=list)
    step: str = ""
    code: str = ""
    tracking: str = ""
    message: str = ""

    def __post_init__(self) -> None:
        for line in self.text.splitlines():
            if match := _LINE.match(line):
                self.steps.append((match[2], match[3].strip()))
                if match[2] == "error" and (parts := _ERROR.fullmatch(match[3].strip())):
                    self.step, self.code, self.tracking, self.message = (part or "" for part in parts.groups())

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.steps]


def command_of(
    runtime: str, script: str, folder: Path, heap: str = "", library: Path = FIRMWARE
) -> tuple[list[str], dict[str, str]]:
    """How one of RUNTIMES runs a script of this folder with a device's files: command, to which its other words can be
    added, and environment. aziot is found in `library` and what a PC lacks in the shims."""
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    files = f"{folder}/"
    if runtime == "cpython":
        env["PYTHONPATH"] = os.pathsep.join((str(FIRMWARE), str(SHIMS / "cpython")))
        return [sys.executable, str(HERE / script), files], env
    if runtime == "circuitpython":
        fill_drive(folder)
        env["BOARD_CLOCK"] = "kept"
        shutil.copy(HERE / script, folder / DRIVE)
        run_py = str(SHIMS / "circuitpython" / "run.py")
        return [sys.executable, run_py, str(folder / DRIVE), str(folder / DRIVE / script), "/"], env
    from espdps.virtual_board import micropython

    which = runtime.rpartition("-")[2]
    command = [str(micropython.newest() if which == "newest" else micropython.interpreter(int(which)))]
    if heap:
        command += ["-X", "heapsize=" + heap]
    env["MICROPYPATH"] = ":".join((str(library), str(SHIMS / "micropython"), ".frozen"))
    return [*command, str(HERE / script), files], env


def fill_drive(folder: Path) -> None:
    """Put onto the drive what the device's folder says now; the issued identity stays there."""
    from espdps.devices import drive_content, folders

    for name, content in drive_content.contents(folders.load(folder), FIRMWARE).items():
        path = folder / DRIVE / name[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def run(
    runtime: str,
    folder: Path,
    *words: str,
    timeout: float = 60,
    heap: str = "",
    library: Path = FIRMWARE,
    environment: dict[str, str] | None = None,
    script: str = "once.py",
) -> Outcome:
    """One run of a script with this folder; AssertionError if it neither ends in time nor says how it went.

    `library` is where aziot is taken from: the sources, or .mpy as on a board.
    """
    command, env = command_of(runtime, script, folder, heap, library)
    done = subprocess.run(
        [*command, *words],
        env={**env, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    outcome = Outcome(done.stdout, done.returncode)
    secrecy.assert_clean(done.stdout, "what the firmware printed")
    assert "Traceback" not in done.stdout, done.stdout
    return outcome
