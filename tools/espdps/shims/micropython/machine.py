# Stand-in for `machine`: the parts of ESP32's module that a network device uses, beside those of the unix build.
# On the chip it takes no heap, so each part is brought only when asked for.
import _chip
import umachine

PWRON_RESET = 1
HARD_RESET = 2
WDT_RESET = 3
DEEPSLEEP_RESET = 4
SOFT_RESET = 5

_hertz = 160_000_000


def unique_id():
    from binascii import unhexlify

    from uos import getenv

    return unhexlify(getenv("BOARD_ID") or "020000000001")


def reset():
    import _process

    _process.starve_in(0)
    _process.leave(HARD_RESET)


def deepsleep(time_ms):
    # The program and its heap end, the clock goes on.
    from utime import sleep_ms

    import _process

    _process.starve_in(0)
    sleep_ms(time_ms)
    _process.leave(DEEPSLEEP_RESET)


def reset_cause():
    return _chip.memory[8]


def freq(hertz=None):
    global _hertz
    if hertz is None:
        return _hertz
    if hertz not in (20_000_000, 40_000_000, 80_000_000, 160_000_000, 240_000_000):
        raise ValueError("frequency must be 20MHz, 40MHz, 80Mhz, 160MHz or 240MHz")
    _hertz = hertz


def __getattr__(name):
    if name in ("Pin", "RTC", "WDT"):
        return getattr(__import__("_machine_" + name.lower()), name)
    return getattr(umachine, name)
