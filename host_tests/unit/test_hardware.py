"""hardware.py as far as it is the same everywhere: its log and its patience."""

import json
import sys

import hardware
from aziot.errors import AzureError
from check import raises


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


class Radio:
    """A station as ESP32's: each answer of isconnected() in turn; log: what was called."""

    def __init__(self, joined="", answers=(), fails=None):
        self.ssid = joined
        self.answers = list(answers)
        self.fails = fails
        self.log = []

    def WLAN(self, _interface):
        if isinstance(self.fails, RuntimeError):
            raise self.fails
        return self

    STA_IF = 0

    def isconnected(self):
        return self.answers.pop(0) if self.answers else False

    def config(self, name):
        return {"ssid": self.ssid}[name]

    def active(self, on):
        self.log.append("active")
        if self.fails:
            raise self.fails

    def disconnect(self):
        self.log.append("disconnect")

    def connect(self, ssid, password):
        self.log.append((ssid, password))

    def status(self):
        return 202

    def ifconfig(self):
        return ("10.0.0.7",)


def joins(radio, timeout=0.25):
    """start_network() with that radio, and a network called "ours"."""
    real = hardware.table, hardware.config, hardware.log, sys.modules.get("network")
    hardware.table = lambda path: json.loads('{"wifi_ssid": "ours", "wifi_password": "pw"}')
    hardware.config, hardware.log = {"network": "wifi"}, lambda step, text="": None
    sys.modules["network"] = radio
    try:
        hardware.start_network(timeout)
    finally:
        hardware.table, hardware.config, hardware.log, network = real
        if network:
            sys.modules["network"] = network
        else:
            del sys.modules["network"]
    return radio.log


def test_the_network_that_is_joined_already_is_left_alone():
    assert joins(Radio("ours", [True])) == []


def test_another_network_is_left_first():
    # True until the radio's own task has taken it down
    assert joins(Radio("theirs", [True, True, True, False, False, True])) == ["active", "disconnect", ("ours", "pw")]


def test_what_is_tried_ends_before_another_password_is_given():
    assert joins(Radio("ours", [False, False, False, True])) == ["active", "disconnect", ("ours", "pw")]


def test_a_wi_fi_status_is_said_in_words():
    e = raises("network", joins, Radio())
    assert e.retriable and e.text == "Wi-Fi status 202: wrong password", e.text


def test_a_radio_that_fails_is_no_fault_of_the_application():
    for failure, code in (
        (RuntimeError("Wifi Unknown Error 0x0101"), "memory"),
        (RuntimeError("Wifi Unknown Error 0x3001"), "network"),
        (OSError("WiFi Out of Memory"), "memory"),
        (OSError("Wifi Internal State Error"), "network"),
    ):
        e = raises(code, joins, Radio(fails=failure))
        assert e.step == "network" and e.retriable and e.text == str(failure)


def test_words_for_what_may_be_wrong_with_wi_fi():
    from aziot.faults import wifi

    # ESP-IDF wifi_err_reason_t, and STAT_CONNECTING of MicroPython's ESP32 port
    assert wifi(201) == "Wi-Fi status 201: no network of this name found"
    assert wifi(15) == wifi(15)[:15] + ": wrong password"
    assert wifi(1001) == "Wi-Fi status 1001: no answer"
    assert wifi(39) == "Wi-Fi status 39: not connected"
    assert wifi("not connected") == "Wi-Fi status not connected: not connected"


def test_the_watchdog_s_start_is_kept():
    class Machine:
        WDT_RESET = 3
        cause = 0
        feed = None

        def reset_cause(self):
            return self.cause

        def WDT(self, timeout):
            assert timeout == 120000
            return self

    lines = []
    real = hardware.config, hardware.log, hardware.stream.idle, sys.modules.get("machine")
    hardware.config, hardware.log = {"watchdog": 120}, lambda step, text="": lines.append(text)
    sys.modules["machine"] = machine = Machine()
    try:
        for cause, watchdog in ((2, False), (3, True)):
            machine.cause = cause
            hardware.start()
            assert hardware.by_watchdog == watchdog
    finally:
        hardware.config, hardware.log, hardware.stream.idle, real_machine = real
        hardware.by_watchdog = False
        if real_machine:
            sys.modules["machine"] = real_machine
        else:
            del sys.modules["machine"]
    assert lines[-1] == "by the watchdog" and lines.count("by the watchdog") == 1
