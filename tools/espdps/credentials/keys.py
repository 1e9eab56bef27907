"""Keys, certificate signing requests, derived device keys and SAS tokens, made on the PC.
Nothing here writes, prints or logs; no exception text ever holds a key or a token."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from espdps import inputs
from espdps.errors import WRONG_USE, ToolError

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

# P-384 is what Azure documents for issued certificates; its samples use P-256, and RSA has been issued as well.
KINDS: dict[str, Callable[[], PrivateKey]] = {
    "ec-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ec-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa-4096": lambda: rsa.generate_private_key(65537, 4096),
}
DEFAULT_KIND = "ec-p384"
LONGEST_COMMON_NAME = 64  # RFC 5280, appendix A.1: ub-common-name
_BASE64 = dict.fromkeys(map(ord, inputs.INVISIBLE)) | {ord("-"): "+", ord("_"): "/"}
_REGISTRATION_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._:-]{0,126}[A-Za-z0-9])?")


def check_registration_id(registration_id: str) -> str:
    """The registration id itself if it is one that every part of Azure accepts.

    Up to 128 characters, letters, digits and `-._:`, none of those four at either end (the DPS REST specification; its
    documentation allows a dash at the end, which we do not make). Raises ToolError.
    """
    if not _REGISTRATION_ID.fullmatch(registration_id):
        raise ToolError(
            f"{registration_id!r} is no registration id",
            "1 to 128 letters, digits and - . _ : with a letter or digit at both ends",
            WRONG_USE,
        )
    return registration_id


def check_certificate_name(registration_id: str) -> str:
    """The registration id itself if a certificate can be for it as well. Raises ToolError."""
    check_registration_id(registration_id)
    if len(registration_id) > LONGEST_COMMON_NAME:
        raise ToolError(
            f"a registration id of {len(registration_id)} characters does not fit into a certificate",
            f"a common name has at most {LONGEST_COMMON_NAME}; take a shorter id; `new` has --no-csr",
            WRONG_USE,
        )
    return registration_id


def common_names(subject: x509.Name) -> list[str]:
    """Every common name of a subject, as text."""
    return [str(name.value) for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def new_key(kind: str = DEFAULT_KIND) -> PrivateKey:
    """A fresh private key of one of KINDS. Raises ToolError for another kind."""
    if kind not in KINDS:
        raise ToolError(f"no key type {kind!r}", f"one of {', '.join(KINDS)}", WRONG_USE)
    return KINDS[kind]()


def key_der(key: PrivateKey) -> bytes:
    """The private key as DER, PKCS #8, not encrypted: the form the board's TLS reads."""
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def digest_for(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384:
    """The digest as strong as the key: what Azure's issuing authority itself signs with."""
    strong = isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size >= 384
    return hashes.SHA384() if strong else hashes.SHA256()


def csr(key: PrivateKey, registration_id: str) -> x509.CertificateSigningRequest:
    """A PKCS #10 request whose common name is the registration id, as DPS demands.

    Raises ToolError for an id that is none, or is too long for a common name.
    """
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, check_certificate_name(registration_id))])
    return x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, digest_for(key))


def csr_der(key: PrivateKey, registration_id: str) -> bytes:
    """The request of `csr` in DER: the form DPS takes, in base64. Raises ToolError."""
    return csr(key, registration_id).public_bytes(serialization.Encoding.DER)


def symmetric_key(text: str, what: str = "key") -> str:
    """A symmetric key in base64, in one line, out of what a file or a prompt gave. Raises ToolError that calls it
    `what`; base64 for URLs, line ends, quotes and invisible characters are read."""
    text = inputs.bare(text)
    try:
        key = base64.b64decode("".join(line.strip() for line in text.splitlines()).translate(_BASE64), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not 16 <= len(key) <= 64:  # the service accepts 16 to 64 bytes and makes 64, formerly 32
        raise ToolError(*_no_key(text, what), WRONG_USE)
    return base64.b64encode(key).decode()


def _no_key(text: str, what: str) -> tuple[str, str]:
    """What stands in the place of a symmetric key, and what is wanted."""
    lower = text.lower()
    if "sharedaccesskey=" in lower:
        return f"the {what} is a connection string", "give only what follows SharedAccessKey="
    if "sharedaccesssignature" in lower:
        return f"the {what} is a SAS token", "give the key from which tokens are made"
    if text.startswith(("{", "[")):
        return f"the {what} is JSON", "give only the value of primaryKey: az … --query … --output tsv prints it"
    if "-----begin" in lower:
        return f"the {what} is a PEM file", "give the symmetric key, in base64; a private key has other options"
    return f"the {what} is not a key in base64", "copy it whole, with the = signs at its end"


def decode_key(key_b64: str, what: str = "key") -> bytes:
    """The bytes of a symmetric key as `symmetric_key` reads it. Raises ToolError that calls the key `what`."""
    return base64.b64decode(symmetric_key(key_b64, what))


def derive_device_key(group_key_b64: str, registration_id: str) -> str:
    """The key of one device of an enrollment group: base64(HMAC-SHA256(group key, registration id)).

    The rule is that of `az iot dps enrollment-group compute-device-key`. Raises ToolError.
    """
    key = decode_key(group_key_b64, "group key")
    message = check_registration_id(registration_id).encode()
    return base64.b64encode(hmac.digest(key, message, hashlib.sha256)).decode()


def sas_token(resource: str, key_b64: str, expires: int, policy: str | None = None) -> str:
    """A shared access signature for `resource` (not yet URL-encoded), valid until `expires` in Unix seconds.

    Signed is the encoded resource, a line feed and the expiry; `policy` becomes skn. Raises ToolError for a bad key.
    """
    encoded = quote(resource, safe="")
    signature = hmac.digest(decode_key(key_b64), f"{encoded}\n{expires}".encode(), hashlib.sha256)
    token = f"SharedAccessSignature sr={encoded}&sig={quote(base64.b64encode(signature), safe='')}&se={expires}"
    return f"{token}&skn={quote(policy, safe='')}" if policy else token


def dps_token(id_scope: str, registration_id: str, key_b64: str, expires: int) -> str:
    """The password of a device at DPS; `expires` in Unix seconds. Raises ToolError for a bad key."""
    return sas_token(f"{id_scope}/registrations/{registration_id}", key_b64, expires, "registration")


def hub_token(hub: str, device_id: str, key_b64: str, expires: int) -> str:
    """The password of a device at its IoT Hub; `expires` in Unix seconds. Raises ToolError for a bad key."""
    return sas_token(f"{hub}/devices/{device_id}", key_b64, expires)
