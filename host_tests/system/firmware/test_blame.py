"""Whose fault an exception is called by main.py, as it is, with stand-ins for what it imports."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from espdps.explain import explain
from espdps.paths import FIRMWARE

HARDWARE = """\
import sys
def start(): pass
def led(on): pass
def log(step, text): pass
def start_network(): {network}
def failed(error, step):
    print(step, type(error).__name__)
    sys.exit()
def wait_after(error):
    print(error.code)
    sys.exit()
"""
DEVICE = """\
class Session:
    def close(self): pass
class Device:
    @staticmethod
    def load(root, log): return Device()
    def connect(self): {connect}
"""
ERRORS = "class AzureError(Exception):\n    code = 'an AzureError'\n"


@pytest.mark.parametrize(
    ("network", "connect", "run", "says"),
    [
        ("pass", "return Session()", "session.nothing", "app AttributeError"),
        ("pass", "import nothing_frozen", "pass", "firmware ImportError"),
        ("pass", "len(1)", "pass", "firmware TypeError"),
        ("1 / 0", "return Session()", "pass", "firmware ZeroDivisionError"),
        ("pass", "raise AzureError", "pass", "an AzureError"),
    ],
)
def test_only_what_app_py_raises_is_the_application_s(
    network: str, connect: str, run: str, says: str, tmp_path: Path, micropython32: Path
) -> None:
    (tmp_path / "aziot").mkdir()
    (tmp_path / "hardware.py").write_text(HARDWARE.format(network=network))
    (tmp_path / "aziot" / "errors.py").write_text(ERRORS)
    (tmp_path / "aziot" / "device.py").write_text(
        "from aziot.errors import AzureError\n" + DEVICE.format(connect=connect)
    )
    (tmp_path / "app.py").write_text(f"def run(session): {run}\n")
    main = tmp_path / "main.py"
    main.write_bytes((FIRMWARE / "main.py").read_bytes())
    done = subprocess.run(
        [micropython32, main], env={**os.environ, "MICROPYPATH": str(tmp_path)}, capture_output=True, text=True, timeout=20
    )
    assert done.stdout == says + "\n", done.stdout + done.stderr


def test_what_is_done_about_a_fault_of_the_firmware() -> None:
    assert "app.py" in explain("TypeError", "app").remedy
    for found in (explain("ImportError", "firmware"), explain("platform", "hub.connect")):
        assert "app.py" not in found.remedy and "doctor --port" in found.remedy
