"""What every system test may ask for, real MicroPython, and what it is held to: it prints no secret that it made.

It must not skip: a machine on which no MicroPython can be had fails these tests, with the reason.
"""

from __future__ import annotations

import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import secrecy

from espdps.bench import flash as measured
from espdps.board import flash
from espdps.devices import profiles
from espdps.paths import FIRMWARE
from espdps.virtual_board.micropython import interpreter

# Started in the background by a shell, everything below would ignore the Ctrl-C that some tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def micropython32() -> Path:
    """MicroPython with objects and heap blocks as on an ESP32."""
    return interpreter(32)


@pytest.fixture(scope="session")
def micropython64() -> Path:
    """MicroPython as wide as the PC."""
    return interpreter(64)


@pytest.fixture(scope="session")
def mpy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library as a board has it."""
    folder = tmp_path_factory.mktemp("mpy")
    for name, content in flash.compile_library(FIRMWARE, profiles.load("UNIX").mpy).items():
        target = folder / name.removeprefix("/lib/")
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def library() -> dict[str, bytes]:
    """Module of aziot -> its .mpy."""
    return measured.library()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, Any, pytest.TestReport]:
    report: pytest.TestReport = yield
    try:
        secrecy.assert_clean("".join(content for _, content in report.sections), f"what {item.name} printed")
    except AssertionError as e:
        report.outcome, report.longrepr, report.sections = "failed", str(e), []
    return report
