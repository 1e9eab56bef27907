"""`inspect`: what openssl made is recognised and told as openssl tells it; what is wrong is said; no secret is shown."""

from __future__ import annotations

import base64
import json
import random
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import secrecy
from pki import Authority
from workshop import Done, esp_dps, made, openssl

from espdps.credentials import inspection, keys

KEY_B64 = base64.b64encode(bytes(range(64))).decode()
SIGNATURE = base64.b64encode(bytes(range(100, 132))).decode()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By openssl: a root, an intermediate, a device (EC), a key and CSR (RSA), PFX. No test may change them."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "ca.ext").write_text("basicConstraints=critical,CA:TRUE,pathlen:0\n")
    (folder / "device.ext").write_text("basicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth\n")

    def path(name: str) -> str:
        return str(folder / name)

    for name in ("root", "middle", "device", "other"):
        openssl("ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", path(f"{name}.key"))
    openssl(
        "req", "-x509", "-key", path("root.key"), "-subj", "/O=Contoso/CN=root", "-days", "90", "-out", path("root.crt")
    )
    for name, issuer, extensions in (("middle", "root", "ca.ext"), ("device", "middle", "device.ext")):
        openssl("req", "-new", "-key", path(f"{name}.key"), "-subj", f"/CN={name}", "-out", path(f"{name}.csr"))
        openssl(
            "x509", "-req", "-in", path(f"{name}.csr"), "-CA", path(f"{issuer}.crt"), "-CAkey", path(f"{issuer}.key"),
            "-CAcreateserial", "-days", "30", "-extfile", path(extensions), "-out", path(f"{name}.crt"),
        )  # fmt: skip
    openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", path("rsa.key"))
    openssl("req", "-new", "-key", path("rsa.key"), "-subj", "/CN=rsa", "-outform", "DER", "-out", path("rsa.csr"))
    openssl("pkcs8", "-topk8", "-in", path("device.key"), "-passout", "pass:pw", "-out", path("locked.pem"))
    for name, options in (("new", ()), ("old", ("-legacy",))):
        openssl(
            "pkcs12", "-export", *options, "-inkey", path("device.key"), "-in", path("device.crt"),
            "-certfile", path("middle.crt"), "-out", path(f"{name}.pfx"), "-passout", "pass:pw",
        )  # fmt: skip
    secrecy.note(folder)
    return folder


def told(*words: str | Path, code: int = 0, **environment: str) -> dict[str, Any]:
    done = esp_dps("inspect", "--json", *words, **environment)
    assert done.code == code, done.out + done.err
    table: dict[str, Any] = done.table
    assert bool(table["problems"]) == bool(code)
    return table


def test_a_certificate_is_told_as_openssl_tells_it(bench: Path) -> None:
    file = bench / "device.crt"
    (item,) = told(file)["items"]

    def said(option: str) -> str:
        return openssl("x509", "-in", file, "-noout", *option.split()).strip().partition("=")[2]

    assert item["kind"] == "certificate" and item["key_type"] == "ec-p384"
    assert item["subject"] == said("-subject -nameopt RFC2253") == "CN=device"
    assert item["issuer"] == said("-issuer -nameopt RFC2253") == "CN=middle"
    assert int(item["serial"], 16) == int(said("-serial"), 16)
    assert item["sha256"] == said("-fingerprint -sha256").replace(":", "").lower()
    assert item["sha1"] == said("-fingerprint -sha1").replace(":", "").lower()
    for name, option in (("not_before", "-startdate"), ("not_after", "-enddate")):
        expected = datetime.strptime(said(option), "%b %d %H:%M:%S %Y GMT")
        assert item[name] == expected.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert item["days_left"] == 29 and item["use"] == ["TLS client"]
    assert told(bench / "middle.crt")["items"][0]["use"] == ["authority with path length 0"]
    assert told(bench / "root.crt")["items"][0]["issuer"] == "CN=root,O=Contoso"


@pytest.mark.parametrize("form", ["PEM", "DER", "base64"])
@pytest.mark.parametrize(
    ("name", "command", "kind"),
    [
        ("device.crt", "x509", "certificate"),
        ("device.csr", "req", "CSR"),
        ("device.key", "pkey", "private key"),
        ("rsa.key", "pkey", "private key"),
    ],
)
def test_each_kind_by_its_content(bench: Path, tmp_path: Path, name: str, command: str, kind: str, form: str) -> None:
    file = tmp_path / "no-name-to-go-by"
    openssl(command, "-in", bench / name, "-outform", "PEM" if form == "PEM" else "DER", "-out", file)
    if form == "base64":
        file.write_bytes(base64.encodebytes(file.read_bytes()))
    if name.endswith(".key"):
        secrecy.note(bench)
    (item,) = told(file)["items"]
    assert item["kind"] == kind and item["format"].startswith(form)
    public = openssl("pkey", "-in", bench / name.replace(".crt", ".key").replace(".csr", ".key"), "-pubout")
    if kind == "private key":
        digest = openssl("dgst", "-sha256", "-r", data=base64.b64decode("".join(public.splitlines()[1:-1]))).split()[0]
        assert item["key_sha256"] == digest and item["encrypted"] is False
    if kind == "CSR":
        der = base64.b64decode("".join((bench / name).read_text().splitlines()[1:-1]))
        assert item["sha256"] == openssl("dgst", "-sha256", "-r", data=der).split()[0]
        assert item["subject"] == "CN=device"
    through_stdin = esp_dps("inspect", "--json", "-", stdin=file.read_bytes()).table["items"]
    assert through_stdin == [{**item, "file": "standard input"}]
    (tmp_path / "public").write_text(public)
    assert told(tmp_path / "public")["items"][0]["kind"] == "public key"


def test_keys_find_their_certificates_and_requests(bench: Path) -> None:
    table = told(bench / "device.key", bench / "device.crt", bench / "device.csr", bench / "rsa.key", bench / "rsa.csr")
    assert [[pair["key"], *pair["belongs_to"]] for pair in table["pairs"]] == [
        [str(bench / "device.key"), f"{bench / 'device.crt'} (CN=device)", f"{bench / 'device.csr'} (CN=device)"],
        [str(bench / "rsa.key"), f"{bench / 'rsa.csr'} (CN=rsa)"],
    ]
    for key, other in (("rsa.key", "device.csr"), ("other.key", "device.crt")):
        (problem,) = told(bench / key, bench / other, code=1)["problems"]
        assert key in problem and "belongs to none" in problem
    assert told(bench / "device.key", bench / "other.key")["pairs"] == []


def test_a_chain_verifies(bench: Path, tmp_path: Path) -> None:
    assert told(bench / "device.crt")["chains"] == []  # nothing to verify it with
    (chain,) = told(bench / "root.crt", bench / "middle.crt", bench / "device.crt")["chains"]
    names = ["CN=device", "CN=middle", "CN=root,O=Contoso"]
    assert chain == {"path": names, "verifies": True, "to_root": True, "says": ""}
    (chain,) = told(bench / "middle.crt", bench / "device.crt")["chains"]
    assert chain == {"path": names[:2], "verifies": True, "to_root": False, "says": ""}
    person = made("inspect", *(bench / f"{name}.crt" for name in ("root", "device", "middle"))).out
    assert "CN=device < CN=middle < CN=root,O=Contoso: verifies" in person
    (problem,) = told(bench / "root.crt", bench / "device.crt", code=1)["problems"]
    assert "CN=device: its issuer CN=middle is not among these" in problem


def test_a_chain_in_the_wrong_order(bench: Path, tmp_path: Path) -> None:
    file = tmp_path / "chain.pem"
    root, middle, device = ((bench / f"{name}.crt").read_bytes() for name in ("root", "middle", "device"))
    for good in ([device, middle, root], [device, middle], [device], [root], [device, device]):
        file.write_bytes(b"\r\n# text\r\n".join(good))
        told(file)
    for bad in ([root, middle, device], [middle, device], [device, root, middle], [root, device, middle]):
        file.write_bytes(b"".join(bad))
        assert "wrong order" in told(file, code=1)["problems"][0]


@pytest.mark.parametrize("when", ["over", "to come"])
def test_a_certificate_whose_time_is_not_now(tmp_path: Path, when: str) -> None:
    authority, key = Authority("CA"), keys.new_key()
    days, since = (-3.5, 9.0) if when == "over" else (9.0, -3.5)
    (tmp_path / "a.crt").write_bytes(authority.issue("late", key, days=days, since=since))
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    table = told(tmp_path / "a.crt", tmp_path / "ca.crt", code=1)
    assert table["items"][0]["days_left"] == (-4 if when == "over" else 8)
    assert ("expired at" if when == "over" else "not valid before") in table["problems"][0]
    assert (
        "does not verify: certificate " + ("has expired" if when == "over" else "is not yet valid")
        in table["problems"][1]
    )
    assert table["chains"][0]["verifies"] is False
    assert ", over" in esp_dps("inspect", tmp_path / "a.crt").out or when != "over"


def test_a_chain_that_only_looks_like_one(bench: Path, tmp_path: Path) -> None:
    false = Authority("middle")  # the name is right, the key is not
    (tmp_path / "middle.crt").write_bytes(false.pem)
    assert "does not verify" in told(tmp_path / "middle.crt", bench / "device.crt", code=1)["problems"][0]
    parent = Authority("parent")
    leaf_key = keys.new_key("ec-p256")
    leaf = parent.issue("leaf", leaf_key)
    from cryptography import x509

    impostor = Authority("leaf")  # signs by a leaf that is no authority
    impostor.key = leaf_key
    (tmp_path / "chain").write_bytes(impostor.issue("below", keys.new_key()) + leaf + parent.pem)
    assert x509.load_pem_x509_certificates((tmp_path / "chain").read_bytes())
    (problem,) = told(tmp_path / "chain", code=1)["problems"]
    assert problem.startswith("CN=below: does not verify: invalid CA certificate at CN=leaf")


def test_a_request_whose_signature_is_broken(bench: Path, tmp_path: Path) -> None:
    content = bytearray((bench / "rsa.csr").read_bytes())
    content[-1] ^= 1
    (tmp_path / "a.csr").write_bytes(content)
    assert "its signature is broken" in told(tmp_path / "a.csr", code=1)["problems"][0]


@pytest.mark.parametrize("name", ["new.pfx", "old.pfx"])
def test_pfx(bench: Path, name: str) -> None:
    table = told(bench / name, bench / "root.crt", ESPDPS_PASSPHRASE="pw")
    assert [item["kind"] for item in table["items"]] == ["private key", *["certificate"] * 3]
    assert [item.get("subject") for item in table["items"]] == [None, "CN=device", "CN=middle", "CN=root,O=Contoso"]
    assert table["pairs"][0]["belongs_to"] == [f"{bench / name} (CN=device)"]
    assert len(table["chains"][0]["path"]) == 3
    assert told(bench / name)["items"] == [
        {"file": str(bench / name), "kind": "PFX", "format": "PFX", "encrypted": True}
    ]
    assert "passphrase is wrong" in told(bench / name, code=1, ESPDPS_PASSPHRASE="px")["problems"][0]


def test_an_encrypted_key(bench: Path, tmp_path: Path) -> None:
    file, words = bench / "locked.pem", tmp_path / "words"
    words.write_text("pw\n")
    (item,) = told(file)["items"]
    assert item["encrypted"] and "key_type" not in item
    assert "needed to say more" in made("inspect", file).out
    table = told(file, bench / "device.crt", "--passphrase-file", words)
    assert table["pairs"] == [{"key": str(file), "belongs_to": [f"{bench / 'device.crt'} (CN=device)"]}]
    both = tmp_path / "both.pem"  # a wrong passphrase hides nothing of what is beside it
    both.write_bytes(file.read_bytes() + (bench / "device.crt").read_bytes())
    table = told(both, code=1, ESPDPS_PASSPHRASE="px")
    assert [item["kind"] for item in table["items"]] == ["unreadable", "certificate"]


def token(*parts: str) -> bytes:
    return f"SharedAccessSignature {'&'.join(parts)}\n".encode()


def stdin_told(content: bytes) -> Done:
    done = esp_dps("inspect", "--json", "-", stdin=content)
    assert SIGNATURE not in done.out + done.err and quote(SIGNATURE, safe="") not in done.out + done.err
    return done


def test_a_token(bench: Path) -> None:
    sr, sig = "sr=0ne00ABCDEF%2Fregistrations%2Fgreenhouse-1", f"sig={quote(SIGNATURE, safe='')}"
    end = int(time.time()) + 3600
    done = stdin_told(token(sr, sig, f"se={end}", "skn=registration"))
    (item,) = done.table["items"]
    assert done.code == 0 and item["kind"] == "SAS token" and item["policy"] == "registration"
    assert item["resource"] == "0ne00ABCDEF/registrations/greenhouse-1"
    assert item["expires"] == datetime.fromtimestamp(end, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert 3000 < item["seconds_left"] <= 3600
    assert stdin_told(token("skn=", f"se={end}", sig, sr)).table["items"][0]["policy"] is None
    for parts, says in (
        ((sr, f"se={end}"), "sig is missing"),
        ((sig, f"se={end}"), "sr is missing"),
        ((sr, sig), "se is missing"),
        ((), "sr is missing"),
        ((sr, sig, "se=tomorrow"), "se is no Unix time"),
        ((sr, sig, "se=" + "9" * 30), "se is no Unix time"),
        ((sr, sig, "se=99999999999"), "years"),
        ((sr, sig, "se=1"), "expired at 1970-01-01T00:00:01Z"),
        ((sr, sig, sig, f"se={end}"), "sig twice"),
        ((sr, "sig=short", f"se={end}"), "sig is no HMAC"),
        ((sr, sig, f"se={end}", "x=1"), "none of sr, sig, se, skn"),
        ((f"{sr} {sig} se={end}",), "sig is missing"),
        ((f"{sr}%26{quote(sig)}", f"se={end}"), "sig is missing"),
        ((f"{sr};{sig};se={end}",), "sig is missing"),
    ):
        done = stdin_told(token(*parts))
        if says != "years":
            assert done.code == 1 and any(says in problem for problem in done.table["problems"]), (says, done.out)


@pytest.mark.parametrize(
    "around",
    [
        '"{}"', "'{}'", "\ufeff{}\r\n", "Authorization: {}\r\nContent-Type: application/json\r\n",
        "HostName=h.azure-devices.net;DeviceId=d;SharedAccessSignature={}", '{{\n  "sas": "{}"\n}}\n',
    ],
)  # fmt: skip
def test_a_token_is_found_in_what_people_have(around: str) -> None:
    parts = ("sr=h.azure-devices.net%2Fdevices%2Fd", f"sig={quote(SIGNATURE, safe='')}", f"se={int(time.time()) + 60}")
    plain = token(*parts).decode()
    done = esp_dps("inspect", "--json", "-", stdin=around.format(plain).encode())
    assert done.code == 0, done.out
    assert done.table["items"][0]["resource"] == "h.azure-devices.net/devices/d"
    for place in ("devices%2F", "sig=", "se=", "Signature "):
        broken = plain.replace(place, place.strip() + "\n")
        done = esp_dps("inspect", "--json", "-", stdin=around.format(broken).encode())
        assert done.code == 1 and "broken over several lines" in str(done.table["problems"]), broken


def test_our_own_token_and_keys(tmp_path: Path) -> None:
    end = int(time.time()) + 600
    done = esp_dps("inspect", "-", stdin=keys.hub_token("hub-1.azure-devices.net", "dev-1", KEY_B64, end).encode())
    assert done.code == 0 and "hub-1.azure-devices.net/devices/dev-1" in done.out and "policy        none" in done.out
    for start in range(0, 256, 8):  # some of them begin with what would begin DER as well
        key = base64.b64encode(bytes((start + n) % 256 for n in range(64)))
        done = esp_dps("inspect", "--json", "-", stdin=key)
        assert done.table["items"][0] == {
            "file": "standard input", "kind": "symmetric key", "format": "base64", "bytes": 64,
        }  # fmt: skip
        assert key.decode() not in done.out
    assert base64.b64encode(bytes((208 + n) % 256 for n in range(64))).startswith(b"0")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n", "neither a key"),
        (b"hello", "neither a key"),
        (bytes(range(256)), "neither a key"),
        (b"\x30\x03\x02\x01\x05", "no key, CSR"),
        (b"\x30\x82\xff\xff", "truncated: 65535 bytes"),
        (b"\x30\x89" + bytes(9), "no key, CSR"),
        (b"\x30\x03\x02\x01\x05\x00", "1 bytes too many"),
        (b"-----BEGIN CERTIFICATE-----\nMII", "truncated: CERTIFICATE has no end"),
        (b"-----BEGIN CERTIFICATE-----\nMII!\n-----END CERTIFICATE-----", "damaged: CERTIFICATE"),
        (b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----", "damaged: PRIVATE KEY"),
        (b"-----BEGIN X-----\n-----END X-----", "X is nothing this command knows"),
        (b"-----BEGIN EC PARAMETERS-----\n-----END EC PARAMETERS-----", "EC parameters only"),
    ],
)
def test_what_is_nothing(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "x").write_bytes(content)
    assert says in told(tmp_path / "x", code=1)["problems"][0]


def test_files_that_cannot_be_read_do_not_hide_the_others(bench: Path, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(50 << 20)
    table = told(tmp_path, tmp_path / "none", tmp_path / "large", bench / "root.crt", code=1)
    for problem, says in zip(table["problems"], ("Is a directory", "No such file", "larger than"), strict=True):
        assert says in problem
    assert [item["kind"] for item in table["items"]] == ["certificate"]
    assert esp_dps("inspect", "-", "-").code == 2


def test_nothing_in_a_file_acts_on_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "a.crt").write_bytes(Authority("red \x1b[31m alert\r\nwrong: x").pem)
    out = made("inspect", tmp_path / "a.crt").out
    assert "\x1b" not in out and "\r" not in out and "\nwrong" not in out and "red " in out
    assert json.loads(made("inspect", "--json", tmp_path / "a.crt").out)


def test_damage_anywhere_is_survived_and_shows_no_secret(bench: Path) -> None:
    names = ("device.crt", "device.csr", "device.key", "rsa.csr", "rsa.key", "locked.pem", "new.pfx", "old.pfx")
    whole = [(bench / name).read_bytes() for name in names]
    whole += [base64.b64decode("".join(text.decode().splitlines()[1:-1])) for text in whole[:3]]
    drawn = random.Random(7)
    for content in whole:
        for _ in range(40):
            bad = bytearray(content)
            for _ in range(drawn.choice((1, 1, 2, 8))):
                bad[drawn.randrange(len(bad))] = drawn.randrange(256)
            del bad[len(bad) - drawn.choice((0, 0, 1, 50)) :]
            report = inspection.inspect([("x", bytes(bad)), ("root", whole[0])], lambda _: b"pw")
            secrecy.assert_clean(repr(report), "a report")


def test_the_time_is_that_of_the_caller(bench: Path) -> None:
    late = datetime.now(timezone.utc) + timedelta(days=40)
    report = inspection.inspect([("a", (bench / "device.crt").read_bytes())], lambda _: None, late)
    assert report.items[0].facts["days_left"] < 0 and "expired" in report.problems[0]
