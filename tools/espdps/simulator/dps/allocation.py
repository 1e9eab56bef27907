"""Custom allocation: the webhook that is asked which hub a registration gets, and what is made of its answer.

Records are read here and never changed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp

from ..errors import ServiceError
from ..memory.records import Enrollment, Registration, Unassigned
from ..memory.twin import PROPERTIES_LIMIT, TAGS_LIMIT, bounded, check

_PATIENCE = 10.0  # seconds for one answer of a webhook; the service's limit is not documented
_ANSWER_LIMIT = 256 * 1024
_FAILED = 400207  # these three: the service's table for custom allocation
_NOT_SPECIFIED = 400208
_UNAUTHORIZED = 400209


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
    for part, limit in ((twin.get("tags"), TAGS_LIMIT), ((properties or {}).get("desired"), PROPERTIES_LIMIT)):
        if part is not None:
            check(part)
            bounded(part, limit)
