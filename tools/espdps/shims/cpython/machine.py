"""`machine` for a PC: no pins, and a reset ends the program. It must never restart the PC."""


def unique_id() -> bytes:
    return b"\x02\x00\x00\x00\x00\x01"


def reset() -> None:
    raise SystemExit("machine.reset()")


class RTC:
    """The PC's clock belongs to the operating system: if it is wrong, the firmware's own check says so."""

    def datetime(self, fields: tuple[int, ...]) -> None:
        raise OSError(1, "the PC's clock is the operating system's to set")
