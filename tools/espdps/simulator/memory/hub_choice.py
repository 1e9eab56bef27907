"""Which of the linked hubs a registration gets: by hash and weight, by latency, or by the list.

Custom allocation, which asks a webhook, is in dps/allocation.py.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

from ..options import Link


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
