"""A set-up checked from this PC: `register`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from espdps.board.console import Event, show_fault
from espdps.commands import output
from espdps.commands.options import AsJson, Devices
from espdps.devices import folders
from espdps.errors import FAILED, REFUSED

app = typer.Typer()


@app.command()
def register(
    device: Annotated[str, typer.Argument(help="Registration id, or path of a device folder.")],
    hub: Annotated[bool, typer.Option("--hub", help="Go on to IoT Hub and send one message.")] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Write identity.a and .b, as a board has them, to the device folder.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, max=86400, help="Seconds for all of it.")] = 180,
    picture: Annotated[Path | None, typer.Option("--svg", help="Write the timeline as a picture.")] = None,
    *,
    devices_folder: Devices,
    as_json: AsJson = False,
) -> None:
    """Register a device from this PC, to check a set-up.

    The firmware's own modules run here, with the device's own files, against the endpoint that device.json names: Azure
    or a simulator. What fails is explained as by monitor. This PC's clock is checked, not set. The device folder stays
    as it is unless --keep is given; at the service the device is registered afterwards. Exit code 3: the service
    refused it.

    \b
    EXAMPLE
      esp-dps register greenhouse-1
      esp-dps register greenhouse-1 --hub
      esp-dps register greenhouse-1 --svg timeline.svg
    """
    from espdps.azure import registration, timeline  # the demo brings the simulator along
    from espdps.demo import on_micropython

    before = 0.0

    def show(event: Event) -> None:
        nonlocal before
        if event.fault:
            output.out.print(Text(f"  error {event.text}", style="bold red"), soft_wrap=True)
            show_fault(event.fault, output.out)
        elif event.step in timeline.TITLES:
            on_micropython.line(output.out, timeline.TITLES[event.step], event.text, event.seconds - before)
            before = event.seconds
        else:
            output.out.print(Text(f"  {event.step} {event.text}".rstrip(), style="dim"), soft_wrap=True)

    unit = folders.load(folders.find(device, devices_folder))
    events: list[Event] = []

    def tell(event: Event) -> None:
        events.append(event)
        (output.print_event if as_json else show)(event)

    if picture:
        timeline.check(picture)  # before anything is asked of the service
    try:
        fault = registration.register(unit, tell, hub=hub, keep=keep, seconds=timeout)
    finally:  # no answer in time is a picture, too
        if picture and events:
            timeline.write(picture, [timeline.Part(f"{unit.registration_id}, from this PC", events)])
    if fault:
        output.err.print(f"esp-dps: not registered: {fault.step} {fault.code}", soft_wrap=True)
        raise typer.Exit(REFUSED if fault.refused else FAILED)
    if not as_json:
        done = "registered, and connected to its hub" if hub else "registered"
        faults = any(event.fault for event in events)  # as when no certificate was issued, and the Hub takes the key
        output.out.print(f"{done}, but not without an error: see above" if faults else done, style="bold green")
