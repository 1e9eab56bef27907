"""The command `esp-dps`: puts the commands together, and turns what they raise into one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from importlib import metadata
from typing import Annotated, NoReturn

import typer

from espdps.commands import (
    authority,
    backups,
    credentials,
    device_folders,
    enroll,
    explain,
    flashing,
    fleet,
    hub,
    inspection,
    project,
    register,
    registry,
    secrets,
    stand_ins,
)
from espdps.commands.output import err
from espdps.commands.secrets import DEVICE_KEY, GROUP_KEY, NEW_PASSPHRASE, PASSPHRASE, POLICY_KEY, WIFI_PASSWORD
from espdps.errors import FAILED, ToolError, of_system

HELP = f"""Azure DPS identity for ESP32 boards on stock MicroPython.

A device is one folder below devices/, made by `new` and put onto a board by `flash`. The simulator (`sim`) and the
virtual board (`board`) stand in for Azure and for hardware; `demo` shows all of it. `init` makes a project folder, with
esp-dps.toml: defaults for the other commands.

\b
EXAMPLE
  esp-dps new greenhouse-1 --id-scope 0ne00ABCDEF --board ESP32_GENERIC_C3 \\
      --group-key-file group.key --wifi-ssid Greenhouse
  esp-dps flash greenhouse-1 --port /dev/ttyUSB0
  esp-dps monitor --port /dev/ttyUSB0

\b
SECRETS
  From a file (--group-key-file and so on), else the environment, else a prompt:
  {GROUP_KEY}, {DEVICE_KEY}, {WIFI_PASSWORD},
  {POLICY_KEY}, {PASSPHRASE}, {NEW_PASSPHRASE}.

\b
DEFAULTS
  An option, else the environment (ESPDPS_ID_SCOPE, ESPDPS_SIM, ESPDPS_BOARD,
  ESPDPS_PORT, ESPDPS_DEVICES), else esp-dps.toml of the project folder.

\b
EXIT CODES
  0  done     1  failed     2  wrong use     3  refused by the service
  130  Ctrl-C, but 0 from `sim`, `board` and `monitor`, which run until then
"""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # pretty exceptions print local variables, and some of those are keys

# in the order in which a person needs them
_PLAIN = (
    project, device_folders, fleet, register, flashing, explain, backups, stand_ins, credentials, inspection, authority,
)  # fmt: skip
for commands in _PLAIN:
    app.add_typer(commands.app)
app.add_typer(enroll.app, name="enroll")
app.add_typer(hub.app, name="hub")
app.add_typer(registry.app, name="registry")

_OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}


def _version(wanted: bool) -> None:
    if wanted:
        print(f"esp-dps {metadata.version('esp-dps')}")
        raise typer.Exit()


@app.callback(help=HELP)
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: turns a ToolError into one line, a hint and its exit code."""
    secrets.take_environment()
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)  # as shells count a program ended by Ctrl-C
    except ToolError as error:
        _show(error)
    except BrokenPipeError:  # `esp-dps … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except OSError as error:
        if error.filename is None and error.errno not in _OF_THE_MACHINE:
            raise  # no path of the user's is at fault, but this program
        _show(of_system(error))


def _show(error: ToolError) -> NoReturn:
    err.print(f"esp-dps: {error.message}", soft_wrap=True)
    err.print(f"         {error.hint}", soft_wrap=True)
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
