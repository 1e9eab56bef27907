"""mpremote, as PyPI has it, and a person at the prompt: the virtual board answers both as an ESP32 would.

Nothing here may depend on what another test left: every test has a board of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from board_console import PROMPT, Console, mpremote, output

from espdps.virtual_board import VirtualBoard


@pytest.fixture
def board(tmp_path: Path, micropython32: Path) -> Iterator[VirtualBoard]:
    with VirtualBoard(tmp_path / "unit", micropython32) as board:
        yield board


@pytest.fixture
def console(board: VirtualBoard) -> Iterator[Console]:
    with Console(board.port) as console:
        console.prompt()
        yield console


def test_a_tree_is_copied_byte_by_byte(board: VirtualBoard, tmp_path: Path) -> None:
    tree = tmp_path / "lib"
    (tree / "deep").mkdir(parents=True)
    contents = {"empty": b"", "all.bin": bytes(range(256)) * 40, "deep/crlf.txt": b"\r\n\n\x04\x03\x01\xc3\xa4"}
    for name, content in contents.items():
        (tree / name).write_bytes(content)
    output(board.port, "fs", "cp", "-r", str(tree), ":")
    for name, content in contents.items():
        if content:  # mpremote asks for no digest of an empty file
            assert hashlib.sha256(content).hexdigest() in output(board.port, "fs", "sha256sum", f"lib/{name}")
    output(board.port, "fs", "cp", ":lib/all.bin", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == contents["all.bin"]
    listing = output(board.port, "fs", "tree")
    assert [line.split()[-1] for line in listing.splitlines()[2:]] == [
        "boot.py", "lib", "all.bin", "deep", "crlf.txt", "empty",
    ]  # fmt: skip
    output(board.port, "fs", "mkdir", "made")
    output(board.port, "fs", "rm", "-r", ":lib")
    assert output(board.port, "exec", "import os; print(os.listdir('/'))") == "['boot.py', 'made']\n"


def test_output_and_errors_come_back(board: VirtualBoard) -> None:
    assert output(board.port, "eval", "6 * 7") == "42\n"
    assert output(board.port, "exec", "print('one'); print('two', end='')") == "one\ntwo"
    failed = mpremote(board.port, "exec", "def f():\n    return {}['missing']\nf()")
    assert failed.returncode == 1
    assert failed.stdout + failed.stderr == (
        'Traceback (most recent call last):\n  File "<stdin>", line 3, in <module>\n'
        '  File "<stdin>", line 2, in f\nKeyError: missing\n'
    )


def test_a_program_longer_than_the_window_runs(board: VirtualBoard, tmp_path: Path) -> None:
    program = tmp_path / "long.py"
    program.write_text("".join(f"# {n:5d} {'.' * 60}\n" for n in range(100)) + "print('end', 5)\n")
    assert output(board.port, "run", str(program)) == "end 5\n"


def test_code_without_raw_paste(board: VirtualBoard, console: Console) -> None:
    console.type(b"\x01")
    console.read_until(b"raw REPL; CTRL-B to exit\r\n>")
    console.type(b"print(1)\x04")
    assert console.read_until(b">") == b"OK1\r\n\x04\x04>"
    console.type(b"\x05B\x01")
    assert console.read_until(b">") == b"R\x00>"
    console.type(b"half a line\x03print(2)\x04")
    assert console.read_until(b">") == b"OK2\r\n\x04\x04>"
    console.type(b"print(3)\n1/0\x04")
    assert console.read_until(b"\x04>").startswith(b"OK3\r\n\x04Traceback ")
    console.type(b"\x02")
    assert console.read_until(PROMPT).startswith(b"\r\nMicroPython v1.")


def test_soft_reset_at_the_prompt_runs_boot_and_main(board: VirtualBoard, console: Console) -> None:
    console.run(b"kept = 1; f = open('boot.py', 'w'); f.write('print(5)'); f.close()")
    console.run(b"f = open('main.py', 'w'); f.write('print(6, __name__, dir())'); f.close()")
    console.type(b"\x04")
    console.read_until(b"MPY: soft reboot\r\n")
    # Names of boot.py would stay; there are none, and those of the run before are gone.
    assert console.read_until(b"MicroPython") == b"5\r\n6 __main__ ['__name__']\r\nMicroPython"


def test_soft_reset_of_the_raw_prompt_leaves_main_alone(board: VirtualBoard) -> None:
    output(board.port, "exec", "kept = 1\nwith open('main.py', 'w') as f: f.write('open(\"ran\", \"w\")')")
    output(board.port, "soft-reset")
    assert output(board.port, "resume", "exec", "import os; print('kept' in dir(), os.listdir())") == (
        "False ['boot.py', 'main.py']\n"
    )


def test_sys_exit_and_machine_reset_start_anew(board: VirtualBoard, console: Console) -> None:
    console.run(b"f = open('main.py', 'w'); f.write('import machine; print(machine.reset_cause())'); f.close()")
    console.type(b"raise SystemExit\r")
    console.read_until(b"MPY: soft reboot\r\n5\r\n")
    console.read_until(PROMPT)
    console.type(b"import machine; machine.reset()\r")
    console.read_until(b"reset()\r\nrst:0xc (SW_CPU_RESET)\r\n2\r\n")


def test_ctrl_c_ends_a_running_main(board: VirtualBoard, console: Console) -> None:
    console.run(
        b"f = open('main.py', 'w'); f.write('''import time\nprint(1234)\nwhile True: time.sleep(60)'''); f.close()".replace(
            b"\n", b"\\n"
        )
    )
    console.type(b"\x04")
    console.read_until(b"1234\r\n")
    console.type(b"\x03")
    assert b'File "main.py", line 3, in <module>\r\nKeyboardInterrupt: \r\n' in console.read_until(PROMPT)
    console.type(b"\x04")
    console.read_until(b"1234\r\n")
    assert output(board.port, "eval", "2 + 2") == "4\n"


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("work", ["x = [n for n in range(20)]", "gc.collect()"])
def test_ctrl_c_ends_a_program_that_never_waits(
    request: pytest.FixtureRequest, tmp_path: Path, bits: int, work: str
) -> None:
    # Most of these strike in the middle of an allocation. The interpreter survives some of them; the board, all.
    micropython = request.getfixturevalue(f"micropython{bits}")
    with VirtualBoard(tmp_path, micropython) as board, Console(board.port) as console:
        console.prompt()
        for _ in range(8):
            console.type(f"import gc; print('run' + 'ning'); exec('while True: {work}')\r".encode())
            console.read_until(b"running\r\n")
            console.type(b"\x03")
            console.read_until(PROMPT)


def test_ctrl_c_at_any_moment_of_a_reset_ends_main(board: VirtualBoard, console: Console) -> None:
    console.run(b"f = open('main.py', 'w'); f.write('while True: pass'); f.close()")
    for reset in (b"import machine; machine.reset()", b"raise SystemExit", b"\x04"):
        for _ in range(5):
            console.type(reset + b"\r\x03")
            console.prompt()


def test_lines_at_the_prompt(console: Console) -> None:
    assert console.run(b"1 + 1") == b"2\r\n"
    assert console.run(b"x = 5") == b""
    console.type(b"for n in range(2):\r    print(n, x)\r\r")
    assert console.read_until(b"\r\n>>> ").endswith(b"... \r\n0 5\r\n1 5\r\n>>> ")
    console.type(b"(1,\r2)\r")
    assert console.read_until(b"(1, 2)\r\n>>> ") == b"(1,\r\n... 2)\r\n(1, 2)\r\n>>> "
    console.type(b"foo\x7f\x7f\x7f'\xc3\xa4\x1b[A'\r")
    assert console.read_until(PROMPT) == b"foo\x08 \x08\x08 \x08\x08 \x08'\xc3\xa4'\r\n'\\xe4'\r\n>>> "
    console.type(b"not this\x03")
    assert console.read_until(PROMPT) == b"not this\r\n>>> "
    console.type(b"\x05def f():\r    return 7\r\rprint(f())\r\x04")
    assert console.read_until(b"7\r\n>>> ").startswith(b"\r\npaste mode; Ctrl-C to cancel, Ctrl-D to finish\r\n=== ")


def test_nothing_of_the_pc_shows(board: VirtualBoard) -> None:
    assert output(board.port, "exec", "import sys; print(sys.path, sys.argv, dir())") == (
        "['', '.frozen', '/rom', '/lib'] [] ['__name__', 'sys']\n"
    )
    for path in ("/etc/passwd", "/proc/self/environ", "/rom/../etc/passwd"):
        failed = mpremote(board.port, "exec", f"open({path!r})")
        assert "ENOENT" in failed.stdout + failed.stderr
    assert output(board.port, "exec", "import os; print(os.listdir(), [e[0] for e in os.ilistdir('/')])") == (
        "['boot.py'] ['boot.py']\n"
    )
    assert (
        output(board.port, "exec", "import os; print(hasattr(os, 'system'), hasattr(os, 'rename'))") == "False True\n"
    )


def test_a_module_of_the_user_wins_over_lib_but_not_over_a_frozen_one(board: VirtualBoard) -> None:
    source = "import os\nos.mkdir('/lib')\nfor n in ('/lib/ssl.py', '/lib/own.py'):\n  with open(n, 'w') as f: f.write('x=1')"
    output(board.port, "exec", source)
    assert output(board.port, "exec", "import ssl, own; print(hasattr(ssl, 'x'), own.x)") == "False 1\n"


def test_a_full_flash_says_so(tmp_path: Path, micropython32: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(100_000))
    with VirtualBoard(tmp_path / "unit", micropython32, flash_size=64 * 1024) as board:
        failed = mpremote(board.port, "fs", "cp", str(tmp_path / "big"), ":big")
        assert failed.returncode == 1
        source = "try:\n  with open('more', 'wb') as f:\n    while True: f.write(bytes(1000))\nexcept OSError as e: print(e.errno)"
        assert output(board.port, "exec", source) == "28\n"
        assert output(board.port, "exec", "import os; os.remove('more'); print(1)") == "1\n"


def test_the_heap_is_nearly_all_there(board: VirtualBoard) -> None:
    free, used = map(
        int, output(board.port, "exec", "import gc; gc.collect(); print(gc.mem_free(), gc.mem_alloc())").split()
    )
    assert free + used <= 56 * 1024
    assert used < 5600
    failed = mpremote(board.port, "exec", "x = bytearray(50000)\ny = bytearray(50000)")
    assert "MemoryError" in failed.stdout + failed.stderr
    # Hardly anything is left, and still a soft reset frees it.
    output(
        board.port,
        "resume",
        "exec",
        "x = []\nwhile True:\n  try: x.append(bytearray(100))\n  except MemoryError: break",
    )
    assert output(board.port, "eval", "1") == "1\n"
