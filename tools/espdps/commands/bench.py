"""What this tool measures of itself: `bench`."""

from __future__ import annotations

import json
import platform
import tempfile
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from espdps.commands import output
from espdps.errors import FAILED, WRONG_USE, ToolError
from espdps.paths import BUILD, ROOT

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
    from espdps.bench import SUBJECTS

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
    if as_json:
        output.print_json(table)
    else:
        for name, rows in figures.items():
            shown = Table("what", "", "unit", "bar", title=name, title_justify="left")
            shown.columns[1].justify = "right"
            for row in rows:
                style = "red" if row.met is False else ""
                shown.add_row(row.what, f"{row.value:,.1f}", row.unit, row.bar, style=style)
            output.out.print(shown)
        output.out.print(f"written to {results}", soft_wrap=True)
    if any(row.met is False for rows in figures.values() for row in rows):
        raise typer.Exit(FAILED)
