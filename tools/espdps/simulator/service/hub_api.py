"""The service side of the hubs over HTTPS: devices, twins, methods, messages to devices, and a feed of what happens.

Devices, twins and methods have the paths and bodies of IoT Hub. Messages and the feed are AMQP there, so theirs are our
own. Authorization is the DPS service API's.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from .. import strict_json
from ..errors import ServiceError
from ..events import Event
from ..hub import authentication
from ..hub.hub import PAYLOAD_LIMIT, Hub
from ..memory.messages import CloudMessage, packed
from ..memory.records import Device, new_etag
from ..memory.twin import PROPERTIES_LIMIT, TAGS_LIMIT, Document, bounded, check, merged, patch_between
from ..names import DEVICE_ID
from .dps_api import check_etag
from .routes import Api, Routes, answer, hub_error, not_built, read_json

_TIMEOUTS = range(5, 301)  # seconds, of a method
_QUIET = 10.0  # seconds after which the feed says an empty line, which finds out whether somebody still reads it
_NEVER = "0001-01-01T00:00:00Z"
_PAGE = 1000  # devices in one answer, the most that the service gives
_METHOD = re.compile(r"""[^\x00-\x20\x7f-\U0010ffff$()<>@,;:\\"/\[\]?={}+#]+""")
_READ_ONLY = ("$version", "$metadata")  # of a section: an official client sends them back as it got them
_QUERY = re.compile(r"select\s+\*\s+from\s+devices\s*;?", re.IGNORECASE)


class HubApi:
    """The host of a request names the hub; ``localhost`` is all of them."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def add_to(self, routes: Routes) -> None:
        api = Api(lambda: self._hub.state.hub_api, hub_error, 400001)
        routes.add(api, "GET", "/devices", self._list_devices)
        routes.add(api, "POST", "/devices/query", self._query)
        routes.add(api, "GET", "/statistics/devices", self._registry_statistics)
        routes.add(api, "GET", "/statistics/service", self._service_statistics)
        routes.add(api, "GET", "/devices/{id}", self._get_device)
        routes.add(api, "PUT", "/devices/{id}", self._put_device)
        routes.add(api, "DELETE", "/devices/{id}", self._delete_device)
        routes.add(api, "GET", "/twins/{id}", self._get_twin)
        routes.add(api, "PATCH", "/twins/{id}", self._patch_twin)
        routes.add(api, "PUT", "/twins/{id}", self._put_twin)
        routes.add(api, "POST", "/twins/{id}/methods", self._call)
        routes.add(api, "POST", "/devices/{id}/messages/devicebound", self._send)
        routes.add(api, "GET", "/messages/events", self._feed)

    def _find(self, request: web.Request) -> Device:
        """Raises ServiceError."""
        for device in self._here(request, self._hub.state.devices(request.match_info["id"])):
            return device
        raise ServiceError(404, 404001, "The device is not registered.")

    def _here(self, request: web.Request, devices: Iterable[Device]) -> list[Device]:
        """Those of these devices that are at the hub which is asked."""
        host, hubs = (request.url.host or "").lower(), self._hub.state.hubs
        return [device for device in devices if device.hub in hubs and host in (device.hub, "localhost")]

    # Devices

    async def _list_devices(self, request: web.Request) -> web.Response:
        """``top``: how many at most."""
        top = _number(request.query.get("top"), _PAGE)
        devices = self._here(request, self._hub.state.devices())
        return answer([self._identity(device) for device in devices[:top]])

    async def _query(self, request: web.Request) -> web.Response:
        """All twins, in pages; there is no more of the query language here."""
        body = await read_json(request)
        text = body.get("query") if isinstance(body, dict) else None
        if not isinstance(text, str) or not text.lstrip().lower().startswith("select"):
            raise ServiceError(400, 400006, "The query is not a SELECT.")
        if not _QUERY.fullmatch(text.strip()):
            raise not_built("queries at a hub other than SELECT * FROM devices")
        size = _number(request.headers.get("x-ms-max-item-count"), _PAGE)
        start = _number(request.headers.get("x-ms-continuation"), 0)
        devices = self._here(request, self._hub.state.devices())
        headers = {"x-ms-item-type": "Twin"}
        if start + size < len(devices):
            headers["x-ms-continuation"] = str(start + size)
        return answer([self._document(device) for device in devices[start : start + size]], headers=headers)

    async def _service_statistics(self, request: web.Request) -> web.Response:
        devices = self._here(request, self._hub.state.devices())
        return answer({"connectedDeviceCount": sum(self._hub.connection(device) is not None for device in devices)})

    async def _registry_statistics(self, request: web.Request) -> web.Response:
        devices = self._here(request, self._hub.state.devices())
        enabled = sum(device.enabled for device in devices)
        counts = {
            "totalDeviceCount": len(devices),
            "enabledDeviceCount": enabled,
            "disabledDeviceCount": len(devices) - enabled,
        }
        return answer(counts)

    async def _get_device(self, request: web.Request) -> web.Response:
        return self._device(self._find(request))

    async def _put_device(self, request: web.Request) -> web.Response:
        """Makes a device, or with If-Match changes whether it is enabled and how it proves who it is.

        A device of DPS keeps what DPS gave it.
        """
        body = await read_json(request)
        if not isinstance(body, dict):
            raise ServiceError(400, 400004, "The device is no JSON object.")
        if body.get("deviceId") != request.match_info["id"]:  # D: required, and of the device in the path
            raise ServiceError(400, 400004, "deviceId: missing, or not the one in the path.")
        new = "If-Match" not in request.headers
        given = authentication.read(body, new)
        if new:
            return self._device(self._make(request, given))
        device = self._find(request)
        _check_etag(request, device.etag, required=True)
        if device.enrollment is not None:
            given = {"enabled": given["enabled"]}
        device.change(**given, etag=new_etag())
        if not device.enabled:
            self._hub.hang_up(device, "device was disabled")
        return self._device(device)

    def _make(self, request: web.Request, given: dict[str, Any]) -> Device:
        """Raises ServiceError."""
        host, id, hubs = (request.url.host or "").lower(), request.match_info["id"], self._hub.state.hubs
        if not DEVICE_ID.fullmatch(id):
            raise ServiceError(400, 400004, "deviceId: not a valid device ID.")
        if self._here(request, self._hub.state.devices(id)):
            raise ServiceError(409, 409001, "A device with this ID is registered already.")
        hub = host if host in hubs else hubs[0] if host == "localhost" and len(hubs) == 1 else None
        if hub is None:
            raise ServiceError(404, 404001, "The hub is not there; the host of the request names one.")
        device = Device(hub, id, **given)
        self._hub.state.put_device(device)
        return device

    async def _delete_device(self, request: web.Request) -> web.Response:
        device = self._find(request)
        _check_etag(request, device.etag, required=True)  # D: the header is required, "*" deletes it in any case
        self._hub.state.remove_device(device)
        self._hub.hang_up(device, "device was deleted")
        return web.Response(status=204)

    def _device(self, device: Device) -> web.Response:
        return answer(self._identity(device), headers={"ETag": device.etag})

    def _identity(self, device: Device) -> dict[str, Any]:
        return {
            "deviceId": device.id,
            "generationId": device.generation,
            "etag": device.etag.strip('"'),
            **self._state(device),
            "authentication": authentication.write(device),
            "capabilities": {"iotEdge": device.edge},
        }

    def _state(self, device: Device) -> dict[str, Any]:
        return {
            "status": "enabled" if device.enabled else "disabled",
            "connectionState": "Connected" if self._hub.connection(device) is not None else "Disconnected",
            "connectionStateUpdatedTime": device.connection_changed or _NEVER,
            "cloudToDeviceMessageCount": len(device.inbox),
        }

    # Twins and methods

    async def _get_twin(self, request: web.Request) -> web.Response:
        return self._twin(self._find(request))

    async def _patch_twin(self, request: web.Request) -> web.Response:
        """Changes desired properties and tags: names that are left out stay, null for a section empties it (L)."""
        return await self._change_twin(request, whole=False)

    async def _put_twin(self, request: web.Request) -> web.Response:
        """Replaces desired properties and tags as a whole (L). The device is told the difference (inference)."""
        return await self._change_twin(request, whole=True)

    async def _change_twin(self, request: web.Request, whole: bool) -> web.Response:
        """What a device reported, and the service's own fields, are not changed."""
        body = await read_json(request)
        device = self._find(request)
        _check_etag(request, device.twin.etag, required=False)
        properties = body.get("properties", {}) if isinstance(body, dict) else None
        if not isinstance(body, dict) or not isinstance(properties, dict):
            raise ServiceError(400, 400004, "The twin is not of the form {tags, properties: {desired}}.")
        if "desired" not in properties and "tags" not in body:
            raise ServiceError(400, 400004, "Neither properties.desired nor tags to change.")
        twin = device.twin
        tags = _patch(body, "tags", twin.tags, whole)
        desired = _patch(properties, "desired", twin.desired, whole)
        # Both are judged before either is changed.
        bounded(merged(twin.tags, tags or {}), TAGS_LIMIT)
        bounded(merged(twin.desired, desired or {}), PROPERTIES_LIMIT)
        if tags is not None:
            twin.tag(tags)
        if desired is not None:
            self._hub.desire(device, desired)
        return self._twin(device)

    def _twin(self, device: Device) -> web.Response:
        return answer(self._document(device), headers={"ETag": f'"{device.twin.etag}"'})

    def _document(self, device: Device) -> dict[str, Any]:
        return {
            "deviceId": device.id,
            "etag": device.twin.etag,
            "deviceEtag": device.etag.strip('"'),
            "version": device.twin.version,
            **self._state(device),
            "authenticationType": authentication.kind(device),
            "capabilities": {"iotEdge": device.edge},
            "tags": device.twin.tags,
            "properties": device.twin.properties(),
        }

    async def _call(self, request: web.Request) -> web.Response:
        body = await read_json(request)
        device = self._find(request)
        name = body.get("methodName") if isinstance(body, dict) else None
        if not isinstance(name, str) or not _METHOD.fullmatch(name):
            raise ServiceError(400, 400004, "methodName: not the name of a method.")
        timeout = body.get("responseTimeoutInSeconds", 30)
        if not isinstance(timeout, int) or timeout not in _TIMEOUTS:
            raise ServiceError(400, 400004, "responseTimeoutInSeconds: 5 to 300.")
        # Inference: what is not given reaches the device as nothing at all.
        payload = strict_json.write(body["payload"]) if "payload" in body else b""
        if len(payload) > PAYLOAD_LIMIT:
            raise ServiceError(413, 413001, "payload: larger than 128 KB.")
        status, result = await self._hub.call(device, name, payload, timeout)
        return answer({"status": status, "payload": result})

    # Messages

    async def _send(self, request: web.Request) -> web.Response:
        """``{"body", "encoding": "utf-8"|"base64", "properties": {name: text or null}}``, as in telemetry events."""
        body = await read_json(request)
        device = self._find(request)
        message = _message(body)
        self._hub.send(device, message)
        return answer({"messageId": message.id}, status=201)

    async def _feed(self, request: web.Request) -> web.StreamResponse:
        """What happens at the hubs, one JSON object a line, until the client leaves.

        ``deviceId``: of this device only; ``past=true``: from the start of the simulator on.
        """
        device, past = request.query.get("deviceId"), request.query.get("past") == "true"
        loop, news = asyncio.get_running_loop(), asyncio.Queue[Event]()
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        try:
            with self._hub.log.listening(lambda event: loop.call_soon_threadsafe(news.put_nowait, event), past):
                await response.prepare(request)
                while True:
                    try:
                        event = await asyncio.wait_for(news.get(), _QUIET)
                    except asyncio.TimeoutError:
                        await response.write(b"\n")
                        continue
                    ours = device is None or (event["device"] or "").lower() == device.lower()
                    if event["event"].startswith("hub.") and ours:
                        await response.write(json.dumps(event).encode() + b"\n")
        except ConnectionResetError:
            return response  # nobody reads it any more


def _check_etag(request: web.Request, etag: str, required: bool) -> None:
    """Raises ServiceError, which is another one than that of DPS."""
    try:
        check_etag(request, etag, required)
    except ServiceError:
        raise ServiceError(412, 412001, "Precondition failed: the device has changed since.") from None


def _patch(part: Document, name: str, now: Document, whole: bool) -> Document | None:
    """The patch of a section; None if it is left out. Raises ServiceError."""
    if name not in part:
        return None
    given = part[name]
    if isinstance(given, dict):
        given = {key: value for key, value in given.items() if key not in _READ_ONLY}
    elif given is None:
        given, whole = {}, True
    check(given)
    return patch_between(now, merged({}, given)) if whole else given


def _number(text: str | None, otherwise: int) -> int:
    """A number of up to four digits in a header or query. Raises ServiceError."""
    if text is None:
        return otherwise
    if not re.fullmatch("[0-9]{1,4}", text):
        raise ServiceError(400, 400004, "Not a number of items, or no continuation token of this service.")
    return int(text)


def _message(body: Any) -> CloudMessage:
    """Raises ServiceError."""
    fields = body if isinstance(body, dict) else {}
    text, properties = fields.get("body"), fields.get("properties", {})
    if not isinstance(text, str):
        raise ServiceError(400, 400004, "body: not a text.")
    if not isinstance(properties, dict) or not all(
        name and isinstance(value, (str, type(None))) for name, value in properties.items()
    ):
        raise ServiceError(400, 400004, "properties: not names, each with a text or null.")
    encoding = fields.get("encoding", "utf-8")
    if encoding not in ("utf-8", "base64"):
        raise ServiceError(400, 400004, "encoding: utf-8 or base64.")
    try:
        data = text.encode() if encoding == "utf-8" else base64.b64decode(text, validate=True)
        packed(properties)
    except ValueError:
        raise ServiceError(
            400, 400004, "The message has bytes that are no text, or not the base64 that it says."
        ) from None
    return CloudMessage(data, properties)
