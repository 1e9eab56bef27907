from binascii import unhexlify

import vectors
from aziot.keys import decode_key, derive_device_key, hmac_sha256
from check import raises

# RFC 4231: key, data, HMAC-SHA-256 (case 5 is about truncation)
RFC_4231 = (
    (b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
    (b"\xaa" * 20, b"\xdd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
    (bytes(range(1, 26)), b"\xcd" * 50, "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
    (
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
    (
        b"\xaa" * 131,
        b"This is a test using a larger than block-size key and a larger than block-size data. "
        b"The key needs to be hashed before being used by the HMAC algorithm.",
        "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
    ),
)


def test_hmac_as_in_rfc_4231():
    for key, data, digest in RFC_4231:
        assert hmac_sha256(key, data) == unhexlify(digest)


def test_device_key_as_openssl_makes_it():
    assert derive_device_key(vectors.GROUP_KEY, "contoso-0001") == vectors.DEVICE_KEY


def test_device_key_of_the_azure_cli_documentation():
    # Published with `az iot dps enrollment-group compute-device-key` and in Microsoft's symmetric-key guide.
    key = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw=="
    assert (
        derive_device_key(key, "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6") == "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc="
    )


def test_a_key_that_is_not_base64_is_refused_without_being_shown():
    for bad in ("", "not base64!", "QUJD\n", "QUJ", None, "QU!JD"):
        e = raises("key", decode_key, bad)
        assert not bad or bad not in str(e)
    assert decode_key("QUJD") == b"ABC"
