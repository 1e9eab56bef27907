"""Attestation by client certificate: does a chain lead up to an enrolled signer, and is it one for this device.

Only judges. TLS has proven already that the client holds the leaf's private key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from . import ca

_LONGEST = 8  # certificates in a chain
# Texts of 401002 seen at the real service; which condition leads to which is inferred.
NOT_FOUND = "CA certificate not found."
BROKEN = "Signing certificate info did not match chain elements."
INVALID = "Invalid certificate."


@dataclass(frozen=True)
class Chain:
    """What a client presented: its own certificate, and whatever else came with it, in any order."""

    leaf: x509.Certificate
    others: tuple[x509.Certificate, ...] = ()

    def problem(self, signers: Sequence[x509.Certificate]) -> str | None:
        """The service's words for why this chain does not lead up to one of the signers; None if it does, now."""
        current = self.leaf
        for _ in range(_LONGEST):
            if not ca.is_valid(current):
                return INVALID
            named = [signer for signer in signers if signer.subject == current.issuer]
            if any(_issued(current, signer) for signer in named):
                return None
            if named:
                return BROKEN  # the right name over another key
            above = [other for other in self.others if _issued(current, other) and other != current]
            if not above:
                return NOT_FOUND
            current = above[0]
        return BROKEN


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
        return True
    except (InvalidSignature, TypeError, ValueError):
        return False
