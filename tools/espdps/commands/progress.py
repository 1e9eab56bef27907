"""Many boards on one screen: a line each on a terminal, else a line for each thing that happens to one.
Shows names, steps and numbers only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from espdps.board.flash_all import DIFFERS, FAILED, LEFT, Outcome, Watch
from espdps.commands import output

_COLOURS = {FAILED: "red", DIFFERS: "red", LEFT: "yellow"}


@contextmanager
def watching(as_json: bool) -> Iterator[Watch]:
    """A Watch for a script, for a terminal, or for a log."""
    if as_json:
        yield Watch(done=lambda outcome: output.print_json(asdict(outcome)))
    elif output.out.is_terminal:
        with _lines() as watch:
            yield watch
    else:
        yield Watch(
            assigned=lambda outcome: _say(outcome, f"chip {outcome.chip_id} gets {outcome.registration_id}"),
            done=lambda outcome: _say(outcome, _end(outcome)),
        )


@contextmanager
def _lines() -> Iterator[Watch]:
    lock = threading.Lock()
    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(12), TextColumn("{task.fields[step]}"))
    with Progress(*columns, console=output.out) as progress:

        def task(outcome: Outcome) -> TaskID:
            with lock:
                if outcome.port not in tasks:
                    tasks[outcome.port] = progress.add_task("", total=1, step="")
                name = outcome.registration_id or outcome.chip_id
                progress.update(tasks[outcome.port], description=escape(f"{_short(outcome.port):<13.13} {name:<20.20}"))
                return tasks[outcome.port]

        def step(outcome: Outcome, text: str) -> None:
            progress.update(task(outcome), step=escape(text))

        def advance(outcome: Outcome, done: int, total: int) -> None:
            progress.update(task(outcome), completed=done, total=total or 1)

        def done(outcome: Outcome) -> None:
            colour = _COLOURS.get(outcome.state, "green")
            progress.update(task(outcome), step=f"[{colour}]{escape(outcome.state)}[/]")
            if outcome.state not in _COLOURS:
                advance(outcome, 1, 1)
            if outcome.note or outcome.notes:
                _say(outcome, _end(outcome))

        def assigned(outcome: Outcome) -> None:
            step(outcome, f"chip {outcome.chip_id}")

        yield Watch(assigned=assigned, step=step, progress=advance, done=done)


def _end(outcome: Outcome) -> str:
    text = outcome.state
    if outcome.flashed:
        text += f", {len(outcome.flashed.copied)} files copied, {len(outcome.flashed.same)} were the same"
        if outcome.flashed.connected:
            text += ", connected"
    if outcome.note:
        text += f": {outcome.note}"
    if outcome.hint:
        text += f"\n         {outcome.hint}"
    return text + "".join(f"\n         note: {note}" for note in outcome.notes)


def _say(outcome: Outcome, text: str) -> None:
    name = f" {outcome.registration_id}" if outcome.registration_id else ""
    output.out.print(f"{outcome.port}{name}: {text}", soft_wrap=True)


def _short(port: str) -> str:
    return port.removeprefix("/dev/")[-13:]
