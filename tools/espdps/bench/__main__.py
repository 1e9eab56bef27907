"""Measures esp-dps on this machine: `make bench`, or `python -m espdps.bench [SUBJECT]...`."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console
from rich.table import Table

from espdps.bench import chart, flash, fleet, heap, latency, load, wire
from espdps.bench.row import Row
from espdps.errors import ToolError
from espdps.paths import BUILD, ROOT

RESULTS = ROOT / "bench" / "results.json"
SUBJECTS: dict[str, Callable[[Path], list[Row]]] = {
    "flash": flash.measure,
    "heap": heap.measure,
    "wire": wire.measure,
    "time": latency.measure,
    "fleet": fleet.measure,
    "load": lambda folder: load.measure(folder).rows(),
}


def main() -> int:
    """Exit code 1 if a figure misses its limit, or if nothing could be measured."""
    parser = argparse.ArgumentParser(prog="python -m espdps.bench", description=main.__doc__)
    parser.add_argument("subjects", metavar="SUBJECT", nargs="*", help=f"{', '.join(SUBJECTS)} (default: all)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="output file (default: bench/results.json)")
    options = parser.parse_args()
    if unknown := set(options.subjects) - SUBJECTS.keys():
        parser.error(f"unknown subject: {', '.join(sorted(unknown))}")
    try:
        figures = _measure(options.subjects or list(SUBJECTS))
    except ToolError as error:
        print(f"bench: {error.message}\n       {error.hint}", file=sys.stderr)
        return 1
    written = [options.results]
    _write(options.results, json.dumps(_json(figures), indent=2) + "\n")
    if figures.keys() >= chart.DRAWN:
        written.append(options.results.with_name("chart.svg"))
        _write(written[-1], chart.svg(figures))
    out = Console()
    for name, rows in figures.items():
        out.print(_table(name, rows))
    out.print(f"written: {', '.join(map(str, written))}", soft_wrap=True)
    return 1 if any(row.met is False for rows in figures.values() for row in rows) else 0


def _measure(subjects: Sequence[str]) -> dict[str, list[Row]]:
    figures = {}
    BUILD.mkdir(exist_ok=True)
    for name in subjects:
        print(f"measuring: {name} …", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="bench-", dir=BUILD) as folder:
            figures[name] = SUBJECTS[name](Path(folder))
    return figures


def _json(figures: Mapping[str, Sequence[Row]]) -> dict[str, object]:
    return {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "subjects": {name: [asdict(row) for row in rows] for name, rows in figures.items()},
    }


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(f".{path.name}.new")
    work.write_text(text, encoding="utf-8")
    work.replace(path)


def _table(name: str, rows: Sequence[Row]) -> Table:
    """A line for each thing that was measured, a column for each who was measured at it."""
    columns = list(dict.fromkeys(row.by for row in rows)) or [""]
    shown = Table("what", *columns, "unit", "bar", title=name, title_justify="left")
    for shown_column in shown.columns[1:-2]:
        shown_column.justify = "right"
    lines: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        lines.setdefault((row.what, row.unit), {})[row.by] = row
    notes: list[str] = []
    for (what, unit), found in lines.items():
        cells = []
        for column in columns:
            entry = found.get(column)
            cells.append("" if entry is None else "none" if entry.value is None else number(entry.value))
            if entry and entry.note:
                notes.append(f"{entry.by or what}: {entry.note}")
        style = "red" if any(row.met is False for row in found.values()) else ""
        shown.add_row(what, *cells, unit, " ".join(row.bar for row in found.values() if row.bar), style=style)
    shown.caption = "\n".join(dict.fromkeys(notes)) or None
    shown.caption_justify = "left"
    return shown


def number(value: float) -> str:
    """Whole where it is, else with one place."""
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


if __name__ == "__main__":
    sys.exit(main())
