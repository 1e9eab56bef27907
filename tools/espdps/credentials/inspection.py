"""What a file holds: keys, requests, certificates, PFX, SAS tokens, recognised by content; and what belongs together.
Of private keys and tokens only what is public is ever in a result: no private number, no signature of a token."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import zip_longest
from typing import Any
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from OpenSSL import crypto

from espdps import inputs
from espdps.credentials import formats, pfx
from espdps.credentials.formats import Ask, kind_of, spki
from espdps.errors import ToolError

_TOKEN = re.compile(r"sharedaccesssignature([\s=]+|$)(?!sharedaccess)", re.I)
_BEHIND = re.compile(r"[\"'`;,}\s]*$|[\"'`;,].*|\s+[A-Za-z-]+: .*", re.S)  # of a token in JSON, in a header, in quotes
_KEY_LENGTHS = range(16, 65)  # bytes of a symmetric key
_USES = {"clientAuth": "TLS client", "serverAuth": "TLS server"}


@dataclass
class Item:
    """One thing in one file. `facts` is all that is told of it; `public` (SubjectPublicKeyInfo) ties keys to it."""

    file: str
    kind: str
    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    public: bytes | None = field(default=None, repr=False)
    certificate: x509.Certificate | None = field(default=None, repr=False)

    @property
    def title(self) -> str:
        return f"{self.file} ({self.facts['subject']})" if self.facts.get("subject") else self.file


@dataclass
class Chain:
    """A certificate and the way up from it. `says` is openssl's verdict if it does not verify."""

    path: list[str]
    verifies: bool
    to_root: bool
    says: str = ""


@dataclass
class Report:
    """All there is to tell about some files. A problem names its file or subject."""

    items: list[Item] = field(default_factory=list)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    chains: list[Chain] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def inspect(sources: Iterable[tuple[str, bytes]], ask: Ask, now: datetime | None = None) -> Report:
    """What is in these files, (name, content) each. Never raises for what they hold: that is among the problems."""
    now = now or datetime.now(timezone.utc)
    report = Report()
    for name, content in sources:
        items = _recognise(name, content, ask, now)
        report.items += items
        report.problems += [f"{item.title}: {problem}" for item in items for problem in item.problems]
        if _out_of_order([item.certificate for item in items if item.certificate and item.facts["format"] != "PFX"]):
            report.problems.append(f"{name}: certificates in the wrong order; leaf first, each issued by the next")
    _tie(report)
    _verify(report)
    return report


# One file


def _recognise(name: str, content: bytes, ask: Ask, now: datetime) -> list[Item]:
    content = inputs.without_mark(content)
    blocks = formats.pem_blocks(content)
    if blocks:
        items = [item for block in blocks for item in _pem(name, block, ask, now)]
        return items or [Item(name, "unknown", problems=["EC parameters only, no key"])]
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        text = ""
    if not text or not text.replace("\r", "").replace("\n", "").isprintable():
        return _der(name, content, "DER", ask, now) if content[:1] == b"\x30" else [_unknown(name)]
    if found := _TOKEN.search(text):
        return [_token(name, found[1], _BEHIND.sub("", text[found.end() :], count=1), now)]
    return _base64(name, text, ask, now)


def _unreadable(name: str, error: ToolError) -> Item:
    return Item(name, "unreadable", problems=[error.message.removeprefix(name).lstrip(": ")])


def _unknown(name: str) -> Item:
    return Item(name, "unknown", problems=["neither a key, a CSR, a certificate, a PFX nor a SAS token"])


def _pem(name: str, block: formats.Block, ask: Ask, now: datetime) -> list[Item]:
    if block.label == "EC PARAMETERS":  # openssl writes them before a key, which says the same again
        return []
    if block.text is None:
        return [Item(name, "unreadable", problems=[f"truncated: {block.label} has no end"])]
    try:
        if block.label.endswith("PRIVATE KEY"):
            form = f"PEM, {block.label}"
            return [_private(name, block.text, form, ask)]
        if block.label.endswith("CERTIFICATE REQUEST"):
            return [_request(name, x509.load_pem_x509_csr(block.text), "PEM")]
        if block.label in formats.CERTIFICATES:
            return [_certificate(name, formats.certificate(block), "PEM", now)]
        if block.label.endswith("PUBLIC KEY"):
            return [_key(name, "public key", serialization.load_pem_public_key(block.text), {"format": "PEM"})]
    except formats.BAD:
        return [Item(name, "unreadable", problems=[f"damaged: {block.label}"])]
    return [Item(name, "unknown", problems=[f"{block.label} is nothing this command knows"])]


def _der(name: str, der: bytes, form: str, ask: Ask, now: datetime) -> list[Item]:
    missing = formats.missing_bytes(der)
    if missing > 0:
        return [Item(name, "unreadable", problems=[f"truncated: {missing} bytes are missing"])]
    if missing < 0:
        return [Item(name, "unreadable", problems=[f"damaged: {-missing} bytes too many at its end"])]
    if formats.is_pfx(der):
        return _pfx(name, der, ask, now)
    for read in (
        lambda: _certificate(name, x509.load_der_x509_certificate(der), form, now),
        lambda: _request(name, x509.load_der_x509_csr(der), form),
        lambda: _private(name, der, form, ask),
        lambda: _key(name, "public key", serialization.load_der_public_key(der), {"format": form}),
    ):
        try:
            return [read()]
        except formats.BAD:
            continue
    return [Item(name, "unknown", problems=["ASN.1, but no key, CSR, certificate or PFX, or a damaged one"])]


def _base64(name: str, text: str, ask: Ask, now: datetime) -> list[Item]:
    """A key or, as DPS takes a CSR and hands out certificates, DER without the lines that make it PEM."""
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return [_unknown(name)]
    if len(content) in _KEY_LENGTHS:
        return [Item(name, "symmetric key", {"format": "base64", "bytes": len(content)})]
    return _der(name, content, "base64 of DER", ask, now) if content[:1] == b"\x30" else [_unknown(name)]


def _pfx(name: str, content: bytes, ask: Ask, now: datetime) -> list[Item]:
    asked = False

    def password(what: str) -> bytes | None:
        nonlocal asked
        asked = True
        return ask(what)

    try:
        opened = pfx.unpack(content, password, name)
    except formats.Locked:
        return [Item(name, "PFX", {"format": "PFX", "encrypted": True})]
    except ToolError as error:
        return [_unreadable(name, error)]
    items = [_certificate(name, certificate, "PFX", now) for certificate in opened.certificates]
    if opened.key is not None:
        public = opened.key.public_key()  # type: ignore[attr-defined]
        items.insert(0, _key(name, "private key", public, {"format": "PFX", "encrypted": asked}))
    return items or [Item(name, "PFX", {"format": "PFX"}, ["nothing in it"])]


def _private(name: str, content: bytes, form: str, ask: Ask) -> Item:
    encrypted = False

    def opened(passphrase: bytes | None) -> Any:
        nonlocal encrypted
        encrypted = passphrase is not None
        return formats.load_private(content, passphrase)

    try:
        key = formats.unlock(opened, ask, name)
    except formats.Locked:
        return Item(name, "private key", {"format": form, "encrypted": True})
    except ToolError as error:
        return _unreadable(name, error)
    return _key(name, "private key", key.public_key(), {"format": form, "encrypted": encrypted})


def _key(name: str, kind: str, public: Any, facts: dict[str, Any]) -> Item:
    der = spki(public)
    facts = {**facts, "key_type": kind_of(public), "key_sha256": _sha256(der)}
    return Item(name, kind, facts, public=der)


def _sha256(der: bytes) -> str:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(der)
    return digest.finalize().hex()


def _request(name: str, request: x509.CertificateSigningRequest, form: str) -> Item:
    der = request.public_bytes(serialization.Encoding.DER)
    public = request.public_key()
    facts = {
        "format": form,
        "subject": request.subject.rfc4514_string(),
        "key_type": kind_of(public),
        "sha256": _sha256(der),
    }
    problems = [] if request.is_signature_valid else ["its signature is broken"]
    return Item(name, "CSR", facts, problems, public=spki(public))


def _certificate(name: str, certificate: x509.Certificate, form: str, now: datetime) -> Item:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    public = certificate.public_key()
    facts = {
        "format": form,
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "not_before": _time(begin),
        "not_after": _time(end),
        "days_left": (end - now).days,
        "key_type": kind_of(public),
        "use": _use(certificate),
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
        "sha1": certificate.fingerprint(hashes.SHA1()).hex(),
    }
    problems = []
    if now >= end:
        problems.append(f"expired at {_time(end)}")
    if now < begin:
        problems.append(f"not valid before {_time(begin)}")
    return Item(name, "certificate", facts, problems, spki(public), certificate)


def _use(certificate: x509.Certificate) -> list[str]:
    """What it is for, by basic constraints and extended key usage."""
    use = []
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints) and value.ca:
            limit = "" if value.path_length is None else f" with path length {value.path_length}"
            use.append(f"authority{limit}")
        if isinstance(value, x509.ExtendedKeyUsage):
            use += [_USES.get(purpose._name, purpose.dotted_string) for purpose in value]
    return use


def _token(name: str, gap: str, text: str, now: datetime) -> Item:
    fields: dict[str, str] = {}
    problems = []
    if len((gap + text).splitlines()) > 1 or len(text.split()) > 1:
        problems.append("broken over several lines: a token is one line without spaces")
    for part in "".join(text.split()).split("&"):
        key, _, value = part.partition("=")
        if key in fields:
            problems.append(f"{key} twice")
        if key in ("sr", "sig", "se", "skn"):
            fields[key] = value
        else:
            problems.append("a part that is none of sr, sig, se, skn")
    problems += [f"{key} is missing" for key in ("sr", "sig", "se") if not fields.get(key)]
    facts: dict[str, Any] = {"resource": _readable(fields.get("sr")), "policy": _readable(fields.get("skn"))}
    if sig := fields.get("sig"):
        try:
            good = len(base64.b64decode(unquote(sig), validate=True)) == 32
        except (binascii.Error, ValueError):
            good = False
        if not good:
            problems.append("sig is no HMAC-SHA256 in base64")
    if se := fields.get("se"):
        if re.fullmatch(r"[0-9]{1,11}", se):
            seconds = int(se) - int(now.timestamp())
            facts |= {"expires": _time(datetime.fromtimestamp(int(se), timezone.utc)), "seconds_left": seconds}
            if seconds <= 0:
                problems.append(f"expired at {facts['expires']}")
        else:
            problems.append("se is no Unix time")
    return Item(name, "SAS token", facts, problems)


def _readable(value: str | None) -> str | None:
    """A part of a token that is not secret, unless the token is so broken that its signature is in this part."""
    text = unquote(value or "")
    return text if text and "sig=" not in unquote(text).lower() else None


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


# All files together


def _out_of_order(chain: list[x509.Certificate]) -> bool:
    """Whether one is not followed by its issuer although that is among them: TLS wants it so (RFC 5246, 7.4.2)."""
    subjects = {certificate.subject for certificate in chain}
    return any(
        one.issuer in subjects - {one.subject} and (following is None or one.issuer != following.subject)
        for one, following in zip_longest(chain, chain[1:])
    )


def _tie(report: Report) -> None:
    """Which private key belongs to which certificate or CSR."""
    others = [item for item in report.items if item.public and item.kind in ("certificate", "CSR")]
    for item in report.items:
        if item.kind != "private key" or not item.public or not others:
            continue
        found = [other.title for other in others if other.public == item.public]
        report.pairs.append({"key": item.file, "belongs_to": found})
        if not found:
            report.problems.append(f"{item.file}: the private key belongs to none of these certificates and CSRs")


def _verify(report: Report) -> None:
    """Every way up from a certificate that has not issued another of these; what does not lead up is a problem."""
    known = list(dict.fromkeys(item.certificate for item in report.items if item.certificate))
    subjects, issuers = {one.subject for one in known}, {one.issuer for one in known if one.issuer != one.subject}
    tops = [one for one in known if one.issuer == one.subject or one.issuer not in subjects and one.subject in issuers]
    ends = [one for one in known if one.subject not in issuers] or known
    for end in ends:
        if end in tops or end.issuer in subjects:
            chain = _path(end, tops, [one for one in known if one not in tops])
            report.chains.append(chain)
            if not chain.verifies:
                report.problems.append(f"{_subject(end)}: does not verify: {chain.says}")
        elif tops:
            report.problems.append(f"{_subject(end)}: its issuer {end.issuer.rfc4514_string()} is not among these")


def _path(end: x509.Certificate, tops: list[x509.Certificate], between: list[x509.Certificate]) -> Chain:
    """openssl's word on the way from `end` to one of `tops`, which are taken as trusted."""
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN | crypto.X509StoreFlags.CHECK_SS_SIGNATURE)
    for top in tops:
        store.add_cert(crypto.X509.from_cryptography(top))
    context = crypto.X509StoreContext(
        store, crypto.X509.from_cryptography(end), [crypto.X509.from_cryptography(one) for one in between]
    )
    try:
        path = [element.to_cryptography() for element in context.get_verified_chain()]
    except crypto.X509StoreContextError as error:
        where = _subject(error.certificate.to_cryptography())
        return Chain([_subject(end)], False, False, f"{error} at {where}" if where != _subject(end) else str(error))
    return Chain([_subject(one) for one in path], True, path[-1].issuer == path[-1].subject)


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()
