"""Which hub a registration gets: by hash and weight, by latency, by the list, or by asking a webhook.

Records are read here and never changed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp

from ..errors import ServiceError
from ..memory.records import Enrollment, Registration, Unassigned
from ..memory.twin import check
from ..options import Link

_PATIENCE = 10.0  # seconds for one answer of a webhook; the service's limit is not documented
_ANSWER_LIMIT = 256 * 1024
_FAILED = 400207  # these three: the service's table for custom allocation
_NOT_SPECIFIED = 400208
_UNAUTHORIZED = 400209


def choose(policy: str, id: str, linked: Sequence[str], links: Mapping[str, Link], before: str | None) -> str:
    """One of the linked hubs. Latency and the list are judged at every registration; a hash leaves a device where it
    is as long as its hub is linked, and so does custom allocation that names no hub.
    """
    if policy == "static":
        return linked[0]
    if policy == "geoLatency":
        return min(linked, key=lambda hub: links.get(hub, Link()).latency)
    if before in linked and before is not None:
        return before
    # Weighted rendezvous hashing: the same id gets the same hub every time, and a new hub takes its share only.
    return max(linked, key=lambda hub: links.get(hub, Link()).weight / -math.log(_share(id.lower(), hub)))


def _share(id: str, hub: str) -> float:
    """Evenly spread between 0 and 1."""
    digest = hashlib.sha256(f"{hub}/{id}".encode()).digest()
    return (int.from_bytes(digest[:6], "big") + 0.5) / 2**48


def request(
    enrollment: Enrollment,
    described: Mapping[str, Any],
    context: Mapping[str, Any],
    before: Registration | None,
    linked: Sequence[str],
) -> dict[str, Any]:
    """What a webhook is asked (AllocationRequest). ``described``: the enrollment as the service API answers it."""
    current = {} if before is None else {"currentIotHubHostName": before.hub, "currentDeviceId": before.device_id}
    return {
        "enrollmentGroup" if enrollment.group else "individualEnrollment": described,
        "deviceRuntimeContext": {**context, **current},
        "linkedHubs": list(linked),
    }


async def ask(
    url: str, body: Mapping[str, Any], delays: Sequence[float], told: Callable[[int | None], None]
) -> dict[str, Any] | Unassigned:
    """What a webhook says (AllocationResponse), or how the registration fails.

    It is asked again after each of ``delays`` (seconds) when it answers 429 or more or, which is inference, not at
    all; every other failure is final. ``told`` gets the status of each try, None for no answer.
    """
    timeout = aiohttp.ClientTimeout(total=_PATIENCE)
    for delay in (*delays, None):
        status, answer = None, b""
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(url, json=body, allow_redirects=False) as response,
            ):
                status, answer = response.status, await response.content.read(_ANSWER_LIMIT)
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError, OSError):
            pass  # not there, no HTTP, or no URL
        told(status)
        if status == 200:
            return _judged(answer)
        if status == 401:
            return Unassigned(_UNAUTHORIZED, "Custom allocation failed: the webhook answered 401.")
        if status is not None and status < 429:
            break
        if delay is not None:
            await asyncio.sleep(delay)
    return Unassigned(_FAILED, f"Custom allocation failed: the webhook answered {status or 'nothing'}.")


def _judged(answer: bytes) -> dict[str, Any] | Unassigned:
    try:
        given = json.loads(answer)
        if not isinstance(given, dict) or not isinstance(given.get("iotHubHostName"), (str, type(None))):
            raise ValueError
        twin = given.get("initialTwin")
        if twin is not None:
            check_twin(twin)
    except (ValueError, RecursionError, ServiceError):
        return Unassigned(_FAILED, "Custom allocation failed: the webhook's answer is not of its form.")
    if not given.get("iotHubHostName"):
        return Unassigned(_NOT_SPECIFIED, "Custom allocation failed: the webhook named no hub.")
    return given


def check_twin(twin: Any) -> None:
    """``{"tags": {…}, "properties": {"desired": {…}}}``, each of it optional. Raises ServiceError."""
    properties = twin.get("properties") if isinstance(twin, dict) else None
    if not isinstance(twin, dict) or not isinstance(properties, (dict, type(None))):
        raise ServiceError(400, 400004, "initialTwin: not of the form {tags, properties: {desired}}.")
    for part in (twin.get("tags"), (properties or {}).get("desired")):
        if part is not None:
            check(part)
