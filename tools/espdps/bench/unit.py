"""A device as `esp-dps new` makes it, and real MicroPython that runs the firmware with the device's files as its flash.

What a board's firmware freezes lies in a ROM filesystem outside of the heap, and runs where it lies, as on a board.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espdps.bench.row import AGAIN
from espdps.board import flash
from espdps.credentials import keys
from espdps.devices import folders, profiles
from espdps.errors import ToolError
from espdps.paths import FIRMWARE, SHIMS
from espdps.virtual_board import rom
from espdps.virtual_board.micropython import Unavailable, interpreter

ON_BOARD = Path(__file__).parent / "on_board"
STAND_INS = SHIMS / "micropython"
DEADLINE = 60.0  # seconds for one run
# What the loader of rom.py mounts, and then the program that is named.
_START = f'{rom.MOUNT}__import__("{{}}")\n'
# The same program with what a board freezes in the heap.
_START_IN_HEAP = 'import sys\nsys.path[:]=__import__("uos").getenv("BENCH_STAND_INS"),\n__import__("{}")\n'


@dataclass(frozen=True)
class Step:
    """A line of what a device on the bench said: ``live``: bytes of heap in use, 0 where that is not measured."""

    ms: int
    name: str
    live: int
    text: str


def create(folder: Path, info: dict[str, Any], port: int, kind: str | None = "ec-p384", name: str = "bench-1") -> Path:
    """The folder of a device with a derived key, and with a CSR if there is a `kind` of key for it."""
    plan = folders.Plan(
        registration_id=name, id_scope=info["id_scope"], board="UNIX", key_kind=kind,
        device_key=keys.derive_device_key(info["groups"][0]["primary_key"], name),
        roots=Path(info["roots"]).read_bytes(), dps_host=info["host"], port=port,
    )  # fmt: skip
    made = folders.create(plan, folder / "devices", force=True)
    settings = made / "device.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "spread": 0}))
    return made


def forget(device: Path) -> None:
    """The device is as it was before its first start."""
    for path in device.glob("identity.*"):
        path.unlink()


class Bench:
    """A folder with the compiled library and what a board freezes, as a ROM and as files."""

    def __init__(self, folder: Path, modules: Iterable[str] = (), frozen: bool = False) -> None:
        """`modules`: the only ones of aziot that there are; all without one. `frozen`: they are in the ROM, as in a
        firmware that was built with them. Raises ToolError.
        """
        self._folder = folder
        try:
            self._interpreters = {bits: interpreter(bits) for bits in (32, 64)}
        except Unavailable as error:
            raise ToolError(str(error), "when that is mended: make setup") from None
        self.library = folder / "lib"
        only = set(modules)
        library = {}
        for path, content in flash.compile_library(FIRMWARE, profiles.load("ESP32_GENERIC").mpy).items():
            if not only or Path(path).stem in only:
                library[Path("aziot", Path(path).name)] = content
        # Without the clock of a laboratory's board, which is Python here; a board's time and socket are not.
        stand_ins = {**rom.compiled_modules(STAND_INS), **rom.compiled_modules(ON_BOARD)}
        del stand_ins[Path("time.mpy")]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "rom.img").write_bytes(rom.image({**stand_ins, **library} if frozen else stand_ins))
        self.files = folder / "stand-ins"
        for where, modules_there in (self.library, {} if frozen else library), (self.files, stand_ins):
            for name, content in modules_there.items():
                (where / name).parent.mkdir(parents=True, exist_ok=True)
                (where / name).write_bytes(content)

    def run(
        self,
        program: str,
        device: Path,
        *,
        bits: int = 32,
        heap: int = 0,
        frozen: bool = True,
        extra: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """One run of a program of on_board/ with `heap` bytes (0: plenty); `frozen`: what a board freezes is a ROM.

        Raises ToolError when it does not end in time.
        """
        command, variables = self.command(program, device, bits=bits, heap=heap, frozen=frozen)
        # As short as on a board, wherever this folder lies: paths of modules take their room in the heap.
        paths = {"BENCH_LIBRARY": self.library.name, "BENCH_UNIT": f"{os.path.relpath(device, self._folder)}/"}
        try:
            return subprocess.run(
                command, env={**variables, **paths, **(extra or {})}, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, timeout=DEADLINE, cwd=self._folder,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ToolError(f"{program} did not end within {DEADLINE:.0f} s", AGAIN) from None

    def command(
        self, program: str, device: Path, *, bits: int = 32, heap: int = 0, frozen: bool = True
    ) -> tuple[list[str], dict[str, str]]:
        """How run() starts it: the command line and the environment."""
        start = (_START if frozen else _START_IN_HEAP).format(program)
        wrapper = self._interpreters[bits]
        return [str(wrapper), "-X", f"heapsize={heap or 2 << 20}", "-c", start], {
            **os.environ, "BOARD_DIR": str(self._folder), "BENCH_LIBRARY": str(self.library),
            "BENCH_UNIT": f"{device}/", "BENCH_STAND_INS": str(self.files),
        }  # fmt: skip


def steps(output: str) -> list[Step]:
    """What a device_life said."""
    found = []
    for line in output.splitlines():
        words = line.split(" ", 3)
        if len(words) == 4 and words[0].isdigit() and words[2].isdigit():
            found.append(Step(int(words[0]), words[1], int(words[2]), words[3]))
    return found
