# MicroPython's ntptime on adafruit_ntp and rtc.
import rtc
from adafruit_ntp import NTP
from aziot.runtime import pool

host = "pool.ntp.org"
timeout = 1  # seconds, twice


def settime():
    """OSError if no answer comes; ValueError if one comes that is none."""
    try:
        rtc.RTC().datetime = NTP(pool, server=host, socket_timeout=timeout).datetime
    except ArithmeticError as e:
        raise ValueError(str(e))
