"""Keys, CSRs, derived keys and tokens, judged by the openssl command line instead of the code that made them."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, unquote

import pytest

from espdps.credentials import keys
from espdps.errors import ToolError

GROUP_KEY = base64.b64encode(bytes(range(64))).decode()
DEVICE_KEY = base64.b64encode(bytes(range(32, 64))).decode()


def openssl(*words: str, data: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *words], input=data, capture_output=True, check=True, timeout=30).stdout


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    return openssl("dgst", "-sha256", "-mac", "HMAC", "-macopt", f"hexkey:{key.hex()}", "-binary", data=message)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("ec-p384", "ASN1 OID: secp384r1"),
        ("ec-p256", "ASN1 OID: prime256v1"),
        ("rsa-2048", "(2048 bit"),
        ("rsa-3072", "(3072 bit"),
    ],
)
def test_a_key_and_its_request_belong_together(tmp_path: Path, kind: str, says: str) -> None:
    key = keys.new_key(kind)
    key_file, csr_file = tmp_path / "key", tmp_path / "csr"
    key_file.write_bytes(keys.key_der(key))
    csr_file.write_bytes(keys.csr_der(key, "greenhouse-1"))
    request = ["req", "-inform", "DER", "-in", str(csr_file), "-noout"]
    assert says in openssl(*request, "-text").decode()
    assert openssl(*request, "-subject", "-nameopt", "RFC2253").decode().strip() == "subject=CN=greenhouse-1"
    openssl(*request, "-verify")
    assert openssl("pkey", "-inform", "DER", "-in", str(key_file), "-pubout") == openssl(*request, "-pubkey")


def test_the_private_key_is_pkcs8_without_a_password() -> None:
    openssl("pkcs8", "-inform", "DER", "-nocrypt", data=keys.key_der(keys.new_key()))


def test_two_keys_differ() -> None:
    assert keys.key_der(keys.new_key()) != keys.key_der(keys.new_key())


@pytest.mark.parametrize("registration_id", ["a", "greenhouse-1", "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6", "A.b_c:d-9"])
def test_a_derived_key_is_that_of_openssl(registration_id: str) -> None:
    expected = base64.b64encode(hmac_sha256(base64.b64decode(GROUP_KEY), registration_id.encode())).decode()
    assert keys.derive_device_key(GROUP_KEY, registration_id) == expected


def test_a_line_feed_behind_a_key_does_no_harm() -> None:
    assert keys.derive_device_key(GROUP_KEY + "\n", "dev") == keys.derive_device_key(GROUP_KEY, "dev")


def test_a_token_for_dps() -> None:
    token = keys.dps_token("0ne00ABCDEF", "greenhouse:1", DEVICE_KEY, 1893456000)
    kind, _, rest = token.partition(" ")
    fields = dict(pair.split("=", 1) for pair in rest.split("&"))
    assert kind == "SharedAccessSignature"
    assert fields["sr"] == "0ne00ABCDEF%2Fregistrations%2Fgreenhouse%3A1"
    assert (fields["se"], fields["skn"]) == ("1893456000", "registration")
    signature = hmac_sha256(base64.b64decode(DEVICE_KEY), (fields["sr"] + "\n" + fields["se"]).encode())
    assert base64.b64decode(unquote(fields["sig"])) == signature
    assert not set("+/=") & set(fields["sig"])


def test_a_token_for_a_hub_has_no_policy() -> None:
    token = keys.hub_token("hub-1.azure-devices.net", "dev-1", DEVICE_KEY, 1893456000)
    fields = parse_qs(token.partition(" ")[2])
    assert fields["sr"] == ["hub-1.azure-devices.net/devices/dev-1"]
    assert fields.keys() == {"sr", "sig", "se"}
    message = b"hub-1.azure-devices.net%2Fdevices%2Fdev-1\n1893456000"
    assert base64.b64decode(fields["sig"][0]) == hmac_sha256(base64.b64decode(DEVICE_KEY), message)


@pytest.mark.parametrize("good", ["a", "A1", "a-b", "a.b_c:d", "0" * 128])
def test_registration_ids_that_every_part_takes(good: str) -> None:
    assert keys.check_registration_id(good) == good


@pytest.mark.parametrize(
    "bad", ["", "-a", "a-", ".", "..", "a.", ":a", "a/b", "a b", "ä", "a\n", "0" * 129, "../x", "a$", "a%2F"]
)
def test_registration_ids_that_are_none(bad: str) -> None:
    with pytest.raises(ToolError, match="no registration id"):
        keys.check_registration_id(bad)


def test_a_name_too_long_for_a_certificate_is_said_so() -> None:
    key = keys.new_key("ec-p256")
    keys.csr_der(key, "a" * 64)
    with pytest.raises(ToolError, match="65 characters does not fit") as caught:
        keys.csr_der(key, "a" * 65)
    assert "--no-csr" in caught.value.hint


@pytest.mark.parametrize("bad", ["", "not base64!", "c2hvcnQ=", GROUP_KEY[:-3], base64.b64encode(bytes(65)).decode()])
def test_a_bad_key_is_refused_without_being_shown(bad: str) -> None:
    with pytest.raises(ToolError, match="group key is not a key") as caught:
        keys.derive_device_key(bad, "dev")
    assert not bad or bad not in f"{caught.value!r} {caught.value.hint}"


def test_an_unknown_key_type_names_the_known() -> None:
    with pytest.raises(ToolError, match="no key type") as caught:
        keys.new_key("ec-p521")
    assert all(kind in caught.value.hint for kind in keys.KINDS)
