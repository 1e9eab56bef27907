"""What every command prints with: to a person, or with --json to a script."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console

from espdps.console import Event

out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)


def print_secret(text: str, table: dict[str, Any], as_json: bool) -> None:
    """Print what was asked for, plainly; say on a terminal that it is to be kept."""
    if sys.stdout.isatty():
        err.print("this is a secret: keep it out of logs and chats", style="yellow")
    print(json.dumps(table) if as_json else text)


def print_json(table: dict[str, Any]) -> None:
    print(json.dumps(table), flush=True)


def print_event(event: Event) -> None:
    print_json(event.as_json())
