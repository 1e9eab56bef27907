"""What the firmware may cost. If a limit cannot be met, discuss it; do not raise the limit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pki import Authority, private_pem
from running import run
from units import make_unit

from espdps.bench import flash, heap, wire
from espdps.bench.contestants import Field
from espdps.bench.tap import Tap
from espdps.bench.unit import Bench
from espdps.credentials import keys
from espdps.simulator import Options, serving


def test_flash(library: dict[str, bytes], record_property: Callable[[str, object], None]) -> None:
    sizes = {name: len(content) for name, content in library.items()}
    everything, main = flash.total(sizes), flash.total(sizes, flash.MODULES)
    record_property(
        "figure",
        f"aziot as .mpy: {everything:,} bytes of {flash.ALL:,}; the way by X.509: {main:,} of {flash.MAIN_PATH:,}: "
        + ", ".join(f"{name} {size}" for name, size in sorted(sizes.items())),
    )
    assert everything <= flash.ALL
    assert main <= flash.MAIN_PATH


def test_the_main_path_loads_no_more(library: dict[str, bytes], tmp_path: Path) -> None:
    folder = tmp_path / "lib" / "aziot"
    folder.mkdir(parents=True)
    for name in flash.MODULES:
        (folder / f"{name}.mpy").write_bytes(library[name])
    root, private = Authority("Contoso Root"), keys.new_key()
    with serving(tmp_path / "sim", Options()) as sim:
        sim.add_group("x509", signers=[root.pem])
        unit = make_unit(tmp_path, sim, onboarding=(root.issue("contoso-0001", private), private_pem(private)))
        outcome = run("micropython-32", unit, library=folder.parent)
    assert outcome.status == 0 and outcome.names[-1] == "hub.sent" and "certificate" in outcome.names, outcome.text


@pytest.mark.parametrize("kind", heap.KINDS)
def test_heap(tmp_path: Path, kind: str) -> None:
    """The bench finds the smallest; here it has to work in one, and a board too small must be told from it."""
    with serving(tmp_path / "sim", Options(assigning=0)) as sim:
        trial = heap.Trial(Bench(tmp_path), heap.made(tmp_path, sim.info, kind))
        assert trial.works(heap.BUDGETS[kind])
        assert not trial.works(24 << 10)


def test_heap_when_frozen(tmp_path: Path) -> None:
    with serving(tmp_path / "sim", Options(assigning=0)) as sim:
        devices = heap.made(tmp_path, sim.info, "ec-p384")
        trial = heap.Trial(Bench(tmp_path / "frozen", frozen=True), devices)
        assert trial.works(heap.FROZEN_BUDGET)
        assert not trial.works(16 << 10)


def test_flights(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """A flight is what the board sends between two answers: each costs a round trip."""
    with serving(tmp_path / "sim", Options(retry_after=2)) as sim, Tap(sim.info["mqtt_port"]) as tap:
        found = wire.ours(Field(tmp_path, sim.info, tap, Bench(tmp_path)), tap)
    record_property("figure", f"wire: {found}")
    assert found.registration.flights <= wire.FLIGHTS and found.registration.records_out <= wire.FLIGHTS
    assert found.hub and found.hub.flights <= 1
    assert found.message and found.message.flights <= wire.FLIGHTS_A_MESSAGE and found.message.records_out <= 1
    assert found.connections == 1
