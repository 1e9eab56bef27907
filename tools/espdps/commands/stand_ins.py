"""What stands in for Azure and for hardware: `sim`, `board`, and `demo`, which shows them at work."""

from __future__ import annotations

import enum
import errno
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from espdps import inputs, locks
from espdps.commands.options import SIM_DEFAULT, SimFolder
from espdps.devices import folders, profiles, project
from espdps.errors import WRONG_USE, ToolError, of_system

if TYPE_CHECKING:
    from espdps.simulator import Link

app = typer.Typer()


class Runtime(str, enum.Enum):
    MICROPYTHON = profiles.MICROPYTHON
    CIRCUITPYTHON = profiles.CIRCUITPYTHON


class Log(str, enum.Enum):
    TEXT = "text"
    JSON = "json"


@app.command()
def sim(
    context: typer.Context,
    *,
    folder: Annotated[
        Path,
        typer.Option(
            "--dir",
            help="Its folder: keys, certificates, sim.json.",
            default_factory=project.needed_simulator,
            show_default=SIM_DEFAULT,
        ),
    ],
    certificate_seconds: Annotated[
        int | None, typer.Option(min=1, help="Life of an issued certificate, to see renewals. Else 30 days.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Remember enrollments, devices, twins and policies in this file.")
    ] = None,
    hubs: Annotated[
        list[str] | None,
        typer.Option("--hub", help="NAME[,weight=N][,latency=MS], below .localhost; may be given more than once."),
    ] = None,
    scenario: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="TOML file of what goes wrong, see below.")
    ] = None,
    limits: Annotated[
        bool, typer.Option("--limits", help="Answer 429 beyond 1,000 registrations a minute, or 5 polls in 10 s.")
    ] = False,
    mqtt_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="MQTT port of DPS and IoT Hub (default: the last one, or a free one)."),
    ] = None,
    https_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="HTTPS port of the service APIs (default: likewise).")
    ] = None,
    log: Annotated[Log, typer.Option(help="One line an event: for a person, or JSON.")] = Log.TEXT,
) -> None:
    """Serve a simulator of DPS and IoT Hub.

    Runs until stopped and listens on this machine only. Writes DIR/sim.json once it listens: ports, id scope, roots,
    keys of the enrollment groups. Started again in the same folder it has the same ports and keys, and issues by the
    same authority. It knows its devices again with --state alone; without it boards register again by themselves.

    A scenario has a table for each trouble: `at` a place (connect, subscribe, register, poll, assigning, certificate,
    hub.connect, hub.telemetry, hub.twin, hub.renewal and more), `do` an action (error, state, assigning, silence, cut,
    delay, raw, chain, refuse and more) with its own settings. Optional: `devices` a pattern, `skip` so many occasions
    of each device first, `count` how often, `probability` with a `seed` for the file. A mistake in it is answered with
    what there is.

    \b
    EXAMPLE
      esp-dps sim --dir build/sim --certificate-seconds 60
      esp-dps sim --dir build/sim --state build/sim/state.db \\
          --hub north.localhost,latency=20 --hub south.localhost,weight=3
      esp-dps sim --dir build/sim --scenario bad-day.toml --log json
      sudo esp-dps sim --dir build/sim --mqtt-port 8883 --https-port 443

    \b
    bad-day.toml
      seed = 1
      [[trouble]]
      at = "register"
      do = "error"
      status = 429
      error_code = 429001
      message = "throttled"
      retry_after = 5
      count = 2
      [[trouble]]
      at = "hub.telemetry"
      do = "cut"
      devices = "greenhouse-*"
      probability = 0.1
    """
    ports = context.with_resource(locks.held(folder))  # at once: a command typed next waits for it
    from espdps.simulator import Options, Scenario, StateFileError, server
    from espdps.simulator.throttle import POLLS_IN_10_SECONDS, REGISTRATIONS_A_MINUTE
    from espdps.simulator.trouble import scenario as scenarios

    try:
        rules = scenarios.parse(inputs.decode(scenario.read_bytes(), str(scenario))) if scenario else Scenario()
    except OSError as error:
        raise of_system(error, scenario, exit_code=WRONG_USE) from None
    except ValueError as error:
        raise ToolError(f"{scenario}: {error}", "`esp-dps sim --help` has an example", WRONG_USE) from None
    given: dict[str, Any] = {"scenario": rules, "state": state}
    if limits:
        given.update(registrations_a_minute=REGISTRATIONS_A_MINUTE, polls_in_10_seconds=POLLS_IN_10_SECONDS)
    given.update({name: port for name, port in (("mqtt_port", mqtt_port), ("https_port", https_port)) if port})
    if certificate_seconds is not None:
        given["certificate_seconds"] = certificate_seconds
    if hubs:
        links = dict(map(_hub, hubs))
        given.update(hubs=tuple(links), links=links)
    try:
        options = Options(**given)
    except ValueError as error:
        raise ToolError(
            f"the simulator: {error}", "correct that option; esp-dps sim --help shows each", WRONG_USE
        ) from None
    try:
        server.main(folder, ports, options, as_json=log is Log.JSON)
    except StateFileError as error:
        raise ToolError(str(error), "take another --state, or stop the one that has it") from None
    except OSError as error:
        if error.errno == errno.EACCES and (mqtt_port or https_port):
            hint = "run it as root, or forward the port to another one: see docs/simulator.md"
            raise ToolError("ports below 1024 are for root on this machine", hint) from None
        if error.errno != errno.EADDRINUSE:
            raise
        hint = f"stop that, or remove {folder / 'ports.json'} and flash the boards with the new port"
        raise ToolError("a port that the boards of this folder know is taken by another program", hint) from None


def _hub(text: str) -> tuple[str, Link]:
    """NAME[,weight=N][,latency=MS]"""
    from espdps.simulator import Link

    name, *words = text.split(",")
    try:
        numbers = dict(word.split("=") for word in words)
        link = Link(int(numbers.pop("weight", "1")), float(numbers.pop("latency", "50")))
    except ValueError:
        numbers = {"": ""}
    if numbers:
        hint = "NAME[,weight=1 to 1000][,latency=milliseconds]"
        raise ToolError(f"--hub {text} cannot be read", hint, WRONG_USE)
    return name, link


@app.command()
def board(
    folder: Annotated[Path, typer.Option("--dir", help="Its folder: flash memory and a link to its port.")],
    profile_name: Annotated[
        str | None,
        typer.Option(
            "--board",
            help="Board profile.",
            show_default="ESPDPS_BOARD, else board in esp-dps.toml, else ESP32_GENERIC",
        ),
    ] = None,
    bits: Annotated[int, typer.Option(help="Width of its MicroPython, 32 or 64.")] = 32,
    system_heap: Annotated[
        str, typer.Option(help="Memory for TLS apart from MicroPython's heap, such as 110k (default: no limit; Linux).")
    ] = "",
    sim: SimFolder = None,
) -> None:
    """Run a virtual board.

    Real MicroPython behind a serial port of this machine, until stopped. Prints the port, which mpremote, `flash` and
    `monitor` take; DIR/port leads there as well. With --sim its time servers are the simulator. With
    --board UNIX_CIRCUITPYTHON it is a CIRCUITPY drive, DIR itself, run by CPython with stand-ins for CircuitPython's
    modules: its console is shown, and it starts anew when it has been flashed.

    \b
    EXAMPLE
      esp-dps board --dir build/board --board ESP32_GENERIC_C3 --sim build/sim
    """
    from espdps.virtual_board import board as virtual_board
    from espdps.virtual_board import virtual_drive
    from espdps.virtual_board.micropython import Unavailable, interpreter

    sim = sim or project.simulator()
    profile = profiles.load(profile_name or project.value("board") or "ESP32_GENERIC")
    if bits not in (32, 64):
        raise ToolError(f"MicroPython has 32 or 64 bits, not {bits}", "--bits 32, as an ESP32; or --bits 64", WRONG_USE)
    if system_heap and not re.fullmatch(r"[1-9]\d{0,5}k", system_heap):
        raise ToolError(f"--system-heap {system_heap} cannot be read", "write a size in KB such as 110k", WRONG_USE)
    ntp = ("127.0.0.1", folders.read_simulator(sim)["ntp_port"]) if sim else None
    hosts = {f"{server}:123": ntp for server in folders.NTP} if ntp else {}
    if profile.circuitpython:
        if profile.name != virtual_drive.BOARD:
            hint = f"the virtual one is --board {virtual_drive.BOARD}"
            raise ToolError(f"{profile.name} is a real board with CircuitPython", hint, WRONG_USE)
        raise typer.Exit(virtual_drive.main(folder, hosts))
    try:
        code = virtual_board.main(
            folder,
            interpreter(bits),
            profile.heap,
            system_heap=int(system_heap[:-1] or 0) << 10,
            profile_name=profile.name,
            epoch=profile.epoch,
            hosts=hosts,
        )
    except Unavailable as error:
        raise ToolError(str(error), "fix that, then run this again") from None
    except virtual_board.BoardError as error:
        raise ToolError(
            str(error), "stop the other board, or take another --dir; make setup checks MicroPython"
        ) from None
    raise typer.Exit(code)


@app.command()
def demo(
    directory: Annotated[
        Path | None, typer.Option("--dir", help="keep the simulator's, the device's and the board's files here")
    ] = None,
    runtime: Annotated[Runtime, typer.Option(help="What the board runs.")] = Runtime.MICROPYTHON,
    picture: Annotated[Path | None, typer.Option("--svg", help="Write the timeline as a picture.")] = None,
) -> None:
    """Show the whole way, with no board and no Azure.

    A blank virtual board is flashed, registered and connected with an issued certificate: real MicroPython behind a
    serial port, or with --runtime circuitpython a folder as its CIRCUITPY drive, run by CPython with stand-ins for
    CircuitPython's own modules.

    \b
    EXAMPLE
      make demo
      make demo RUNTIME=circuitpython
      esp-dps demo --svg timeline.svg
    """
    from espdps.demo import on_circuitpython
    from espdps.demo import on_micropython as demonstration

    run = on_circuitpython.run if runtime is Runtime.CIRCUITPYTHON else None
    raise typer.Exit(demonstration.main(directory, run, picture))
