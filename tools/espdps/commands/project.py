"""A folder of the user's own: `init`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from espdps.commands import output
from espdps.commands.options import AsJson
from espdps.devices import folders, profiles, project
from espdps.errors import WRONG_USE, ToolError

app = typer.Typer()


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make, or to fill.")] = Path("."),  # noqa: B008
    id_scope: Annotated[str | None, typer.Option(help="ID scope of your DPS instance.")] = None,
    group_key_file: Annotated[
        str | None, typer.Option(help="File with the enrollment group's key; a relative path starts at DIR.")
    ] = None,
    sim: Annotated[
        str | None,
        typer.Option(
            "--sim", metavar="DIR", help="Folder of a simulator instead; a relative path starts at the new folder."
        ),
    ] = None,
    board: Annotated[str | None, typer.Option(help="Board profile.")] = None,
    wifi_ssid: Annotated[str | None, typer.Option(help="Name of the Wi-Fi network.")] = None,
    port: Annotated[str | None, typer.Option(help="Serial port of the board.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a project folder: settings, application, .gitignore.

    Every other command reads its defaults from esp-dps.toml there, also in the folders below it. Without an ID scope
    the project uses a simulator in sim/. At a terminal, init asks for what is not given. It never overwrites a file.

    \b
    EXAMPLE
      esp-dps init greenhouse --id-scope 0ne00ABCDEF --board ESP32_GENERIC_C3 \\
          --wifi-ssid Greenhouse --port /dev/ttyUSB0
      esp-dps init trial --sim sim --board UNIX
    """
    if id_scope and sim:
        raise ToolError("--id-scope and --sim exclude each other", "give one of them", WRONG_USE)
    if sys.stdin.isatty() and not as_json:
        if not id_scope and not sim:
            id_scope = _ask("ID scope of your DPS instance (empty: use a simulator)")
        board = board or _ask(f"Board profile ({', '.join(profiles.names())})")
        wifi_ssid = wifi_ssid or _ask("Name of the Wi-Fi network (empty: none)")
        port = port or _ask("Serial port of the board (empty: none yet)")
    if id_scope:
        folders.check_id_scope(id_scope)
    if board:
        profiles.load(board)
    given = {
        "id_scope": id_scope,
        "group_key_file": group_key_file,
        "simulator": sim or (None if id_scope else project.SIMULATOR),
        "board": board,
        "wifi_ssid": wifi_ssid,
        "port": port,
    }
    made, kept = project.create(folder, {name: text for name, text in given.items() if text})
    if as_json:
        output.print_json({"made": [str(path) for path in made], "kept": [str(path) for path in kept]})
        return
    for path in made:
        output.out.print(f"made  {path}", soft_wrap=True)
    for path in kept:
        output.out.print(f"kept  {path}, which already existed", style="yellow", soft_wrap=True)


def _ask(question: str) -> str | None:
    return str(typer.prompt(question, default="", show_default=False, err=True)).strip() or None
