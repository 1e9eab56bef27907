"""Flashing, with unmodified mpremote, onto real MicroPython: what is on the board then, what is said when it fails.
The firmware here is a stand-in of a few lines; the real one is flashed by the demo."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bench import KEY, NO_TIME, PASSWORD, PLAN, READY, REFUSED, STARTS, Bench, working

from espdps.board import flash, repl
from espdps.board.console import Event
from espdps.board.monitor import monitor, open_port
from espdps.devices import folders
from espdps.errors import ToolError
from espdps.paths import ROOT


@pytest.fixture
def bench(tmp_path: Path, micropython32: Path) -> Iterator[Bench]:
    with working(tmp_path, micropython32) as bench:
        yield bench


def test_a_blank_board_gets_everything_with_secrets_last(bench: Bench) -> None:
    done = bench.flash()
    assert done.connected and done.fault is None and not done.same
    assert done.copied == [
        "/lib/aziot/__init__.mpy", "/lib/aziot/one.mpy", "/board.json", "/app.py", "/hardware.py", "/main.py",
        "/roots.pem", "/device.json", "/device.csr", "/device.key", "/secrets.json",
    ]  # fmt: skip
    assert [event.step for event in bench.events if event.step] == ["start", "hub.ready"]
    for name in ("roots.pem", "device.json", "device.csr", "device.key", "secrets.json"):
        expected = hashlib.sha256((bench.device.folder / name).read_bytes()).hexdigest()
        assert expected in bench.mpremote("fs", "sha256sum", f":/{name}")
    profile = {"board": "ESP32_GENERIC", "network": "wifi", "led": 2, "led_on": 1, "watchdog": 120}
    assert json.loads(bench.mpremote("fs", "cat", ":/board.json")) == profile
    assert "manifest.json" not in bench.mpremote("fs", "ls", ":/")


def test_only_what_differs_is_copied(bench: Bench) -> None:
    first = bench.flash()
    second = bench.flash()
    assert second.connected and not second.copied and second.same == first.copied
    (bench.firmware / "aziot" / "one.py").write_text("NAME = 'two'\n")
    third = bench.flash()
    assert third.copied == ["/lib/aziot/one.mpy"]
    assert "two" in bench.events[-2].text


def test_modules_are_compiled_without_the_path_of_this_machine(bench: Bench) -> None:
    (compiled,) = [
        content for name, content in flash.compile_library(bench.firmware, ("-O3",)).items() if "one" in name
    ]
    assert compiled[0:2] == b"M\x06" and b"one" in compiled
    assert str(bench.firmware).encode() not in compiled


def test_old_modules_go_and_the_users_files_stay(bench: Bench) -> None:
    bench.flash()
    bench.mpremote(
        "exec", "for n in ('/lib/aziot/one.py', '/lib/aziot/gone.mpy', '/lib/own.py', '/data'): open(n, 'w').close()"
    )
    done = bench.flash()
    assert done.connected and sorted(done.removed) == ["/lib/aziot/gone.mpy", "/lib/aziot/one.py"]
    assert "own.py" in bench.mpremote("fs", "ls", ":/lib") and "data" in bench.mpremote("fs", "ls", ":/")


def test_the_firmware_finds_its_slots_made_and_never_made_again(bench: Bench) -> None:
    bench.flash()
    assert ("slots", "/identity.a and /identity.b, 12,000 bytes each, for what will be issued") in bench.said
    blank = hashlib.sha256(b"\n" * flash.SLOT_BYTES).hexdigest()
    for name in flash.ISSUED:
        assert blank in bench.mpremote("fs", "sha256sum", f":/{name}")
    bench.mpremote("exec", "with open('/identity.b', 'r+b') as f: f.write(b'P')\nimport os; os.remove('/identity.a')")
    kept = hashlib.sha256(b"P" + b"\n" * (flash.SLOT_BYTES - 1)).hexdigest()
    bench.flash()
    assert [text.split(",")[0] for step, text in bench.said if step == "slots"] == ["/identity.a"]
    assert blank in bench.mpremote("fs", "sha256sum", ":/identity.a")
    assert kept in bench.mpremote("fs", "sha256sum", ":/identity.b")
    bench.flash()
    assert "slots" not in [step for step, _ in bench.said]


def test_an_issued_identity_stays_with_its_owner_only(bench: Bench, tmp_path: Path) -> None:
    bench.flash()
    store = "for n in ('/identity.a', '/identity.b'): open(n, 'w').close()"
    bench.mpremote("exec", store)
    (bench.firmware / "main.py").write_text(STARTS + READY + "# newer\n")
    assert bench.flash().removed == []
    assert "identity.a" in bench.mpremote("fs", "ls", ":/")
    bench.device = folders.load(folders.create(replace(PLAN, registration_id="dev-2"), tmp_path / "devices"))
    with pytest.raises(ToolError, match="already carries dev-1"):
        bench.flash()
    assert bench.flash(rebind=True).removed == ["/identity.a", "/identity.b"]
    bench.mpremote("exec", store)
    bench.device = folders.load(
        folders.create(replace(PLAN, registration_id="dev-2"), tmp_path / "devices", force=True)
    )
    assert bench.flash().removed == ["/identity.a", "/identity.b"], "the same name with a new private key"


def test_without_private_keys_the_owner_is_known_by_name(bench: Bench, tmp_path: Path) -> None:
    for name, removed in (("dev-3", []), ("dev-4", ["/identity.a"])):
        plan = replace(PLAN, registration_id=name, key_kind=None)
        bench.device = folders.load(folders.create(plan, tmp_path / "devices"))
        assert bench.flash(rebind=True).removed == removed
        bench.mpremote("exec", "open('/identity.a', 'w').close()")


def test_a_device_without_a_key_takes_the_old_one_away(bench: Bench, tmp_path: Path) -> None:
    bench.flash()
    bench.device = folders.load(folders.create(replace(PLAN, key_kind=None), tmp_path / "devices", force=True))
    assert sorted(bench.flash().removed) == ["/device.csr", "/device.key"]
    assert "device.key" not in bench.mpremote("fs", "ls", ":/")


def test_a_program_that_runs_is_stopped(bench: Bench) -> None:
    bench.main("import time\nwhile True:\n    print('busy')\n    time.sleep(0.01)\n")
    bench.flash(follow=None)
    bench.main(STARTS + READY)
    assert bench.flash().connected


@pytest.mark.parametrize(
    ("main", "connected", "code"),
    [
        (NO_TIME, True, None),  # what may pass by itself is followed until it has
        (NO_TIME.replace("wait         2", "wait         200"), False, "ntp"),
        (REFUSED, False, "401000"),
        ("print('[   0.100] error        hub.connect connack-5')\n" + READY, True, None),
    ],
)
def test_what_the_board_says_is_the_result(bench: Bench, main: str, connected: bool, code: str | None) -> None:
    # What comes after the service's no, or after a long wait, must not be waited for.
    bench.main(main + "import time\ntime.sleep(3)\n" + READY + "time.sleep(60)\n")
    done = bench.flash()
    assert done.connected is connected
    assert (done.fault.code if done.fault else None) == code


def test_a_program_that_ends_or_stays_silent_is_said_so(bench: Bench) -> None:
    bench.main("raise ValueError('oh')\n")
    with pytest.raises(ToolError, match="ended before it was connected"):
        bench.flash()
    assert "ValueError: oh" in [event.text for event in bench.events]
    bench.main("import time\ntime.sleep(60)\n")
    with pytest.raises(ToolError, match="not connected within 1 s"):
        bench.flash(follow=1)


def test_firmware_that_does_not_compile_is_named(bench: Bench) -> None:
    (bench.firmware / "aziot" / "one.py").write_text("x = = 1\n")
    with pytest.raises(ToolError, match=r"one.py does not compile: SyntaxError") as caught:
        bench.flash()
    assert "line 1" in caught.value.hint
    with pytest.raises(ToolError, match="holds no firmware"):
        flash.compile_library(bench.firmware / "aziot", ())


def test_a_copy_that_arrives_damaged_is_noticed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = repl.Board.fs_writefile

    def damaged(self: repl.Board, name: str, data: bytes, **settings: object) -> None:
        real(self, name, data[:-1] + b"?" if name == "/roots.pem" else data)

    monkeypatch.setattr(repl.Board, "fs_writefile", damaged)
    with pytest.raises(ToolError, match="/roots.pem arrived damaged"):
        bench.flash()


def command(bench: Bench, *words: str) -> list[str]:
    return [sys.executable, "-m", "espdps.cli", *words, "--port", bench.board.port]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "tools"), "COLUMNS": "120"}


@pytest.mark.parametrize(("main", "code"), [(READY, 0), (NO_TIME, 1), (REFUSED, 3)])
def test_the_commands_exit_code_and_what_it_says(bench: Bench, main: str, code: int) -> None:
    bench.main(main)
    words = command(bench, "flash", str(bench.device.folder), "--firmware", str(bench.firmware))
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("connected\n" in done.stdout) is (code == 0)
    if code:
        assert "not connected" in done.stderr and "What to do:" in done.stdout
    key = (bench.device.folder / "device.key").read_bytes()
    for secret in (KEY, PASSWORD, base64.b64encode(key).decode(), key.hex(), repr(key)[2:-1]):
        assert secret not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_flash_for_a_script(bench: Bench) -> None:
    words = command(bench, "flash", str(bench.device.folder), "--firmware", str(bench.firmware), "--json")
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=True)
    *events, result = [json.loads(line) for line in done.stdout.splitlines()]
    assert result["connected"] and "/secrets.json" in result["copied"]
    assert [event["step"] for event in events if event["step"]] == ["start", "hub.ready"]


def test_monitor_explains_and_leaves_the_program_running(bench: Bench) -> None:
    bench.main("print('[   0.100] error        clock ntp no answer')\nimport time\nwhile True:\n    time.sleep(0.1)\n")
    bench.flash(follow=None)
    words = command(bench, "monitor", "--reset")
    with subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout
        killer = threading.Timer(30, running.kill)  # a deadline for the loop below
        killer.start()
        try:
            seen = ""
            while "What to do:" not in seen:
                line = running.stdout.readline()
                assert line, f"ended after {seen!r}"
                seen += line
            running.send_signal(signal.SIGINT)
            assert running.wait(60) == 0
        finally:
            killer.cancel()
            running.kill()
        assert "clock ntp no answer" in seen and "No time server answered." in seen
        assert running.stderr and "listening on" in running.stderr.read()
    events: list[Event] = []
    monitor(bench.board.port, events.append, seconds=0.5)
    assert events == [], "the program still runs: no prompt, no traceback"


def test_monitor_for_a_script_says_the_time(bench: Bench) -> None:
    bench.flash(follow=None)
    begun = time.time()
    words = command(bench, "monitor", "--reset", "--seconds", "2", "--json", "--timestamps")
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=True)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert "hub.ready" in [event["step"] for event in events]
    times = [event["time"] for event in events]
    assert times == sorted(times) and begun <= times[0] and times[-1] <= time.time()


def test_monitor_says_when_no_program_runs(bench: Bench) -> None:
    bench.main("print('over')\n")
    bench.flash(follow=None)
    events: list[Event] = []

    def tell(event: Event) -> None:
        events.append(event)
        if "no program is running" in event.text:
            raise KeyboardInterrupt  # what ends a monitor

    monitor(bench.board.port, tell, reset=True, seconds=20)
    assert "over" in [event.text for event in events]
    assert events[-1].text == "(at its prompt: no program is running)"


def test_nothing_is_left_running(bench: Bench) -> None:
    before = threading.active_count()
    bench.flash()
    begun = time.monotonic()
    while threading.active_count() > before and time.monotonic() < begun + 5:
        time.sleep(0.05)
    assert threading.active_count() == before
    with contextlib.closing(open_port(bench.board.port)):
        pass  # the port is free again
