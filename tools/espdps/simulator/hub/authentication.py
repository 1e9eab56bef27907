"""How a device of a hub proves who it is, in the JSON of the hub's registry: read from a request, told in an answer.

The record keeps what is read; whether a device may connect is decided elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from cryptography.hazmat.primitives import hashes

from ..errors import ServiceError
from ..memory.records import Device, new_key

_THUMBPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")  # SHA-1 or SHA-256


def kind(device: Device) -> str:
    if device.issued or device.signers:
        return "certificateAuthority"
    return "selfSigned" if device.certificates or device.thumbprints else "sas"


def write(device: Device) -> dict[str, Any]:
    """With the keys of a device that has nothing else, as a hub's registry tells them."""
    if kind(device) == "sas":
        return {"type": "sas", "symmetricKey": _pair("Key", device.keys)}
    if kind(device) == "selfSigned":
        known = [one.fingerprint(hashes.SHA256()).hex().upper() for one in device.certificates]
        return {"type": "selfSigned", "x509Thumbprint": _pair("Thumbprint", [*known, *device.thumbprints])}
    return {"type": "certificateAuthority"}


def _pair(name: str, values: list[str]) -> dict[str, str | None]:
    padded: list[str | None] = [*values, None, None]
    return {f"primary{name}": padded[0], f"secondary{name}": padded[1]}


def read(body: dict[str, Any], new: bool) -> dict[str, Any]:
    """The fields of a record. A new device without any proof gets keys; another one keeps what it has.

    Raises ServiceError.
    """
    status = body.get("status", "enabled")
    if status not in ("enabled", "disabled"):
        raise ServiceError(400, 400004, "status: enabled or disabled.")
    authentication, capabilities = body.get("authentication") or {}, body.get("capabilities") or {}
    if not isinstance(authentication, dict) or not isinstance(capabilities, dict):
        raise ServiceError(400, 400004, "authentication and capabilities: objects.")
    fields: dict[str, Any] = {"enabled": status == "enabled", "edge": capabilities.get("iotEdge") is True}
    if not authentication and not new:
        return fields
    return {**fields, "issued": False, "keys": [], "thumbprints": (), **_proof(authentication)}


def _proof(authentication: dict[str, Any]) -> dict[str, Any]:
    """Raises ServiceError."""
    way = authentication.get("type", "sas")
    if way == "sas":
        return {"keys": [_key(key) for key in _given(authentication, "symmetricKey", "Key")]}
    if way == "selfSigned":
        texts = _given(authentication, "x509Thumbprint", "Thumbprint")
        thumbprints = tuple(text.replace(":", "").upper() for text in texts if text)
        if not thumbprints or not all(map(_THUMBPRINT.fullmatch, thumbprints)):
            raise ServiceError(400, 400004, "authentication.x509Thumbprint: one or two of SHA-1 or SHA-256, in hex.")
        return {"thumbprints": thumbprints}
    if way == "certificateAuthority":
        return {"issued": True}
    raise ServiceError(400, 400004, "authentication.type: sas, selfSigned or certificateAuthority.")


def _given(authentication: dict[str, Any], name: str, suffix: str) -> list[str]:
    """Primary and secondary, "" where there is none. Raises ServiceError."""
    pair = authentication.get(name) or {}
    values = (
        [pair.get(f"{which}{suffix}") or "" for which in ("primary", "secondary")] if isinstance(pair, dict) else []
    )
    if not values or not all(isinstance(value, str) for value in values):
        raise ServiceError(400, 400004, f"authentication.{name}: not of its form.")
    return values


def _key(text: str) -> str:
    """Raises ServiceError."""
    try:
        size = len(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error):
        size = 0
    if text and not 16 <= size <= 64:
        raise ServiceError(400, 400004, "A symmetric key must be the base64 of 16 to 64 bytes.")
    return text or new_key()
