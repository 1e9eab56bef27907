"""What goes wrong with a board on a bench: each time one line that names it, what to do, and nothing lost or half done."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bench import PLAN, STARTS, Bench, working

from espdps.board import flash, repl
from espdps.board.monitor import Listener, open_port
from espdps.board.repl import About
from espdps.devices import bindings, folders
from espdps.errors import ToolError


@pytest.fixture
def bench(tmp_path: Path, micropython32: Path) -> Iterator[Bench]:
    with working(tmp_path, micropython32) as bench:
        yield bench


def test_what_a_board_says_it_is(bench: Bench) -> None:
    with repl.opened(bench.board.port) as board:
        blank = board.about()
    chip_id = (bench.board.directory / "chip.id").read_text().strip()
    assert (blank.runtime, blank.chip, blank.chip_id, blank.block) == ("micropython", "ESP32", chip_id, 4096)
    assert blank.version >= (1, 25) and 55 < blank.free < 64 and blank.carries == ""
    bench.flash(follow=None)
    with repl.opened(bench.board.port) as board:
        assert board.about().carries == "dev-1" and board.about().free < blank.free - 10


RIGHT = About("micropython", (1, 25), 6, "esp32", "ESP32", "02" * 6, 4096, 100, "")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"runtime": "circuitpython"}, "runs circuitpython, not micropython"),
        ({"version": (1, 23)}, "MicroPython 1.23, which is too old"),
        ({"mpy": 7}, "reads .mpy version 7"),
        ({"chip": "ESP32-C3"}, "has an ESP32-C3, and dev-1 was made for ESP32_GENERIC"),
        ({"free": 5}, r"filesystem is full: \d\d KB to copy, 20 KB free"),
        ({"chip_id": ""}, "unique id"),
    ],
)
def test_a_board_that_cannot_run_it_is_left_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], says: str
) -> None:
    monkeypatch.setattr(repl.Board, "about", lambda self: About(**{**vars(RIGHT), **change}))
    with pytest.raises(ToolError, match=says):
        bench.flash()
    monkeypatch.undo()
    assert "lib" not in bench.mpremote("fs", "ls", ":/")
    assert bindings.read(bench.device.folder.parent) == {}


def test_a_file_that_does_not_fit_is_said_before_anything_is_copied(bench: Bench) -> None:
    (bench.firmware / "app.py").write_text("#" * 300_000)
    with pytest.raises(ToolError, match=r"filesystem is full: 3\d\d KB to copy, 2\d\d KB free") as caught:
        bench.flash()
    assert "mpremote fs rm" in caught.value.hint
    assert "lib" not in bench.mpremote("fs", "ls", ":/")


def test_a_filesystem_that_fills_up_meanwhile(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash._Todo, "check_room", lambda self, about: None)
    (bench.firmware / "app.py").write_text("#" * 300_000)
    with pytest.raises(ToolError, match="filesystem is full; /app.py did not fit"):
        bench.flash()
    (bench.firmware / "app.py").write_text("#")
    bench.board.power_cycle()  # which frees what the half-written file had
    bench.mpremote(
        "exec",
        "import os\nos.remove('/identity.a')\nos.remove('/app.py')\nn = 0\ntry:\n while True:\n  n += 1\n  with open('/%d' % n, 'wb') as f: f.write(bytes(4000))\nexcept OSError: pass",
    )
    with pytest.raises(ToolError, match="filesystem is full; /identity.a did not fit"):
        bench.flash()
    assert "secrets.json" not in bench.mpremote("fs", "ls", ":/")


def test_a_filesystem_that_takes_nothing(bench: Bench) -> None:
    boot = (
        "import builtins\nreal = open\ndef none(name, mode='r'):\n"
        " if mode != 'rb': raise OSError(30)\n return real(name, mode)\nbuiltins.open = none\n"
    )
    bench.mpremote("exec", f"with open('boot.py', 'w') as f: f.write({boot!r})")
    with pytest.raises(ToolError, match="^the board's filesystem is read-only$") as caught:
        bench.flash()
    assert "boot.py" in caught.value.hint


def test_a_refused_board_runs_on(bench: Bench, tmp_path: Path) -> None:
    bench.flash(follow=None)
    bench.device = folders.load(folders.create(replace(PLAN, registration_id="dev-2"), tmp_path / "devices"))
    with pytest.raises(ToolError, match="already carries dev-1"):
        bench.flash()
    with contextlib.closing(open_port(bench.board.port)) as port:
        assert "hub.ready" in [event.step for event in Listener(port).events(30) if event]
    assert "dev-1" in bench.mpremote("fs", "cat", ":/device.json")


def test_a_port_in_use_is_said_so(bench: Bench) -> None:
    with contextlib.closing(open_port(bench.board.port)), pytest.raises(ToolError, match="in use by another"):
        bench.flash()


def test_two_at_once_at_one_board(bench: Bench) -> None:
    bench.main("import time\ntime.sleep(60)\n")
    begun, errors = threading.Event(), []

    def second() -> None:
        begun.wait(30)
        try:
            flash.flash(bench.device, bench.board.port, firmware=bench.firmware, follow=None)
        except ToolError as error:
            errors.append(error.message)

    other = threading.Thread(target=second)
    other.start()

    def tell(step: str, text: str) -> None:
        if step == "board":
            begun.set()
            other.join(30)

    flash.flash(bench.device, bench.board.port, firmware=bench.firmware, tell=tell, follow=None)
    assert errors == [f"{bench.board.port} is in use by another program"]


@pytest.mark.parametrize(
    ("name", "program", "says"),
    [
        ("boot.py", "import machine\nmachine.reset()\n", "restarts over and over"),
        ("main.py", "import machine\ntry:\n print(1)\nfinally:\n machine.reset()\n", "restarts over and over"),
        ("main.py", "while True:\n try:\n  print('no')\n  __import__('time').sleep(0.2)\n except KeyboardInterrupt:\n  pass\n", "though something answers"),
    ],
)  # fmt: skip
def test_a_program_that_cannot_be_stopped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str, program: str, says: str
) -> None:
    monkeypatch.setattr(repl, "PROMPT_SECONDS", 2.0)
    bench.mpremote("exec", f"with open({name!r}, 'w') as f: f.write({program!r})")
    bench.board.power_cycle()
    with pytest.raises(ToolError, match=says) as caught:
        bench.flash()
    assert caught.value.hint


def test_a_program_that_takes_ctrl_c_for_a_while_is_stopped(bench: Bench) -> None:
    bench.mpremote(
        "exec",
        "with open('main.py', 'w') as f: f.write('''import time\nn = 0\nwhile n < 5:\n try:\n  time.sleep(60)\n"
        " except KeyboardInterrupt:\n  n += 1\n''')",
    )
    bench.board.power_cycle()
    assert bench.flash().connected


@contextlib.contextmanager
def speaking(words: bytes) -> Iterator[str]:
    """A port at which something says these words to whatever it is sent."""
    outer, inner = os.openpty()
    over = threading.Event()

    def answer() -> None:
        with contextlib.suppress(OSError):
            while os.read(outer, 100) and not over.is_set():
                os.write(outer, words)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield os.ttyname(inner)
    finally:
        over.set()
        os.write(inner, b"\n")
        thread.join(10)
        os.close(outer)
        os.close(inner)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (b"", "nothing answers"),
        (b"$GPGGA,123519,4807.038,N\r\n", "though something answers"),
        (b"rst:0x10 (RTCWDT_RTC_RESET)\r\ninvalid header: 0xffffffff\r\n", "flash holds no firmware"),
        (b"ESP-ROM:esp32c3\r\nwaiting for download\r\n", "in its boot loader"),
        (b"Adafruit CircuitPython 9.2.1 on 2024-11-20\r\n>>> ", "runs CircuitPython"),
    ],
)
def test_what_is_no_micropython(bench: Bench, monkeypatch: pytest.MonkeyPatch, words: bytes, says: str) -> None:
    monkeypatch.setattr(repl, "PROMPT_SECONDS", 0.5)
    with speaking(words) as port, pytest.raises(ToolError, match=says) as caught:
        flash.flash(bench.device, port, firmware=bench.firmware)
    assert caught.value.hint
    with pytest.raises(ToolError, match="cannot be used"):
        flash.flash(bench.device, "/dev/null", firmware=bench.firmware)


def test_a_port_that_vanishes(bench: Bench) -> None:
    def unplug(step: str, text: str) -> None:
        if text.startswith("/app.py"):
            bench.board.stop()

    with pytest.raises(ToolError, match="went away|stopped answering"):
        flash.flash(bench.device, bench.board.port, firmware=bench.firmware, tell=unplug)


def test_a_plug_pulled_at_any_moment_and_flashed_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # With silence instead of a vanished port: an adapter has a power supply of its own.
    monkeypatch.setattr(repl, "REPL_SECONDS", 1)
    read_until = repl.Board.read_until
    monkeypatch.setattr(repl.Board, "read_until", lambda self, n, end, timeout=10, **more: read_until(self, n, end, timeout=min(timeout, 1), **more))  # fmt: skip
    (bench.firmware / "app.py").write_text("# " + "x" * 4000)
    seed = random.randrange(1 << 30)
    chosen = random.Random(seed)
    for _ in range(5):
        at = chosen.randrange(9000)
        passed = 0

        def progress(done: int, total: int, at: int = at) -> None:
            nonlocal passed
            if done >= min(at, total - 1) and not passed:
                passed = 1
                bench.board.kill()

        with contextlib.suppress(ToolError):
            flash.flash(bench.device, bench.board.port, firmware=bench.firmware, progress=progress, follow=None)
        bench.board.power_cycle()
    done = bench.flash()
    assert done.connected, f"seed {seed}"
    again = flash.flash(bench.device, bench.board.port, firmware=bench.firmware, verify=True)
    assert not again.differs and "/secrets.json" in again.same
    (binding,) = bindings.read(bench.device.folder.parent).values()
    assert binding.registration_id == "dev-1" and binding.flashed_at


def test_a_broken_off_flash_goes_on_where_it_ended(bench: Bench) -> None:
    def unplug(step: str, text: str) -> None:
        if text.startswith("/roots.pem"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flash.flash(bench.device, bench.board.port, firmware=bench.firmware, tell=unplug)
    (binding,) = bindings.read(bench.device.folder.parent).values()
    assert binding.flashed_at == 0, "bound before the first secret, not complete"
    done = bench.flash()
    assert done.copied == ["/device.json", "/device.csr", "/device.key", "/secrets.json"] and done.connected


def test_verify_copies_nothing_and_says_what_differs(bench: Bench) -> None:
    verify = {"firmware": bench.firmware, "verify": True}
    blank = flash.flash(bench.device, bench.board.port, **verify)
    assert {"/identity.a", "/secrets.json", "/main.py", "/lib/aziot/one.mpy"} <= set(blank.differs) and not blank.copied
    assert "lib" not in bench.mpremote("fs", "ls", ":/") and bindings.read(bench.device.folder.parent) == {}
    bench.flash()
    assert flash.flash(bench.device, bench.board.port, **verify).differs == []
    bench.mpremote("exec", "with open('/roots.pem', 'a') as f: f.write('x')\nopen('/lib/aziot/old.mpy', 'w').close()")
    assert flash.flash(bench.device, bench.board.port, **verify).differs == ["/lib/aziot/old.mpy", "/roots.pem"]
    words = [sys.executable, "-m", "espdps.cli", "flash", str(bench.device.folder), "--port", bench.board.port, "--verify", "--firmware", str(bench.firmware)]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "differs: /lib/aziot/old.mpy, /roots.pem" in done.stderr


def test_app_only_copies_the_application_and_nothing_else(bench: Bench) -> None:
    flash.flash(bench.device, bench.board.port, firmware=bench.firmware, app_only=True, follow=None)
    assert bindings.read(bench.device.folder.parent) == {}, "bound by its identity only"
    bench.flash()
    (bench.firmware / "app.py").write_text("import sensor\n")
    (bench.firmware / "sensor.py").write_text("# new\n")
    bench.main(STARTS + "# newer\n")
    bench.mpremote("exec", "import os\nos.remove('/secrets.json')")
    done = flash.flash(bench.device, bench.board.port, firmware=bench.firmware, app_only=True)
    assert done.copied == ["/app.py", "/sensor.py"] and done.connected
    assert "secrets.json" not in bench.mpremote("fs", "ls", ":/")
    assert bench.flash(follow=None).copied == ["/main.py", "/secrets.json"], "the application is part of the whole"
