"""The search for secrets finds them: otherwise every test that relies on it would be empty."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import secrecy
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


def test_every_form_is_found(tmp_path: Path) -> None:
    raw = bytes(range(100, 140))
    b64 = base64.b64encode(raw).decode()
    (tmp_path / "secrets.json").write_text(json.dumps({"device_key": b64, "wifi_password": "correct horse"}))
    key = ec.derive_private_key(0x0123456789ABCDEF << 184, ec.SECP256R1())  # begins with zeros
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "device.key").write_bytes(der)
    secrecy.note(tmp_path)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for leak in (
        b64,
        raw.hex(),
        "…correct horse…",
        base64.b64encode(der).decode(),
        der.hex(),
        "\n".join(pem.decode().splitlines()[1:-1]),
        f"{key.private_numbers().private_value:x}",
        "SharedAccessSignature sr=x",
    ):
        with pytest.raises(AssertionError) as caught:
            secrecy.assert_clean(f"before {leak} after", "a test")
        assert leak not in str(caught.value)
    secrecy.assert_clean("nothing to see: contoso-0001 401002", "a test")
