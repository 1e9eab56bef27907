"""Bounded random runs over every parser that reads from the network: nothing but AzureError comes out, and it ends.

The seed is fixed, so that a failure can be had again; hypothesis looks further on CPython (system/test_hypothesis.py)."""

import json
import random
from binascii import a2b_base64, b2a_base64

import vectors
from aziot import clock, dps, dps2021, x509
from aziot.errors import AzureError

ROUNDS = 400
DERS = [a2b_base64(getattr(vectors, name)) for name in ("P256_LEAF", "RSA_LEAF", "LONG_LEAF", "ROOT", "P384_CSR")]
ANSWERS = [
    json.dumps(answer).encode()
    for answer in (
        {"operationId": "op", "status": "assigning", "registrationState": {"status": "assigning"}},
        {"status": "failed", "registrationState": {"errorCode": 400207, "errorMessage": "no"}},
        {"errorCode": 401002, "trackingId": "t", "message": "no", "timestampUtc": "x"},
        {
            "status": "assigned",
            "registrationState": {"assignedHub": "h", "deviceId": "d", "issuedCertificateChain": ["QQ==", "Qg=="]},
        },
    )
]
TOPICS = [b"$dps/registrations/res/202/?$rid=1&retry-after=3", b"$dps/registrations/res/401/?$rid=2"]


def damage(data):
    """A copy with one to four bytes changed, cut off, doubled or put in."""
    data = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randint(0, max(0, len(data) - 1))
        kind = random.randint(0, 3)
        if kind == 0 and data:
            data[at] = random.getrandbits(8)
        elif kind == 1:
            data = data[:at]
        elif kind == 2:
            data = data[:at] + bytearray([random.getrandbits(8)]) + data[at:]
        else:
            data = data + data[:at]
    return bytes(data)


def try_all(seed, samples, function):
    """function must return or raise AzureError for every damaged sample; how often each."""
    random.seed(seed)
    good = bad = 0
    for n in range(ROUNDS):
        data = damage(samples[n % len(samples)])
        try:
            function(data)
            good += 1
        except AzureError:
            bad += 1
        except Exception:
            print("seed", seed, "round", n, data)
            raise
    return good, bad


def pick(chain, csr):
    real, clock.now = clock.now, lambda: 1800000000
    try:
        return x509.pick(chain, csr, "contoso-0001", clock.now())
    finally:
        clock.now = real


def test_certificates_and_requests():
    csr = a2b_base64(vectors.P384_CSR)
    assert try_all(1, DERS, lambda der: pick([b2a_base64(der).strip(), vectors.P384_LEAF], csr))[0]
    good, bad = try_all(2, [csr], lambda der: pick([vectors.P384_LEAF], der))
    assert good and bad


def test_topics():
    def check(topic):
        parsed = dps.parse_topic(topic)
        assert parsed is None or len(parsed) == 3

    assert try_all(3, TOPICS, check) == (ROUNDS, 0)


def test_answers():
    def check(body):
        for status, form in ((200, None), (202, dps2021), (401, None), (503, None)):
            try:
                outcome = dps.parse_answer(status, body, 0, form)
                if isinstance(outcome, dps.Assignment) and outcome.issued_certificate_chain:
                    pick(outcome.issued_certificate_chain, DERS[-1])
            except AzureError as e:
                assert str(e)

    assert try_all(4, ANSWERS, check) == (ROUNDS, 0)


def test_chains():
    csr = a2b_base64(vectors.P384_CSR)

    def check(data):
        pick([b2a_base64(data).strip(), vectors.INTERMEDIATE], csr)

    good, bad = try_all(5, [a2b_base64(vectors.P384_LEAF)], check)
    assert good and bad
