from aziot import clock
from aziot.runtime import time
from check import raises


class Time:
    """time as it is on another board: its own epoch, and a moment that the test chooses."""

    def __init__(self, unix, epoch_year):
        self.offset = 946684800 if epoch_year == 2000 else 0
        self.unix = unix

    def time(self):
        return self.unix - self.offset

    def gmtime(self, t):
        return time.gmtime(t + self.offset - clock_epoch())


def clock_epoch():
    return 946684800 if time.gmtime(0)[0] == 2000 else 0


def at(unix, function, *args):
    real, clock.time = clock.time, Time(unix, 1970 if clock._EPOCH == 0 else 2000)
    try:
        return function(*args)
    finally:
        clock.time = real


def test_now_is_unix_time():
    assert abs(clock.now() - int(time.time()) - clock_epoch()) <= 1


def test_a_clock_before_the_first_release_is_not_set():
    for unix in (0, 946684800, 1767225599):
        assert not at(unix, clock.is_set)
    assert at(1767225600, clock.is_set)


def test_unix_agrees_with_the_calendar():
    # date -u -d ... +%s
    for date, unix in (
        ((1970, 1, 1, 0, 0, 0), 0),
        ((1999, 12, 31, 23, 59, 59), 946684799),
        ((2000, 2, 29, 12, 0, 0), 951825600),
        ((2026, 11, 21, 6, 40, 12), 1795243212),
        ((2038, 1, 19, 3, 14, 8), 2147483648),
        ((2100, 3, 1, 0, 0, 0), 4107542400),
    ):
        assert clock.unix(date) == unix, date


def test_iso():
    assert clock.iso(1795243212) == "2026-11-21T06:40:12Z"
    assert clock.iso(951825600) == "2000-02-29T12:00:00Z"


def test_a_date_past_the_calendar_is_its_last():
    assert clock.iso(253402300799) in ("2106-02-07T06:28:15Z", "2136-02-07T06:28:15Z")  # of 1970, of 2000
    assert clock.iso(-10000000000) in ("1970-01-01T00:00:00Z", "2000-01-01T00:00:00Z")


def test_a_deadline_beyond_what_ticks_can_say():
    for ms in (600000 * 1000, 10**12):
        assert clock.left(clock.due(ms)) > 400000000


class Ntp:
    """ntptime whose hosts answer or not."""

    def __init__(self, answering):
        self.answering = answering
        self.asked = []

    def settime(self):
        self.asked.append(self.host)
        if self.host not in self.answering:
            raise OSError(110)


def with_ntp(ntp, hosts):
    import sys

    before = sys.modules.get("ntptime")
    sys.modules["ntptime"] = ntp
    try:
        return clock.sync(hosts)
    finally:
        if before:
            sys.modules["ntptime"] = before
        else:
            del sys.modules["ntptime"]


def test_sync_tries_each_host():
    ntp = Ntp(("b",))
    assert with_ntp(ntp, ("a", "b", "c")) == "b"
    assert ntp.asked == ["a", "b"]


def test_sync_says_who_did_not_answer():
    e = raises("ntp", with_ntp, Ntp(()), ("a", "b"))
    assert e.retriable and "a" in str(e) and "b" in str(e)
