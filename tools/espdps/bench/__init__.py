"""What esp-dps measures of itself, one module a subject: real runs, and no figure that was not measured.
A subject is a function that gets an empty folder to work in and returns Rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from espdps.bench import cpu, estimate, flash, fleet, heap, latency, load, wire
from espdps.bench.row import Row

SUBJECTS: dict[str, Callable[[Path], list[Row]]] = {
    "flash": flash.measure,
    "heap": heap.measure,
    "wire": wire.measure,
    "time": latency.measure,
    "cpu": cpu.measure,
    "estimate": estimate.measure,
    "fleet": fleet.measure,
    "load": lambda folder: load.measure(folder).rows(),
}
