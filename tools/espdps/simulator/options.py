"""What a simulator can be told when it is started.

Everything here is fixed while it runs: what changes on the way is trouble.py's or the enrollments'.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from .scenario import Scenario

KEY_TYPES = ("ec-p384", "ec-p256", "rsa")

# A label of letters, digits and dashes: these names go into certificates and into MQTT usernames.
_HUB = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.localhost")


@dataclass(frozen=True)
class Options:
    """Settings of one simulator.

    ``hubs``: names of the IoT Hubs linked to DPS, each below ``.localhost`` (RFC 6761 keeps that on loopback).
    ``retry_after``: whole seconds a device is told to wait between polls; None leaves the property out.
    ``assigning``: how many answers say ``assigning`` before the one that says ``assigned``; the answer to the
    registration is the first of them. ``certificate_seconds``: life of an issued certificate.
    ``key_types``: what the credential policy certifies, of KEY_TYPES (RSA from 2048 bits). All of them by default, as
    seen at the service; its documentation says EC P-384 only, which is ``("ec-p384",)``.
    ``token_grace``: seconds that a connection to a hub outlives its token; the service has 5 to 10 minutes.
    ``connect_deadline``: seconds from the TCP connection to a complete CONNECT. Ports: 0 takes a free one.
    ``registrations_a_minute`` of all devices, ``polls_in_10_seconds`` of each: more are answered 429; None is no limit.
    ``scenario``: what goes wrong, and when.

    Raises ValueError for a value outside of what the service knows.
    """

    hubs: tuple[str, ...] = ("hub-1.localhost",)
    retry_after: int | None = 3
    assigning: int = 1
    certificate_seconds: int = 30 * 86400
    key_types: tuple[str, ...] = KEY_TYPES
    token_grace: float = 300.0
    connect_deadline: float = 10.0
    registrations_a_minute: int | None = None
    polls_in_10_seconds: int | None = None
    scenario: Scenario = Scenario()
    address: str = "127.0.0.1"
    mqtt_port: int = 0
    https_port: int = 0
    ntp_port: int = 0

    def __post_init__(self) -> None:
        if not self.hubs or not all(_HUB.fullmatch(hub) for hub in self.hubs):
            raise ValueError("hubs: at least one lower-case name such as hub-1.localhost")
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
