"""How much of a board's heap the way from blank to telemetry takes, found by trying: 32-bit MicroPython, .mpy.

A figure is a heap in which it worked, as in all larger ones that were tried; the next smaller one was too small.
"""

from __future__ import annotations

import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from espdps.bench.row import AGAIN, Row
from espdps.bench.unit import Bench, create, forget, steps
from espdps.errors import ToolError
from espdps.simulator import Options, serving

# Bytes, by kind of key: RSA-2048 takes somewhat more, and 36 KB were not enough in every run.
BUDGETS = {"ec-p384": 36 << 10, "rsa-2048": 37 << 10}
FROZEN_BUDGET = 28 << 10  # with the library frozen into the firmware
_LEAST, _MOST = 12 << 10, 56 << 10
_GRAIN = 512  # bytes between two heaps that are tried
_AT_ONCE = 8  # most of the time they wait for what DPS tells them to wait
KINDS = {"ec-p384": "P-384", "rsa-2048": "RSA-2048"}


class Trial:
    """One kind of device on the bench, with any heap; as many at once as there are folders for it."""

    def __init__(self, bench: Bench, devices: Sequence[Path], frozen: bool = True) -> None:
        self._bench, self._devices, self._frozen = bench, devices, frozen

    def works(self, heap: int, device: Path | None = None) -> bool:
        """Whether a blank board with so much heap gets to its telemetry."""
        device = device or self._devices[0]
        forget(device)
        done = self._bench.run("device_life", device, heap=heap, frozen=self._frozen)
        return any(step.name == "steady" for step in steps(done.stdout))

    def needs(self) -> int:
        """Bytes: above the largest heap of those tried that does not work. Raises ToolError."""
        if not self.works(_MOST):
            raise ToolError(f"the board sends no telemetry with {_MOST >> 10} KB of heap", AGAIN)
        tried = list(range(_LEAST, _MOST, _GRAIN))
        waiting: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for device in self._devices:
            waiting.put(device)

        def with_any(heap: int) -> bool:
            device = waiting.get()
            try:
                return self.works(heap, device)
            finally:
                waiting.put(device)

        with ThreadPoolExecutor(len(self._devices)) as pool:
            found = list(pool.map(with_any, tried))
        failed = [heap for heap, works in zip(tried, found, strict=True) if not works]
        return max(failed, default=_LEAST - _GRAIN) + _GRAIN


def made(folder: Path, info: dict[str, Any], kind: str) -> list[Path]:
    """The folders of some devices with a key of this kind, no two of which run at once."""
    port = info["mqtt_port"]
    return [create(folder / kind, info, port, kind, f"bench-{kind}-{n}") for n in range(_AT_ONCE)]


def measure(folder: Path) -> list[Row]:
    bench = Bench(folder)
    rows: list[Row] = []
    with serving(folder / "sim", Options(retry_after=0)) as sim:
        for kind, short in KINDS.items():
            devices = made(folder, sim.info, kind)
            whole = Trial(bench, devices).needs()
            rows.append(Row(f"all, {short}", whole / 1024, "KB", f"<= {BUDGETS[kind] >> 10}", whole <= BUDGETS[kind]))
            within = Trial(Bench(folder / "frozen", frozen=True), devices).needs()
            bar = f"<= {FROZEN_BUDGET >> 10}"
            rows.append(Row(f"all, {short}, aziot frozen", within / 1024, "KB", bar, within <= FROZEN_BUDGET))
            charged = Trial(bench, devices, frozen=False).needs()
            rows.append(Row(f"all, {short}, umqtt and the stand-ins in the heap too", charged / 1024, "KB"))
    return rows
