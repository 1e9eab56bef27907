"""The identity on a board: `erase`, `backup`, `restore`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from espdps.commands import output
from espdps.commands.options import AsJson, Devices, Port
from espdps.errors import WRONG_USE, ToolError

app = typer.Typer()

Backup = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]


@app.command()
def erase(
    port: Port,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    *,
    devices_folder: Devices,
    as_json: AsJson = False,
) -> None:
    """Remove keys, settings and identity from a board.

    Asks first. The firmware stays, and the board is free for another device. Whoever can read the chip's flash may
    find traces of what was removed until it is written over: esptool erase-flash leaves none.

    \b
    EXAMPLE
      esp-dps erase --port /dev/ttyUSB0
    """
    from espdps.board import identity_backup, repl

    if not yes and not sys.stdin.isatty():
        raise ToolError("erase asks first, and there is nobody to ask", "--yes erases without", WRONG_USE)
    with repl.opened(port) as board:
        name = str(identity_backup.owner(board).get("registration_id", "no device"))
        if not yes:
            output.err.print(f"The board on {port} carries {name}. Its private key and its identity will be gone.")
            if not typer.confirm("Erase them?", err=True):
                raise ToolError("nothing was erased", "run it again and answer y, or give --yes")
        removed = identity_backup.erase(board, devices_folder)
    if as_json:
        output.print_json({"registration_id": name, "removed": removed})
    else:
        output.out.print(f"{port}: {len(removed)} files of {name} removed", soft_wrap=True)


@app.command()
def backup(port: Port, file: Backup, as_json: AsJson = False) -> None:
    """Save the identity that was issued to a board.

    Its certificate chain and hub, checked by their digest, as a file for its owner only. The private key is not in it.

    \b
    EXAMPLE
      esp-dps backup --port /dev/ttyUSB0 greenhouse-1.identity
    """
    from espdps.board import identity_backup, repl

    with repl.opened(port) as board:
        slot = identity_backup.backup(board, file)
        board.restart()
    _say(f"{file}: {slot.device_id} on {slot.hub}, until {identity_backup.date(slot.not_after)}", slot, as_json)


@app.command()
def restore(
    port: Port,
    file: Backup,
    force: Annotated[bool, typer.Option("--force", help="Even if the board has a newer identity.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a saved identity back onto its board.

    Only onto the same device, by registration id and private key, and not in the place of a newer one.

    \b
    EXAMPLE
      esp-dps restore --port /dev/ttyUSB0 greenhouse-1.identity
    """
    from espdps.board import identity_backup, repl

    identity_backup.read_backup(file)  # what is wrong with it is said before the board is stopped
    with repl.opened(port) as board:
        slot = identity_backup.restore(board, file, force=force)
        board.restart()
    _say(f"{port}: {slot.device_id} on {slot.hub}, until {identity_backup.date(slot.not_after)}", slot, as_json)


def _say(text: str, slot: object, as_json: bool) -> None:
    if as_json:
        names = ("device_id", "hub", "sequence", "not_after")
        output.print_json({name: getattr(slot, name) for name in names})
    else:
        output.out.print(text, soft_wrap=True)
