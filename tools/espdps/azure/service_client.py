"""A client of the HTTPS APIs of Azure and of a simulator: what all commands for them share.
Verifies who answers, follows nobody elsewhere, and never shows a key or a token."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from espdps import inputs
from espdps.credentials import keys
from espdps.errors import REFUSED, WRONG_USE, ToolError

OWNER = "provisioningserviceowner"  # the policy that every DPS instance has from the start
TOKEN_SECONDS = 300
PATIENCE = 30  # seconds for an answer; the hubs' feed says something every 10 s
LARGEST = 32 << 20  # bytes of an answer; a page of 1,000 enrollments with two certificates each has about 5 MB
HTTPS = 443
_NAMED = re.compile(r"ErrorCode:(\w+);?\s*(.*)", re.DOTALL)
_TRACKING = re.compile(r"Tracking ID:\s*([^\s-]+)")


@dataclass(frozen=True)
class Service:
    """Where a service is, and what makes the header Authorization of a call. `roots`: a file of them, None for those
    that the system trusts. `simulated`: on this machine, so no proxy lies between."""

    host: str
    authorization: Callable[[], str] = field(repr=False)
    port: int = HTTPS
    roots: str | None = None
    simulated: bool = False


def by_key(host: str, policy: str, key: str) -> Callable[[], str]:
    """A token of a shared access policy, by its key (base64); a new one for each call, as a terminal may stay open."""
    return lambda: keys.sas_token(host, key, int(time.time()) + TOKEN_SECONDS, policy)


def simulator(info: dict[str, Any], entra: bool = False) -> Service:
    """The simulator that wrote this sim.json. `entra`: by its token in the place of Microsoft Entra ID's.

    Raises ToolError.
    """
    try:
        policy, bearer = info["service_policy"], info["service_bearer"]
        authorization = (lambda: f"Bearer {bearer}") if entra else by_key(info["host"], policy["name"], policy["key"])
        return Service(info["host"], authorization, info["https_port"], info["roots"], simulated=True)
    except (KeyError, TypeError):
        raise ToolError(
            "sim.json does not name a service API of this version", "restart the simulator: esp-dps sim"
        ) from None


def azure(endpoint: str, policy: str, key: str) -> Service:
    """A service of Azure, by the key of a shared access policy. Raises ToolError."""
    key = keys.symmetric_key(key, "policy's key")
    host = _host(endpoint)
    return Service(host, by_key(host, policy, key))


def azure_by_entra(endpoint: str, authorization: Callable[[], str]) -> Service:
    """A DPS instance of Azure, by tokens of Microsoft Entra ID. No other host gets one: they are good for every DPS
    instance of the account. Raises ToolError.
    """
    host = _host(endpoint)
    if not host.endswith(".azure-devices-provisioning.net"):
        hint = "Use NAME.azure-devices-provisioning.net, or --auth key."
        raise ToolError(f"{host} is not the name of a DPS instance in Azure", hint, WRONG_USE)
    return Service(host, authorization)


def _host(endpoint: str) -> str:
    """The host name, if it can be one of a service. Raises ToolError."""
    host = inputs.host(endpoint, "the endpoint", HTTPS).lower()
    if "." not in host or host.startswith("global."):
        hint = "take NAME.azure-devices-provisioning.net; the global endpoint is for devices"
        raise ToolError(f"{host} is not the service's endpoint", hint, WRONG_USE)
    return host


class Refused(ToolError):
    """What the service did not do: `status` of HTTP and `code`, its own; "" where it said none."""

    def __init__(self, message: str, hint: str, status: int, code: str) -> None:
        super().__init__(message, hint, REFUSED)
        self.status, self.code = status, code


class _Here(urllib.request.HTTPRedirectHandler):
    """No other place: the token is for this service alone, and no API of these redirects."""

    def redirect_request(self, *_: Any) -> None:
        return None


class ServiceClient:
    """Every method raises ToolError: Refused, with exit code 3, for what the service refused."""

    api: str
    name: ClassVar[str]  # of the service, for a person
    hints: ClassVar[dict[str, str]] = {}  # what to do about an error code, or a status of HTTP

    def __init__(self, service: Service) -> None:
        self._service = service
        context = ssl.create_default_context(cafile=service.roots)
        proxies = urllib.request.ProxyHandler({} if service.simulated else None)
        self._opener = urllib.request.build_opener(proxies, urllib.request.HTTPSHandler(context=context), _Here())

    def _json(self, method: str, path: str, body: Any = None, seconds: float = PATIENCE, etag: str = "") -> Any:
        return self._answer(method, path, body, seconds, **({"If-Match": etag} if etag else {}))[0]

    def _pages(self, path: str, body: Any) -> Iterator[Any]:
        """The records of a query, of all its pages."""
        headers: dict[str, str] = {}
        while True:
            records, token = self._answer("POST", path, body, PATIENCE, **headers)
            yield from records or ()
            if not token:
                return
            if headers.get("x-ms-continuation") == token:
                raise ToolError(f"{self.name} answers the same page again", "a fault of the service: try again later")
            headers = {"x-ms-continuation": token}

    def _answer(self, method: str, path: str, body: Any, seconds: float, **headers: str) -> tuple[Any, str | None]:
        """The JSON of an answer, None without any, and the token of the next page."""
        with self._open(method, path, body, seconds, **headers) as response:
            try:
                text = response.read(LARGEST + 1)
            except (OSError, http.client.HTTPException):
                raise ToolError(f"{self.name} broke off in the middle of an answer", "try again") from None
            token = response.headers.get("x-ms-continuation")
        try:
            if len(text) > LARGEST:
                raise ValueError
            return json.loads(text) if text else None, token
        except (ValueError, RecursionError):
            raise ToolError(f"{self.name} answered with something that is not its JSON", self._who()) from None

    def _open(self, method: str, path: str, body: Any, seconds: float, query: str = "", **headers: str) -> Any:
        service = self._service
        request = urllib.request.Request(
            f"https://{service.host}:{service.port}{path}?api-version={self.api}{query}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": service.authorization(), "Content-Type": "application/json"} | headers,
            method=method,
        )
        try:
            return self._opener.open(request, timeout=seconds)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._no_answer(error) from None

    def _no_answer(self, error: Exception) -> ToolError:
        if self._service.simulated:
            return ToolError("the simulator does not answer", "is it running? esp-dps sim --dir …")
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            return ToolError(
                f"{self._service.host} is not proven to be that: {reason.verify_message}",
                "a proxy in between? SSL_CERT_FILE names the roots to trust",
            )
        if isinstance(reason, TimeoutError):
            return ToolError(f"{self._service.host} did not answer in time", "try again")
        words = getattr(reason, "strerror", None) or type(reason).__name__
        return ToolError(f"{self._service.host} does not answer: {words}", self._who())

    def _who(self) -> str:
        return (
            "start the simulator anew: esp-dps sim --dir …"
            if self._service.simulated
            else "is that the name of the service, and does a proxy let it through?"
        )

    def _refusal(self, error: urllib.error.HTTPError) -> Refused:
        try:
            body = json.loads(error.read(LARGEST))
        except (ValueError, RecursionError, OSError, http.client.HTTPException):
            body = None
        code, message, tracking = told(body)
        shown = plain(code) or f"HTTP {error.code}"
        text = f"{self.name} refused: {plain(message)} ({shown})" if message else f"{self.name} answered {shown}"
        if tracking:
            text += f", tracking id {plain(tracking)}"
        return Refused(
            text, self.hints.get(code) or self.hints.get(str(error.code)) or _at_fault(error.code), error.code, code
        )


def _at_fault(status: int) -> str:
    if status >= 500:
        return "a fault of the service: try again in a minute"
    return "correct what it names, or try another account or network; a tracking id helps Azure's support"


def told(body: Any) -> tuple[str, str, str]:
    """What an error's body says: code, message and tracking id, "" for what it does not say.

    DPS has errorCode, message and trackingId. A hub has texts: Message with the code's name in front, or with JSON in
    it like that of DPS, and ExceptionMessage.
    """
    if not isinstance(body, dict):
        return "", "", ""
    message = body.get("Message")
    if message is None:
        return tuple(str(body.get(name, "")) for name in ("errorCode", "message", "trackingId"))  # type: ignore[return-value]  # three
    try:
        inner = json.loads(message)
    except (TypeError, ValueError, RecursionError):
        inner = None
    if isinstance(inner, dict) and "errorCode" in inner:
        return told(inner)
    named, tracking = _NAMED.match(str(message)), _TRACKING.match(str(body.get("ExceptionMessage", "")))
    code, text = named.groups() if named else ("", str(message))
    return code, text, tracking[1] if tracking else ""


def plain(value: Any) -> str:
    """For a person: nothing that somebody else wrote may steer the terminal."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else repr(text)
