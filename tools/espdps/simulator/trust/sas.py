"""Shared access signatures, checked as the service checks them.

A token is judged, never logged; no exception text holds a part of one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote

_SCHEME = "SharedAccessSignature "


class BadToken(ValueError):
    """The token cannot be what it should be; the text says why, without any part of it."""


@dataclass(frozen=True)
class Token:
    """A parsed token. ``sr`` is the text as received: that is what was signed, %2F or %2f alike."""

    sr: str
    sig: bytes = field(repr=False)
    se: str
    skn: str | None

    @property
    def resource(self) -> str:
        return unquote(self.sr)

    def expired(self) -> bool:
        return int(self.se) <= time.time()

    def signed_by(self, keys: Iterable[str]) -> bool:
        """Whether one of these keys (base64) signed it. Takes as long for a wrong signature as for a right one."""
        text = f"{self.sr}\n{self.se}".encode()
        good = [
            hmac.compare_digest(hmac.new(base64.b64decode(key), text, hashlib.sha256).digest(), self.sig)
            for key in keys
        ]
        return any(good)


def parse(text: str) -> Token:
    """Reads ``SharedAccessSignature sr=…&sig=…&se=…[&skn=…]``; the order of the fields is free.

    Raises BadToken when a field is missing, twice, unknown, or not of its form.
    """
    if not text.startswith(_SCHEME):
        raise BadToken("not a SharedAccessSignature")
    fields: dict[str, str] = {}
    for pair in text[len(_SCHEME) :].split("&"):
        key, equals, value = pair.partition("=")
        if key not in ("sr", "sig", "se", "skn") or not equals or key in fields:
            raise BadToken("token with unknown, repeated or broken fields")
        fields[key] = value
    if not fields.keys() >= {"sr", "sig", "se"}:
        raise BadToken("token without sr, sig or se")
    # More digits than any date has would make the number itself costly to read.
    if not (fields["se"].isascii() and fields["se"].isdigit() and len(fields["se"]) <= 12):
        raise BadToken("token whose expiry is not Unix seconds")
    try:
        signature = base64.b64decode(unquote(fields["sig"]), validate=True)
    except (binascii.Error, ValueError):
        raise BadToken("token whose signature is not base64") from None
    return Token(fields["sr"], signature, fields["se"], fields.get("skn"))


def check(text: str | None, resource: str, skn: str | None) -> Token:
    """A token of the right form, for this resource, not expired. Its signature is for the caller.

    ``skn``: the policy that it may name. It need not name one: azure-iot-device names none to DPS.

    Raises BadToken.
    """
    if not text:
        raise BadToken("no token")
    token = parse(text)
    # A device ID with special characters may be escaped in the resource, which is then escaped once more.
    if resource.lower() not in (token.resource.lower(), unquote(token.resource).lower()):
        raise BadToken("token for another resource")
    if token.skn not in (None, skn):
        raise BadToken("token with another skn")
    if token.expired():
        raise BadToken("token expired")
    return token


def derived_key(group_key: str, registration_id: str) -> str:
    """The key of one device of a group (base64): HMAC-SHA256 of its registration id with the group's key."""
    digest = hmac.new(base64.b64decode(group_key), registration_id.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()
