"""Errors as the service answers them, over MQTT and HTTPS alike.

The message of one goes out to a device: nothing secret may be in it.
"""

from __future__ import annotations

import datetime
import uuid
from typing import Any


def timestamp() -> str:
    """Now, as the services write it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class ServiceError(Exception):
    """An answer in the service's error form."""

    def __init__(
        self,
        status: int,
        error_code: int,
        message: str,
        retry_after: int | None = None,
        info: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.error_code, self.message = status, error_code, message
        self.retry_after, self.info = retry_after, info


def error_body(error_code: int, message: str) -> dict[str, Any]:
    return {
        "errorCode": error_code,
        "trackingId": str(uuid.uuid4()),
        "message": message,
        "timestampUtc": timestamp(),
    }
