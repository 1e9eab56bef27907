"""Lets CPython import the firmware, over the stand-ins for what a PC lacks; prints the figures that tests measured."""

import gc
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
for folder in (
    HERE / "unit",
    HERE / "system" / "support",
    HERE.parent / "tools" / "espdps" / "shims" / "cpython",
    HERE.parent / "firmware",
):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def pytest_collection_finish() -> None:
    # The firmware tidies its heap often. Here that is pytest's as well, which would take most of the time.
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    figures = [
        value
        for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
        for name, value in report.user_properties
        if name == "figure"
    ]
    if figures:
        terminalreporter.section("figures")
        for value in figures:
            terminalreporter.write_line(str(value))
