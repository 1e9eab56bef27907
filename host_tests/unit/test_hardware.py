"""hardware.py as far as it is the same everywhere: its log and its patience."""

import hardware
from aziot.errors import AzureError


class Patience:
    """hardware.wait_after() with a clock that only its waits and the test move; no failure before."""

    def __enter__(self):
        self.now = 1800000000
        self.real = hardware.stream.pause, hardware._failures, hardware.log, hardware._waited, hardware.clock
        hardware.stream.pause, hardware._failures, hardware.log = self.pause, [0, 0], lambda step, text="": None
        hardware.clock = Clock(self)
        hardware._waited = self.now
        return self

    def __exit__(self, *exc):
        hardware.stream.pause, hardware._failures, hardware.log, hardware._waited, hardware.clock = self.real

    def pause(self, seconds):
        self.seconds = seconds
        self.now += seconds

    def after(self, code, step="x", retry_after=0):
        hardware.wait_after(AzureError(code, step, retry_after=retry_after))
        return self.seconds


class Clock:
    def __init__(self, patience):
        self.now = lambda: patience.now


def waits(code, times, retry_after=0, step="x"):
    """The seconds that so many failures in a row are waited for."""
    with Patience() as patience:
        return [patience.after(code, step, retry_after) for _ in range(times)]


def test_what_passes_by_itself_is_tried_again_soon_and_then_less_often():
    for _ in range(20):
        for seconds, most in zip(waits("timeout", 8), (2, 4, 8, 16, 32, 60, 60, 60)):
            assert most // 2 <= seconds <= most


def test_what_needs_a_person_is_tried_again_seldom():
    for seconds, most in zip(waits(401002, 6), (300, 600, 1200, 2400, 3600, 3600)):
        assert most // 2 <= seconds <= most


def test_a_hub_that_refuses_is_tried_again_within_minutes():
    for seconds, most in zip(waits("connack-5", 7, step="hub.connect"), (30, 60, 120, 240, 480, 900, 900)):
        assert most // 2 <= seconds <= most


def test_what_anyone_on_the_path_can_cause_is_worth_a_minute_at_most():
    for code in ("tls-root", "tls-name", "tls-date", "tls-alert", "tls", "tcp", "dns", "closed"):
        assert max(waits(code, 12, step="hub.connect")) <= 60, code


def test_failures_of_the_network_and_refusals_are_counted_apart():
    with Patience() as patience:
        for _ in range(9):
            patience.after("tcp")
        assert patience.after(401002) <= 300
        assert 30 <= patience.after("tcp") <= 60
        assert 300 <= patience.after(401002) <= 600


def test_a_good_session_ends_the_count_however_long_it_lasts():
    for lasted in (601, 86400 * 7, 86400 * 400):  # ticks go round after 12 days
        with Patience() as patience:
            for _ in range(9):
                patience.after("tcp")
            patience.now += lasted
            assert patience.after("tcp") <= 2, lasted
    with Patience() as patience:
        for _ in range(9):
            patience.after("tcp")
            patience.now += 60
        assert patience.after("tcp") >= 30


def test_a_fleet_spreads():
    assert len({waits(401002, 1)[0] for _ in range(40)}) > 10


def test_the_service_s_wish_is_a_floor():
    assert waits(429001, 1, 500) == [500]


def test_nobody_else_writes_lines_into_the_log():
    lines = []
    hardware.print = lines.append  # found before the builtin
    try:
        hardware.log("error", "\x1b[31mno\n[   0.000] hub.ready    fake")
        hardware.log("x", "y" * 1000)
    finally:
        del hardware.print
    assert len(lines) == 2 and "\n" not in lines[0] and "\x1b" not in lines[0]
    assert lines[0][:1] == "[" and lines[0][9:] == "] error        ?[31mno?[   0.000] hub.ready    fake"
    assert len(lines[1]) < 340
