from binascii import a2b_base64

import vectors
from aziot import clock, x509
from check import raises

CSR = a2b_base64(vectors.P384_CSR)
LEAF, INTERMEDIATE, ROOT = vectors.P384_LEAF, vectors.INTERMEDIATE, vectors.ROOT


def pick(certificates, now=1800000000, name="contoso-0001", csr=CSR, least=0):
    real, clock.now = clock.now, lambda: now
    try:
        return x509.pick(certificates, csr, name, least or now)
    finally:
        clock.now = real


def kept(certificates, **how):
    return pick(certificates, **how)[4]


def test_what_is_read_from_certificates_of_each_key_type():
    for kind in ("P384", "P256", "RSA"):
        text = getattr(vectors, kind + "_LEAF")
        found = pick([text, INTERMEDIATE], csr=a2b_base64(getattr(vectors, kind + "_CSR")))
        assert found == ("contoso-0001", "intermediate", 1767225600, 2398377599, [text, INTERMEDIATE])


def test_both_forms_of_time():
    # UTCTime of 1999 and GeneralizedTime of 2060
    assert pick([vectors.LONG_LEAF], csr=a2b_base64(vectors.LONG_CSR))[2:4] == (915148800, 2840140800)


def test_the_leaf_is_found_wherever_it_stands():
    for certificates in (
        [LEAF, INTERMEDIATE, ROOT],
        [ROOT, INTERMEDIATE, LEAF],
        [INTERMEDIATE, LEAF, ROOT],
        [INTERMEDIATE, LEAF],
    ):
        assert kept(certificates) == [LEAF, INTERMEDIATE]


def test_a_leaf_alone_and_with_strangers():
    assert kept([LEAF]) == [LEAF]
    assert kept([LEAF, ROOT]) == [LEAF]
    # What does not lead up from the leaf is of no use to anybody.
    assert kept([vectors.OTHER_LEAF, LEAF, INTERMEDIATE, ROOT]) == [LEAF, INTERMEDIATE]


def test_four_certificates_in_any_order():
    deep = [vectors.DEEP_LEAF, vectors.SECOND, INTERMEDIATE, ROOT]
    csr = a2b_base64(vectors.DEEP_CSR)
    for a in range(4):
        for b in range(4):
            for c in range(4):
                if len({a, b, c}) == 3:
                    order = [deep[a], deep[b], deep[c], deep[6 - a - b - c]]
                    assert kept(order, csr=csr) == deep[:3], (a, b, c)


def der(tag, *parts):
    """An element of up to 255 bytes."""
    content = b"".join(parts)
    return bytes([tag, len(content)] if len(content) < 128 else [tag, 0x81, len(content)]) + content


def named(subject, issuer):
    """What pick() reads of a certificate with other people's key, base64."""

    def name(text):
        return der(0x30, der(0x31, der(0x30, b"\x06\x03\x55\x04\x03", der(0x0C, text))))

    life = der(0x30, der(0x17, b"260101000000Z"), der(0x17, b"460101000000Z"))
    key = der(0x30, der(0x30, b""), der(0x03, b"\x00other"))
    inner = der(0x30, der(0x02, b"\x01"), der(0x30, b""), name(issuer), life, name(subject), key)
    return b64(der(0x30, inner, der(0x30, b""), der(0x03, b"\x00")))


def test_issuers_in_a_circle_have_an_end():
    one, other = named(b"intermediate", b"Contoso"), named(b"Contoso", b"intermediate")
    assert kept([other, LEAF, one]) == [LEAF, one, other]
    assert kept([LEAF, named(b"a", b"b"), named(b"b", b"a")]) == [LEAF]  # nobody's issuers


def test_texts_may_be_views_of_a_buffer():
    views = [memoryview(text.encode()) for text in (ROOT, LEAF)]
    assert kept(views) == views[1:]


def test_not_ours():
    raises("cert-key", pick, [vectors.P256_LEAF, INTERMEDIATE, ROOT])
    raises("cert-key", pick, [vectors.LONG_LEAF], csr=a2b_base64(vectors.P256_CSR))
    raises("cert-key", pick, [])
    raises("cert-name", pick, [LEAF], 1800000000, "contoso-0002")
    assert pick([LEAF], name="CONTOSO-0001")  # registration ids are case-insensitive
    raises("cert-date", pick, [LEAF], 2398377599)
    assert pick([LEAF], 2398377598)
    raises("cert-date", pick, [LEAF], 1767225600 - 301)
    assert pick([LEAF], 1767225600 - 299)  # clocks differ a little


def test_a_certificate_has_to_last():
    end = 2398377599
    assert pick([LEAF], least=end - 1)
    for least in (end, end + 1):
        assert raises("cert-date", pick, [LEAF], least=least).end == end


def test_line_ends_and_spaces_are_another_form():
    for text in (LEAF[:64] + "\n" + LEAF[64:], LEAF + "\n", " " + LEAF, LEAF[:9] + " " + LEAF[9:]):
        raises("cert-form", pick, [text])


def test_not_certificates():
    for bad in (["!!!!"], [""], ["QUJD"], [LEAF[:100]], [None], [7], [{}], "text", {"a": 1}, 7):
        raises("cert-form", pick, bad)


def test_every_cut_is_an_error_and_no_more():
    der = a2b_base64(vectors.P384_LEAF)
    for size in range(0, len(der), 7):
        raises("cert-form", pick, [b64(der[:size])])
    for size in range(0, len(CSR), 3):
        raises("cert-form", pick, [LEAF], csr=CSR[:size])


def test_garbage_is_an_error():
    for bad in (b"", b"\x30", b"\x30\x84\xff\xff\xff\xff", b"-----BEGIN CERTIFICATE REQUEST-----\nMIIB", b"\xff" * 300):
        raises("cert-form", pick, [b64(bad)])
        raises("cert-form", pick, [LEAF], csr=bad)


def b64(der):
    from binascii import b2a_base64

    return b2a_base64(der).strip()
