# Just enough DER (X.690) to know whose a certificate is and how long it lives. It proves nothing:
# signatures are checked by the service and by TLS, not here.
from .clock import unix
from .errors import AzureError

_COMMON_NAME = b"\x06\x03\x55\x04\x03"  # OID 2.5.4.3 with its tag and length


def _tlv(der, at):
    # One element: its tag, where its content starts, where it ends.
    tag = der[at]
    size = der[at + 1]
    at += 2
    if size > 127:
        end = at + (size & 127)
        size = int.from_bytes(der[at:end], "big")
        at = end
    if at + size > len(der):
        raise ValueError
    return tag, at, at + size


def _name(der, start, end):
    # The common name within a Name, "" if there is none.
    at = bytes(der[start:end]).find(_COMMON_NAME)
    if at < 0:
        return ""
    _, start, end = _tlv(der, start + at + len(_COMMON_NAME))
    return str(bytes(der[start:end]), "utf-8")


def _time(der, at):
    # UTCTime or GeneralizedTime (RFC 5280, 4.1.2.5) -> Unix time, and where it ends.
    tag, start, end = _tlv(der, at)
    text = str(bytes(der[start:end]), "utf-8")
    if tag == 0x17:
        text = ("20" if text < "50" else "19") + text
    elif tag != 0x18:
        raise ValueError
    return unix(int(text[:4]), *[int(text[i : i + 2]) for i in range(4, 14, 2)]), end


def _key(der, at):
    # The BIT STRING of a SubjectPublicKeyInfo: enough to tell keys apart.
    _, at, _ = _tlv(der, at)
    _, _, at = _tlv(der, at)
    tag, start, end = _tlv(der, at)
    if tag != 3:
        raise ValueError
    return bytes(der[start:end])


class Certificate:
    """What a certificate says: public key (bytes), subject and issuer common names (str), validity (Unix times).

    Raises AzureError "cert-form" if der (bytes) is not a certificate.
    """

    def __init__(self, der):
        try:
            self._parse(der)
        except (ValueError, IndexError):  # UnicodeError is a ValueError
            raise AzureError("cert-form", "certificate", "not an X.509 certificate")

    def _parse(self, der):
        _, at, _ = _tlv(der, 0)
        _, at, _ = _tlv(der, at)
        tag, _, end = _tlv(der, at)
        if tag == 0xA0:  # version, absent in v1
            _, _, end = _tlv(der, end)
        _, _, at = _tlv(der, end)  # past the serial number and the signature algorithm
        _, start, at = _tlv(der, at)
        self.issuer = _name(der, start, at)
        issuer = der[start:at]
        _, start, at = _tlv(der, at)
        self.not_before, end = _time(der, start)
        self.not_after, _ = _time(der, end)
        _, start, at = _tlv(der, at)
        self.subject = _name(der, start, at)
        self.is_root = der[start:at] == issuer
        self.key = _key(der, at)


def csr_key(der):
    """Public key (bytes) of a PKCS#10 request in DER; AzureError "csr" if it is none."""
    try:
        _, at, _ = _tlv(der, 0)
        _, at, _ = _tlv(der, at)
        tag, _, at = _tlv(der, at)
        if tag != 2:
            raise ValueError
        _, _, at = _tlv(der, at)
        return _key(der, at)
    except (ValueError, IndexError):
        raise AzureError("csr", "identity", "device.csr is not a PKCS#10 request in DER")
