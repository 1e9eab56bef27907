"""The main job before your eyes, of CircuitPython: a blank CIRCUITPY drive, flash, and a certificate at the end.
Nothing is staged; what stands in for CircuitPython is said at the start, and any failure ends it with status 1."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.rule import Rule

from espdps.board.flash_drive import flash
from espdps.demo.on_micropython import PATIENCE, Start, begun_with, check_restart, line, summary, telemetry
from espdps.errors import ToolError
from espdps.virtual_board.virtual_drive import BOARD, VirtualDrive


def run(folder: Path, console: Console) -> list[Start]:
    """Show it, with all files in `folder`; both starts. Raises ToolError."""
    begun = time.monotonic()
    console.print(Rule("esp-dps: from a blank drive to telemetry with an issued certificate", style="dim"))
    with (
        begun_with(folder, console, BOARD) as (sim, unit, hosts),
        VirtualDrive(folder / "CIRCUITPY", hosts) as board,
    ):
        line(console, "board", "CPython in CircuitPython's clothes: its modules are stand-ins, Wi-Fi and pins too")
        line(console, "", "real: firmware, adafruit_minimqtt, TLS, MQTT, every signature")
        console.print(Rule("flash copies to the drive, each file read back, secrets late, code.py last", style="dim"))
        size: list[str] = []

        def tell(step: str, text: str) -> None:
            if step != "copied":
                line(console, step, text.replace(str(folder.resolve()), "").replace(str(folder), ""))
            if step == "files":
                size.append(text.split(" in ")[0].replace(" copied,", " files,"))

        flash(unit, board.root, tell=tell)
        console.print(Rule("reset, and the drive is the board's: first start", style="dim"))
        first = _started(console, board, ("hub.sent",))
        telemetry(console, sim, 0)
        console.print(Rule("the plug is pulled and put in again: drive kept", style="dim"))
        board.power_off()
        before = len(sim.events)
        second = _started(console, board, ("hub.ready",))
        telemetry(console, sim, before)
        check_restart(sim, before)
        summary(console, sim, first, second, f"{size[0]} of source", time.monotonic() - begun)
        return [first, second]


def _started(console: Console, board: VirtualDrive, until: tuple[str, ...]) -> Start:
    """Switch it on and show it until one of these steps. Raises ToolError."""
    start = Start(console)
    board.power_on()
    for event in board.events(PATIENCE):
        if event is None:
            continue
        start.show(event)
        if event.step in until:
            return start
        if event.step == "wait":  # after an error, which is shown with its meaning
            break
    raise ToolError("the board did not get to its hub", "what it said is above; run it again")
