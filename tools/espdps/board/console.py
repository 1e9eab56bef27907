"""The board's console: its lines read into events, and events shown to a person with cause and remedy.
Text from a board is data: no escape sequence and no markup in it may reach the terminal."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from espdps.explain import explain

PROMPT = ">>> "
LONGEST_LINE = 4096  # characters; a board that sends no line feed must not fill the memory
_LINE = re.compile(r"\[ *(\d+\.\d{3})\] (\S+) *(.*)")
_ERROR = re.compile(r"(\S+) (\S+)(?: tracking (\S+))? ?(.*)")
_UNPRINTABLE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Fault:
    """An error as the firmware reports it: the step that failed, the code, the service's tracking id and message."""

    step: str
    code: str
    tracking: str
    message: str

    @property
    def refused(self) -> bool:
        """Whether the service itself said no."""
        return explain(self.code, self.step).refused


@dataclass(frozen=True)
class Event:
    """One line of the console. A line that is not the firmware's own (a print, a traceback) has no step."""

    text: str
    step: str = ""
    seconds: float = 0.0
    fault: Fault | None = None

    def as_json(self) -> dict[str, Any]:
        """For scripts; an error carries its explanation along."""
        table = asdict(self)
        if self.fault:
            table["fault"]["explanation"] = asdict(explain(self.fault.code, self.fault.step))
        return table


def parse(line: str) -> Event:
    """The event a line stands for."""
    match = _LINE.fullmatch(line)
    if not match:
        return Event(line)
    seconds, step, text = match.groups()
    error = _ERROR.fullmatch(text) if step == "error" else None
    if not error:
        return Event(text, step, float(seconds))
    failed, code, tracking, message = error.groups()
    return Event(text, step, float(seconds), Fault(failed, code, tracking or "", message))


class Lines:
    """Cuts the bytes of a console into lines, without what would steer a terminal."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes, without their ends."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            whole.append(self._rest)
            self._rest = b""
        return [_clean(line) for line in whole]

    @property
    def at_prompt(self) -> bool:
        """Whether the board waits at its prompt, so that no program runs there."""
        return _clean(self._rest) == PROMPT


def _clean(line: bytes) -> str:
    return _UNPRINTABLE.sub("", line.decode("utf-8", "replace"))


class Display:
    """Shows events to a person: an error is explained once, then only its line until there is another one.

    `timestamps` puts the PC's time before each line.
    """

    def __init__(self, console: Console, *, timestamps: bool = False) -> None:
        self._console = console
        self._timestamps = timestamps
        self._explained: tuple[str, str] | None = None

    def __call__(self, event: Event) -> None:
        stamp = Text(datetime.now().strftime("%Y-%m-%d %H:%M:%S ") if self._timestamps else "", style="dim")
        if not event.step:
            self._console.print(stamp + Text(event.text, style="dim"), soft_wrap=True)
            return
        style = "bold red" if event.step == "error" else "cyan"
        stamp += Text(f"[{event.seconds:8.3f}] ", style="dim")
        self._console.print(stamp + Text(f"{event.step:<12} ", style=style) + Text(event.text), soft_wrap=True)
        if event.fault and self._explained != (event.fault.step, event.fault.code):
            self._explained = (event.fault.step, event.fault.code)
            show_fault(event.fault, self._console)


def show_fault(fault: Fault, console: Console) -> None:
    """Print what an error means, why it usually happens and what to do."""
    explanation = explain(fault.code, fault.step)
    lines = [Text(explanation.meaning, style="bold")]
    lines += [Text(f"- {cause}") for cause in explanation.causes]
    lines.append(Text(f"What to do: {explanation.remedy}"))
    for line in lines:
        console.print(Padding(line, (0, 0, 0, 11), expand=False))
