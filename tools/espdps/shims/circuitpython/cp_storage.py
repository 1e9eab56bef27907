"""CircuitPython's storage: the drive is the PC's until boot.py takes it."""

import cp_machine


def remount(path: str, readonly: bool = False) -> None:
    cp_machine.writable = not readonly


class VfsFat:
    """As getmount() gives it: `readonly` is true while code may not write."""

    @property
    def readonly(self) -> bool:
        return not cp_machine.writable


def getmount(path: str) -> VfsFat:
    if path != "/":
        raise OSError(22, "Invalid argument")
    return VfsFat()
