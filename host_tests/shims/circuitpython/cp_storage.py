"""CircuitPython's storage: the drive is the PC's until boot.py takes it."""

import cp_machine


def remount(path: str, readonly: bool = False) -> None:
    cp_machine.writable = not readonly
