"""CircuitPython's gc: without a threshold."""

from gc import collect, disable, enable  # noqa: F401


def mem_free() -> int:
    return 2_000_000


def mem_alloc() -> int:
    return 100_000
