"""What belongs together: a private key with its request or certificate, a certificate with its issuers.
Judges what it is given; opens no file, and no exception text holds what was read."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from espdps.credentials import formats, keys
from espdps.errors import WRONG_USE, ToolError

_AGAIN = "make them again: esp-dps new … --force"


def check_csr(csr: bytes, key: bytes, registration_id: str) -> None:
    """Raises ToolError unless the CSR (DER) is by this private key (DER) and for this registration id."""
    try:
        request = x509.load_der_x509_csr(csr)
        private = formats.load_private(key, None)
    except formats.BAD:  # without their words, which may quote the file
        raise ToolError("device.csr or device.key cannot be read", _AGAIN) from None
    if not request.is_signature_valid or request.public_key() != private.public_key():
        raise ToolError("device.csr and device.key are not a pair", _AGAIN)
    check_name(request.subject, registration_id, "device.csr", _AGAIN)


def check_pair(certificates: bytes, key: bytes, registration_id: str) -> tuple[bytes, bytes]:
    """An onboarding certificate (leaf first) and its private key, as the board takes them: PEM and DER.

    Raises ToolError if they do not belong together, if the chain does not lead from the leaf to its issuers, or if the
    leaf is not for this registration id (DPS compares its common name).
    """
    chain = formats.certificates(certificates, "the onboarding certificate")
    try:
        private = formats.private_key(key, lambda what: None, "the onboarding key")
    except formats.Locked:
        hint = "a board cannot type its passphrase: openssl pkey -in KEY -out NEW writes one without"
        raise ToolError("the onboarding key is encrypted", hint, WRONG_USE) from None
    if private.public_key() != chain[0].public_key():
        raise ToolError(
            "the onboarding certificate belongs to another key",
            "the first certificate has to be the device's",
            WRONG_USE,
        )
    check_name(chain[0].subject, registration_id, "the onboarding certificate", f"it has to be for {registration_id}")
    return formats.pem(*checked_chain(chain, "the onboarding certificate")), keys.key_der(private)


def check_name(subject: x509.Name, registration_id: str, what: str, hint: str) -> None:
    """Raises ToolError unless the subject's one common name is this registration id."""
    names = keys.common_names(subject)
    if [name.lower() for name in names] != [registration_id.lower()]:
        raise ToolError(f"{what} is for {', '.join(names) or 'no device'}, not for {registration_id}", hint, WRONG_USE)


def checked_chain(chain: list[x509.Certificate], what: str) -> list[x509.Certificate]:
    """The leaf and its issuers, each once. Raises ToolError unless each is signed by the next, as TLS wants it."""
    chain = [chain[0], *dict.fromkeys(chain[1:])]
    for number, (one, following) in enumerate(zip(chain, chain[1:], strict=False), 1):
        if not issued_by(one, following):
            raise ToolError(
                f"{what}: certificate {number} is not signed by certificate {number + 1}",
                "put the device's first, then each one's issuer; esp-dps inspect shows what there is",
                WRONG_USE,
            )
    return chain


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether names and signature say so."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *formats.BAD):
        return False
    return True
