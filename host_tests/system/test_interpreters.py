"""The unit tests again, the same files, on real MicroPython."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from espdps.micropython import interpreter

RUN = Path(__file__).resolve().parent.parent / "unit" / "run.py"


@pytest.mark.parametrize("bits", [64, 32])
def test_unit_tests_on_micropython(bits: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [interpreter(bits), "-X", "heapsize=2m", RUN],
        env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    print(f"MicroPython {bits}-bit: {done.stdout.splitlines()[-1:]}")
    assert done.returncode == 0, done.stdout
    assert int(done.stdout.split()[-4]) >= 50 and done.stdout.endswith("0 failed\n")
