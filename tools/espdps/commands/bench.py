"""What this tool measures of itself: `bench`."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from espdps.commands import output
from espdps.errors import FAILED, WRONG_USE, ToolError
from espdps.paths import BUILD, ROOT

if TYPE_CHECKING:
    from espdps.bench.row import Row

RESULTS = ROOT / "bench" / "results.json"

app = typer.Typer()


@app.command()
def bench(
    subjects: Annotated[
        list[str] | None, typer.Argument(metavar="[SUBJECT]...", help="Which; all without one.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Where the figures go.", show_default="bench/results.json")] = RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: the figures on standard output too.")] = False,
) -> None:
    """Measure esp-dps on this machine; takes minutes, and wants the machine for itself.

    Exit code 1 if a figure misses what it is held to.

    \b
    EXAMPLE
      esp-dps bench fleet
    """
    from espdps.bench import SUBJECTS, chart

    if unknown := set(subjects or []) - SUBJECTS.keys():
        raise ToolError(f"no subject {', '.join(sorted(unknown))}", f"one of {', '.join(SUBJECTS)}", WRONG_USE)
    figures = {}
    BUILD.mkdir(exist_ok=True)
    for name in subjects or SUBJECTS:
        output.err.print(f"measuring: {name} …", style="dim")
        with tempfile.TemporaryDirectory(prefix="bench-", dir=BUILD) as folder:
            figures[name] = SUBJECTS[name](Path(folder))
    table = {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "subjects": {name: [asdict(row) for row in rows] for name, rows in figures.items()},
    }
    results.parent.mkdir(parents=True, exist_ok=True)
    work = results.with_name(f".{results.name}.new")
    work.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    work.replace(results)
    drawn = results.with_name("chart.svg") if figures.keys() >= chart.DRAWN else None
    if drawn:
        drawn.write_text(chart.svg(figures), encoding="utf-8")
    if as_json:
        output.print_json(table)
    else:
        for name, rows in figures.items():
            output.out.print(_table(name, rows))
        output.out.print(f"written to {results}" + (f" and {drawn}" if drawn else ""), soft_wrap=True)
    if any(row.met is False for rows in figures.values() for row in rows):
        raise typer.Exit(FAILED)


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
