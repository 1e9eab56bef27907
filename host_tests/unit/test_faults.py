"""What the numbers and words of mbedTLS and of a socket mean."""

from aziot.faults import fault


class Stream:
    step = "hub.connect"
    link = True


def code(e, link=True):
    stream = Stream()
    stream.link = link
    return fault(e, stream).code


def test_every_number_of_mbedtls_for_too_little_memory():
    # mbedTLS 2.28 and 3.6, include/mbedtls/*.h: MBEDTLS_ERR_..._ALLOC_FAILED of PEM, X509, DHM, PK, ECP, MD, CIPHER, SSL
    for number in (0x1180, 0x2880, 0x3400, 0x3F80, 0x4D80, 0x5180, 0x6180, 0x7F00):
        assert code(OSError(-number)) == "memory", hex(number)
    # MPI and ASN1, alone and added to codes of RSA, X.509, PK and ECP
    for low in (0x10, 0x6A):
        for high in (0, 0x4280, 0x4300, 0x2180, 0x3D00, 0x4B80):
            assert code(OSError(-(high + low))) == "memory", (hex(high), hex(low))
    assert code(OSError(12)) == code(OSError(12), None) == "memory"  # ENOMEM


def test_what_is_not_memory():
    for number, word in (
        (-0x7780, "tls-alert"),  # a fatal alert
        (-0x7880, "closed"),  # close notify
        (-0x7280, "closed"),  # the end of the connection
        (-0x7200, "tls"),  # an invalid record
        (104, "closed"), (-104, "closed"), (110, "timeout"), (-110, "timeout"), (32, "closed"),
    ):  # fmt: skip
        assert code(OSError(number)) == word, number
    for number, word in ((-2, "dns"), (-202, "dns"), (111, "tcp"), (113, "tcp")):
        assert code(OSError(number), None) == word, number
