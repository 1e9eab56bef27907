"""What a simulator can be told when it is started.

Everything here is fixed while it runs: what changes on the way is trouble.py's or the enrollments'.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .names import DPS_API, HUB_API
from .trouble.scenario import Scenario

KEY_TYPES = ("ec-p384", "ec-p256", "rsa")

# A label of letters, digits and dashes: these names go into certificates and into MQTT usernames.
_HUB = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.localhost")


@dataclass(frozen=True)
class Link:
    """What DPS knows of a hub that is linked to it: the ``weight`` of its share (1 to 1,000) for allocation by hash,
    and the ``latency`` (milliseconds) that devices here have to it.

    Raises ValueError.
    """

    weight: int = 1
    latency: float = 50.0

    def __post_init__(self) -> None:
        if not 1 <= self.weight <= 1000:
            raise ValueError("weight: 1 to 1000")
        if not 0 <= self.latency < float("inf"):
            raise ValueError("latency: milliseconds, 0 or more")


@dataclass(frozen=True)
class Options:
    """Settings of one simulator.

    ``hubs``: names of the IoT Hubs linked to DPS, each below ``.localhost`` (RFC 6761 keeps that on loopback).
    ``links``: more about them; an even share and the same latency for one that is not named.
    ``webhook_delays``: seconds before each further try to ask a webhook of custom allocation that failed; the service
    has these ten. ``state``: the file that remembers enrollments, devices and what goes with them; None forgets them.
    ``retry_after``: whole seconds a device is told to wait between polls; None leaves the property out.
    ``assigning``: how many answers say ``assigning`` before the one that says ``assigned``; the answer to the
    registration is the first of them. ``certificate_seconds``: life of an issued certificate.
    ``key_types``: what the credential policy certifies, of KEY_TYPES (RSA from 2048 bits). All of them by default, as
    seen at the service; its documentation says EC P-384 only, which is ``("ec-p384",)``.
    ``token_grace``: seconds that a connection to a hub outlives its token; the service has 5 to 10 minutes.
    ``connect_deadline``: seconds from the TCP connection to a complete CONNECT. Ports: 0 takes a free one.
    ``registrations_a_minute`` of all devices, ``polls_in_10_seconds`` of each: more are answered 429; None is no limit.
    ``dps_api``, ``hub_api``: the API versions that DPS and the hubs know; Controls.set_api changes them while it runs.
    ``scenario``: what goes wrong, and when.

    Raises ValueError for a value outside of what the service knows.
    """

    hubs: tuple[str, ...] = ("hub-1.localhost",)
    links: Mapping[str, Link] = field(default_factory=dict)
    webhook_delays: tuple[float, ...] = tuple(float(1 + 9 * n) for n in range(10))
    state: Path | None = None
    retry_after: int | None = 3
    assigning: int = 1
    certificate_seconds: int = 30 * 86400
    key_types: tuple[str, ...] = KEY_TYPES
    token_grace: float = 300.0
    connect_deadline: float = 10.0
    registrations_a_minute: int | None = None
    polls_in_10_seconds: int | None = None
    dps_api: tuple[str, ...] = DPS_API
    hub_api: tuple[str, ...] = HUB_API
    scenario: Scenario = Scenario()
    address: str = "127.0.0.1"
    mqtt_port: int = 0
    https_port: int = 0
    ntp_port: int = 0

    def __post_init__(self) -> None:
        if not self.hubs or not all(_HUB.fullmatch(hub) for hub in self.hubs):
            raise ValueError("hubs: at least one lower-case name such as hub-1.localhost")
        if not self.links.keys() <= set(self.hubs):
            raise ValueError("links: only for hubs that there are")
        if not ipaddress.ip_address(self.address).is_loopback:
            raise ValueError("address: the simulator is for this machine alone, so it listens on loopback only")
        if self.retry_after is not None and self.retry_after < 0:
            raise ValueError("retry_after: seconds, 0 or more, or None to leave it out")
        if self.assigning < 0:
            raise ValueError("assigning: 0 or more answers")
        if self.certificate_seconds < 1:
            raise ValueError("certificate_seconds: at least 1")
        if not self.key_types or not set(self.key_types) <= set(KEY_TYPES):
            raise ValueError(f"key_types: some of {', '.join(KEY_TYPES)}")
        if self.token_grace < 0:
            raise ValueError("token_grace: seconds, 0 or more")
        for name in ("registrations_a_minute", "polls_in_10_seconds"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}: at least 1, or None for any number")
        if self.connect_deadline <= 0:
            raise ValueError("connect_deadline: seconds, more than 0")
