"""CircuitPython's microcontroller: reset and watchdog."""

from types import SimpleNamespace

from cp_machine import reset  # noqa: F401

watchdog = SimpleNamespace(timeout=None, mode=None, feed=lambda: None)
