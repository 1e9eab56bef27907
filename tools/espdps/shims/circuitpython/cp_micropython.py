"""CircuitPython's micropython."""


def const(value: int) -> int:
    return value
