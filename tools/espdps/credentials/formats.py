"""PEM and DER, in and out: private keys, requests and certificates as openssl and others write them.
Nothing here opens a file, and no exception text holds what was read."""

from __future__ import annotations

import base64
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

from espdps import inputs
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

CERTIFICATES = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")  # labels of PEM blocks

_LINE = re.compile(rb".{1,64}")
_NO_BASE64 = re.compile(rb"\s|\\[rn]")  # also the \n that JSON and environment files write for a line end
_PKCS7 = bytes.fromhex("06092a864886f70d010702")  # signedData (RFC 2315)
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_CURVES = {"secp256r1": "p256", "secp384r1": "p384", "secp521r1": "p521"}

# A serial number of zero and the like, which the library tells on standard error: it is no fault of who reads here.
warnings.filterwarnings("ignore", category=CryptographyDeprecationWarning)


@dataclass(frozen=True)
class Block:
    """One block of a PEM file. `text` is all of it, None if its end is missing."""

    label: str
    text: bytes | None = field(repr=False)


def plain(content: bytes) -> bytes:
    """PEM or DER, out of base64 of DER and of text with a byte-order mark as well."""
    content = inputs.without_mark(content)
    if b"-----BEGIN" not in content and content[:1] != b"\x30":
        try:
            der = base64.b64decode(b"".join(content.split()), validate=True)
        except ValueError:
            return content
        return der if der[:1] == b"\x30" else content
    return content


def pem_blocks(content: bytes) -> list[Block]:
    """The blocks of a PEM file in their order, each with lines as openssl has them; what is between is left out."""
    blocks = []
    rest = b""
    begins = list(_BEGIN.finditer(content))
    for begin, following in zip_longest(begins, begins[1:]):
        stop = following.start() if following else len(content)
        label, closing = begin[1].decode(), b"-----END " + begin[1] + b"-----"
        body, closed, rest = content[begin.end() : stop].partition(closing)
        if b":" not in body:  # no headers of a traditional encryption, so that only base64 counts
            body = b"\n" + b"\n".join(_LINE.findall(_NO_BASE64.sub(b"", body))) + b"\n"
        blocks.append(Block(label, begin[0] + body + closing + b"\n" if closed else None))
    if rest.strip().startswith(b"-----"):
        blocks.append(Block("PEM block", None))  # one more, cut off in its first line
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


def load_private(content: bytes, passphrase: bytes | None) -> Any:
    """A private key of any type: one PEM block, or DER. Raises TypeError if it wants a passphrase, else one of BAD."""
    pem_form = content.startswith(b"-----BEGIN")
    if content.startswith(b"-----BEGIN OPENSSH"):
        try:
            return serialization.load_ssh_private_key(content, passphrase)
        except UnsupportedAlgorithm:
            hint = "ssh-keygen -p -m PKCS8 -f FILE writes it in a form that is read"
            raise ToolError("an OpenSSH key with a passphrase cannot be read", hint) from None
    try:
        return (serialization.load_pem_private_key if pem_form else serialization.load_der_private_key)(
            content, passphrase
        )
    except ValueError:
        # An EC key whose number has not the length that RFC 5915 demands: only openssl itself reads it.
        from OpenSSL import crypto

        try:
            if pem_form:  # never without a passphrase: it would ask for one at the terminal
                return crypto.load_privatekey(crypto.FILETYPE_PEM, content, passphrase or b"").to_cryptography_key()
            return crypto.load_privatekey(crypto.FILETYPE_ASN1, content).to_cryptography_key()
        except crypto.Error:
            raise ValueError from None


def private_key(content: bytes, ask: Ask, what: str) -> PrivateKey:
    """A private key of one of KINDS, PEM (the first in the file) or DER: PKCS #8, PKCS #1, SEC 1 or OpenSSH.

    Raises ToolError that calls it `what`.
    """
    content = plain(content)
    if blocks := pem_blocks(content):
        found = [block for block in blocks if block.label.endswith("PRIVATE KEY")]
        if not found:
            raise ToolError(f"{what} holds no private key", _other(blocks))
        if found[0].text is None:
            raise ToolError(f"{what} is truncated: its private key has no end", "take another copy")
        content = found[0].text
    try:
        key = unlock(lambda passphrase: load_private(content, passphrase), ask, what)
    except BAD:
        raise ToolError(
            f"{what} is no private key, or a damaged one",
            _named(content)
            or "take one in PEM or DER (PKCS #8, PKCS #1, SEC 1); esp-dps inspect says what a file holds",
        ) from None
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)) or kind_of(key.public_key()) not in KINDS:
        raise ToolError(
            f"{what} is a key of type {kind_of(key.public_key())}", f"take a key of one of the types {', '.join(KINDS)}"
        )
    return key


def certificates(content: bytes, what: str) -> list[x509.Certificate]:
    """The certificates of a PEM file in their order, or the one of a DER file. Raises ToolError with `what` in it."""
    content = plain(content)
    blocks = pem_blocks(content)
    if cut := [block.label for block in blocks if block.text is None]:
        raise ToolError(f"{what} is truncated: its last {cut[0]} has no end", "take another copy")
    found = [block for block in blocks if block.label in CERTIFICATES]
    if blocks and not found:
        raise ToolError(f"{what} holds no certificate", _other(blocks))
    try:
        return [certificate(block) for block in found] or [x509.load_der_x509_certificate(content)]
    except BAD:
        raise ToolError(f"{what} holds no certificate, or a damaged one", _named(content) or _TAKE) from None


def certificate(block: Block) -> x509.Certificate:
    """The certificate of a block with one of the labels CERTIFICATES. Raises one of BAD."""
    der = base64.b64decode(b"".join((block.text or b"").split(b"-----")[2].split()), validate=True)
    if block.label == "TRUSTED CERTIFICATE":  # openssl's own: what it may be trusted for follows
        der = der[: len(der) + missing_bytes(der)]
    return x509.load_der_x509_certificate(der)


def is_pfx(content: bytes) -> bool:
    """Whether this is a PFX: a sequence that starts with version 3 (RFC 7292, section 4), in DER or BER."""
    start = 2 + (content[1] - 0x80 if len(content) > 1 and content[1] > 0x80 else 0)
    return content[:1] == b"\x30" and content[start : start + 3] == b"\x02\x01\x03"


def _other(blocks: list[Block]) -> str:
    return f"take another file: this one has {', '.join(block.label for block in blocks)}"


def _named(der: bytes) -> str:
    """What to do with a file of another kind, if it is known."""
    if is_pfx(der):
        return "it is a PFX: esp-dps pfx import takes key and certificates out of it"
    if _PKCS7 in der[:32]:
        return "it is PKCS #7 (.p7b): openssl pkcs7 -inform DER -print_certs takes the certificates out of it"
    return ""


def request(content: bytes, what: str) -> x509.CertificateSigningRequest:
    """A PKCS #10 request, PEM or DER, whose signature is good. Raises ToolError that calls it `what`."""
    content = plain(content)
    found = [block for block in pem_blocks(content) if block.label.endswith("CERTIFICATE REQUEST")]
    try:
        csr = x509.load_pem_x509_csr(found[0].text or b"") if found else x509.load_der_x509_csr(content)
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
