"""CircuitPython's rtc."""

import calendar
import time

import cp_machine


class RTC:
    @property
    def datetime(self) -> time.struct_time:
        return time.gmtime(cp_machine.now())

    @datetime.setter
    def datetime(self, moment: time.struct_time) -> None:
        cp_machine.set_at = calendar.timegm(moment) - cp_machine.uptime()
