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
    real, clock.time = clock.time, Time(unix, 1970 if clock.EPOCH == 0 else 2000)
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


def test_iso_knows_the_calendar_to_its_end():
    # date -u -d @... +%FT%TZ. Where MicroPython's own ends or errs: 2^31 s after 1970 and after 2000, March 2100 (no leap
    # year), 2^32 s after 1970 and after 2000, and the end of a certificate without an end (RFC 5280, 4.1.2.5).
    for unix, text in (
        (2147483648, "2038-01-19T03:14:08Z"),
        (3094168447, "2068-01-19T03:14:07Z"),
        (3094168448, "2068-01-19T03:14:08Z"),
        (4107542399, "2100-02-28T23:59:59Z"),
        (4107542400, "2100-03-01T00:00:00Z"),
        (4294967296, "2106-02-07T06:28:16Z"),
        (5241652096, "2136-02-07T06:28:16Z"),
        (253402300799, "9999-12-31T23:59:59Z"),
    ):
        assert clock.iso(unix) == text, unix
    assert clock.iso(-10000000000) == "1970-01-01T00:00:00Z"


def test_iso_and_unix_are_each_other_s_inverse():
    for days in range(0, 60000, 7):
        t = days * 86400 + days
        text = clock.iso(t)
        assert clock.unix([int(text[a:b]) for a, b in ((0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19))]) == t, text


def test_a_deadline_beyond_what_ticks_can_say():
    for ms in (600000 * 1000, 10**12):
        assert clock.left(clock.due(ms)) > 400000000


def with_servers(answering, hosts):
    """sync() where only some hosts answer, and who was asked."""
    from aziot import ntp

    def settime(host):
        asked.append(host)
        if host not in answering:
            raise ValueError if host == "liar" else OSError(110)

    asked = []
    real, ntp.settime = ntp.settime, settime
    try:
        return clock.sync(hosts), asked
    finally:
        ntp.settime = real


def test_sync_tries_each_host():
    assert with_servers(("b",), ("a", "liar", "b", "c")) == ("b", ["a", "liar", "b"])


def answer(seconds, first=0x24, stratum=2):
    """A server's answer as RFC 4330 has it: leap indicator, version and mode; stratum; transmit timestamp since 1900."""
    packet = bytearray(48)
    packet[0], packet[1] = first, stratum
    packet[40:44] = (seconds & 0xFFFFFFFF).to_bytes(4, "big")
    return packet


def test_what_is_believed_of_a_time_server():
    from aziot import ntp

    # date -u -d ... +%s, and the same plus 2,208,988,800, which is 1970 in NTP's first era
    for unix, stamp in (
        (1767225600, 3976214400),
        (1795243212, 4004232012),
        (2147483648, 4356472448),
        (2398377599, 312399103),
    ):
        for first, stratum in ((0x24, 1), (0x1C, 15), (0x64, 3)):
            assert ntp.unix(answer(stamp, first, stratum)) == unix


def test_what_is_not_believed_of_a_time_server():
    from aziot import ntp

    good = 4004232012
    bad = [answer(good, first) for first in (0xE4, 0xDC, 0x23, 0x25, 0x20, 0)]  # not synchronized; not a server
    bad += [answer(good, 0x24, stratum) for stratum in (0, 16, 255)]  # kiss of death, not synchronized, reserved
    bad += [bytearray(48), bytearray(b"\xff" * 48)]
    bad += [answer(stamp) for stamp in (0, 3976214399, 312399104, 3913056000)]  # 2036 as all zeros; 2025, 2046, 2024
    for packet in bad:
        not_believed(ntp.unix, packet)
    for size in (None, 0, 12, 47):
        not_believed(ntp.unix, answer(good), size)


def not_believed(function, *args):
    try:
        function(*args)
    except ValueError:
        return
    raise AssertionError(args)


def test_sync_says_who_did_not_answer():
    e = raises("ntp", with_servers, (), ("a", "b"))
    assert e.retriable and "a" in str(e) and "b" in str(e)
