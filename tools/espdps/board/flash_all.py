"""Flashing every board that is plugged in, in parallel, each with its device of a plan.
Gives a board no device but its own or, if it has none, the plan's next one that no other board has."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from serial.tools import list_ports

from espdps.board import flash, repl
from espdps.board.repl import About
from espdps.devices import bindings, folders
from espdps.devices import plan as plans
from espdps.devices.folders import Device
from espdps.devices.plan import Row
from espdps.errors import ToolError

FLASHED, SAME, DIFFERS, FAILED, LEFT = "flashed", "complete", "differs", "failed", "left alone"


@dataclass(frozen=True)
class Problem:
    """A line of the plan that was not used, and why; the others were."""

    line: int
    reason: str


@dataclass
class Outcome:
    """How it went with the board at one port. `state` is one of the five above; `note` says why, or what to do; `notes`
    is what is worth knowing of the device's folder."""

    port: str
    chip_id: str = ""
    registration_id: str = ""
    state: str = LEFT
    note: str = ""
    hint: str = ""
    notes: list[str] = field(default_factory=list)
    flashed: flash.Flashed | None = None


@dataclass
class Report:
    """Of a whole run. `ok` is whether nothing failed; boards that are left alone are no failure."""

    outcomes: list[Outcome] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems and not any(outcome.state in (FAILED, DIFFERS) for outcome in self.outcomes)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Who looks on; called from many threads. `step`: outcome so far, a few words; `progress`: bytes done, in all."""

    assigned: Callable[[Outcome], None] = lambda outcome: None
    step: Callable[[Outcome, str], None] = lambda outcome, text: None
    progress: Callable[[Outcome, int, int], None] = lambda outcome, done, total: None
    done: Callable[[Outcome], None] = lambda outcome: None


class _Ended(Exception):
    """Ctrl-C: each board is let go at its next step."""


def _read_plan(path: Path) -> tuple[list[Row], list[Problem]]:
    """The rows that can be used; of two with one id the first. Raises ToolError for a file that is no plan at all."""
    rows: list[Row] = []
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for row in plans.read(path):
        if isinstance(row, plans.Bad):
            problems.append(Problem(row.line, row.reason))
            continue
        first = seen.setdefault(row.registration_id.lower(), row.line)
        if first != row.line:
            problems.append(Problem(row.line, f"{row.registration_id} is in line {first} already"))
        else:
            rows.append(row)
    return rows, problems


def plugged_in() -> list[str]:
    """The serial ports of USB: a board's. Raises ToolError if there is none."""
    ports = [port.device for port in list_ports.comports() if port.vid is not None]
    if not ports:
        raise ToolError("no serial port of USB is there", "plug the boards in, or name their ports: --port … --port …")
    return sorted(ports, key=_natural)


def flash_all(
    plan: Path,
    ports: Iterable[str],
    folder: Path,
    *,
    firmware: Path,
    options: flash.Options,
    watch: Watch = Watch(),  # noqa: B008 - it is immutable
) -> Report:
    """Flash the boards at `ports` in parallel with the devices below `folder` that are theirs by `plan`.

    What keeps one board from its device is in its Outcome, and the others go on. Raises ToolError only for what
    concerns them all. Ctrl-C ends it at the boards' next steps; the next run goes on.
    """
    rows, problems = _read_plan(plan)
    unique = list({str(Path(port).resolve()): port for port in ports}.values())
    run = _Run(folder, rows, firmware, options, watch, Report([Outcome(port) for port in unique], problems))
    with ThreadPoolExecutor(max(1, len(unique)), "board") as pool:
        running = [pool.submit(run.one, outcome) for outcome in run.report.outcomes]
        try:
            run.assign()
            wait(running)
        except BaseException:
            run.end()
            raise
    for future in running:
        future.result()  # what is no ToolError is a fault of this program, and is shown as one
    problems.sort(key=lambda problem: problem.line)
    return run.report


class _Run:
    """The boards' threads, and what they share: each says what its board is, and waits for what is to go onto it."""

    def __init__(
        self, folder: Path, rows: list[Row], firmware: Path, options: flash.Options, watch: Watch, report: Report
    ) -> None:
        self.report = report
        self._folder = folder
        self._rows = rows
        self._firmware = firmware
        self._options = options
        self._watch = watch
        self._abouts: dict[str, Future[About | None]] = {outcome.port: Future() for outcome in report.outcomes}
        self._devices: dict[str, Future[Device | None]] = {outcome.port: Future() for outcome in report.outcomes}
        self._ended = threading.Event()
        self._compiling = threading.Lock()
        self._libraries: dict[tuple[str, ...], Mapping[str, bytes]] = {}

    def one(self, outcome: Outcome) -> None:
        """A board's thread, from its prompt to its end."""
        try:
            with repl.opened(outcome.port) as board:
                about = board.about()
                outcome.chip_id = about.chip_id
                self._abouts[outcome.port].set_result(about)
                device = self._devices[outcome.port].result()
                if device:
                    self._flash(board, about, device, outcome)
                else:
                    board.restart()
                    if self._ended.is_set():
                        raise _Ended
        except ToolError as error:
            outcome.state, outcome.note, outcome.hint = FAILED, error.message, error.hint
        except _Ended:
            outcome.state, outcome.note = FAILED, "broken off"
        finally:
            if not self._abouts[outcome.port].done():
                self._abouts[outcome.port].set_result(None)
            self._watch.done(outcome)

    def end(self) -> None:
        """Let every board go."""
        self._ended.set()
        for future in self._devices.values():
            if not future.done():
                future.set_result(None)

    def assign(self) -> None:
        """Wait until every board has said what it is, then give each its device; in the order of the ports."""
        abouts = {port: future.result() for port, future in self._abouts.items()}
        chips = [about.chip_id for about in abouts.values() if about]
        for outcome in self.report.outcomes:
            about = abouts[outcome.port]
            if not about:
                continue
            device = None
            try:
                if chips.count(about.chip_id) > 1:
                    hint = "one board with two cables, or two chips with one id: use one of the ports, by --port"
                    raise ToolError(f"chip {about.chip_id} is at another port as well", hint)
                device = self._device_for(outcome, about)
            except ToolError as error:
                outcome.state, outcome.note, outcome.hint = FAILED, error.message, error.hint
            if device:
                outcome.registration_id = device.registration_id
                self._watch.assigned(outcome)
            self._devices[outcome.port].set_result(device)

    def _device_for(self, outcome: Outcome, about: About) -> Device | None:
        """The device for a board, bound to it; None, with a note, to leave it alone. Raises ToolError."""
        bound = bindings.read(self._folder)
        own = next((name for name, binding in bound.items() if binding.chip_id == about.chip_id), "")
        own = own or (about.carries if about.carries not in bound else "")  # flashed from another PC
        if own:
            row = next((row for row in self._rows if row.registration_id.lower() == own.lower()), None)
            if not row:
                outcome.note = f"it is {own}, which is not in the plan"
                return None
            self._rows.remove(row)
            device = self._load(row)
            outcome.notes = flash.check_folder(device, self._options)
            return device
        if self._options.app_only or self._options.verify:
            outcome.note = "it carries no device yet"
            return None
        taken = {name.lower() for name in bound}
        for row in list(self._rows):
            if row.registration_id.lower() in taken or not _meant(row, outcome):
                continue
            try:
                device = self._load(row)
                if not flash.fits(about, device):
                    continue
                outcome.notes = flash.check_folder(device, self._options)
            except ToolError as error:
                self._rows.remove(row)
                self.report.problems.append(Problem(row.line, error.line))
                continue
            self._rows.remove(row)
            try:
                bindings.bind(self._folder, about.chip_id, device.registration_id)
            except ToolError:
                if device.registration_id not in bindings.read(self._folder):
                    raise
                continue  # another run has taken it meanwhile
            return device
        outcome.note, outcome.notes = "the plan has no device left for it", []
        return None

    def _load(self, row: Row) -> Device:
        device = folders.load(folders.find(row.registration_id, self._folder))
        if row.board and row.board != device.profile.name:
            raise ToolError(
                f"{row.registration_id} is for {device.profile.name} in its folder, {row.board} in the plan",
                "let plan and folder name the same board profile",
            )
        if device.profile.circuitpython:
            raise ToolError(
                f"{row.registration_id} is for CircuitPython, which --all does not flash",
                f"esp-dps flash {row.registration_id} --drive PATH",
            )
        if device.registration_id != row.registration_id:
            raise ToolError(
                f"the folder of {row.registration_id} holds {device.registration_id}",
                "give each device its own folder: esp-dps new",
            )
        return device

    def _flash(self, board: repl.Board, about: About, device: Device, outcome: Outcome) -> None:
        def alive() -> None:
            if self._ended.is_set():
                raise _Ended

        def tell(step: str, text: str) -> None:
            alive()
            self._watch.step(outcome, {"copied": text.split(",")[0]}.get(step, step))

        def progress(done: int, total: int) -> None:
            alive()
            self._watch.progress(outcome, done, total)

        hears = flash.Hears(
            tell=tell,
            progress=progress,
            event=lambda event: self._watch.step(outcome, event.step) if event.step else None,
        )
        outcome.flashed = done = flash.flash_opened(
            board, about, device, self._library(device), self._firmware, self._options, hears
        )
        if done.fault:
            outcome.note = f"not connected: {done.fault.step} {done.fault.code}"
            outcome.hint = f"esp-dps monitor --port {outcome.port} explains it"
            outcome.state = FAILED
        elif done.differs:
            outcome.state, outcome.note = DIFFERS, ", ".join(done.differs)
        else:
            outcome.state = FLASHED if done.copied or done.removed else SAME

    def _library(self, device: Device) -> Mapping[str, bytes]:
        """Compiled once for all boards that take it so."""
        if self._options.app_only:
            return {}
        with self._compiling:
            options = device.profile.mpy
            if options not in self._libraries:
                self._libraries[options] = flash.compile_library(self._firmware, options)
            return self._libraries[options]


def _meant(row: Row, outcome: Outcome) -> bool:
    """Whether the plan allows this row for this board."""
    same_port = not row.port or Path(row.port).resolve() == Path(outcome.port).resolve()
    return same_port and row.chip_id in ("", outcome.chip_id)


def _natural(port: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", port)]
