"""Certificate issuance: the CSR out of a request, the issued chain into an answer, in the form of either API.

Only the public half of a key is ever seen here. What is wrong with a chain on purpose is decided here as well.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ..errors import ServiceError, timestamp
from ..memory.records import new_etag
from ..trouble.actions import Chain
from ..trust import authorities, certificates
from ..trust.signers import certificate_info
from .namespace import Terms

_SINCE = "2025-07-01"  # the first api-version with today's form
_PEM_VERSION = "2021-11-01-preview"  # the one with the older form: other names, and PEM in place of base64 DER
_CURVES = {"secp384r1": "ec-p384", "secp256r1": "ec-p256"}
_DAY = 86400

Csr = x509.CertificateSigningRequest


def request(body: dict[str, Any], api_version: str) -> Any:
    """The CSR of a registration as it was sent, or None.

    Each of the two versions ignores the name that the other one uses: all its other fields are unknown to it, and
    unknown fields do no harm (inference). Raises ServiceError for a CSR in a version that issues nothing.
    """
    if api_version == _PEM_VERSION:
        return body.get("clientCertificateCsr")
    csr = body.get("csr")
    if csr is not None and api_version[: len(_SINCE)] < _SINCE:
        raise ServiceError(400, 400012, f"csr: not known to api-version {api_version}.")
    return csr


def read(text: Any, api_version: str) -> Csr:
    """A CSR out of its text: base64 of the DER, or PEM in the older API. Raises ServiceError.

    The form of the other API is a deserialization error, as seen at the service for PEM.
    """
    older = api_version == _PEM_VERSION
    try:
        if older:
            return x509.load_pem_x509_csr(text.encode())
        return x509.load_der_x509_csr(base64.b64decode(text, validate=True))
    except (AttributeError, TypeError, ValueError, binascii.Error, UnsupportedAlgorithm):
        form = "a PKCS#10 in PEM" if older else "the base64 of a PKCS#10 in DER"
        raise ServiceError(400, 400012, f"Deserialization error: the CSR is not {form}.") from None


def check(csr: Csr, registration_id: str, key_types: tuple[str, ...]) -> None:
    """Raises ServiceError for a CSR that can be read but not be used.

    The codes of DPS for that are not known; 400004 is what the Hub says in that case.
    """
    try:
        good = csr.is_signature_valid
        key_type = _key_type(csr.public_key())
        name = certificates.common_name(csr.subject)
    except (TypeError, ValueError, InvalidSignature, UnsupportedAlgorithm):
        raise ServiceError(400, 400004, "csr: cannot be verified.") from None
    if not good:
        raise ServiceError(400, 400004, "csr: the signature is not by its own key.")
    if key_type not in key_types:
        raise ServiceError(400, 400004, f"csr: the policy takes keys of type {', '.join(key_types)} only.")
    if name is None or name.lower() != registration_id.lower():
        raise ServiceError(400, 400004, "csr: the common name is not the registration ID.")


def _key_type(key: Any) -> str | None:
    """As in Options.key_types; None for what no policy takes."""
    if isinstance(key, rsa.RSAPublicKey):
        return "rsa" if key.key_size >= 2048 else None
    return _CURVES.get(key.curve.name) if isinstance(key, ec.EllipticCurvePublicKey) else None


def issue(
    authority: authorities.IssuingAuthority, csr: Csr, device_id: str, terms: Terms, trouble: Chain | None
) -> tuple[x509.Certificate, list[str] | None]:
    """The leaf and its chain as base64 DER; None where trouble wants null."""
    kind = trouble.kind if trouble is not None else ""
    key = ec.generate_private_key(ec.SECP384R1()).public_key() if kind == "other-key" else csr.public_key()
    name = device_id + "-other" if kind == "other-name" else device_id
    begins = {"expired": -terms.life - 60, "not-yet-valid": _DAY}.get(kind, 0)
    leaf = authority.issue(terms.issuer, terms.serial, name, key, terms.life, begins, deep=kind == "longer")
    chain = [base64.b64encode(der).decode() for der in authority.chain(leaf)]
    if kind == "null":
        return leaf, None
    if kind == "reversed":
        chain.reverse()
    elif kind == "lines":
        chain = [text + "\r\n" for text in chain]
    elif kind == "pem":
        chain = list(map(pem, chain))
    elif kind == "base64-pem":  # as a live run of September 2026 logs it; the specification says base64 of DER
        chain = [base64.b64encode(pem(text).encode()).decode() for text in chain]
    elif kind == "garbage":
        chain = ["%% no base64 %%" + part[:60] for part in chain]
    return leaf, chain[: {"empty": 0, "leaf-only": 1, "no-root": -1}.get(kind)]


def answer(chain: list[str] | None, authority: authorities.IssuingAuthority, api_version: str) -> dict[str, Any]:
    """The fields of registrationState that carry an issued chain.

    In the older API the certificates are one text of PEM, leaf first, and trustBundle tells the root (official SDKs).
    Whether its chain ends in the root as well is not known: here it does, as in today's form.
    """
    if api_version != _PEM_VERSION:
        return {"issuedCertificateChain": chain}
    root = authority.root.certificate
    bundle = {
        "id": root.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value,
        "createdDateTime": timestamp(),
        "lastModifiedDateTime": timestamp(),
        "etag": new_etag(),
        "certificates": [{"certificate": root.public_bytes(Encoding.PEM).decode(), "metadata": certificate_info(root)}],
    }
    return {
        "issuedClientCertificate": None if chain is None else "".join(map(pem, chain)),
        "trustBundle": bundle,
    }


def pem(text: str) -> str:
    """A certificate in PEM, from its base64 DER."""
    lines = "".join(text[at : at + 64] + "\n" for at in range(0, len(text), 64))  # RFC 7468
    return f"-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n"
