from binascii import a2b_base64

import vectors
from aziot import x509
from check import raises


def certificate(name):
    return x509.Certificate(a2b_base64(getattr(vectors, name)))


def test_certificates_of_each_key_type():
    for kind in ("P384", "P256", "RSA"):
        leaf = certificate(kind + "_LEAF")
        assert leaf.subject == "contoso-0001"
        assert leaf.issuer == "intermediate"
        assert not leaf.is_root
        assert (leaf.not_before, leaf.not_after) == (1767225600, 2398377599)
        assert leaf.key[-64:] == a2b_base64(getattr(vectors, kind + "_KEY_END"))


def test_both_forms_of_time():
    # UTCTime of 1999 and GeneralizedTime of 2060
    leaf = certificate("LONG_LEAF")
    assert (leaf.not_before, leaf.not_after) == (915148800, 2840140800)


def test_who_signed_itself():
    assert certificate("ROOT").is_root
    assert not certificate("INTERMEDIATE").is_root


def test_a_request_has_the_key_of_its_certificate():
    for kind in ("P384", "P256", "RSA", "LONG"):
        assert x509.csr_key(a2b_base64(getattr(vectors, kind + "_CSR"))) == certificate(kind + "_LEAF").key
    assert x509.csr_key(a2b_base64(vectors.P256_CSR)) != certificate("LONG_LEAF").key


def test_every_cut_is_an_error_and_no_more():
    der = a2b_base64(vectors.P256_LEAF)
    end = len(der) - 100  # what follows the key is not read
    for size in range(0, end, 7):
        raises("cert-form", x509.Certificate, der[:size])
    request = a2b_base64(vectors.P256_CSR)
    for size in range(0, 100, 3):
        raises("csr", x509.csr_key, request[:size])


def test_garbage_is_an_error():
    for bad in (b"", b"\x30", b"\x30\x84\xff\xff\xff\xff", b"-----BEGIN CERTIFICATE REQUEST-----\nMIIB", b"\xff" * 300):
        raises("cert-form", x509.Certificate, bad)
        raises("csr", x509.csr_key, bad)
