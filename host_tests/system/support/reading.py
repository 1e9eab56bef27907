"""Reads a page as a person does: its commands in its order, in a copy of the repository, and looks at what they print.

It must leave no process behind, and change nothing outside of that copy.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import manual
import secrecy

from espdps.paths import BUILD, ROOT

PATIENCE = 60.0  # seconds for one block, or for what it shows
_CONTINUES = re.compile(r"<!-- continues (\S+) -->")


class Reader:
    """In `folder`, which is made a copy of the checkout, as `make setup` leaves it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}
        self._read: list[str] = []
        self._outputs = 0
        self._secrets: dict[Path, int] = {}
        for name in ("tools", "firmware", "boards", "docs", "host_tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        for name in ("README.md", "Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        (folder / "build").mkdir()
        (folder / "build" / "micropython").symlink_to((BUILD / "micropython").resolve())
        binaries = folder / ".venv" / "bin"
        binaries.mkdir(parents=True)
        (binaries / "activate").write_text(f"export PATH={binaries}:$PATH\n")
        self._program(binaries / "esp-dps", "-m espdps.cli")
        self._program(binaries / "mpremote", "-m mpremote")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ESPDPS_")}
        self._env = {**clean, "PATH": f"{binaries}:{os.environ['PATH']}", "PYTHONPATH": str(folder / "tools")}
        self._env.update(COLUMNS="120", PYTHONUNBUFFERED="1", PYTHONDONTWRITEBYTECODE="1", HOME=str(folder))

    def _program(self, path: Path, words: str) -> None:
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        path.chmod(0o755)

    def read(self, page: Path) -> None:
        """AssertionError with page and line for the first command that fails, or does not print what the page shows."""
        if page.name in self._read:
            return
        if before := _CONTINUES.search(page.read_text()):
            self.read(page.parent / before[1])
        self._read.append(page.name)
        blocks = manual.blocks(page)
        for block, after in zip(blocks, [*blocks[1:], None], strict=True):
            shows = after.text if after and (after.language, after.mark) == ("text", "shows") else ""
            if (block.language, block.mark) == ("sh", "run"):
                self._run(block, shows)
            elif (block.language, block.mark) == ("sh", "background"):
                self._start(block, shows)

    def _run(self, block: manual.Block, shows: str) -> None:
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", block.text],
            cwd=self.folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            check=False,
        )
        said = done.stdout.decode()
        self._watch(block, said)
        assert done.returncode == 0, f"{block} ended with {done.returncode}:\n{block.text}\n{said}"
        missing = lacks(said, shows)
        assert not missing, f"{block} does not show {missing!r}:\n{said}"

    def _start(self, block: manual.Block, shows: str) -> None:
        """In another terminal; what it shows is waited for, as a reader would."""
        assert shows, f"{block}: what does a reader wait for?"
        if block.text in self.running:
            self._end(block.text)
        self._outputs += 1
        output = self.folder / "build" / f"terminal-{self._outputs}"
        with output.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", block.text],
                cwd=self.folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running[block.text] = process, output
        end = time.monotonic() + PATIENCE
        while missing := lacks(output.read_text(errors="replace"), shows):
            late = time.monotonic() > end or process.poll() not in (None, 0)
            assert not late, f"{block} does not show {missing!r}:\n{output.read_text(errors='replace')}"
            time.sleep(0.05)
        self._watch(block, output.read_text(errors="replace"))

    def _watch(self, block: manual.Block, said: str) -> None:
        folders = [self.folder / "build" / "sim", self.folder / "devices"]
        names = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".key", ".json")]
        secrets = {path: path.stat().st_mtime_ns for path in names}
        if secrets != self._secrets:  # to read a key takes long
            self._secrets = secrets
            for folder in folders:
                secrecy.note(folder)
        secrecy.assert_clean(said, f"what {block} prints")

    def _end(self, text: str) -> None:
        """By Ctrl-C, as in a terminal."""
        process, _ = self.running.pop(text)
        for number in (signal.SIGINT, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, number)
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    continue

    def close(self) -> None:
        for text in reversed(list(self.running)):
            self._end(text)


def lacks(said: str, shows: str) -> str:
    """The first line of `shows` that is not in `said` after those before it; "" if all are. Spaces are as many as you
    like, and an ellipsis stands for anything."""
    lines = [" ".join(line.split()) for line in re.sub(r"\x1b\[[0-9;]*m", "", said).splitlines()]
    at = 0
    for wanted in filter(None, (" ".join(line.split()) for line in shows.splitlines())):
        pattern = re.compile(".*".join(map(re.escape, re.split(" ?… ?", wanted))))
        while at < len(lines) and not pattern.search(lines[at]):
            at += 1
        if at == len(lines):
            return wanted
        at += 1
    return ""
