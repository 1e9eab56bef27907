"""The service side of the simulator's hubs, for the commands `esp-dps hub …`: what devices send, and what they get.
Talks to the HTTPS API that sim.json names, on this machine only; the policy's key is used and never shown."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any, ClassVar
from urllib.parse import quote

from espdps.azure.service_client import PATIENCE, ServiceClient, plain, simulator
from espdps.errors import ToolError


class HubClient(ServiceClient):
    """What a hub's operator asks for; see ServiceClient for what is raised."""

    api = "2021-04-12"
    name = "the hub"
    hints: ClassVar = {
        "DeviceNotFound": "has it registered? esp-dps hub monitor shows who connects",
        "PreconditionFailed": "somebody else changed the device just now: look at it, and try again",
        "404103": "esp-dps hub monitor shows when it connects and what it subscribes to",
    }

    def __init__(self, info: dict[str, Any]) -> None:
        super().__init__(simulator(info))

    def send(self, device: str, text: str, properties: dict[str, str]) -> str:
        """Queues a message to a device; returns its id."""
        body = {"body": text, "properties": properties}
        answer = self._json("POST", f"/devices/{quote(device, safe='')}/messages/devicebound", body)
        return str(answer["messageId"])

    def call(self, device: str, method: str, payload: Any, seconds: int) -> tuple[int, Any]:
        """Calls a method and waits so long for it; status and payload as the device gave them."""
        body = {"methodName": method, "responseTimeoutInSeconds": seconds, "payload": payload}
        answer = self._json("POST", f"/twins/{quote(device, safe='')}/methods", body, seconds + PATIENCE)
        return int(answer["status"]), answer["payload"]

    def twin(self, device: str, desired: Any = None) -> dict[str, Any]:
        """The device's twin, after a change of its desired properties if one is given."""
        path = f"/twins/{quote(device, safe='')}"
        patch = None if desired is None else {"properties": {"desired": desired}}
        twin: dict[str, Any] = self._json("GET" if patch is None else "PATCH", path, patch)
        return twin

    def device(self, device: str, enabled: bool | None = None) -> dict[str, Any]:
        """The hub's record of the device, after it was enabled or disabled if that is asked for."""
        path = f"/devices/{quote(device, safe='')}"
        record: dict[str, Any] = self._json("GET", path)
        if enabled is not None:
            status = "enabled" if enabled else "disabled"
            record = self._json("PUT", path, {**record, "status": status}, etag=record["etag"])
        return record

    def delete(self, device: str) -> None:
        """Takes the device out of the hub."""
        self._json("DELETE", f"/devices/{quote(device, safe='')}", etag="*")

    def events(self, device: str | None = None, *, past: bool = False) -> Iterator[dict[str, Any]]:
        """What happens at the hubs, from now on or from the start of the simulator, until that stops: a ToolError."""
        query = (f"&deviceId={quote(device, safe='')}" if device else "") + ("&past=true" if past else "")
        with self._open("GET", "/messages/events", None, PATIENCE, query) as response:
            try:
                for line in response:
                    if line.strip():
                        yield json.loads(line)
            except (OSError, ValueError, http.client.HTTPException):
                pass  # cut off in the middle of a line
        raise ToolError("the simulator stopped", "start it again: esp-dps sim --dir DIR")


def line(event: dict[str, Any]) -> str:
    """One event for a person: time of day, device, what happened, and what came with it."""
    clock = time.strftime("%H:%M:%S", time.localtime(event["time"]))
    kind = event["event"].removeprefix("hub.")
    return f"{clock}  {event['device'] or '-':<20} {kind:<12} {_details(kind, event)}".rstrip()


def _details(kind: str, event: dict[str, Any]) -> str:
    if kind == "telemetry":
        named = {**event["properties"], "qos": event["qos"]}
        return " ".join((plain(event["body"]), *map(_pair, named.items())))
    special = ("time", "event", "connection", "device", "certificate")
    return " ".join(_pair(item) for item in event.items() if item[0] not in special and item[1] is not None)


def _pair(item: tuple[str, Any]) -> str:
    name, value = item
    return plain(name) if value is None else f"{plain(name)}={plain(value)}"
