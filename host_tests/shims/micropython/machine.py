# Stand-in for `machine`: the parts of ESP32's module that a network device uses, beside those of the unix build.
# Pins move nothing, resets and the watchdog are real: they end the process (see _chip.py).
import _chip
from micropython import const
from umachine import *
from umachine import PinBase

PWRON_RESET = 1
HARD_RESET = 2
WDT_RESET = 3
DEEPSLEEP_RESET = 4
SOFT_RESET = 5

_EXIT_HARD_RESET = const(202)

_hertz = 160_000_000
_levels = {}


def unique_id():
    from binascii import unhexlify

    from uos import getenv

    return unhexlify(getenv("BOARD_ID") or "020000000001")


def reset():
    _chip.leave(_EXIT_HARD_RESET)


def reset_cause():
    return _chip.memory[8]


def freq(hertz=None):
    global _hertz
    if hertz is None:
        return _hertz
    if hertz not in (20_000_000, 40_000_000, 80_000_000, 160_000_000, 240_000_000):
        raise ValueError("frequency must be 20MHz, 40MHz, 80Mhz, 160MHz or 240MHz")
    _hertz = hertz


class Pin(PinBase):
    IN = 1
    OUT = 3
    OPEN_DRAIN = 7
    PULL_DOWN = 1
    PULL_UP = 2
    IRQ_RISING = 1
    IRQ_FALLING = 2

    def __init__(self, id, mode=-1, pull=-1, *, value=None):
        self._id = id
        self.init(mode, pull, value=value)

    def init(self, mode=-1, pull=-1, *, value=None):
        if value is not None:
            self.value(value)

    def value(self, level=None):
        # Two objects for the same pin see the same level, as they do in silicon.
        if level is None:
            return _levels.get(self._id, 0)
        _levels[self._id] = 1 if level else 0

    __call__ = value

    def on(self):
        self.value(1)

    def off(self):
        self.value(0)

    def __repr__(self):
        return f"Pin({self._id})"


class RTC:
    def datetime(self, fields=None):
        # (year, month, day, weekday, hours, minutes, seconds, microseconds); weekday is ignored when setting.
        if fields is None:
            now = _chip.now()
            tm = _chip.gmtime(now)
            return tm[:3] + (tm[6],) + tm[3:6] + (int(now % 1 * 1_000_000),)
        year, month, day, _, hour, minute, second, us = fields
        _chip.set_now(_chip.seconds_to(year, month, day, hour, minute, second) + us / 1_000_000)

    def init(self, fields):
        self.datetime(fields)


class WDT:
    # Once started it cannot be stopped, as on the chip: a program that does not feed it is reset.
    def __init__(self, id=0, timeout=5000):
        if id != 0:
            raise ValueError
        if timeout < 1:
            raise ValueError("WDT timeout too short")
        self._timeout = timeout
        self.feed()

    def feed(self):
        _chip.starve_in(self._timeout)


class Timer:
    ONE_SHOT = 0
    PERIODIC = 1

    def __init__(self, id=-1, **how):
        self._round = 0
        if how:
            self.init(**how)

    def init(self, *, mode=PERIODIC, freq=-1, period=-1, callback=None):
        import _thread

        self._round += 1
        wait = period if freq <= 0 else int(1000 / freq)
        _thread.start_new_thread(self._count, (self._round, wait, mode == self.PERIODIC, callback))

    def deinit(self):
        self._round += 1

    def _count(self, mine, wait, again, callback):
        # A thread only counts; the callback runs between two bytecodes of the program, as on the chip.
        from micropython import schedule
        from utime import sleep_ms

        while True:
            sleep_ms(wait)
            if self._round != mine:
                return
            if callback:
                schedule(callback, self)
            if not again:
                return
