"""hypothesis over every parser that reads from the network, on CPython: only AzureError comes out."""

from __future__ import annotations

import contextlib
import json
from base64 import b64decode, b64encode
from typing import Any

import vectors
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aziot import dps, dps2021, x509
from aziot.errors import AzureError
from aziot.keys import decode_key
from aziot.sas import dps_token, quote

CSR = b64decode(vectors.P384_CSR)
LEAF = b64decode(vectors.P384_LEAF)
WORDS = st.sampled_from(
    ["assigned", "assigning", "unassigned", "failed", "disabled", "op", 401002, 0, -1, None, True, 1.5, [], {}, ""]
)
KEYS = st.sampled_from(
    [
        "status",
        "operationId",
        "registrationState",
        "errorCode",
        "message",
        "trackingId",
        "assignedHub",
        "deviceId",
        "issuedCertificateChain",
        "errorMessage",
        "payload",
        "substatus",
        "connectionProfile",
        "issuedClientCertificate",
    ]
)
VALUES = st.recursive(
    WORDS | st.text(max_size=9), lambda v: st.lists(v, max_size=3) | st.dictionaries(KEYS, v), max_leaves=9
)
few = settings(max_examples=400, deadline=None)


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """The data with some of it replaced, or cut off."""

    def build(at: int, cut: int, put: bytes) -> bytes:
        return data[:at] + put + data[at + cut :]

    return st.builds(build, st.integers(0, len(data)), st.integers(0, 9) | st.just(len(data)), st.binary(max_size=9))


def answer(status: int, body: bytes) -> None:
    """All that register() does with one answer, by the newer and the older API."""
    for form in (None, dps2021):
        with contextlib.suppress(AzureError):
            outcome = dps.parse_answer(status, body, 0, form)
            if isinstance(outcome, dps.Assignment) and outcome.issued_certificate_chain:
                x509.pick(outcome.issued_certificate_chain, CSR, "contoso-0001", 0)


@few
@given(st.binary(max_size=200) | damaged(b"$dps/registrations/res/202/?$rid=1&retry-after=3"))
@example(b"$dps/registrations/res/202/?$rid=1&retry-after=99999999999999999999")
def test_topic(topic: bytes) -> None:
    parsed = dps.parse_topic(topic)
    assert parsed is None or len(parsed) == 3


@few
@given(st.integers(0, 999), st.binary(max_size=200))
def test_any_body(status: int, body: bytes) -> None:
    answer(status, body)


@few
@given(st.sampled_from([200, 202, 401, 503]), st.dictionaries(KEYS, VALUES))
def test_json_of_the_right_words(status: int, value: dict[str, Any]) -> None:
    answer(status, json.dumps(value).encode())
    answer(status, json.dumps(value, separators=(",", ":")).encode())


@few
@given(st.lists(damaged(LEAF) | st.just(b64decode(vectors.INTERMEDIATE)), max_size=4))
def test_chain(ders: list[bytes]) -> None:
    state = {"assignedHub": "h", "deviceId": "d", "issuedCertificateChain": [b64encode(der).decode() for der in ders]}
    answer(200, json.dumps({"status": "assigned", "registrationState": state}, separators=(",", ":")).encode())


@few
@given(st.binary(max_size=300) | damaged(LEAF) | damaged(CSR))
def test_der(der: bytes) -> None:
    for chain, csr in (([b64encode(der), vectors.P384_LEAF], CSR), ([vectors.P384_LEAF], der)):
        with contextlib.suppress(AzureError):
            x509.pick(chain, csr, "contoso-0001", 0)


@few
@given(st.text(max_size=50) | st.binary(max_size=80).map(lambda b: b64encode(b).decode()))
def test_keys_and_tokens(key: str) -> None:
    with contextlib.suppress(AzureError):
        token = dps_token("0ne", "dev", key, 1900000000)
        assert b64encode(decode_key(key)).decode() == key and token.isascii()


@few
@given(st.text(max_size=50))
def test_quoting_is_reversible(text: str) -> None:
    from urllib.parse import unquote

    with contextlib.suppress(UnicodeEncodeError):  # a lone surrogate is no text
        assert unquote(quote(text)) == text and " " not in quote(text)
