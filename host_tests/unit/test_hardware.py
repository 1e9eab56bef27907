"""hardware.py as far as it is the same everywhere: its log and its patience."""

import hardware
from aziot.errors import AzureError


def waits(code, times, retry_after=0):
    """The seconds that so many failures in a row are waited for."""
    seconds = []
    real = hardware.stream.pause, hardware._failures, hardware.log
    hardware.stream.pause, hardware._failures, hardware.log = seconds.append, 0, lambda step, text="": None
    try:
        for _ in range(times):
            hardware.wait_after(AzureError(code, "x", retry_after=retry_after))
    finally:
        hardware.stream.pause, hardware._failures, hardware.log = real
    return seconds


def test_what_passes_by_itself_is_tried_again_soon_and_then_less_often():
    for _ in range(20):
        for seconds, most in zip(waits("timeout", 8), (2, 4, 8, 16, 32, 60, 60, 60)):
            assert most // 2 <= seconds <= most


def test_what_needs_a_person_is_tried_again_seldom():
    for seconds, most in zip(waits("connack-5", 6), (300, 600, 1200, 2400, 3600, 3600)):
        assert most // 2 <= seconds <= most


def test_a_fleet_spreads():
    assert len({waits("connack-5", 1)[0] for _ in range(40)}) > 10


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
