"""Real MicroPython for the PC: what is found, what is fetched, and what is said when neither can be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from espdps.paths import BUILD, ROOT
from espdps.virtual_board import micropython
from espdps.virtual_board.micropython import Unavailable, fetch, interpreter

FETCHED = BUILD / "micropython"


def says(program: Path, code: str) -> str:
    return subprocess.run([program, "-c", code], capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def script(path: Path, text: str) -> Path:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(("bits", "maxsize"), [(32, 2**31 - 1), (64, 2**63 - 1)])
def test_both_widths_run(bits: int, maxsize: int) -> None:
    program = interpreter(bits)
    assert int(says(program, "import sys; print(sys.maxsize)")) == maxsize
    assert says(program, "import tls, vfs; print(vfs.VfsLfs2 is not None)") == "True"


def test_the_heap_can_be_that_of_a_board() -> None:
    command = [interpreter(32), "-X", "heapsize=36k", "-c", "import gc; print(gc.mem_alloc() + gc.mem_free())"]
    heap = int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout)
    assert 30_000 < heap < 36_864


def test_a_second_call_needs_neither_apt_nor_network(tmp_path: Path) -> None:
    fetch((32, 64), FETCHED)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools"), "PATH": str(_tools_without_apt(tmp_path))}
    done = subprocess.run(
        [sys.executable, "-m", "espdps.virtual_board.micropython"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "64 bits: " in done.stdout and "32 bits: " in done.stdout


def test_one_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch((64,), FETCHED)
    own = script(tmp_path / "micropython", f'exec "{FETCHED / "64" / "micropython"}" "$@"\n')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert interpreter(64) == own
    assert interpreter(32) == FETCHED / "32" / "micropython"


@pytest.mark.parametrize(
    "output",
    [
        "echo micropython 1 22 9223372036854775807",
        "echo cpython 3 12 9223372036854775807",
        "exit 1",
        "echo what",
        "echo 'ValueError: invalid cert' >&2; exit 1",  # as a build without PEM ends
    ],
)
def test_an_unfit_one_on_path_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    fetch((64,), FETCHED)
    script(tmp_path / "micropython", output + "\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert interpreter(64) == FETCHED / "64" / "micropython"


def test_behind_an_unfit_one_the_next_on_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch((64,), FETCHED)
    for name, line in (("first", "exit 1"), ("second", f'exec "{FETCHED / "64" / "micropython"}" "$@"')):
        (tmp_path / name).mkdir()
        script(tmp_path / name / "micropython", line + "\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'first'}:{tmp_path / 'second'}:{os.environ['PATH']}")
    assert interpreter(64) == tmp_path / "second" / "micropython"


def test_a_build_that_reads_no_pem_is_told_from_one_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    fetch((64,), FETCHED)
    assert micropython._fault(FETCHED / "64" / "micropython", 64) is None
    monkeypatch.setattr(micropython, "ROOT", b"-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")
    assert "invalid cert" in str(micropython._fault(FETCHED / "64" / "micropython", 64))


def test_the_one_beside_this_python_is_no_board_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert Path(sys.executable).parent not in {program.parent for program in micropython._on_path()}


def test_the_wrapper_works_from_wherever_the_folder_is(tmp_path: Path) -> None:
    fetch((32,), FETCHED)
    moved = tmp_path / "a folder" / "32"
    shutil.copytree(FETCHED / "32", moved, symlinks=True)
    link = tmp_path / "mp"
    link.symlink_to(moved / "micropython")
    assert says(link, "print(6 * 7)") == "42"


def test_without_apt_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(_tools_without_apt(tmp_path)))
    with pytest.raises(Unavailable, match="no apt here.*put a unix build.*host_tests/unit"):
        interpreter(32, tmp_path / "mp")


def test_on_a_mac_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(Unavailable, match="brew install micropython"):
        interpreter(64, tmp_path / "mp")
    with pytest.raises(Unavailable, match="does not run on macOS"):
        interpreter(32, tmp_path / "mp")


def test_without_the_keyring_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micropython, "KEYRING", tmp_path / "none.gpg")
    with pytest.raises(Unavailable, match="install debian-archive-keyring"):
        fetch((32,), tmp_path / "mp")


def test_without_network_nothing_half_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPDPS_DEBIAN_MIRROR", "http://user:opensesame@127.0.0.1:9/debian")
    left = tmp_path / ".fetch-killed"
    left.mkdir()
    with pytest.raises(Unavailable, match="none answers.*Check the network") as caught:
        fetch((32,), tmp_path)
    assert "opensesame" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_fetch_that_does_not_run_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(target: Path, architecture: str, options: list[str]) -> None:
        target.mkdir()
        script(target / "micropython", "echo cannot run >&2; exit 126\n")

    monkeypatch.setattr(micropython, "_update", lambda work, options: None)
    monkeypatch.setattr(micropython, "_unpack", unpack)
    with pytest.raises(Unavailable, match="does not run here: cannot run"):
        fetch((32,), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_fetch_leaves_the_widths_asked_for_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked: list[str] = []

    def unpack(target: Path, architecture: str, options: list[str]) -> None:
        shutil.copytree(interpreter(32).parent, target, symlinks=True)
        unpacked.append(architecture)

    monkeypatch.setattr(micropython, "_update", lambda work, options: None)
    monkeypatch.setattr(micropython, "_unpack", unpack)
    for _ in range(2):
        fetch((32,), tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "32"]
    assert len(unpacked) == 1
    assert says(tmp_path / "32" / "micropython", "print(6 * 7)") == "42"


def test_there_is_no_other_width() -> None:
    with pytest.raises(ValueError, match="32 or 64"):
        interpreter(16)


def _tools_without_apt(folder: Path) -> Path:
    """A PATH with what the wrapper needs and without apt."""
    tools = folder / "bin"
    tools.mkdir()
    for name in ("sh", "readlink", "dirname", "dpkg"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    return tools
