"""Keeps every secret that a test made, and finds it in what is printed. It must never print one itself."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from pathlib import Path
from urllib.parse import quote

_known: set[str] = set()
# A signature of any token, ours or not
_TOKEN = re.compile(r"SharedAccessSignature\s+sr=|&sig=|PRIVATE KEY-----")


def forms(secret: bytes) -> set[str]:
    """The ways in which these bytes could stand in a text."""
    b64 = base64.b64encode(secret).decode()
    return {b64, quote(b64, safe=""), base64.urlsafe_b64encode(secret).decode(), secret.hex()}


def note(folder: Path) -> None:
    """Remember what is secret in a simulator's or a device's folder."""
    for path in folder.rglob("*"):
        if path.name in ("sim.json", "secrets.json", "service.json"):
            _note_values(json.loads(path.read_text()))
        elif path.name.endswith(".key"):
            _note_key(path.read_bytes())


def _note_values(value: object, name: str = "") -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _note_values(inner, key)
    elif isinstance(value, list):
        for inner in value:
            _note_values(inner, name)
    elif isinstance(value, str) and (name.endswith("key") or name.endswith("password")) and len(value) >= 8:
        _known.add(value)
        _known.add(quote(value, safe=""))
        with contextlib.suppress(ValueError):
            _known.update(forms(base64.b64decode(value, validate=True)))


def _note_key(content: bytes) -> None:
    # The private number itself, in whatever wrapping it might be printed
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    load = serialization.load_pem_private_key if content.startswith(b"-") else serialization.load_der_private_key
    key = load(content, None)
    numbers = key.private_numbers()  # type: ignore[union-attr]
    number = numbers.private_value if isinstance(key, ec.EllipticCurvePrivateKey) else numbers.d  # type: ignore[union-attr]
    _known.update({f"{number:x}", str(number)})  # without leading zeros, so it is found with them as well
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _known.update(forms(der) | {content.decode("latin-1")})


def assert_clean(text: str, where: str) -> None:
    """AssertionError, without the secret, if one stands in this text."""
    joined = re.sub(r"\s+", "", text)
    found = [secret for secret in _known if re.sub(r"\s+", "", secret) in joined]
    assert not found, f"{len(found)} secrets in {where}"
    assert not _TOKEN.search(text), f"a token or a private key in {where}"


def count() -> int:
    """How many forms of secrets are known: 0 would make every check empty."""
    return len(_known)
