"""The chart of the README: a few bars for each of the subjects that others can be measured at, as SVG.

It must show measured rows only, and be readable on a light and on a dark page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from espdps.bench.row import Row

DRAWN = {"flash", "heap", "wire", "time"}
_WIDTH, _LEFT, _BAR, _LINE = 760, 250, 400, 22
_FIGURE = 40  # room for one beside its bar
_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #24292f } .title { font-weight: 600 }
.ours { fill: #1a7f37 } .theirs { fill: #8c959f } .bar { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .ours { fill: #3fb950 } .theirs { fill: #6e7681 } .bar { stroke: #ff7b72 }
}"""


@dataclass(frozen=True)
class Bar:
    label: str
    value: float
    ours: bool


@dataclass(frozen=True)
class Panel:
    """``limit``: where the budget is, in the same unit."""

    title: str
    bars: Sequence[Bar]
    limit: float | None = None


def svg(figures: Mapping[str, Sequence[Row]]) -> str:
    """The chart of rows of all subjects in DRAWN."""
    y = 8
    parts = []
    for panel in _panels(figures):
        parts.append(f'<text class="title" x="10" y="{y + 15}">{escape(panel.title)}</text>')
        y += _LINE + 4
        top = y
        most = max([bar.value for bar in panel.bars] + [panel.limit or 0.0])
        for bar in panel.bars:
            long = round(_BAR * bar.value / most, 1)
            line = round(_BAR * (panel.limit or 0) / most, 1)
            end = line if long <= line < long + _FIGURE else long  # the figure does not stand in the line
            kind = "ours" if bar.ours else "theirs"
            parts += [
                f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(bar.label)}</text>',
                f'<rect class="{kind}" x="{_LEFT}" y="{y + 3}" width="{long}" height="{_LINE - 7}" rx="2"/>',
                f'<text x="{_LEFT + end + 6}" y="{y + 14}">{bar.value:,.5g}</text>',
            ]
            y += _LINE
        if panel.limit:
            x = round(_LEFT + _BAR * panel.limit / most, 1)
            parts.append(f'<line class="bar" x1="{x}" x2="{x}" y1="{top}" y2="{y}"/>')
        y += 10
    size = f'width="{_WIDTH}" height="{y}" viewBox="0 0 {_WIDTH} {y}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="Figures of make bench">'
    return "\n".join([head, f"<style>{_STYLE}</style>", *parts, "</svg>", ""])


def _panels(figures: Mapping[str, Sequence[Row]]) -> list[Panel]:
    panels = [
        Panel(
            "Flash: bytes of .mpy",
            [
                Bar("esp-dps, blank board to telemetry", _one(figures["flash"], "what the main path loads"), True),
                Bar("esp-dps, all of it", _one(figures["flash"], "aziot"), True),
                *(
                    Bar("Adafruit's AzureIoT and its imports", row.value, False)
                    for row in figures["flash"]
                    if row.what.startswith("Adafruit") and row.value is not None
                ),
            ],
        ),
        Panel(
            "Heap: smallest of a 32-bit MicroPython that works, KB (dashed: an ESP32-S2 starts with 36)",
            [
                Bar(f"esp-dps, {row.what.removeprefix('all, ')}", row.value, True)
                for row in figures["heap"]
                if row.what.startswith("all, ") and (row.bar or row.what.endswith(" frozen")) and row.value is not None
            ],
            36.0,
        ),
        _contest("Wire: TLS records sent for a registration", figures["wire"], "registration: TLS records out", 1),
        _contest("Time: seconds to assigned, round trip 50 ms", figures["time"], "round trip 50 ms: assigned", 1000),
    ]
    return [panel for panel in panels if panel.bars]


def _contest(title: str, rows: Sequence[Row], what: str, unit: float) -> Panel:
    return Panel(
        title,
        [
            Bar(row.by, row.value / unit, row.by.startswith("esp-dps"))
            for row in rows
            if row.what == what and row.value is not None
        ],
    )


def _one(rows: Sequence[Row], what: str) -> float:
    return next(row.value for row in rows if row.what == what and row.value is not None)
