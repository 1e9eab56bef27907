"""A start of esp-dps loads what it needs to read a command line, and no more."""

from __future__ import annotations

import subprocess
import sys

import pytest

APART = ("espdps.simulator", "espdps.virtual_board", "espdps.bench", "aiohttp", "amqtt", "mpremote", "serial")
MOST = 420  # modules; 402 when this was written, 705 before the bench was left out
SCRIPT = """
import sys
from espdps import cli
sys.argv = ["esp-dps", sys.argv[1]]
try:
    cli.main()
except SystemExit as end:
    assert not end.code, end.code
print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("option", ["--version", "--help", "-h"])
def test_a_start_loads_nothing_of_simulator_board_and_bench(option: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, option], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("esp-dps " if option == "--version" else "Usage: ")
    modules = done.stderr.split()
    assert "espdps.cli" in modules
    assert [name for name in modules if name.startswith(APART)] == []
    assert len(modules) <= MOST
