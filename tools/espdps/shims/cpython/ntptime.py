"""`ntptime` for a PC, whose clock belongs to the operating system.

It must never touch that clock: if it is wrong, the firmware's own check says so."""

host = "pool.ntp.org"
timeout = 1


def settime() -> None:
    raise OSError(1, "the PC's clock is the operating system's to set")
