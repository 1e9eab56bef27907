"""Device twins: desired and reported properties with their versions, and how a patch changes them.

Documents are never changed in place, so that any thread may read one.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from typing import Any

from ..errors import ServiceError
from .storage import Record

Document = dict[str, Any]

# The service's bounds. A name may not have control characters, spaces, dots and dollar signs in it.
_NAME = re.compile(r"[^\x00-\x20\x7f-\x9f.$]{1,1024}")
_DEPTH = 10
_TEXT_LIMIT = 4 * 1024
_SIZE_LIMIT = 32 * 1024
_INTEGERS = range(-4503599627370496, 4503599627370496)  # what fits into 52 bits and the sign


@dataclass
class Twin(Record):
    """What the hub keeps of one device. A version counts the changes, from 1."""

    tags: Document = field(default_factory=dict)
    desired: Document = field(default_factory=dict)
    reported: Document = field(default_factory=dict)
    desired_version: int = 1
    reported_version: int = 1
    tags_version: int = 1

    @property
    def etag(self) -> str:
        """Of what the service side may change: a new one with each change of the tags or the desired properties."""
        return base64.b64encode((self.tags_version + self.desired_version - 1).to_bytes(8, "big")).decode()

    @property
    def version(self) -> int:
        """Counts the changes of all of it."""
        return self.tags_version + self.desired_version + self.reported_version - 2

    def report(self, patch: Document) -> int:
        """Changes the reported properties; their new version. Raises ServiceError beyond 32 KB."""
        self.reported = _bounded(merged(self.reported, patch))
        self.reported_version += 1
        return self.reported_version

    def desire(self, patch: Document) -> int:
        """Changes the desired properties; their new version. Raises ServiceError beyond 32 KB."""
        self.desired = _bounded(merged(self.desired, patch))
        self.desired_version += 1
        return self.desired_version

    def tag(self, patch: Document) -> None:
        """Changes the tags, which the device never sees. Raises ServiceError beyond 32 KB."""
        self.tags = _bounded(merged(self.tags, patch))
        self.tags_version += 1

    def properties(self) -> Document:
        """Both sets of properties, each with its ``$version``, as device and service see them."""
        return {
            "desired": {**self.desired, "$version": self.desired_version},
            "reported": {**self.reported, "$version": self.reported_version},
        }


def check(patch: Any) -> None:
    """Raises ServiceError for a patch that the service would not take."""
    if not isinstance(patch, dict):
        raise ServiceError(400, 400004, "The patch is no JSON object.")
    _check(patch, 1)


def _check(value: Any, depth: int) -> None:
    if depth > _DEPTH and isinstance(value, (dict, list)):
        raise ServiceError(400, 400004, f"Properties are nested more than {_DEPTH} deep.")
    if isinstance(value, dict):
        for name, inner in value.items():
            if not _NAME.fullmatch(name):
                raise ServiceError(400, 400004, "A property's name is too long, or has a space, dot or dollar sign.")
            _check(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, depth + 1)
    elif isinstance(value, str) and len(value.encode("utf-8", "surrogatepass")) > _TEXT_LIMIT:
        raise ServiceError(400, 400004, "A property's text is larger than 4 KB.")
    elif isinstance(value, int) and value not in _INTEGERS:
        raise ServiceError(400, 400004, "A property's number is beyond 52 bits.")


def _bounded(document: Document) -> Document:
    if len(json.dumps(document, separators=(",", ":"))) > _SIZE_LIMIT:
        raise ServiceError(400, 400004, "The properties are larger than 32 KB.")
    return document


def merged(document: Document, patch: Document) -> Document:
    """The document after a patch: objects are merged, null deletes, anything else replaces."""
    result = dict(document)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            inner = result.get(name)
            result[name] = merged(inner if isinstance(inner, dict) else {}, value)
        else:
            result[name] = value
    return result
