"""The root certificates a device trusts: Azure's own, or those of a file.
Only certificates pass through here; whatever else a file holds, a private key above all, is left behind."""

from __future__ import annotations

import hashlib
import re
import ssl
from pathlib import Path

import certifi

from espdps import files
from espdps.credentials import formats
from espdps.errors import ToolError

# SHA-256 of the roots that Microsoft's documentation tells DPS and IoT Hub devices to trust; the fingerprints are those
# that DigiCert and Microsoft PKI publish beside the certificates.
AZURE = {
    "DigiCert Global Root G2": "cb3ccbb76031e5e0138f8dd39a23f9de47ffc35e43c1144cea27d46a5ab1cb5f",
    "Microsoft RSA Root Certificate Authority 2017": "c741f70f4b2a8d88bf2e71c14122ef53ef10eba0cfa5e64cfa20f418853073e0",
}
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def azure_roots() -> bytes:
    """Azure's two roots as PEM, taken by fingerprint from certifi. Raises ToolError when it has one no more."""
    # Not parsed as certificates: the bundle holds some that are not to the letter of the standard.
    blocks = _CERTIFICATE.findall(Path(certifi.where()).read_text(encoding="utf-8"))
    by_fingerprint = {hashlib.sha256(ssl.PEM_cert_to_DER_cert(block)).hexdigest(): block for block in blocks}
    for name, fingerprint in AZURE.items():
        if fingerprint not in by_fingerprint:
            raise ToolError(f"the package certifi no longer has {name}", "give the roots yourself: --roots FILE")
    return "".join(by_fingerprint[fingerprint] + "\n" for fingerprint in AZURE.values()).encode()


def read_roots(path: Path) -> bytes:
    """The certificates in a file (PEM, or one in DER), as PEM without anything else. Raises ToolError."""
    return formats.pem(*formats.certificates(files.read(path), str(path)))
