"""What the services remember of one thing each: an enrollment, a registration, a running operation, a hub's device.

Plain records; no protocol and no connection is known here.
"""

from __future__ import annotations

import base64
import os
import re
import uuid
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509

from . import sas
from .errors import timestamp
from .messages import CloudMessage
from .twin import Twin

# Lenient on purpose: the documentation allows a dash at the end, the specification no special at either end.
ID = re.compile(r"[A-Za-z0-9\-._:]{1,128}")


def new_etag() -> str:
    return '"' + base64.b64encode(uuid.uuid4().bytes).decode() + '"'


def new_key() -> str:
    """64 random bytes in base64, as the service makes them."""
    return base64.b64encode(os.urandom(64)).decode()


@dataclass
class Enrollment:
    """An enrollment of one registration id, or (``group``) of all whose credential comes of the group's.

    By symmetric key (base64; made where left out), or by X.509 if there are ``certificates``, primary and secondary:
    the signers of a group, the client certificates of an individual enrollment.

    ``certificate_seconds``: life of its devices' issued certificates; None leaves that to the options.
    ``reprovision``, for a registration that finds its hub no longer linked: ``migrate`` the device's twin to another
    hub, ``reset`` it there, or ``never`` leave the hub. ``hubs``: those linked for it, all of the service when empty.

    Raises ValueError for a key that is no base64, for keys beside certificates, for more than two certificates and for
    another way to reprovision.
    """

    id: str
    group: bool
    primary_key: str = field(default="", repr=False)
    secondary_key: str = field(default="", repr=False)
    certificates: tuple[x509.Certificate, ...] = ()
    credential_policy: str | None = "default"
    certificate_seconds: int | None = None
    reprovision: str = "migrate"
    provisioning_status: str = "enabled"
    hubs: tuple[str, ...] = ()
    device_id: str | None = None
    etag: str = field(default_factory=new_etag)
    created: str = field(default_factory=timestamp)
    updated: str = field(default_factory=timestamp)

    def __post_init__(self) -> None:
        if self.reprovision not in ("migrate", "reset", "never"):
            raise ValueError(f"enrollment {self.id}: reprovision is migrate, reset or never")
        if len(self.certificates) > 2:
            raise ValueError(f"enrollment {self.id}: a primary and a secondary certificate, no more")
        if not self.certificates:
            self.primary_key = self.primary_key or new_key()
            self.secondary_key = self.secondary_key or new_key()
        elif self.primary_key or self.secondary_key:
            raise ValueError(f"enrollment {self.id}: either keys or certificates")
        for key in (self.primary_key, self.secondary_key):
            try:
                base64.b64decode(key, validate=True)
            except ValueError:
                raise ValueError(f"enrollment {self.id}: a key must be base64") from None

    @property
    def attestation(self) -> str:
        """As the service names it."""
        return "x509" if self.certificates else "symmetricKey"

    def device_keys(self, registration_id: str) -> list[str]:
        """The keys (base64), primary first, that a device of this enrollment may sign with; none with X.509."""
        keys = [key for key in (self.primary_key, self.secondary_key) if key]
        return [sas.derived_key(key, registration_id) for key in keys] if self.group else keys


class NoHub(Exception):
    """A registration that gets no hub, with the code of its ``failed`` state."""

    def __init__(self, error_code: int, message: str) -> None:
        super().__init__(message)
        self.error_code, self.message = error_code, message


@dataclass
class Registration:
    """What came of a device's registration."""

    registration_id: str
    enrollment: Enrollment
    hub: str
    device_id: str
    substatus: str = "initialAssignment"
    etag: str = field(default_factory=new_etag)
    created: str = field(default_factory=timestamp)
    updated: str = field(default_factory=timestamp)


@dataclass
class Operation:
    """A registration on its way: how many answers still say assigning, then its result (kept for later polls)."""

    enrollment: Enrollment
    assigning_left: int
    csr: x509.CertificateSigningRequest | None = None
    payload: Any = None
    result: dict[str, Any] | None = None
    id: str = field(default_factory=lambda: f"5.{uuid.uuid4().hex[:16]}.{uuid.uuid4()}")


@dataclass
class Device:
    """A device of a hub. It may use an issued certificate, and what it had at DPS: its keys (base64), one of
    ``certificates``, or a certificate by one of ``signers``. ``enrollment``: the one that it came by.
    ``inbox``: messages that it does not have yet. ``connection_changed``: when it came or went last.
    """

    hub: str
    id: str
    enabled: bool = True
    issued: bool = False
    certificates: tuple[x509.Certificate, ...] = ()
    signers: tuple[x509.Certificate, ...] = ()
    keys: list[str] = field(default_factory=list, repr=False)
    enrollment: Enrollment | None = None
    twin: Twin = field(default_factory=Twin)
    inbox: list[CloudMessage] = field(default_factory=list)
    connection_changed: str | None = None
    etag: str = field(default_factory=new_etag)
