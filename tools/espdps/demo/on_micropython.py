"""The main job before your eyes: a simulator, a blank virtual board, mpremote, and a certificate at the end.
Nothing is staged: every line shown is what the board or the service said, and any failure ends it with status 1."""

from __future__ import annotations

import base64
import contextlib
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from espdps.azure import timeline
from espdps.azure.timeline import TITLES
from espdps.board.console import Event, show_fault
from espdps.board.flash import flash
from espdps.board.monitor import Listener, open_port
from espdps.credentials import keys
from espdps.devices import folders
from espdps.errors import ToolError
from espdps.simulator import Options, Simulator, serving
from espdps.virtual_board import VirtualBoard
from espdps.virtual_board.micropython import interpreter

REGISTRATION_ID = "contoso-0001"
BOARD = "UNIX"
PATIENCE = 60.0  # seconds for one start of the board
_BEFORE = 32  # columns of a line before what is said in it
_LEAST = 40  # of what is said
BOOT = ("MPY: soft reboot", "rst:0x")  # what MicroPython, and a chip's boot loader, say on the way
ADDED = {
    "dps.connect": "server verified, signed in by SAS token",
    "dps.register": "sent: the CSR, not the private key",
    "hub.ready": "signed in by certificate",
}


@dataclass
class Start:
    """One start of the board as its console told it."""

    console: Console
    steps: list[str] = field(default_factory=list)
    seconds: float = 0.0
    events: list[Event] = field(default_factory=list)

    def show(self, event: Event) -> None:
        """Print one line: what happened, how long it took, what there is to say."""
        self.events.append(event)
        if event.fault:
            show_fault(event.fault, self.console)
        if event.step not in TITLES:
            if event.step or event.text.strip() and not event.text.startswith(BOOT):
                self.console.print(Text(f"  {event.step} {event.text}".rstrip(), style="dim"))
            return
        took = event.seconds - self.seconds
        self.seconds = event.seconds
        self.steps.append(event.step)
        line(self.console, TITLES[event.step], event.text, took, ADDED.get(event.step, ""))


def line(console: Console, title: str, text: str, seconds: float | None = None, note: str = "") -> None:
    """One step: its name, its duration, what it said, and why that matters."""
    duration = "" if seconds is None else f"{seconds * 1000:6.0f} ms"
    room = max(console.width - _BEFORE, _LEAST)
    lines = [*Text(text).wrap(console, room)] or [Text()]
    notes = [*Text(note, style="dim").wrap(console, room)] if note else []
    lines[-1].rstrip()
    if notes and len(lines[-1]) + 2 + len(notes[0]) <= room:
        lines[-1] += Text("  ") + notes.pop(0)
    left = Text(f"  {title:<19}", style="cyan") + Text(f"{duration:>9}  ", style="dim")
    for one in (*lines, *notes):
        one.rstrip()
        console.print(left + one, soft_wrap=True)
        left = Text(" " * _BEFORE)


@contextmanager
def timed(console: Console, title: str) -> Iterator[list[str]]:
    """Time what is done inside; the words put into the list are shown with it."""
    words: list[str] = []
    begun = time.monotonic()
    yield words
    line(console, title, " ".join(words), time.monotonic() - begun)


def main(
    directory: Path | None = None,
    run: Callable[[Path, Console], list[Start]] | None = None,
    picture: Path | None = None,
) -> int:
    """Run the demonstration, of MicroPython unless `run` is another; 0 if all of it went as it should.

    `directory` keeps the simulator's, the device's and the board's files; without it they are gone afterwards.
    `picture`: an SVG of both starts goes there.
    """
    console = Console(highlight=False)
    with contextlib.ExitStack() as stack:
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="esp-dps-demo-")))
        try:
            if picture:
                timeline.check(picture)
            first, second = (run or _run)(directory, console)
            if picture:
                parts = ("first start", first), ("after the plug was pulled", second)
                timeline.write(picture, [timeline.Part(title, start.events) for title, start in parts])
                console.print(f"the timeline is in {picture}", soft_wrap=True)
        except ToolError as error:
            console.print(Text(f"\nfailed: {error.message}", style="bold red"))
            if error.hint:
                console.print(Text(error.hint))
            return 1
    return 0


def _run(folder: Path, console: Console) -> list[Start]:
    begun = time.monotonic()
    console.print(Rule("esp-dps: from a blank board to telemetry with an issued certificate", style="dim"))
    with begun_with(folder, console, BOARD) as (sim, unit, hosts):
        profile = unit.profile
        with VirtualBoard(
            folder / "board",
            interpreter(32),
            heap=profile.heap,
            profile_name=profile.name,
            epoch=profile.epoch,
            hosts=hosts,
        ) as board:
            line(console, "board", f"real MicroPython, 32-bit, {profile.heap} heap, LittleFS, at {board.port}")
            console.print(
                Rule("mpremote copies the firmware, each file verified by SHA-256, secrets last", style="dim")
            )
            first, flashed, size = _first_start(console, unit, board, sim)
            console.print(Rule("the plug is pulled and put in again: clock lost, flash kept", style="dim"))
            second = _second_start(console, board, sim)
        summary(console, sim, first, second, f"{size}, {flashed} files in all", time.monotonic() - begun)
        return [first, second]


@contextmanager
def begun_with(
    folder: Path, console: Console, board: str
) -> Iterator[tuple[Simulator, folders.Device, dict[str, tuple[str, int]]]]:
    """A simulator that serves, a device made for it, and which of its hosts are elsewhere; both shown."""
    with serving(folder / "sim", Options()) as sim:
        info = sim.info
        where = f"{info['host']}:{info['mqtt_port']}"
        line(console, "simulator", f"DPS and IoT Hub on {where}, id scope {info['id_scope']}, TLS 1.2")
        with timed(console, "device") as words:
            unit = _make_device(folder, info, board)
            words.append(f"{unit.registration_id}: EC P-384 key, CSR, device key derived from the group key")
        yield sim, unit, {f"{name}:123": ("127.0.0.1", int(info["ntp_port"])) for name in unit.config["ntp"]}


def _make_device(folder: Path, info: dict[str, object], board: str) -> folders.Device:
    groups = info["groups"]
    assert isinstance(groups, list)
    plan = folders.Plan(
        registration_id=REGISTRATION_ID,
        id_scope=str(info["id_scope"]),
        board=board,
        device_key=keys.derive_device_key(groups[0]["primary_key"], REGISTRATION_ID),
        roots=Path(str(info["roots"])).read_bytes(),
        dps_host=str(info["host"]),
        port=int(str(info["mqtt_port"])),
        wifi_ssid="demo",
        wifi_password=base64.urlsafe_b64encode(secrets.token_bytes(12)).decode(),
    )
    return folders.load(folders.create(plan, folder / "devices"))


def _first_start(console: Console, unit: folders.Device, board: VirtualBoard, sim: Simulator) -> tuple[Start, int, str]:
    start = Start(console)
    size = []

    def tell(step: str, text: str) -> None:
        if step == "restarted":
            console.print(Rule("first start", style="dim"))
        elif step != "copied":
            line(console, step, text)
        if step == "compiled":
            size.append(text)

    result = flash(unit, board.port, tell=tell, on_event=start.show, follow=PATIENCE)
    if not result.connected:
        raise ToolError(
            "the board did not get to its hub",
            f"it said {result.fault.step} {result.fault.code}: esp-dps explain {result.fault.code}"
            if result.fault
            else "run it again; the last line above says how far it came",
        )
    telemetry(console, sim, 0)
    return start, len(result.copied), size[0]


def _second_start(console: Console, board: VirtualBoard, sim: Simulator) -> Start:
    start = Start(console)
    before = len(sim.events)
    with open_port(board.port) as port:
        board.power_cycle()
        for event in Listener(port).events(PATIENCE):
            if event and (start.steps or event.step == "start"):  # not the last words of before
                start.show(event)
            if start.steps[-1:] == ["hub.ready"]:
                break
    telemetry(console, sim, before)
    check_restart(sim, before)
    return start


def check_restart(sim: Simulator, before: int) -> None:
    """Raises ToolError unless what the service saw since then is one handshake with the hub alone."""
    events = [event["event"] for event in sim.events[before:]]
    if any(name.startswith("dps.") for name in events) or events.count("tls.open") != 1:
        raise ToolError(
            "the second start was not one handshake with the hub alone",
            f"the service saw {', '.join(events)}: run it again, with nothing else at work",
        )


def telemetry(console: Console, sim: Simulator, after: int) -> None:
    """What the hub saw; the board's own line may come later than the hub's."""
    try:
        seen = sim.wait_event("hub.telemetry", timeout=PATIENCE, after=after)
    except TimeoutError:
        raise ToolError(
            "no telemetry reached the hub", "the board said it was connected: run it again, with nothing else at work"
        ) from None
    properties = ", ".join(f"{name}={value}" for name, value in seen["properties"].items())
    line(console, "the hub received", f"{seen['body']} from {seen['device']}, QoS {seen['qos']}, {properties}")


def summary(console: Console, sim: Simulator, first: Start, second: Start, files: str, seconds: float) -> None:
    """What came of it, in figures. `files`: what is on the board."""
    events = sim.events
    dps = next(event for event in events if event["event"] == "closed" and event["connection"] == 1)
    certificate = next(event["certificate"] for event in events if event["event"] == "dps.assigned")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("blank board to its hub", f"{first.seconds:.1f} s, 3 s of them as DPS asked; 2 handshakes")
    table.add_row("next start", f"{second.seconds:.2f} s, 1 handshake, nothing asked of DPS")
    table.add_row(
        "registration", f"{dps['flights_in']} flights, {dps['bytes_in']:,} bytes out, {dps['bytes_out']:,} in"
    )
    table.add_row(
        "certificate", f"{certificate['subject']}, until {certificate['not_after'][:16].replace('T', ' ')} UTC"
    )
    table.add_row("on the board", files)
    table.add_row("all of this", f"{seconds:.0f} s")
    console.print(Panel(table, title="a real identity", border_style="green", expand=False))
