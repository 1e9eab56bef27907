"""What a real board would take, worked out from public figures and from ours: an estimate, measured on no board.

Where a figure comes from stands beside it. It must never be held to a bar: a board may prove it wrong.
"""

from __future__ import annotations

from pathlib import Path

from espdps.bench import heap
from espdps.bench.latency import floor
from espdps.bench.row import Row
from espdps.bench.unit import Bench
from espdps.devices import profiles
from espdps.paths import BOARDS
from espdps.simulator import Options, serving

# An ESP32 at 240 MHz; P-384 takes longer than the keys that were timed there.
SERVER_ONLY = 1.2  # seconds for TLS that verifies no client
MUTUAL = 2.5  # seconds with a client certificate
BUFFERS = 20  # KB of a TLS connection, outside of MicroPython's heap
_RTT = 50  # ms
_SOURCES = {
    "server": "github.com/micropython/micropython-esp32/issues/131",
    "mutual": "github.com/espressif/esp-idf/issues/8852",
    "buffers": "github.com/micropython/micropython/issues/6065",
}


def measure(folder: Path) -> list[Row]:
    with serving(folder / "sim", Options(retry_after=0)) as sim:
        devices = heap.made(folder, sim.info, "ec-p384")
        need = heap.Trial(Bench(folder), devices).needs().smallest["steady"] / 1024
    telemetry = floor(_RTT)[1] / 1000 + SERVER_ONLY + MUTUAL
    by = "estimate"
    rows = [
        Row("TLS to DPS", SERVER_ONLY, "s", by=by, note=_SOURCES["server"]),
        Row("TLS to the hub, by certificate", MUTUAL, "s", by=by, note=_SOURCES["mutual"]),
        Row(f"blank to telemetry, round trip {_RTT} ms, retry-after 2 s", telemetry, "s", by=by),
        Row("RAM outside of the heap, a connection", BUFFERS, "KB", by=by, note=_SOURCES["buffers"]),
    ]
    for path in sorted(BOARDS.glob("ESP32*.toml")):
        profile = profiles.load(path.stem)
        if profile.runtime == "micropython":
            rows.append(
                Row(f"heap left at the narrowest place, {path.stem}", int(profile.heap[:-1]) - need, "KB", by=by)
            )
    return rows
