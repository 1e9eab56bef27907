"""CircuitPython's microcontroller: reset and watchdog."""

from types import SimpleNamespace

from cp_machine import reset  # noqa: F401

ResetReason = SimpleNamespace(POWER_ON=object(), WATCHDOG=object())
cpu = SimpleNamespace(reset_reason=ResetReason.POWER_ON)
watchdog = SimpleNamespace(timeout=None, mode=None, feed=lambda: None)
