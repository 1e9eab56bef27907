"""Device twins: desired and reported properties with their versions, and how a patch changes them.

Documents are never changed in place, so that any thread may read one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]


@dataclass
class Twin:
    """What the hub keeps of one device. A version counts the changes, from 1."""

    tags: Document = field(default_factory=dict)
    desired: Document = field(default_factory=dict)
    reported: Document = field(default_factory=dict)
    desired_version: int = 1
    reported_version: int = 1

    def report(self, patch: Document) -> int:
        """Changes the reported properties; their new version."""
        self.reported = merged(self.reported, patch)
        self.reported_version += 1
        return self.reported_version

    def desire(self, patch: Document) -> int:
        """Changes the desired properties; their new version."""
        self.desired = merged(self.desired, patch)
        self.desired_version += 1
        return self.desired_version

    def properties(self) -> Document:
        """Both sets of properties, each with its ``$version``, as device and service see them."""
        return {
            "desired": {**self.desired, "$version": self.desired_version},
            "reported": {**self.reported, "$version": self.reported_version},
        }


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
