"""`esp-dps enroll` as a person types it, for the tests of its commands."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

from espdps.paths import ROOT
from espdps.simulator import Simulator


def esp_dps(*words: str | Path, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ESPDPS_")}
    return subprocess.run(
        [sys.executable, "-m", "espdps.cli", *map(str, words)],
        env={**clean, "PYTHONPATH": str(ROOT / "tools"), "COLUMNS": "120", **environment},
        cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def enroll(sim: Simulator, *words: str | Path, folder: Path | None = None) -> str:
    done = esp_dps("enroll", *words, "--sim", sim.directory, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(code: int, sim: Simulator, *words: str | Path, folder: Path | None = None) -> str:
    done = esp_dps("enroll", *words, "--sim", sim.directory, folder=folder)
    assert done.returncode == code, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr and not done.stdout
    return done.stderr


def made(sim: Simulator, folder: Path, name: str, *words: str | Path) -> None:
    """A device folder in folder/devices."""
    common = ("new", name, "--sim", sim.directory, "--board", "UNIX", "--devices", "devices", "--key-type", "ec-p256")
    done = esp_dps(*common, *words, folder=folder)
    assert done.returncode == 0, done.stderr


def key_file(folder: Path, name: str = "a.key") -> tuple[Path, str]:
    key = base64.b64encode(os.urandom(64)).decode()
    (folder / name).write_text(key + "\n")
    return folder / name, key
