"""What never stops coming, before TLS is up and in a session: a board is fed all the time, keeps its identity, needs no
restart, and is back within a minute after it ends. Ten minutes of each with ESP_DPS_SWEEP=1, else some seconds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faults import BOARD, WARNING, Fault, Proxy
from running import run
from units import edit, make_unit, stored

from espdps.simulator import Cut, Flood, Options, Simulator, Trouble, serving
from espdps.simulator.trouble.actions import FLOODS

LASTS = 600 if os.environ.get("ESP_DPS_SWEEP") else 4  # seconds
BACK = 70 if LASTS > 60 else 9  # seconds until a board is back; the wait doubles with each failure
TIMEOUT = 3  # seconds, of device.json
FED = 3000  # ms without idle(): a handshake calculates, on a busy machine; a watchdog waits for 8 s at least
HEAP = "64k"  # 56 KB, as an ESP32 starts with, and what umqtt.simple and the like take, which it has frozen
# TLS records in the clear: warnings, ChangeCipherSpec, a fatal alert, and bytes that are none
PLAIN = {
    "warnings": WARNING,
    "ccs": b"\x14\x03\x03\x00\x01\x01",
    "fatal": b"\x15\x03\x03\x00\x02\x02\x28",
    "bytes": b"\xff",
}
# Not held yet: a flood of large messages can keep a board away for longer than BACK.
OPEN = ("large", "large-short")
# One that ends before the deadline of send(), and one that does not
SHORT, LONG = 1.0, LASTS + 60.0


def suffer(sim: Simulator, folder: Path, kind: str, runtime: str, library: Path) -> str:
    name = f"{runtime}-{kind}"
    unit = make_unit(folder, sim, name)
    with Proxy(sim.info["mqtt_port"]) as proxy, ThreadPoolExecutor(1) as pool:
        edit(unit / "device.json", port=proxy.port, timeout=TIMEOUT)

        def back(after: int, timeout: float) -> float:
            begun = time.monotonic()
            sim.wait_event("hub.telemetry", timeout=timeout, after=after, device=name)
            return time.monotonic() - begun

        seconds = LASTS + BACK + 3
        board = pool.submit(
            run, runtime, unit, str(seconds), script="flooded.py", heap=HEAP, library=library, timeout=seconds + 100
        )
        back(0, 60)
        files = stored(unit)
        began = len(sim.events)
        if kind in PLAIN:
            proxy.arm(Fault("flood", BOARD, 0, data=PLAIN[kind]))
            sim.set_trouble(name, Trouble({"hub.telemetry": Cut()}))
            sim.wait_event("closed", after=began, device=name)
            sim.set_trouble(name, Trouble())
        else:
            flood, _, form = kind.partition("-")
            sim.set_trouble(name, Trouble({"hub.telemetry": Flood(flood, SHORT if form == "short" else LONG)}))
        time.sleep(LASTS)  # that is how long it lasts
        proxy.arm(None)
        sim.set_trouble(name, Trouble())
        took = back(len(sim.events), BACK)
        outcome = board.result()
    assert outcome.status == 0, outcome.text
    idle, poll = map(int, outcome.steps[-1][1].split())
    assert idle < FED and poll < TIMEOUT * 1000 + FED, outcome.text
    if kind != "fatal":  # it may refuse the certificate, so DPS is asked, and answers with another
        assert stored(unit) == files and outcome.names.count("certificate") == 1, outcome.text
    if not kind.endswith("short"):
        assert "error" in outcome.names and len(sim.events) > began, outcome.text
    return f"{kind} {took:.1f} s (idle {idle} ms, poll {poll} ms)"


@pytest.mark.sweep
@pytest.mark.parametrize("runtime", ["micropython-32", "circuitpython"])
def test_no_flood_keeps_a_board_away(
    runtime: str, tmp_path: Path, mpy: Path, record_property: Callable[[str, object], None]
) -> None:
    kinds = [*PLAIN, *FLOODS, *(f"{flood}-short" for flood in FLOODS)]
    kinds = [kind for kind in kinds if kind not in OPEN]
    with serving(tmp_path / "sim", Options(assigning=0)) as sim, ThreadPoolExecutor(len(kinds)) as pool:
        figures = list(pool.map(lambda kind: suffer(sim, tmp_path, kind, runtime, mpy), kinds))
    record_property("figure", f"back after a flood of {LASTS} s, {runtime}: {'; '.join(figures)}")
