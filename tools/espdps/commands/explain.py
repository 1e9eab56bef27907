"""What an error code means: `explain`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from espdps import explain as explaining
from espdps.board.console import Fault, show_fault
from espdps.commands import output
from espdps.commands.options import AsJson
from espdps.errors import WRONG_USE, ToolError

app = typer.Typer()


@app.command()
def explain(
    code: Annotated[str | None, typer.Argument(help="Code of an error, as the board or the service gave it.")] = None,
    step: Annotated[str, typer.Option(help="The step before it in the same line; some codes differ by step.")] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="All codes, as a page has them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what an error code means, why it usually happens and what to do.

    An error is a line of the board's console: "error STEP CODE", then the service's message.

    \b
    EXAMPLE
      esp-dps explain 401002
      esp-dps explain connack-5 --step hub.connect
    """
    if (code is not None) == markdown:
        raise ToolError("one CODE or --markdown", "esp-dps explain --help", WRONG_USE)
    if code is None:
        print(explaining.markdown(), end="")
    elif as_json:
        output.print_json({"code": code, "step": step, **asdict(explaining.explain(code, step))})
    else:
        show_fault(Fault(step, code, "", ""), output.out)
