# As much of MicroPython's machine as the firmware uses: LED, clock, watchdog, reset.
import time

import board
import digitalio
import microcontroller
import rtc
import watchdog

WDT_RESET = 3
reset = microcontroller.reset
_pins = {}  # a pin can be taken once


def reset_cause():
    """WDT_RESET after the watchdog's, else 0."""
    return WDT_RESET if microcontroller.cpu.reset_reason == microcontroller.ResetReason.WATCHDOG else 0


class Pin:
    OUT = 1

    def __init__(self, name, _mode, value):
        """name: of the pin in CircuitPython's module board, "LED"."""
        if name not in _pins:
            _pins[name] = digitalio.DigitalInOut(getattr(board, name))
        _pins[name].switch_to_output(bool(value))


class RTC:
    def datetime(self, fields):
        """fields: (year, month, day, weekday, hours, minutes, seconds, 0), with Monday as 1."""
        rtc.RTC().datetime = time.struct_time(fields[:3] + fields[4:7] + (fields[3] - 1, -1, -1))


class WDT:
    def __init__(self, timeout):
        """timeout: milliseconds."""
        self.feed = microcontroller.watchdog.feed
        microcontroller.watchdog.timeout = timeout / 1000
        microcontroller.watchdog.mode = watchdog.WatchDogMode.RESET
