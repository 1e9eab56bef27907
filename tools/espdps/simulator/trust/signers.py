"""X.509 attestation: whether a client certificate leads to an enrolled signer, and what the service says of it.

OpenSSL judges the path. Enrollments and answers are not known here: who has to be told is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import crypto

# Texts of the service's 401002. That these three fit these cases is inference: they were seen, their causes were not.
OUT_OF_DATE = "Invalid certificate."
BROKEN = "Signing certificate info did not match chain elements."
UNKNOWN = "CA certificate not found."

# Of X509_verify_cert(): not yet valid, expired; no path to what is trusted (18 to 21).
_DATES = (9, 10)
_NO_PATH = (18, 19, 20, 21)


class Untrusted(Exception):
    """No valid path leads from the certificate to an enrolled signer; the text is one of the three above."""


def load(data: bytes) -> x509.Certificate:
    """One certificate, PEM or DER. Raises ValueError for anything else."""
    if b"-----BEGIN" not in data:
        return x509.load_der_x509_certificate(data)
    certificates = x509.load_pem_x509_certificates(data)
    if len(certificates) != 1:
        raise ValueError("a chain of certificates where one is wanted")
    return certificates[0]


def signer_of(
    leaf: x509.Certificate, chain: Sequence[x509.Certificate], signers: Iterable[x509.Certificate]
) -> x509.Certificate:
    """The enrolled signer, root or intermediate, that vouches for the leaf; the nearest one if there are several.

    ``chain``: what else the client presented, in any order. Raises Untrusted.
    """
    enrolled = list(signers)
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)  # an enrolled intermediate needs no root
    for signer in enrolled:
        store.add_cert(crypto.X509.from_cryptography(signer))
    presented = [crypto.X509.from_cryptography(certificate) for certificate in chain]
    try:
        path = crypto.X509StoreContext(store, crypto.X509.from_cryptography(leaf), presented).get_verified_chain()
    except crypto.X509StoreContextError as error:
        raise Untrusted(_reason(error.errors[0], [leaf, *chain], enrolled)) from None
    for element in path[1:]:
        if element.to_cryptography() in enrolled:
            return element.to_cryptography()
    raise Untrusted(UNKNOWN)  # the leaf itself is enrolled as a signer, which does not make it one


def _reason(code: int, presented: list[x509.Certificate], enrolled: list[x509.Certificate]) -> str:
    if code in _DATES:
        return OUT_OF_DATE
    names = {signer.subject for signer in enrolled}
    named = any(certificate.issuer in names or certificate.subject in names for certificate in presented)
    return UNKNOWN if code in _NO_PATH and not named else BROKEN


def certificate_info(certificate: x509.Certificate) -> dict[str, Any]:
    """A certificate as registrationState describes it (X509CertificateInfo of the REST specification)."""
    return {
        "subjectName": certificate.subject.rfc4514_string(),
        "sha1Thumbprint": certificate.fingerprint(hashes.SHA1()).hex().upper(),
        "sha256Thumbprint": certificate.fingerprint(hashes.SHA256()).hex().upper(),
        "issuerName": certificate.issuer.rfc4514_string(),
        "notBeforeUtc": certificate.not_valid_before_utc.isoformat().replace("+00:00", "Z"),
        "notAfterUtc": certificate.not_valid_after_utc.isoformat().replace("+00:00", "Z"),
        "serialNumber": f"{certificate.serial_number:X}",
        "version": certificate.version.value + 1,
    }
