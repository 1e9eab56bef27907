"""Device twins: desired and reported properties with their versions, and how a patch changes them.

Documents are never changed in place, so that any thread may read one.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Any

from ..errors import ServiceError
from .storage import Record

Document = dict[str, Any]

# The service's bounds (D: iot-hub-devguide-device-twins). A name may not have control characters, spaces, dots and
# dollar signs in it.
_NAME = re.compile(r"[^\x00-\x20\x7f-\x9f.$]+")
_NAME_LIMIT = 1024  # bytes
_DEPTH = 10
_TEXT_LIMIT = 4 * 1024  # bytes
TAGS_LIMIT = 8 * 1024
PROPERTIES_LIMIT = 32 * 1024  # of the desired and of the reported ones each
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
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
        self.reported = bounded(merged(self.reported, patch), PROPERTIES_LIMIT)
        self.reported_version += 1
        return self.reported_version

    def desire(self, patch: Document) -> int:
        """Changes the desired properties; their new version. Raises ServiceError beyond 32 KB."""
        self.desired = bounded(merged(self.desired, patch), PROPERTIES_LIMIT)
        self.desired_version += 1
        return self.desired_version

    def tag(self, patch: Document) -> None:
        """Changes the tags, which the device never sees. Raises ServiceError beyond 8 KB."""
        self.tags = bounded(merged(self.tags, patch), TAGS_LIMIT)
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
            if not _NAME.fullmatch(name) or len(name.encode()) > _NAME_LIMIT:
                raise ServiceError(400, 400004, "A property's name is too long, or has a space, dot or dollar sign.")
            _check(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            if inner is None:
                raise ServiceError(400, 400004, "A list has null in it.")
            _check(inner, depth + 1)
    elif isinstance(value, str) and len(value.encode()) > _TEXT_LIMIT:
        raise ServiceError(400, 400004, "A property's text is larger than 4 KB.")
    elif isinstance(value, int) and value not in _INTEGERS:
        raise ServiceError(400, 400004, "A property's number is beyond 52 bits.")


def bounded(document: Document, limit: int) -> Document:
    """Raises ServiceError."""
    if _size(document) > limit:
        raise ServiceError(400, 400004, f"The tags or properties are larger than {limit // 1024} KB.")
    return document


def _size(value: Any) -> int:
    """As the service counts (D): names and values, of a text all characters but control characters, of a number 8 and
    of a boolean 4. What a list adds is inference: its elements.
    """
    if isinstance(value, dict):
        return sum(_size(name) + _size(inner) for name, inner in value.items())
    if isinstance(value, list):
        return sum(map(_size, value))
    if isinstance(value, str):
        return len(_CONTROLS.sub("", value))
    return 4 if isinstance(value, bool) else 8


def patch_between(before: Document, after: Document) -> Document:
    """The patch that turns one document into another."""
    patch: Document = {name: None for name in before if name not in after}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            patch[name] = patch_between(old, value)
        else:
            patch[name] = value
    return patch


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
