"""Many devices at once: `fleet`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from espdps.commands import output, secrets
from espdps.commands.options import (
    BOARD_DEFAULT,
    AsJson,
    Devices,
    GroupKeyFile,
    IdScope,
    KeyType,
    SecondaryGroupKeyFile,
    SimFolder,
)
from espdps.credentials import keys
from espdps.devices import fleet as worker
from espdps.devices import folders, plan, profiles, project
from espdps.errors import FAILED, WRONG_USE, ToolError, of_system

SHOWN = 20  # bad rows on a screen; all of them are in the manifest

app = typer.Typer()


@app.command()
def fleet(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN.CSV", help="One row a device; see COLUMNS.")],
    board: Annotated[
        str | None, typer.Option(help="Board profile where the plan has none.", show_default=BOARD_DEFAULT)
    ] = None,
    id_scope: IdScope = None,
    group_key_file: GroupKeyFile = None,
    secondary_group_key_file: SecondaryGroupKeyFile = None,
    key_type: Annotated[KeyType, typer.Option(help="Private key where the plan says none.")] = KeyType(  # noqa: B008
        keys.DEFAULT_KIND
    ),
    no_csr: Annotated[bool, typer.Option("--no-csr", help="No private key and CSR where the plan says none.")] = False,
    wifi_ssid: Annotated[
        str | None,
        typer.Option(help="Wi-Fi network where the plan has none.", show_default="wifi_ssid in esp-dps.toml"),
    ] = None,
    wifi_password_file: Annotated[Path | None, typer.Option(help="File with its password; empty: open.")] = None,
    dps_host: Annotated[str | None, typer.Option(help=f"Else {folders.AZURE_HOST}.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help=f"Else {folders.PORT}.")] = None,
    roots_file: Annotated[Path | None, typer.Option("--roots", help="Trusted roots, PEM or DER. Else Azure's.")] = None,
    sim: SimFolder = None,
    *,
    devices_folder: Devices,
    manifest: Annotated[
        Path | None, typer.Option(help="What became of each row, CSV.", show_default="PLAN.manifest.csv")
    ] = None,
    shred_after_flash: Annotated[
        bool, typer.Option("--shred-after-flash", help="Private values leave this PC once a board has them.")
    ] = False,
    processes: Annotated[int | None, typer.Option(min=1, max=256, help="Else one a core.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the device folders of a whole plan, on all cores.

    Run it again after an interruption of any kind, or with more rows: what is complete stays as it is. A row that
    cannot be used is reported and the rest goes on; correct it and run again. Exit code 1 if there was one.

    \b
    COLUMNS of the plan, named in its first line, in any order
      registration_id   the device's name at DPS; the only one that must be there
      board             board profile, a file of boards/
      key_type          as --key-type, or none for no key and CSR
      wifi_ssid         name of its Wi-Fi network; all have one password
      device_key_file   an individual enrollment's key: a file, base64
      onboarding_cert   X.509 enrollment: client certificate, PEM, leaf first
      onboarding_key    and its private key; PEM or DER
    File names start at the plan's folder. Other columns are left alone; port and
    chip_id are for flash --all.

    \b
    SECRETS
      The group key: --group-key-file, ESPDPS_GROUP_KEY, or asked for once.
      The Wi-Fi password: --wifi-password-file, ESPDPS_WIFI_PASSWORD, or so.

    \b
    MANIFEST, CSV in the order of the plan
      registration_id, board, key_type, csr_sha256,
      state: made (now), kept (from before) or bad, line, reason

    \b
    EXAMPLE
      printf 'registration_id\\ngreenhouse-1\\ngreenhouse-2\\n' > plan.csv
      esp-dps fleet plan.csv --id-scope 0ne00ABCDEF --board ESP32_GENERIC_C3 \\
          --group-key-file group.key --wifi-ssid Greenhouse
    """
    names, _ = plan.columns(plan_file)
    board = board or project.value("board")
    wifi_ssid = wifi_ssid if wifi_ssid is not None else project.value("wifi_ssid")
    id_scope, sim = project.service(id_scope, sim)
    if board:
        profiles.load(board)
    elif "board" not in names:
        raise ToolError("no board", "--board NAME, or a column board in the plan", WRONG_USE)
    if extra := plan.ignored(plan_file):
        output.err.print(f"columns left alone: {', '.join(extra)}", style="yellow", soft_wrap=True)
    info = folders.read_simulator(sim) if sim else {}
    scope = id_scope or info.get("id_scope")
    if scope is None:
        raise ToolError("no id scope", "--id-scope 0ne…; it stands on the overview page of the DPS instance", WRONG_USE)
    folders.check_id_scope(scope)
    wants_wifi = wifi_ssid is not None or "wifi_ssid" in names
    if not wants_wifi and not info:
        output.err.print("no --wifi-ssid: boards with Wi-Fi will have no network to join", style="yellow")
    common = worker.Common(
        folder=plan_file.parent,
        devices=devices_folder,
        id_scope=scope,
        board=board,
        roots=secrets.trusted_roots(roots_file, info),
        group_key=_group_key(plan_file, names, group_key_file, info),
        secondary_group_key=secrets.group_key(secondary_group_key_file) if secondary_group_key_file else None,
        key_kind=None if no_csr else key_type.value,
        dps_host=folders.dps_host(dps_host or info.get("host")),
        port=port or info.get("mqtt_port") or folders.PORT,
        spread=5 if info else None,
        wifi_ssid=wifi_ssid,
        wifi_password=secrets.wifi_password(wifi_password_file) if wants_wifi else "",
        shred_after_flash=shred_after_flash,
    )
    manifest = manifest or plan_file.with_suffix(".manifest.csv")
    with _progress(as_json) as progress:
        task = progress.add_task("", total=plan.lines(plan_file))
        bad = 0

        def on_bad(done: worker.Done) -> None:
            nonlocal bad
            bad += 1
            if as_json:
                output.print_json({"line": done.line, "registration_id": done.registration_id, "reason": done.reason})
            elif bad <= SHOWN:
                name = f"{done.registration_id}: " if done.registration_id else ""
                progress.console.print(f"{plan_file}:{done.line}: {name}{done.reason}", soft_wrap=True)

        try:
            totals = worker.run(
                plan_file, common, manifest, processes=processes, on_bad=on_bad,
                tell=lambda totals: progress.update(task, completed=totals.rows),
            )  # fmt: skip
        except KeyboardInterrupt:
            output.err.print("stopped; what is complete stays, and the same command goes on from there")
            raise
        except OSError as error:
            raise of_system(
                error,
                error.filename or devices_folder,
                after="what is complete stays, and the same command goes on then",
            ) from None
    if as_json:
        output.print_json(
            {**asdict(totals), "rate": round(totals.rate, 1), "to": str(devices_folder)} | {"manifest": str(manifest)}
        )
    else:
        if bad > SHOWN:
            output.err.print(f"… and {bad - SHOWN:,} more bad rows: see the manifest", soft_wrap=True)
        rate = f" in {totals.seconds:.1f} s, {totals.rate:,.0f} a second" if totals.made else ""
        output.out.print(
            f"{devices_folder}: {totals.made:,} made{rate}; {totals.kept:,} kept from before, {totals.bad:,} bad rows",
            soft_wrap=True,
        )
        output.out.print(f"{manifest}: what became of each row", soft_wrap=True)
    if totals.bad:
        raise typer.Exit(FAILED)


def _group_key(plan_file: Path, names: list[str], path: Path | None, info: dict[str, object]) -> str | None:
    """The group's key, checked; None if every row has a credential of its own, so that nobody is asked in vain."""
    own = {"device_key_file", "onboarding_cert"}.intersection(names)
    if own and all(isinstance(r, plan.Bad) or r.device_key_file or r.onboarding_cert for r in plan.read(plan_file)):
        return None
    return secrets.simulators_group_key(info) if info and not path else secrets.group_key(path)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f}/s", style="cyan")


def _progress(quiet: bool) -> Progress:
    return Progress(
        BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(), TextColumn("left"),
        console=output.err, transient=True, disable=quiet or not output.err.is_terminal, refresh_per_second=4,
    )  # fmt: skip
