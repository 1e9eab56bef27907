"""Paths of the HTTPS APIs: which function answers a request, who may call it, and the form of each API's errors."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from .. import strict_json
from ..errors import ServiceError, error_body

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Form = Callable[[ServiceError], web.Response]


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=strict_json.write(body), status=status, headers=headers, content_type="application/json", charset="utf-8"
    )


def dps_error(error: ServiceError) -> web.Response:
    body = error_body(error.error_code, error.message)
    return answer(body if error.info is None else {**body, "info": error.info}, error.status)


# Of ErrorCode in Microsoft's service SDK for .NET, as far as the simulator has a use for them.
_HUB_NAMES = {
    400001: "InvalidProtocolVersion",
    400004: "ArgumentInvalid",
    400006: "IotHubFormatError",
    400012: "IotHubFormatError",  # the number is that of DPS
    401002: "IotHubUnauthorizedAccess",
    403004: "DeviceMaximumQueueDepthExceeded",
    404001: "DeviceNotFound",
    409001: "DeviceAlreadyExists",
    412001: "PreconditionFailed",
    413001: "MessageTooLarge",
    415001: "UnsupportedMediaType",
    501000: "NotImplemented",
}


def hub_error(error: ServiceError) -> web.Response:
    """L: Microsoft's end-to-end tests, ErrorPayload2 of its SDK for .NET. What a device did not do comes as JSON in the
    text, as seen in logs of the service.
    """
    body = error_body(error.error_code, error.message)
    name = _HUB_NAMES.get(error.error_code)
    if name is None:
        message = json.dumps({**body, "info": error.info or {}})
        return answer({"Message": message, "ExceptionMessage": ""}, error.status)
    text = {"Message": f"ErrorCode:{name};{error.message}", "ExceptionMessage": f"Tracking ID:{body['trackingId']}"}
    return answer(text, error.status, {"iothub-errorcode": name})


@dataclass(frozen=True)
class Api:
    """``versions``: those that it knows, None for any. ``form``: of its errors; ``bad_version``: the code for one that
    it does not know.
    """

    versions: Callable[[], Container[str]] | None
    form: Form
    bad_version: int

    def check(self, request: web.Request) -> None:
        """Raises ServiceError."""
        version = request.query.get("api-version")
        if not version:
            raise ServiceError(400, 400012 if self.form is dps_error else self.bad_version, "api-version is missing.")
        if self.versions is not None and version not in self.versions():
            # DPS: official SDKs. Hubs: InvalidProtocolVersion of the service SDK for .NET.
            raise ServiceError(400, self.bad_version, "Unsupported API version.")


# What a client may ask for that Azure has and the simulator does not: method, path and its name.
_NOT_BUILT = [
    (re.compile(f"{method} {path}", re.IGNORECASE), name)
    for method, path, name in (
        (".*", r"/\$iothub/websocket", "MQTT over WebSocket"),
        (".*", r"/\$servicebus/websocket", "AMQP over WebSocket"),
        (".*", r"/[^/]+/registrations/.*", "the HTTPS API for devices at DPS"),
        (".*", r"/devices/[^/]+/messages(/.*)?", "the HTTPS API for devices at a hub"),
        (".*", r"/devices/[^/]+/files(/.*)?", "file upload"),
        (".*", r"/(devices|twins)/[^/]+/modules(/.*)?", "modules"),
        (".*", r"/(jobs|configurations|digitaltwins|messages)(/.*)?", "this API"),
        ("POST", "/(devices|enrollments|enrollmentGroups)", "bulk operations"),
    )
]


_OF_A_HUB = re.compile("/(devices|twins|messages|jobs|configurations|digitaltwins)(/|$)", re.IGNORECASE)


class Routes:
    """All paths of the HTTPS port. They are the same in any case and with a slash at their end (L: end-to-end tests of
    Microsoft's SDK for Node and two Python clients). ``authorize`` raises ServiceError.
    """

    def __init__(self, authorize: Callable[[web.Request], None]) -> None:
        self._authorize = authorize
        self._routes: list[tuple[str, re.Pattern[str], Api, Handler]] = []

    def add(self, api: Api, method: str, path: str, handler: Handler) -> None:
        """``{id}`` in a path is one name of it, in ``match_info``."""
        pattern = "".join(
            part if at % 2 == 0 else f"(?P<{part}>[^/]+)"
            for at, part in enumerate(re.split(r"\\\{(\w+)\\\}", re.escape(path)))
        )
        self._routes.append((method, re.compile(f"{pattern}/?", re.IGNORECASE), api, handler))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Every request of the port comes here."""
        found = [(method, match, api, handler) for method, pattern, api, handler in self._routes
                 if (match := pattern.fullmatch(request.path))]  # fmt: skip
        form = found[0][2].form if found else hub_error if _OF_A_HUB.match(request.path) else dps_error
        try:
            for method, match, api, handler in found:
                if method == request.method:
                    self._authorize(request)
                    api.check(request)
                    request.match_info.update(match.groupdict())
                    return await handler(request)
            # Not 401: the key has nothing to do with it.
            for pattern, name in _NOT_BUILT:
                if pattern.fullmatch(f"{request.method} {request.path.rstrip('/')}"):
                    raise not_built(name)
            if found:
                raise ServiceError(405, 405000, "Method Not Allowed.")
            raise ServiceError(404, 404000, "Not Found. The simulator has no such path.")
        except ServiceError as error:
            return form(error)
        except web.HTTPException as error:
            return form(ServiceError(error.status, error.status * 1000, f"{error.reason}."))


def not_built(name: str) -> ServiceError:
    """For what Azure has and the simulator does not."""
    return ServiceError(501, 501000, f"Not in this simulator: {name}.")


async def read_json(request: web.Request) -> Any:
    """Raises ServiceError. A body that says it is something else is refused (D: 415 in the list of DPS's codes)."""
    kind = request.headers.get("Content-Type")
    if kind is not None and request.content_type != "application/json":
        raise ServiceError(415, 415001, "Unsupported Media Type: application/json is known.")
    try:
        return strict_json.read(await request.read())
    except ValueError:
        raise ServiceError(400, 400012, "Deserialization error: the body is not JSON.") from None
