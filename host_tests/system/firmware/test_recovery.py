"""A board that was flashed and left alone comes back by itself, within the heap that an ESP32 starts with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from units import edit, make_unit

from espdps.board.console import Event
from espdps.board.flash import flash
from espdps.board.monitor import Listener, open_port
from espdps.devices import folders, profiles
from espdps.simulator import Options, Simulator, Trouble, serving
from espdps.simulator.trouble.actions import Cut, Error, Refuse
from espdps.virtual_board import VirtualBoard
from espdps.virtual_board.micropython import interpreter


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    with serving(tmp_path / "sim", Options(assigning=0)) as simulator:
        yield simulator


@pytest.fixture
def board(tmp_path: Path, sim: Simulator) -> Iterator[VirtualBoard]:
    profile = profiles.load("UNIX")
    hosts = {"pool.ntp.org:123": ("127.0.0.1", sim.info["ntp_port"])}
    with VirtualBoard(
        tmp_path / "board", interpreter(32), heap="56k", profile_name="UNIX", epoch=profile.epoch, hosts=hosts
    ) as virtual:
        yield virtual


def follow(
    board: VirtualBoard, sim: Simulator, cures: dict[str, Trouble], until: str, times: int, *, power: bool = False
) -> list[Event]:
    """The board's lines until it has said `until` (a step or an error's code) so often.

    What is named in `cures` changes the trouble when it is said.
    """
    lines: list[Event] = []
    with open_port(board.port) as port:
        if power:
            board.power_cycle()
        for event in Listener(port).events(90):
            if event is None:
                continue
            if power and event.step != "start":
                continue  # the last words of before
            power = False
            lines.append(event)
            if not event.step:
                continue
            key = event.fault.code if event.fault else event.step
            if key in cures:
                sim.trouble = cures[key]
            times -= key == until
            if not times:
                return lines
    raise AssertionError(lines)


def test_a_lost_connection_is_made_anew(tmp_path: Path, sim: Simulator, board: VirtualBoard) -> None:
    unit = folders.load(make_unit(tmp_path, sim))
    sim.trouble = Trouble({"hub.telemetry": Cut()})
    flash(unit, board.port, follow=60)
    lines = follow(board, sim, {}, "closed", 3)
    sim.trouble = Trouble()
    lines += follow(board, sim, {}, "hub.sent", 1)
    assert not [line for line in lines if line.step.startswith("dps.") or "Traceback" in line.text], lines
    # A heap that has fallen into pieces ends in a restart, after which the identity on flash is used again.
    assert {line.fault.code for line in lines if line.fault} <= {"closed", "memory"}


def test_the_plug_pulled_while_it_registers(tmp_path: Path, sim: Simulator, board: VirtualBoard) -> None:
    unit = folders.load(make_unit(tmp_path, sim))
    flash(unit, board.port, follow=None)
    for step in ("dps.connect", "dps.register", "dps.assigned", "certificate", "hub.ready"):
        with open_port(board.port) as port:
            board.power_cycle()
            for event in Listener(port).events(60):
                if event and (event.step == step or event.step == "hub.ready"):
                    board.kill()
                    break
    lines = follow(board, sim, {}, "hub.sent", 1, power=True)
    assert lines[-1].step == "hub.sent"


def test_a_refusal_is_repaired_at_the_service_and_the_board_finds_out(
    tmp_path: Path, sim: Simulator, board: VirtualBoard
) -> None:
    folder = make_unit(tmp_path, sim)
    edit(folder / "device.json", refusal_patience=0)
    unit = folders.load(folder)
    assert flash(unit, board.port, follow=60).connected
    sim.trouble = Trouble({"hub.connect": Refuse(5), "register": Error(429, 429001, "Throttled", 2)})
    lines = follow(board, sim, {"dps.assigning": Trouble()}, "hub.sent", 1, power=True)
    assert [line.fault.code for line in lines if line.fault] == ["connack-5"]
