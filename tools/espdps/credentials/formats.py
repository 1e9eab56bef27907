"""PEM and DER, in and out: private keys, requests and certificates as openssl and others write them.
Nothing here opens a file, and no exception text holds what was read."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.utils import CryptographyDeprecationWarning

from espdps.credentials.keys import KINDS, PrivateKey, key_der
from espdps.errors import WRONG_USE, ToolError

# What unlocks the thing of this name: UTF-8, None if there is nothing to be had.
Ask = Callable[[str], bytes | None]

# What the library raises for bytes that are not what they should be. Its words may quote them.
BAD = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)
LONGEST_PASSPHRASE = 1023  # bytes; openssl takes no longer one

_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_CURVES = {"secp256r1": "p256", "secp384r1": "p384", "secp521r1": "p521"}

# A serial number of zero and the like, which the library tells on standard error: it is no fault of who reads here.
warnings.filterwarnings("ignore", category=CryptographyDeprecationWarning)


@dataclass(frozen=True)
class Block:
    """One block of a PEM file. `text` is all of it, None if its end is missing."""

    label: str
    text: bytes | None = field(repr=False)


def pem_blocks(content: bytes) -> list[Block]:
    """The blocks of a PEM file in their order; what is between them is left out."""
    blocks = []
    begins = list(_BEGIN.finditer(content))
    for begin, following in zip_longest(begins, begins[1:]):
        stop = following.start() if following else len(content)
        end = content.find(b"-----END " + begin[1] + b"-----", begin.end(), stop)
        text = None if end < 0 else content[begin.start() : content.index(b"-----", end + 5) + 5] + b"\n"
        blocks.append(Block(begin[1].decode(), text))
    return blocks


def missing_bytes(der: bytes) -> int:
    """How many bytes the outermost DER element is short of, negative if there are too many, 0 if unknown."""
    if len(der) < 2 or der[1] == 0x80:
        return 0
    length, start = der[1], 2
    if length > 0x80:
        start += length - 0x80
        length = int.from_bytes(der[2:start], "big")
    return start + length - len(der)


def kind_of(public: Any) -> str:
    """The type of a public key, as in keys.KINDS if it is one of those."""
    if isinstance(public, ec.EllipticCurvePublicKey):
        return f"ec-{_CURVES.get(public.curve.name, public.curve.name)}"
    if isinstance(public, rsa.RSAPublicKey):
        return f"rsa-{public.key_size}"
    return type(public).__name__.strip("_").removesuffix("PublicKey").lower()  # ed25519 and others that Azure has not


def spki(public: Any) -> bytes:
    """A public key as SubjectPublicKeyInfo, DER: equal for equal keys."""
    return bytes(public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def unlock(load: Callable[[bytes | None], Any], ask: Ask, what: str) -> Any:
    """What `load` makes of a passphrase, asked for only if it wants one: it raises TypeError for None then.

    Raises ToolError for a wrong passphrase or none, and whatever of BAD `load` raises for None.
    """
    try:
        return load(None)
    except TypeError:
        passphrase = ask(what)
    if passphrase is None:
        raise Locked(f"{what} is encrypted", "--passphrase-file FILE, or ESPDPS_PASSPHRASE in the environment")
    try:
        return load(passphrase)
    except BAD:
        raise ToolError(
            f"{what}: the passphrase is wrong, or the file is damaged", "try the passphrase again, or take another copy"
        ) from None


_TAKE = "take one in PEM or DER; esp-dps inspect says what a file holds"


class Locked(ToolError):
    """There is no passphrase for something that needs one."""


def private_key(content: bytes, ask: Ask, what: str) -> PrivateKey:
    """A private key of one of KINDS, PEM (the first in the file) or DER: PKCS #8, PKCS #1 or SEC 1.

    Raises ToolError that calls it `what`.
    """
    load: Callable[..., Any] = serialization.load_der_private_key
    blocks = pem_blocks(content)
    if blocks:
        load = serialization.load_pem_private_key
        found = [block for block in blocks if block.label.endswith("PRIVATE KEY")]
        if not found:
            raise ToolError(
                f"{what} holds no private key",
                f"take another file: this one has {', '.join(block.label for block in blocks)}",
            )
        if found[0].text is None:
            raise ToolError(f"{what} is truncated: its private key has no end", "take another copy")
        content = found[0].text
    try:
        key = unlock(lambda passphrase: load(content, passphrase), ask, what)
    except BAD:
        raise ToolError(
            f"{what} is no private key, or a damaged one",
            "take one in PEM or DER (PKCS #8, PKCS #1, SEC 1); esp-dps inspect says what a file holds",
        ) from None
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)) or kind_of(key.public_key()) not in KINDS:
        raise ToolError(
            f"{what} is a key of type {kind_of(key.public_key())}", f"take a key of one of the types {', '.join(KINDS)}"
        )
    return key


def certificates(content: bytes, what: str) -> list[x509.Certificate]:
    """The certificates of a PEM file in their order, or the one of a DER file. Raises ToolError with `what` in it."""
    try:
        if not pem_blocks(content):
            return [x509.load_der_x509_certificate(content)]
        return x509.load_pem_x509_certificates(content)
    except BAD:
        raise ToolError(f"{what} holds no certificate, or a damaged one", _TAKE) from None


def request(content: bytes, what: str) -> x509.CertificateSigningRequest:
    """A PKCS #10 request, PEM or DER, whose signature is good. Raises ToolError that calls it `what`."""
    load = x509.load_pem_x509_csr if pem_blocks(content) else x509.load_der_x509_csr
    try:
        csr = load(content)
        good = csr.is_signature_valid
    except BAD:
        raise ToolError(f"{what} is no certificate signing request, or a damaged one", _TAKE) from None
    if not good:
        raise ToolError(
            f"{what}: the signature of the request is broken", "it was changed after it was made: have it made anew"
        )
    return csr


def check_passphrase(passphrase: bytes) -> bytes:
    """The passphrase itself, if openssl takes it as well. Raises ToolError."""
    if not 1 <= len(passphrase) <= LONGEST_PASSPHRASE:
        raise ToolError(f"a passphrase has 1 to {LONGEST_PASSPHRASE} bytes", "take another one", WRONG_USE)
    return passphrase


def key_file(key: PrivateKey, *, der: bool = False, passphrase: bytes | None = None) -> bytes:
    """A private key as PKCS #8; with a passphrase (PEM only) encrypted by PBES2. Raises ToolError."""
    if der:
        if passphrase is not None:
            raise ToolError(
                "a private key in DER cannot have a passphrase", "leave --der or the passphrase out", WRONG_USE
            )
        return key_der(key)
    closed: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        closed = serialization.BestAvailableEncryption(check_passphrase(passphrase))
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, closed)


def pem(*chain: x509.Certificate) -> bytes:
    """Certificates as one PEM file, in this order."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in chain)
