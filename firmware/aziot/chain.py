# An issued certificate chain: which is the leaf, is it ours, what of the rest is worth keeping.
from binascii import a2b_base64

from micropython import const

from . import clock
from .errors import AzureError
from .x509 import Certificate, csr_key

_SLACK = const(300)  # seconds that the board's clock may lag behind the issuer's


def pick(chain, csr, name):
    """A list of base64 DER in any order -> the leaf (Certificate) and the list from leaf to the last intermediate.

    The leaf is the one with the key of csr (DER). AzureError "cert-form", "cert-key", "cert-name" or "cert-date".
    """
    rest = []
    leaf = None
    key = csr_key(csr)
    try:
        for text in chain:
            certificate = Certificate(a2b_base64(text))
            if certificate.key == key:
                leaf = certificate
                kept = [text]
            elif not certificate.is_root:  # a root is never sent, so it need not be kept
                rest.append((certificate.subject, certificate.issuer, text))
    except (ValueError, TypeError):
        raise AzureError("cert-form", "certificate", "not base64")
    if not leaf:
        raise AzureError("cert-key", "certificate", "issued for another key")
    # Registration ids are case-insensitive.
    if leaf.subject.lower() != name.lower():
        raise AzureError("cert-name", "certificate", "issued to " + leaf.subject)
    if not leaf.not_before - _SLACK <= clock.require() < leaf.not_after:
        raise AzureError("cert-date", "certificate", "not valid now")
    issuer = leaf.issuer
    while rest:
        for i, (subject, above, text) in enumerate(rest):
            if subject == issuer:
                kept.append(text)
                issuer = above
                del rest[i]
                break
        else:
            break
    return leaf, kept
