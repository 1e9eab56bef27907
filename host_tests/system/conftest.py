"""What every system test may ask for: real MicroPython, 32 and 64 bits wide.

It must not skip: a machine on which no MicroPython can be had fails these tests, with the reason.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def _interpreter(bits: int) -> Path:
    given = os.environ.get(f"ESPDPS_MICROPYTHON_{bits}")
    if given:
        return Path(given)
    from espdps.micropython import interpreter

    return interpreter(bits)


@pytest.fixture(scope="session")
def micropython32() -> Path:
    """MicroPython with objects and heap blocks as on an ESP32."""
    return _interpreter(32)


@pytest.fixture(scope="session")
def micropython64() -> Path:
    """MicroPython as wide as the PC."""
    return _interpreter(64)
