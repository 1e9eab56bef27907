"""What the firmware may cost. A figure that cannot be kept is a reason to talk, not to raise the number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from running import run
from units import make_unit

from espdps import boards, flash
from espdps.paths import FIRMWARE
from espdps.simulator import Options, serving

FLASH_BYTES = 18 * 1024  # all of aziot, compiled


def test_flash(record_property: Callable[[str, object], None]) -> None:
    library = flash.compile_library(FIRMWARE, boards.load("ESP32_GENERIC").mpy)
    sizes = {name.rpartition("/")[2].removesuffix(".mpy"): len(content) for name, content in library.items()}
    total = sum(sizes.values())
    record_property(
        "figure",
        f"aziot as .mpy: {total:,} bytes of {FLASH_BYTES:,}: " + ", ".join(f"{n} {s}" for n, s in sizes.items()),
    )
    assert total <= FLASH_BYTES


def test_flights(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """A flight is what the board sends between two answers: each costs a round trip."""
    with serving(tmp_path / "sim", Options(retry_after=2)) as sim:
        assert run("micropython-32", make_unit(tmp_path, sim)).status == 0
        dps = sim.wait_event("closed", connection=1)
        hub = sim.wait_event("closed", connection=2)
    record_property(
        "figure",
        f"registration with one assigning answer: {dps['flights_in']} flights, {dps['bytes_in']:,} bytes out, "
        f"{dps['bytes_out']:,} in; hub and one message: {hub['flights_in']} flights",
    )
    assert dps["flights_in"] <= 4 and dps["records_in"] <= 4
    assert hub["flights_in"] <= 2
