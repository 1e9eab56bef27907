"""`machine` for a PC: no pins, and a reset ends the program. It must never restart the PC."""


def unique_id() -> bytes:
    return b"\x02\x00\x00\x00\x00\x01"


def reset() -> None:
    raise SystemExit("machine.reset()")
