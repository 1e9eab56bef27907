"""The service's side of a simulator's hub: `hub monitor|send|call|twin|device`."""

from __future__ import annotations

import json
from itertools import islice
from typing import Annotated, Any

import typer

from espdps.commands import output
from espdps.commands.options import AsJson, DeviceId, RunningSim
from espdps.devices import folders
from espdps.errors import FAILED, WRONG_USE, ToolError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Play the service's side of a simulator's hub.")


@app.command("monitor")
def monitor(
    sim: RunningSim,
    device: Annotated[str | None, typer.Argument(help="Of this device only.")] = None,
    past: Annotated[bool, typer.Option("--past", help="Begin with what happened since the simulator started.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many lines, else at Ctrl-C.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what happens at the hub: telemetry, connections, methods, twins, certificates.

    \b
    EXAMPLE
      esp-dps hub monitor --sim build/sim bench-1
    """
    from espdps.azure import hub_client

    events = hub_client.HubClient(folders.read_simulator(sim)).events(device, past=past)
    for event in islice(events, count):
        if as_json:
            output.print_json(event)
        else:
            output.out.print(hub_client.line(event), soft_wrap=True)


@app.command("send")
def send(
    device: DeviceId,
    text: Annotated[str, typer.Argument(help="The message.")],
    sim: RunningSim,
    given: Annotated[
        list[str] | None, typer.Option("--property", "-p", help="NAME=VALUE; may be given more than once.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a message to a device, which gets it now or when it connects.

    \b
    EXAMPLE
      esp-dps hub send --sim build/sim bench-1 'good morning' -p urgency=low
    """
    from espdps.azure.hub_client import HubClient

    properties: dict[str, str] = {}
    for pair in given or []:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise ToolError(f"{pair} is not NAME=VALUE", "write it as -p urgency=low", WRONG_USE)
        properties[name] = value
    message_id = HubClient(folders.read_simulator(sim)).send(device, text, properties)
    if as_json:
        output.print_json({"message_id": message_id})
    else:
        output.out.print(f"queued for {device} as {message_id}", soft_wrap=True)


@app.command("call")
def call(
    device: DeviceId,
    method: Annotated[str, typer.Argument(help="Name of the method.")],
    sim: RunningSim,
    payload: Annotated[str, typer.Argument(help="Its payload, JSON.")] = "null",
    timeout: Annotated[int, typer.Option(min=5, max=300, help="Seconds the device may take.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Call a method of a device and show what it returns.

    Exit code 1 if the device returns a status of 400 or more, 3 if the hub could not call it.

    \b
    EXAMPLE
      esp-dps hub call --sim build/sim bench-1 blink '{"times": 3}'
    """
    from espdps.azure.hub_client import HubClient

    content = _json_argument(payload, "payload")
    status, result = HubClient(folders.read_simulator(sim)).call(device, method, content, timeout)
    if as_json:
        output.print_json({"status": status, "payload": result})
    else:
        output.out.print(f"{status} {json.dumps(result, ensure_ascii=False)}", soft_wrap=True)
    if status >= 400:
        raise typer.Exit(FAILED)


@app.command("twin")
def twin(
    device: DeviceId,
    sim: RunningSim,
    desired: Annotated[str | None, typer.Option(help="Change desired properties: a JSON object, null deletes.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a device's twin, and change what is desired of it.

    \b
    EXAMPLE
      esp-dps hub twin --sim build/sim bench-1 --desired '{"interval": 5}'
    """
    from espdps.azure.hub_client import HubClient

    patch = None if desired is None else _json_argument(desired, "--desired")
    twin = HubClient(folders.read_simulator(sim)).twin(device, patch)
    if as_json:
        output.print_json(twin)
    else:
        _print_state(twin)
        for name, properties in twin["properties"].items():
            output.out.print(f"{name:<9} {json.dumps(properties, ensure_ascii=False)}", soft_wrap=True)


@app.command("device")
def device(
    device: DeviceId,
    sim: RunningSim,
    enable: Annotated[bool | None, typer.Option("--enable/--disable", help="Change whether it may connect.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Take it out of the hub.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a hub's record of a device; disable, enable or delete it, and see what the board does.

    \b
    EXAMPLE
      esp-dps hub device --sim build/sim bench-1 --disable
    """
    from espdps.azure.hub_client import HubClient

    if delete and enable is not None:
        raise ToolError("--delete and --enable or --disable exclude each other", "give one of them", WRONG_USE)
    client = HubClient(folders.read_simulator(sim))
    if delete:
        client.delete(device)
        output.out.print(f"{device}  deleted", soft_wrap=True)
        return
    record = client.device(device, enable)
    if as_json:
        output.print_json(record)
    else:
        output.out.print(
            f"{record['deviceId']}  {record['status']}, {record['connectionState'].lower()}", soft_wrap=True
        )


def _json_argument(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ToolError(f"{name} is not JSON", """quote it for the shell: '{"name": 1}'""", WRONG_USE) from None


def _print_state(record: dict[str, Any]) -> None:
    state = record["connectionState"].lower()
    output.out.print(f"{record['deviceId']}  {record['status']}, {state}", soft_wrap=True)
