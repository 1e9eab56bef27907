"""The service side of the simulator's hubs, for the commands `esp-dps hub …`: what devices send, and what they get.
Talks to the HTTPS API that sim.json names, on this machine only; the policy's key is used and never shown."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from espdps import keys
from espdps.errors import REFUSED, ToolError

API = "2021-04-12"
TOKEN_SECONDS = 300
PATIENCE = 30  # seconds for an answer; the feed says something every 10 s
_HINTS = {
    404001: "has it registered? esp-dps hub monitor shows who connects",
    404103: "esp-dps hub monitor shows when it connects and what it subscribes to",
}


class HubClient:
    """`info` is what sim.json says. Every method raises ToolError, with exit code 3 for what the hub refused."""

    def __init__(self, info: dict[str, Any]) -> None:
        self._host, self._port, self._policy = info["host"], info["https_port"], info["service_policy"]
        context = ssl.create_default_context(cafile=info["roots"])
        # No proxy: whatever the environment says, the simulator is on this machine.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

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
        with self._open("DELETE", f"/devices/{quote(device, safe='')}", None, PATIENCE):
            pass

    def events(self, device: str | None = None, *, past: bool = False) -> Iterator[dict[str, Any]]:
        """What happens at the hubs, from now on or from the start of the simulator, until that stops: a ToolError."""
        query = (f"&deviceId={quote(device, safe='')}" if device else "") + ("&past=true" if past else "")
        with self._open("GET", "/messages/events", None, PATIENCE, query) as response:
            try:
                for line in response:
                    if line.strip():
                        yield json.loads(line)
            except (OSError, ValueError):
                pass  # cut off in the middle of a line
        raise ToolError("the simulator stopped")

    def _json(self, method: str, path: str, body: Any = None, seconds: float = PATIENCE, etag: str = "") -> Any:
        with self._open(method, path, body, seconds, etag=etag) as response:
            return json.load(response)

    def _open(self, method: str, path: str, body: Any, seconds: float, query: str = "", etag: str = "") -> Any:
        token = keys.sas_token(
            self._host, self._policy["key"], int(time.time()) + TOKEN_SECONDS, self._policy["name"]
        )  # a new one for each call: a person may leave the terminal open for days
        request = urllib.request.Request(
            f"https://{self._host}:{self._port}{path}?api-version={API}{query}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": token, "Content-Type": "application/json"} | ({"If-Match": etag} if etag else {}),
            method=method,
        )
        try:
            return self._opener.open(request, timeout=seconds)
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error) from None
        except OSError:
            raise ToolError("the simulator does not answer", "is it running? esp-dps sim --dir …") from None


def _refusal(error: urllib.error.HTTPError) -> ToolError:
    try:
        body = json.load(error)
        code, message = int(body["errorCode"]), str(body["message"])
    except (ValueError, KeyError, TypeError):
        return ToolError(f"the hub answered {error.code}", exit_code=REFUSED)
    return ToolError(f"the hub refused: {message} ({code})", _HINTS.get(code, ""), REFUSED)


def line(event: dict[str, Any]) -> str:
    """One event for a person: time of day, device, what happened, and what came with it."""
    clock = time.strftime("%H:%M:%S", time.localtime(event["time"]))
    kind = event["event"].removeprefix("hub.")
    return f"{clock}  {event['device'] or '-':<20} {kind:<12} {_details(kind, event)}".rstrip()


def _details(kind: str, event: dict[str, Any]) -> str:
    if kind == "telemetry":
        named = {**event["properties"], "qos": event["qos"]}
        return " ".join((_plain(event["body"]), *map(_pair, named.items())))
    special = ("time", "event", "connection", "device", "certificate")
    return " ".join(_pair(item) for item in event.items() if item[0] not in special and item[1] is not None)


def _pair(item: tuple[str, Any]) -> str:
    name, value = item
    return _plain(name) if value is None else f"{_plain(name)}={_plain(value)}"


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else repr(text)  # nothing that a device sends may steer the terminal
