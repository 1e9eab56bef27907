"""Many boards at once: which gets which device, what becomes of one that breaks, and that a second run does the rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import secrecy
from bench import PLAN, stand_in

from espdps.board import flash
from espdps.board.flash_all import DIFFERS, FAILED, FLASHED, LEFT, SAME, Outcome, Report, Watch, flash_all
from espdps.devices import bindings, folders
from espdps.errors import ToolError
from espdps.paths import ROOT
from espdps.virtual_board import VirtualBoard

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "tools"), "COLUMNS": "80"}


class Shop:
    """Boards, device folders and a plan, in a folder; the firmware is the stand-in."""

    def __init__(self, folder: Path, micropython: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.devices = folder / "devices"
        self.plan = folder / "plan.csv"
        self.firmware = stand_in(folder / "firmware")
        self._micropython = micropython
        self._stack = stack

    def board(self, name: str, profile: str = "ESP32_GENERIC", **environment: str) -> VirtualBoard:
        board = VirtualBoard(
            self.folder / name, self._micropython, profile_name=profile, flash_size=256 * 1024, environment=environment
        )
        return self._stack.enter_context(board)

    def make(self, *names: str, board: str = "ESP32_GENERIC") -> None:
        for name in names:
            folders.create(replace(PLAN, registration_id=name, board=board, key_kind="ec-p256"), self.devices)
        secrecy.note(self.devices)

    def write(self, *rows: str, columns: str = "registration_id") -> None:
        self.plan.write_text("\n".join([columns, *rows]) + "\n")

    def run(self, *ports: str, watch: Watch = Watch(), **options: object) -> Report:  # noqa: B008
        chosen = flash.Options(**{"follow": None, **options})  # type: ignore[arg-type]
        return flash_all(self.plan, ports, self.devices, firmware=self.firmware, options=chosen, watch=watch)


@pytest.fixture
def shop(tmp_path: Path, micropython32: Path) -> Iterator[Shop]:
    with ExitStack() as stack:
        yield Shop(tmp_path, micropython32, stack)


def got(report: Report) -> list[tuple[str, str]]:
    return [(outcome.registration_id, outcome.state) for outcome in report.outcomes]


@contextmanager
def process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A virtual board that is a process of its own, at `folder`/port."""
    words = [sys.executable, "-m", "espdps.cli", "board", "--dir", str(folder)]
    with subprocess.Popen(
        words, env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True
    ) as board:
        assert board.stdout and board.stdout.readline().startswith("/dev/")
        try:
            yield board
        finally:
            board.kill()


def test_twenty_at_once_one_of_them_killed_and_a_second_run_completes_just_that(shop: Shop) -> None:
    names = [f"dev-{number:02}" for number in range(20)]
    shop.make(*names)
    shop.write(*names)
    ports = [shop.board(f"board-{number}").port for number in range(19)]
    broken = shop.folder / "broken"
    ports.insert(7, str(broken / "port"))
    with process(broken) as board:

        def step(outcome: Outcome, text: str) -> None:
            if outcome.port == ports[7] and text == "/roots.pem":
                board.send_signal(signal.SIGKILL)
                board.wait(20)

        first = shop.run(*ports, watch=Watch(step=step))
    expected = [(name, FAILED if name == "dev-07" else FLASHED) for name in names]
    assert got(first) == expected and not first.ok
    assert "went away" in first.outcomes[7].note and first.outcomes[7].hint
    bound = bindings.read(shop.devices)
    assert [name for name in names if not bound[name].flashed_at] == ["dev-07"]
    with process(broken):
        second = shop.run(*reversed(ports))  # the order of ports is another one after each plugging in
    assert got(second)[::-1] == [(name, FLASHED if name == "dev-07" else SAME) for name in names] and second.ok
    done = second.outcomes[12].flashed
    assert done and done.copied[0] == "/device.json" and "/roots.pem" in done.same, "it goes on where it ended"
    assert all(binding.flashed_at for binding in bindings.read(shop.devices).values())
    assert {name: binding.chip_id for name, binding in bindings.read(shop.devices).items()} == {
        outcome.registration_id: outcome.chip_id for outcome in first.outcomes
    }


def test_each_board_gets_what_fits_its_chip_in_the_plans_order(shop: Shop) -> None:
    shop.make("a", "b", "c", "d")
    shop.make("c3", board="ESP32_GENERIC_C3")
    other, one, two, three = shop.board("0", "ESP32_GENERIC_C3"), shop.board("1"), shop.board("2"), shop.board("3")
    chip = (three.directory / "chip.id").read_text().strip()
    spelled = ":".join(chip[n : n + 2] for n in range(0, 12, 2)).upper()
    shop.write(
        f"a,,,{spelled},x", f"b,ESP32_GENERIC,{two.port},,", "c,,,,", "c3,,,,y", "d,,,,",
        columns="registration_id,board,port,chip_id,location",
    )  # fmt: skip
    report = shop.run(other.port, one.port, two.port, three.port)
    assert [name for name, _ in got(report)] == ["c3", "c", "b", "a"] and report.ok


def test_a_board_that_no_device_is_left_for_or_that_is_anothers_is_left_alone(shop: Shop) -> None:
    shop.make("a", "b", "foreign")
    shop.write("foreign")
    board, spare = shop.board("1"), shop.board("2")
    assert got(shop.run(board.port)) == [("foreign", FLASHED)]
    shop.write("a")
    report = shop.run(board.port, spare.port, app_only=True)
    assert got(report) == [("", LEFT)] * 2 and "carries no device" in report.outcomes[1].note
    report = shop.run(board.port, spare.port, shop.board("3").port)
    assert got(report) == [("", LEFT), ("a", FLASHED), ("", LEFT)] and report.ok
    assert report.outcomes[0].note == "it is foreign, which is not in the plan"
    assert report.outcomes[2].note == "the plan has no device left for it"
    # Flashed from another PC: known by what it carries.
    (shop.devices / bindings.FILE).unlink()
    assert got(shop.run(board.port, spare.port)) == [("", LEFT), ("a", SAME)]


def test_bad_rows_are_said_and_the_rest_goes_on(shop: Shop) -> None:
    shop.make("a", "b", "shuffled")
    (shop.devices / "shuffled").rename(shop.devices / "other")
    shop.write("missing,", "-no,", "a,UNIX", "other,", "b,", "B,", "", columns="registration_id,board")
    report = shop.run(shop.board("1").port)
    assert got(report) == [("b", FLASHED)] and not report.ok
    assert [
        (problem.line, problem.reason.split(" in /")[0].split(": let ")[0].split(": give ")[0])
        for problem in report.problems
    ] == [
        (2, "no device 'missing'"),
        (3, "no registration id: 1 to 128 letters, digits and - . _ : with a letter or digit at both ends"),
        (4, "a is for ESP32_GENERIC in its folder, UNIX in the plan"),
        (5, "the folder of other holds shuffled"),
        (7, "B is in line 6 already"),
    ]


def test_a_plan_as_a_spreadsheet_writes_it(shop: Shop) -> None:
    shop.make("a", "b")
    one, two = shop.board("1"), shop.board("2")
    chip = (one.directory / "chip.id").read_text().strip()
    shop.plan.write_text(f"\ufeffRegistration_ID ;Chip_Id\r\na;{chip.upper()}\r\nb;\r\n", newline="")
    assert got(shop.run(two.port, one.port)) == [("b", FLASHED), ("a", FLASHED)]


def test_a_folder_with_which_something_is_wrong_goes_onto_no_board(shop: Shop) -> None:
    shop.make("a", "b")
    long = "x" * 92
    folders.create(replace(PLAN, registration_id=long, key_kind=None), shop.devices)
    (shop.devices / "a" / "device.key").chmod(0o644)
    shop.write("a", long, "c")
    port = shop.board("1").port
    report = shop.run(port)
    assert got(report) == [(long, FLASHED)] and "92 characters" in report.outcomes[0].notes[0]
    assert "others may use it (mode 644): chmod 600" in report.problems[0].reason
    assert list(bindings.read(shop.devices)) == [long]
    (shop.devices / long / "device.json").write_text("{}")
    assert got(shop.run(port)) == [("", FAILED)]


@pytest.mark.parametrize("content", [b"", b"id,board\nx,y\n", b"\xff\xfe\x00", b"registration_id,psk\nx,y\n"])
def test_what_is_no_plan(tmp_path: Path, content: bytes) -> None:
    plan = tmp_path / "plan.csv"
    plan.write_bytes(content)
    with pytest.raises(ToolError) as caught:
        flash_all(plan, [], tmp_path, firmware=tmp_path, options=flash.Options())
    assert caught.value.exit_code == 2
    with pytest.raises(ToolError, match="No such file"):
        flash_all(tmp_path / "none.csv", [], tmp_path, firmware=tmp_path, options=flash.Options())


def test_two_boards_with_one_chip_id_are_both_refused(shop: Shop) -> None:
    shop.make("a", "b", "c")
    shop.write("a", "b", "c")
    twins = [shop.board(name, BOARD_ID="02aabbccddee").port for name in ("1", "2")]
    report = shop.run(*twins, shop.board("3").port)
    assert got(report) == [("", FAILED), ("", FAILED), ("a", FLASHED)]
    assert "at another port as well" in report.outcomes[0].note and "--port" in report.outcomes[0].hint
    assert list(bindings.read(shop.devices)) == ["a"]


def test_two_runs_at_once_share_a_plan(shop: Shop) -> None:
    shop.make("a", "b", "c", "d")
    shop.write("a", "b", "c", "d")
    ports = [shop.board(name).port for name in "1234"]
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda half: shop.run(*half), (ports[:2], ports[2:])))
    assert all(report.ok for report in reports)
    assert sorted(got(reports[0]) + got(reports[1])) == [(name, FLASHED) for name in "abcd"]


def test_a_device_that_another_run_takes_meanwhile(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.make("a", "b")
    shop.write("a", "b")
    read = bindings.read

    def late(folder: Path) -> dict[str, bindings.Binding]:
        before = read(folder)
        if not before:
            monkeypatch.setattr(bindings, "read", read)
            bindings.bind(folder, "02ffffffffff", "a")
        return before

    monkeypatch.setattr(bindings, "read", late)
    report = shop.run(shop.board("1").port)
    assert got(report) == [("b", FLASHED)] and report.ok


def test_one_port_twice_is_one_board(shop: Shop) -> None:
    shop.make("a")
    shop.write("a")
    board = shop.board("1")
    assert got(shop.run(board.port, str(board.directory / "port"))) == [("a", FLASHED)]


def test_a_port_that_fails_keeps_nobody_from_it(shop: Shop) -> None:
    shop.make("a")
    shop.write("a")
    report = shop.run(str(shop.folder / "ttyUSB9"), shop.board("1").port)
    assert got(report) == [("", FAILED), ("a", FLASHED)] and "ttyUSB9 is not there" in report.outcomes[0].note


def test_each_board_is_followed_and_compared(shop: Shop) -> None:
    shop.make("a", "b")
    shop.write("a", "b")
    ports = [shop.board("1").port, shop.board("2").port]
    report = shop.run(*ports, follow=60.0)
    assert all(outcome.flashed and outcome.flashed.connected for outcome in report.outcomes)
    (shop.firmware / "main.py").write_text("print('[   0.100] error        dps.register 401000 tracking x no')\n")
    report = shop.run(*ports, verify=True)
    assert got(report) == [("a", DIFFERS), ("b", DIFFERS)] and report.outcomes[0].note == "/main.py"
    report = shop.run(*ports, follow=60.0)
    assert got(report) == [("a", FAILED), ("b", FAILED)]
    assert report.outcomes[0].note == "not connected: dps.register 401000"


def command(shop: Shop, *words: str) -> list[str]:
    common = ("--devices", str(shop.devices), "--firmware", str(shop.firmware))
    return [sys.executable, "-m", "espdps.cli", "flash", "--all", str(shop.plan), *common, *words]


def test_what_the_command_says(shop: Shop) -> None:
    shop.make("a", "b")
    shop.write("a", "b", "missing")
    one, two, three = shop.board("1"), shop.board("2"), shop.board("3")
    ports = ["--no-follow", "--port", one.port, "--port", two.port]
    done = subprocess.run(command(shop, *ports), env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.endswith("2 boards: 2 flashed\n"), done.stdout + done.stderr
    chip = (one.directory / "chip.id").read_text().strip()
    assert f"{one.port} a: chip {chip} gets a\n" in done.stdout
    assert f"{two.port} b: flashed, 11 files copied, 0 were the same\n" in done.stdout
    more = [*ports, "--port", three.port, "--json"]
    again = subprocess.run(command(shop, *more), env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    *outcomes, last = map(json.loads, again.stdout.splitlines())
    assert again.returncode == 1 and not last["ok"] and last["problems"][0]["line"] == 4
    assert sorted((outcome["registration_id"], outcome["state"]) for outcome in outcomes) == [
        ("", LEFT), ("a", SAME), ("b", SAME),
    ]  # fmt: skip
    secrecy.assert_clean(done.stdout + done.stderr + again.stdout + again.stderr, "what flash --all printed")


@pytest.mark.parametrize("words", [["--rebind"], ["dev-1"]])
def test_what_does_not_go_with_all(shop: Shop, words: list[str]) -> None:
    shop.write("a")
    done = subprocess.run(command(shop, *words), env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_ctrl_c_lets_every_board_go(shop: Shop) -> None:
    shop.make("a", "b")
    shop.write("a", "b")
    (shop.firmware / "main.py").write_text("import time\nprint('[   0.100] start        x')\ntime.sleep(300)\n")
    ports = [shop.board("1").port, shop.board("2").port]
    words = command(shop, "--port", ports[0], "--port", ports[1])
    with subprocess.Popen(
        words, env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True
    ) as running:
        killer = threading.Timer(60, running.kill)
        killer.start()
        assert running.stdout and "gets a" in running.stdout.readline()
        running.send_signal(signal.SIGINT)
        rest = running.stdout.read()
        assert running.wait(60) == 130
        killer.cancel()
    assert rest.count("broken off") == 2 and "Traceback" not in rest
    assert got(shop.run(*ports))[0][0] == "a"
