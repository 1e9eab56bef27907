"""A client of the simulator's HTTPS API, for what `esp-dps hub …` and `esp-dps registry …` ask for.
Talks to the port that sim.json names, on this machine only; the policy's key is used and never shown."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, ClassVar

from espdps import keys
from espdps.errors import REFUSED, ToolError

TOKEN_SECONDS = 300
PATIENCE = 30  # seconds for an answer; the hubs' feed says something every 10 s


class ServiceClient:
    """`info` is what sim.json says. Every method raises ToolError, with exit code 3 for what the service refused."""

    api: ClassVar[str]
    name: ClassVar[str]  # of the service, for a person
    hints: ClassVar[dict[int, str]] = {}  # what to do about an error code

    def __init__(self, info: dict[str, Any]) -> None:
        self._host, self._port, self._policy = info["host"], info["https_port"], info["service_policy"]
        context = ssl.create_default_context(cafile=info["roots"])
        # No proxy: whatever the environment says, the simulator is on this machine.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def _json(self, method: str, path: str, body: Any = None, seconds: float = PATIENCE, etag: str = "") -> Any:
        with self._open(method, path, body, seconds, **({"If-Match": etag} if etag else {})) as response:
            text = response.read()
        return json.loads(text) if text else None

    def _pages(self, path: str, body: Any) -> Iterator[Any]:
        """The records of a query, of all its pages."""
        headers: dict[str, str] = {}
        while True:
            with self._open("POST", path, body, PATIENCE, **headers) as response:
                yield from json.load(response)
                token = response.headers.get("x-ms-continuation")
            if not token:
                return
            headers = {"x-ms-continuation": token}

    def _open(self, method: str, path: str, body: Any, seconds: float, query: str = "", **headers: str) -> Any:
        token = keys.sas_token(
            self._host, self._policy["key"], int(time.time()) + TOKEN_SECONDS, self._policy["name"]
        )  # a new one for each call: a person may leave the terminal open for days
        request = urllib.request.Request(
            f"https://{self._host}:{self._port}{path}?api-version={self.api}{query}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": token, "Content-Type": "application/json"} | headers,
            method=method,
        )
        try:
            return self._opener.open(request, timeout=seconds)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from None
        except OSError:
            raise ToolError("the simulator does not answer", "is it running? esp-dps sim --dir …") from None

    def _refusal(self, error: urllib.error.HTTPError) -> ToolError:
        try:
            body = json.load(error)
            code, message = int(body["errorCode"]), str(body["message"])
        except (ValueError, KeyError, TypeError):
            return ToolError(f"{self.name} answered {error.code}", exit_code=REFUSED)
        return ToolError(f"{self.name} refused: {message} ({code})", self.hints.get(code, ""), REFUSED)
