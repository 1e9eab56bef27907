"""PFX (PKCS #12): one file with a private key, its certificate and the chain, as Windows and Azure's portal take it.
Nothing here opens a file, and no exception text holds what was read."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

from espdps.credentials import formats, keys, pairs
from espdps.credentials.formats import Ask
from espdps.credentials.keys import PrivateKey
from espdps.errors import WRONG_USE, ToolError


@dataclass(frozen=True)
class Content:
    """What is in a PFX. `key` may be of any type; `identity` promises one of keys.KINDS."""

    key: object = field(repr=False)
    certificates: tuple[x509.Certificate, ...]  # that of the key first


def unpack(content: bytes, ask: Ask, what: str) -> Content:
    """What is in a PFX; the password is asked for unless it is empty. Raises ToolError that calls it `what`."""
    content = formats.plain(content)
    if not formats.is_pfx(content):
        raise ToolError(f"{what} is no PFX", "esp-dps inspect says what it is")
    if (missing := formats.missing_bytes(content)) > 0:
        raise ToolError(f"{what} is truncated: {missing} bytes are missing", "take another copy")

    def load(password: bytes | None) -> Content:
        try:
            key, leaf, others = pkcs12.load_key_and_certificates(content, password)
        except formats.BAD:
            raise (TypeError if password is None else ValueError) from None
        return Content(key, tuple(one for one in (leaf, *others) if one is not None))

    opened: Content = formats.unlock(load, ask, what)
    return opened


def identity(content: Content, what: str) -> tuple[PrivateKey, list[x509.Certificate]]:
    """The key and its certificates, leaf first, each issued by the next. Raises ToolError, also for another one."""
    leaf, others = content.certificates[:1], list(content.certificates[1:])
    if content.key is None or not leaf:
        raise ToolError(f"{what} holds no private key with its certificate", "export it with its private key")
    kind = formats.kind_of(content.key.public_key())  # type: ignore[attr-defined]
    if kind not in keys.KINDS:
        raise ToolError(
            f"{what} is for a key of type {kind}", f"take a key of one of the types {', '.join(keys.KINDS)}"
        )
    chain = list(leaf)
    while following := [one for one in others if pairs.issued_by(chain[-1], one)]:
        chain.append(following[0])
        others.remove(following[0])
    return content.key, pairs.checked_chain(chain + others, what)  # type: ignore[return-value]


def pack(key: PrivateKey, chain: list[x509.Certificate], password: bytes) -> bytes:
    """A PFX with AES-256, whose friendly name is the leaf's common name. Raises ToolError if it is not the key's."""
    if formats.spki(key.public_key()) != formats.spki(chain[0].public_key()):
        raise ToolError(
            "the certificate belongs to another key", "the first certificate has to be that of the key", WRONG_USE
        )
    chain = pairs.checked_chain(chain, "the certificate's file")
    closed = BestAvailableEncryption(formats.check_passphrase(password))
    name = "".join(keys.common_names(chain[0].subject)[:1]).encode()
    return pkcs12.serialize_key_and_certificates(name or None, key, chain[0], chain[1:], closed)
