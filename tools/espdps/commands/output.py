"""What every command prints with: to a person, or with --json to a script."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from espdps.board.console import Event

out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)


def print_secret(text: str, table: dict[str, Any], as_json: bool) -> None:
    """Print what was asked for, plainly; say on a terminal that it is to be kept."""
    if sys.stdout.isatty():
        err.print("this is a secret: keep it out of logs and chats", style="yellow")
    print(json.dumps(table) if as_json else text)


def print_json(table: dict[str, Any]) -> None:
    # The line in one piece: several boards report at once, each from a thread of its own.
    print(json.dumps(table) + "\n", end="", flush=True)


def print_event(event: Event) -> None:
    print_json(event.as_json())


def show_rows(rows: list[dict[str, Any]], empty: str, as_json: bool) -> None:
    """A table with the names of the first row as its head, or `empty` without any."""
    if as_json:
        for row in rows:
            print_json(row)
    elif not rows:
        err.print(empty)
    else:
        table = Table(*rows[0], box=None, pad_edge=False)
        for row in rows:
            table.add_row(*map(cell, row.values()))
        out.print(table)


def cell(value: Any) -> str:
    """A value in a table; nothing that somebody wrote into a tag may steer the terminal."""
    if isinstance(value, dict):
        value = " ".join(
            f"{name}={text if isinstance(text, str) else json.dumps(text)}" for name, text in value.items()
        )
    text = ", ".join(value) if isinstance(value, list) else str("-" if value is None else value)
    return text if text.isprintable() else repr(text)
