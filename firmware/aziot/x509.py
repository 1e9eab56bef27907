# Just enough DER (X.690) to know which certificate of a chain is ours, whether it fits, and how long it lives. It
# proves nothing: signatures are checked by the service and by TLS, not here.
from binascii import a2b_base64

from . import clock
from .errors import AzureError


def pick(chain, csr, name, least):
    """A list of base64 DER in any order -> subject and issuer (common names), start and end (Unix times) of the leaf,
    which has the key of csr (DER), and the list from the leaf to the last intermediate.

    least: Unix time after which the leaf must still be valid. AzureError "cert-form", "cert-key", "cert-name", or
    "cert-date" with the leaf's end in its attribute end.
    """
    leaf = None
    above = {}
    try:
        key = _parts(_inner(csr)[2])[1]
        for text in chain:
            issuer, life, subject, its_key = _read(text)
            if its_key == key:
                leaf = issuer, life, subject
                kept = [text]
            elif subject != issuer:  # a root is never sent, so it need not be kept
                above[subject] = issuer, text
        if not leaf:
            raise AzureError("cert-key", "certificate")
        issuer, (start, end), subject = leaf
        while issuer in above:
            issuer, text = above.pop(issuer)
            kept.append(text)
        subject, issuer = _common_name(subject), _common_name(leaf[0])
    except (ValueError, IndexError, TypeError):  # UnicodeError is a ValueError
        raise AzureError("cert-form", "certificate")
    # Registration ids are case-insensitive.
    if subject.lower() != name.lower():
        raise AzureError("cert-name", "certificate", subject)
    # The board's clock may lag five minutes behind the issuer's.
    if not start - 300 <= clock.now() or end <= least:
        e = AzureError("cert-date", "certificate", "%s to %s" % (clock.iso(start), clock.iso(end)))
        e.end = end
        raise e
    return subject, issuer, start, end, kept


def _read(text):
    # A certificate, of which no more than this stays in the heap while the next one is read.
    der = a2b_base64(text)
    if len(text) != (len(der) + 2) // 3 * 4:  # another form than base64 of DER, or with line ends
        raise ValueError
    _, _, issuer, life, subject, spki = _inner(der)
    return bytes(issuer), [_time(text) for text in _parts(life)], bytes(subject), bytes(_parts(spki)[1])


def _inner(data):
    # The elements of the signed part of a certificate or a request.
    return _parts(_parts(_parts(memoryview(data))[0])[0])


def _parts(data):
    # The contents of the elements in data (DER, memoryview); those with a context tag, which are optional in all that
    # is read here (version, unique ids, extensions, attributes), are left out.
    parts = []
    at = 0
    while at < len(data):
        tag, size = data[at], data[at + 1]
        at += 2
        if size > 127:
            start = at
            at += size & 127
            size = int.from_bytes(data[start:at], "big")
        if at + size > len(data):
            raise ValueError
        if tag < 128:
            parts.append(data[at : at + size])
        at += size
    return parts


def _common_name(name):
    # "" if there is none
    for rdn in _parts(memoryview(name)):
        for attribute in _parts(rdn):
            oid, value = _parts(attribute)
            if oid == b"\x55\x04\x03":  # 2.5.4.3
                return str(value, "utf-8")
    return ""


def _time(text):
    # UTCTime or GeneralizedTime (RFC 5280, 4.1.2.5) -> Unix time.
    # What is left of the last 11 characters is the year, in 2 digits or in 4.
    text = str(text, "utf-8")
    date = [int(text[:-11])] + [int(text[i : i + 2]) for i in range(-11, -1, 2)]
    if date[0] < 100:
        date[0] += 2000 if date[0] < 50 else 1900
    return clock.unix(date)
