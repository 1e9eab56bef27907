"""A provisioning as a picture: one bar a step, from the board's own log, for a report or a README.
An SVG that reads on light and dark ground alike. It shows what the events say and nothing else; they hold no secret."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from espdps import files
from espdps.board.console import Event
from espdps.errors import ToolError

# The firmware's steps in a reader's words, and what kind of work ends with each
TITLES = {
    "start": "power on",
    "identity": "load credential",
    "network": "network",
    "clock": "clock",
    "dps.connect": "TLS to DPS",
    "dps.register": "register",
    "dps.assigning": "assigning",
    "dps.assigned": "assigned",
    "certificate": "certificate issued",
    "hub.ready": "TLS to Hub",
    "hub.sent": "telemetry",
}
_KINDS = {
    "dps.connect": "handshake",
    "hub.ready": "handshake",
    "dps.register": "message",
    "dps.assigning": "message",
    "hub.sent": "message",
    "dps.assigned": "wait",
    "error": "error",
}
_COLOURS = {
    "handshake": "#2f7ed8",
    "message": "#2a9d6f",
    "wait": "#b8892b",
    "on the board": "#7d8590",
    "error": "#d1495b",
}
_STYLE = """text { font: 12px system-ui, sans-serif; fill: #24292f } .dim { fill: #656d76 } .title { font-weight: 600 }
.grid { stroke: #8884; stroke-width: 1 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .dim { fill: #9198a1 } }"""
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2
_LEFT, _BARS, _RIGHT, _ROW, _TOP = 150, 470, 300, 22, 50  # widths and heights in pixels


@dataclass(frozen=True)
class Part:
    """One start of a board: what it is called, and its events in order."""

    title: str
    events: Sequence[Event]


def write(path: Path, parts: Sequence[Part]) -> None:
    """Write the picture of these starts, each on the same scale, whole or not at all. Raises ToolError."""
    check(path)
    files.write([files.Output(path, svg(parts).encode())], force=True)


def check(path: Path) -> None:
    """Raises ToolError if no picture can be written there: for a caller with a long way to it.

    In the place of an earlier picture, but of nothing else.
    """
    files.refuse_existing([path], force=True)
    if path.is_file() and path.stat().st_size and not files.read(path).startswith(b"<svg"):
        raise ToolError(f"{path} is there already and no picture", "give another name")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ToolError(f"{path}: {above} cannot be written to", "give another place")


def svg(parts: Sequence[Part]) -> str:
    """The picture as text. Steps that the firmware does not name are left out; an error is a step."""
    kept = [(part.title, [event for event in part.events if event.step in TITLES or event.fault]) for part in parts]
    longest = max([event.seconds for _, events in kept for event in events] or [0.0]) or 1.0
    scale = _BARS / longest
    lines: list[str] = []
    top = 0
    for title, events in kept:
        lines += _part(title, events, scale, top)
        top += _TOP + _ROW * len(events) + 14
    width, height = _LEFT + _BARS + _RIGHT, top + 24
    lines += _legend(top)
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(parts[0].title if parts else "", {chr(34): "&quot;"})}">\n'
        f"<style>{_STYLE}</style>\n" + "\n".join(lines) + "\n</svg>\n"
    )
    return _NO_XML.sub("?", picture)  # a service's own words may be anything


def _part(title: str, events: Sequence[Event], scale: float, top: int) -> list[str]:
    end = max([event.seconds for event in events] or [0.0])
    lines = [f'<text class="title" x="8" y="{top + 20}">{escape(title)}: {_seconds(end)}</text>']
    below = top + _TOP + _ROW * len(events)
    step = next(size for size in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 600, 1e9) if _BARS / scale / size <= 8)
    for n in range(int(_BARS / scale / step) + 1):
        x = _LEFT + n * step * scale
        lines.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top + _TOP - 4}" y2="{below}"/>')
        lines.append(f'<text class="dim" x="{x:.1f}" y="{top + _TOP - 8}" text-anchor="middle">{n * step:g} s</text>')
    before = 0.0
    for row, event in enumerate(events):
        y = top + _TOP + _ROW * row
        kind = _KINDS.get("error" if event.fault else event.step, "on the board")
        x, wide = _LEFT + before * scale, max((event.seconds - before) * scale, 2)
        lines.append(f'<text x="8" y="{y + 15}">{escape("error" if event.fault else TITLES[event.step])}</text>')
        lines.append(
            f'<rect x="{x:.1f}" y="{y + 4}" width="{wide:.1f}" height="14" rx="2" fill="{_COLOURS[kind]}">'
            f"<title>{escape(event.text)}</title></rect>"
        )
        took = f"{_seconds(event.seconds - before)} · {event.text}"
        inside = x + wide + 6 > _LEFT + _BARS * 0.75  # the text would leave the picture: it ends before the bar
        place, anchor = (x - 6, "end") if inside and x > _LEFT + 200 else (x + wide + 6, "start")
        room = int((place - _LEFT if anchor == "end" else _LEFT + _BARS + _RIGHT - place) / 6.4)
        text = took if len(took) <= room else took[: max(room - 1, 1)] + "…"
        lines.append(f'<text class="dim" x="{place:.1f}" y="{y + 15}" text-anchor="{anchor}">{escape(text)}</text>')
        before = event.seconds
    return lines


def _legend(top: int) -> list[str]:
    lines, x = [], 8
    for kind, colour in _COLOURS.items():
        lines.append(f'<rect x="{x}" y="{top + 4}" width="10" height="10" rx="2" fill="{colour}"/>')
        lines.append(f'<text class="dim" x="{x + 15}" y="{top + 13}">{kind}</text>')
        x += 35 + 7 * len(kind)
    return lines


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
