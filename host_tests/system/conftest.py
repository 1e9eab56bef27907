"""What every system test is held to: nothing it prints may hold a secret that it made."""

from __future__ import annotations

from typing import Any, Generator

import pytest
import secrecy


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, Any, pytest.TestReport]:
    report: pytest.TestReport = yield
    try:
        secrecy.assert_clean("".join(content for _, content in report.sections), f"what {item.name} printed")
    except AssertionError as e:
        report.outcome, report.longrepr, report.sections = "failed", str(e), []
    return report
