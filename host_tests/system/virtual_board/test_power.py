"""Power, resets, and the end of a virtual board: what stays, what is lost, and that nothing is left behind.

No test here may wait for a fixed time where it can wait for what it expects.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from board_console import PROMPT, Console, mpremote, output, processes, wait_until

from espdps.paths import ROOT
from espdps.virtual_board import VirtualBoard
from espdps.virtual_board.board import BoardError
from espdps.virtual_board.micropython import ROOT as ROOT_CERTIFICATE

TOOLS = ROOT / "tools"
REPORT = "import machine, time; print('up', machine.reset_cause(), time.time(), time.gmtime()[0])\n"


@pytest.fixture
def board(tmp_path: Path, micropython32: Path) -> Iterator[VirtualBoard]:
    with VirtualBoard(tmp_path / "unit", micropython32) as board:
        yield board


def put(board: VirtualBoard, name: str, text: str) -> None:
    output(board.port, "exec", f"with open({name!r}, 'w') as f: f.write({text!r})")


def test_a_power_cycle_keeps_files_and_loses_the_clock(board: VirtualBoard) -> None:
    put(board, "main.py", REPORT)
    with Console(board.port) as console:
        console.prompt()
        console.run(b"import machine; machine.RTC().datetime((2026, 5, 1, 0, 0, 0, 0, 0))")
        console.type(b"machine.reset()\r")
        console.read_until(b"up 2 8309")  # 2026-05-01 is 830908800 s after 2000
        port = board.port
        board.power_cycle()
        assert board.port == port
        assert int(console.read_until(b" 2000\r\n").split()[-2]) < 20
        console.read_until(PROMPT)
        console.type(b"\x04")
        console.read_until(b"up 5 ")


def test_the_unix_profile_counts_from_1970(tmp_path: Path, micropython64: Path) -> None:
    with VirtualBoard(tmp_path, micropython64, epoch=1970, profile_name="UNIX") as board:
        out = output(board.port, "exec", "import time, socket; print(time.gmtime(0)[0], time.time() // 60)")
        assert out == f"1970 {946684800 // 60}\n"
        assert (
            output(board.port, "exec", "import socket; socket.getaddrinfo('localhost', 1); print('found')") == "found\n"
        )


def test_a_board_with_a_radio_finds_no_name_before_it_is_joined(board: VirtualBoard) -> None:
    failed = mpremote(board.port, "exec", "import socket; socket.getaddrinfo('localhost', 1)")
    assert "OSError: -202" in failed.stdout + failed.stderr
    source = (
        "import network, socket, time\nw = network.WLAN(network.STA_IF); w.active(True); w.connect('a', 'b')\n"
        "while not w.isconnected(): time.sleep_ms(5)\nsocket.getaddrinfo('localhost', 1); print('found')"
    )
    assert output(board.port, "exec", source) == "found\n"


def test_a_starved_watchdog_resets(board: VirtualBoard) -> None:
    put(board, "main.py", REPORT)
    with Console(board.port) as console:
        console.prompt()
        console.type(b"import machine; w = machine.WDT(timeout=50)\r")
        console.read_until(b"up 3 ")


def test_a_crash_ends_at_a_bare_prompt(board: VirtualBoard) -> None:
    put(board, "boot.py", REPORT)
    put(board, "main.py", REPORT)
    with Console(board.port) as console:
        console.prompt()
        console.type(b"import uctypes; uctypes.bytearray_at(0, 4)[0]\r")
        text = console.read_until(PROMPT)
    assert b"has crashed" in text
    assert b"up " not in text
    assert board.running


def test_kill_ends_the_process_at_once(board: VirtualBoard) -> None:
    assert len(processes(board.directory)) == 1
    board.kill()
    assert not board.running
    assert not processes(board.directory)
    assert Path(board.port).exists()
    board.kill()
    board.power_cycle()
    assert board.running
    assert output(board.port, "eval", "3") == "3\n"


def test_a_power_cut_while_writing_leaves_a_sound_filesystem(board: VirtualBoard) -> None:
    put(board, "precious", "kept")
    writer = (
        "print('writing')\nn = 0\nwhile True:\n  with open('new', 'w') as f: f.write('%d ' % n * 900)\n"
        "  import os; os.rename('new', 'precious2'); n += 1\n"
    )
    put(board, "main.py", writer)
    with Console(board.port) as console:
        console.prompt()
        console.type(b"\x04")
        for _ in range(5):
            console.read_until(b"writing\r\n")
            time.sleep(0.02)  # somewhere in the middle; the end of it is what no event tells
            board.power_cycle()
        console.read_until(b"writing\r\n")
    check = "w = open('precious2').read().split(); print(open('precious').read(), len(w), len(set(w)))"
    assert output(board.port, "exec", check) == "kept 900 1\n"


def test_nobody_listening_does_not_stop_the_board(board: VirtualBoard) -> None:
    put(board, "main.py", "for n in range(3000): print('a line that nobody reads', n)\nopen('done', 'w').close()\n")
    board.power_cycle()
    # The far end is closed all the time. Looking at it too early would interrupt main.py: watch the process instead.
    [pid] = processes(board.directory)
    wait_until(lambda: b"done" in (board.directory / "flash.img").read_bytes()[:16384].replace(b"'done'", b""))
    assert processes(board.directory) == [pid]
    assert "'done'" in output(board.port, "exec", "import os; print(os.listdir())")


def test_two_boards_side_by_side(tmp_path: Path, micropython32: Path) -> None:
    with (
        VirtualBoard(tmp_path / "a", micropython32) as a,
        VirtualBoard(tmp_path / "b", micropython32, heap="36k") as b,
    ):
        assert a.port != b.port
        put(a, "only", "a")
        identify = (
            "import machine, os, gc; print(machine.unique_id().hex(), os.listdir(), gc.mem_free() + gc.mem_alloc())"
        )
        unit_a, *files_a, heap_a = output(a.port, "exec", identify).split()
        unit_b, *files_b, heap_b = output(b.port, "exec", identify).split()
        assert unit_a != unit_b
        assert (files_a, files_b) == (["['boot.py',", "'only']"], ["['boot.py']"])
        assert 33 * 1024 < int(heap_b) <= 36 * 1024 < int(heap_a) <= 56 * 1024
        assert (tmp_path / "a" / "port").readlink() == Path(a.port)


def test_a_folder_is_one_board(board: VirtualBoard, micropython32: Path) -> None:
    with pytest.raises(BoardError, match="another virtual board"):
        VirtualBoard(board.directory, micropython32).start()
    assert output(board.port, "eval", "3") == "3\n"


def test_stop_leaves_only_the_folder(tmp_path: Path, micropython32: Path) -> None:
    before, open_before = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    board = VirtualBoard(tmp_path, micropython32)
    board.start()
    board.stop()
    board.stop()
    assert not processes(tmp_path)
    assert set(threading.enumerate()) == before
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "chip.id",
        "chip.mem",
        "flash.img",
        "rom.img",
        "start.sh",
    ]
    assert (tmp_path / "flash.img").stat().st_mode & 0o777 == 0o600
    with pytest.raises(BoardError, match="not started"):
        board.power_cycle()


@pytest.mark.parametrize("program", ["/bin/false", "/bin/cat", "/nowhere"])
def test_what_is_no_micropython_is_refused(tmp_path: Path, program: str) -> None:
    open_before = len(os.listdir("/proc/self/fd"))
    with pytest.raises((BoardError, FileNotFoundError), match=program), VirtualBoard(tmp_path, Path(program)):
        pass
    assert not processes(tmp_path)
    assert len(os.listdir("/proc/self/fd")) <= open_before  # what an earlier test left may close meanwhile


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_board_does_not_outlive_its_host(tmp_path: Path, micropython32: Path, end: signal.Signals) -> None:
    serve = (
        "import sys; from pathlib import Path; from espdps.virtual_board import main;"
        "sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))"
    )
    host = subprocess.Popen(
        [sys.executable, "-c", serve, str(tmp_path), str(micropython32)],
        env={**os.environ, "PYTHONPATH": str(TOOLS)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert host.stdout
    try:
        port = host.stdout.readline().strip()
        assert Path(port).is_char_device()
        with Console(port) as console:
            console.prompt()
            # A program that touches nothing would not notice that the terminal has gone.
            console.type(b"print('run' + 'ning'); exec('while True: pass')\r")
            console.read_until(b"running\r\n")
        assert processes(tmp_path)
        host.send_signal(end)
        assert host.wait(timeout=20) == (-end if end is signal.SIGKILL else 0)
        wait_until(lambda: not processes(tmp_path))
    finally:
        host.kill()
        host.wait(timeout=20)
        host.stdout.close()


def test_a_bounded_system_heap_bounds_tls_and_nothing_else(tmp_path: Path, micropython32: Path) -> None:
    # A certificate that was read is kept outside of MicroPython's heap, 500 of them in more than 64 KB.
    source = (
        f"import tls\nroot = {ROOT_CERTIFICATE!r}\ncontext = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)\n"
        "try:\n  for n in range(500): context.load_verify_locations(root)\n"
        "except (MemoryError, OSError, ValueError): print('full', 5 < n < 200)\nelse: print('enough')\n"
        "print(len(bytearray(300_000)))"
    )
    for size, says in ((0, "enough"), (64 << 10, "full True")):
        with VirtualBoard(tmp_path / str(size), micropython32, heap="1m", system_heap=size) as board:
            assert output(board.port, "exec", source).splitlines() == [says, "300000"]
