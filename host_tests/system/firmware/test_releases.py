"""What a board's firmware freezes differs from release to release of MicroPython: a whole life with each of them, on the
32-bit interpreter, with the library as .mpy and the heap of an ESP32."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from running import RELEASES, run
from units import edit, make_unit

from espdps.simulator import Options, Simulator, serving
from espdps.virtual_board import micropython

ID = "contoso-0001"
# An ESP32 starts with 56 KB; umqtt.simple and the like, which it has frozen, take more than 7 KB of this heap.
HEAP = "60k"
SECONDS = 7  # of a life
LIFE = 20  # seconds of a certificate, which is renewed as early as it can be
NEWEST = ["micropython-newest"] if micropython.newest() else []  # no wheel for every machine


def speak(sim: Simulator) -> None:
    """Use all of a session from the other side, and see each of it come to something, also over a second connection."""
    sim.wait_event("hub.telemetry", timeout=60)
    after = len(sim.events)
    assert sim.call_method(ID, "add", {"a": 2, "b": 3}, timeout=20) == (200, {"sum": 5})
    version = sim.desire(ID, {"interval": 5})
    sim.send_message(ID, b"hello", {"n": "1"})
    sim.wait_event("hub.c2d", state="completed", timeout=20)
    sim.wait_event("hub.connect", timeout=20, after=after)  # with the next certificate or token
    sim.wait_event("hub.telemetry", timeout=20, after=len(sim.events))
    assert sim.twin(ID).reported["seen"] == version


def whole_life(sim: Simulator, unit: Path, runtime: str, library: Path, heap: str, **environment: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        board = pool.submit(
            run, runtime, unit, str(SECONDS), script="busy.py", heap=heap, library=library, environment=environment
        )
        try:
            speak(sim)
        finally:
            outcome = board.result()
    assert outcome.status == 0 and "error" not in outcome.names, outcome.text
    assert outcome.names.count("dps.register") == 1 and outcome.names.count("hub.ready") >= 2, outcome.text
    heard = [text.split(" ", 1) for step, text in outcome.steps if step == "message"]
    assert [(body, json.loads(properties)["n"]) for body, properties in heard] == [("hello", "1")]
    numbers = [json.loads(event["body"])["count"] for event in sim.events if event["event"] == "hub.telemetry"]
    assert numbers == list(range(1, len(numbers) + 1)), numbers


@pytest.mark.parametrize("release", RELEASES)
def test_a_whole_life_with_what_each_release_freezes(release: str, mpy: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "sim", Options(assigning=0, certificate_seconds=LIFE)) as sim:
        unit = make_unit(tmp_path, sim)
        edit(unit / "device.json", renew=5, timeout=5)
        whole_life(sim, unit, "micropython-32", mpy, HEAP, BOARD_RELEASE=release)
        assert any(event["event"] == "hub.renewal.delivered" for event in sim.events)


@pytest.mark.parametrize("runtime", NEWEST)
def test_a_life_on_the_newest_interpreter(runtime: str, mpy: Path, tmp_path: Path) -> None:
    """Without a certificate of its own: this build reads no PEM. So the root is DER, and tokens are what is renewed."""
    with serving(tmp_path / "sim", Options(assigning=0)) as sim:
        sim.set_enrollment(sim.info["groups"][0]["id"], group=True, credential_policy=None)
        unit = make_unit(tmp_path, sim, kind=None)
        edit(unit / "device.json", token_life=5, timeout=5)
        root = x509.load_pem_x509_certificate((unit / "roots.pem").read_bytes())
        (unit / "roots.pem").write_bytes(root.public_bytes(serialization.Encoding.DER))
        whole_life(sim, unit, runtime, mpy, "112k")  # its objects are twice as wide as a board's
