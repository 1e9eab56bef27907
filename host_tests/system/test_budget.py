"""What the firmware may cost. A figure that cannot be kept is a reason to talk, not to raise the number.

Names are not charged: a budget on them would buy short names, and nothing else. Formats and texts are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pki import Authority, private_pem
from running import run
from units import make_unit

from espdps import boards, flash, keys, mpy
from espdps.paths import FIRMWARE
from espdps.simulator import Options, serving

ALL = 18 * 1024  # bytes of .mpy, names not counted: all of aziot
MAIN_PATH = 12 * 1024  # what a blank board needs till its first telemetry with an issued certificate, coming by X.509
MODULES = [
    "__init__",
    "chain",
    "clock",
    "device",
    "dps",
    "errors",
    "hub",
    "identity",
    "mqtt",
    "runtime",
    "store",
    "stream",
    "x509",
]


@pytest.fixture(scope="module")
def library() -> dict[str, bytes]:
    """Module -> its .mpy."""
    compiled = flash.compile_library(FIRMWARE, boards.load("ESP32_GENERIC").mpy)
    return {Path(name).stem: content for name, content in compiled.items()}


def charged(library: dict[str, bytes], name: str) -> int:
    return len(library[name]) - mpy.names_size(library[name], (FIRMWARE / "aziot" / f"{name}.py").read_text())


def test_flash(library: dict[str, bytes], record_property: Callable[[str, object], None]) -> None:
    total = sum(charged(library, name) for name in library)
    main = sum(charged(library, name) for name in MODULES)
    raw, raw_main = sum(map(len, library.values())), sum(len(library[name]) for name in MODULES)
    record_property(
        "figure",
        f"aziot as .mpy: {raw:,} bytes, without names {total:,} of {ALL:,}; the way by X.509: {raw_main:,}, without "
        f"names {main:,} of {MAIN_PATH:,}: " + ", ".join(f"{name} {len(library[name])}" for name in sorted(library)),
    )
    assert total <= ALL
    assert main <= MAIN_PATH


def test_the_main_path_loads_no_more(library: dict[str, bytes], tmp_path: Path) -> None:
    folder = tmp_path / "lib" / "aziot"
    folder.mkdir(parents=True)
    for name in MODULES:
        (folder / f"{name}.mpy").write_bytes(library[name])
    root, private = Authority("Contoso Root"), keys.new_key()
    with serving(tmp_path / "sim", Options()) as sim:
        sim.add_group("x509", signers=[root.pem])
        unit = make_unit(tmp_path, sim, onboarding=(root.issue("contoso-0001", private), private_pem(private)))
        outcome = run("micropython-32", unit, library=folder.parent)
    assert outcome.status == 0 and outcome.names[-1] == "hub.sent" and "certificate" in outcome.names, outcome.text


def test_names_are_told_from_texts(tmp_path: Path) -> None:
    def sizes(source: str) -> tuple[int, int]:
        path = tmp_path / "m.py"
        path.write_text(source)
        content = mpy.compiled(path, ("-O2",))
        return len(content), mpy.names_size(content, source)

    source = "def a_name_of_ours():\n    return 'a text'\n"
    size, names = sizes(source)
    shorter, fewer = sizes(source.replace("a_name_of_ours", "f"))
    longer, same = sizes(source.replace("a text", "a longer"))
    assert size - shorter == names - fewer == len("a_name_of_ours") - len("f")
    assert longer - size == 2 and same == names
    with pytest.raises(ValueError):
        mpy.names_size(b"M\x05", "")


def test_flights(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """A flight is what the board sends between two answers: each costs a round trip."""
    with serving(tmp_path / "sim", Options(retry_after=2)) as sim:
        assert run("micropython-32", make_unit(tmp_path, sim)).status == 0
        dps = sim.wait_event("closed", connection=1)
        hub = sim.wait_event("closed", connection=2)
    record_property(
        "figure",
        f"registration with one assigning answer: {dps['flights_in']} flights, {dps['bytes_in']:,} bytes out, "
        f"{dps['bytes_out']:,} in; hub and one message: {hub['flights_in'] - 1} flights, and the goodbye",
    )
    assert dps["flights_in"] <= 4 and dps["records_in"] <= 4
    assert hub["flights_in"] - 1 <= 2  # nobody waits for an answer to DISCONNECT
