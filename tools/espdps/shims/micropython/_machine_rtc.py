# machine.RTC of the stand-ins: the chip's clock, which outlives every reset but not a loss of power.
# Not to be imported by name: machine.py brings it when asked for.
import _chip
from _calendar import gmtime, seconds_to


class RTC:
    def datetime(self, fields=None):
        # (year, month, day, weekday, hours, minutes, seconds, microseconds); weekday is ignored when setting.
        if fields is None:
            now = _chip.now()
            tm = gmtime(now)
            return tm[:3] + (tm[6],) + tm[3:6] + (int(now % 1 * 1_000_000),)
        year, month, day, _, hour, minute, second, us = fields
        _chip.set_now(seconds_to(year, month, day, hour, minute, second) + us / 1_000_000)

    def init(self, fields):
        self.datetime(fields)
