"""Keys and certificates as openssl, Windows and others write them: every command reads the same ones."""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pki import Authority, private_pem
from workshop import esp_dps, made, openssl

from espdps.credentials import formats, keys, pairs
from espdps.devices import folder_doctor, folders
from espdps.errors import ToolError

BOM = b"\xef\xbb\xbf"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device's key and certificate, its intermediate and root, in many forms. No test may change them."""
    folder = tmp_path_factory.mktemp("bench")
    root = Authority("root", kind="ec-p256")
    line = Authority("line", root, "ec-p256")
    key = keys.new_key("ec-p256")
    (folder / "key.pem").write_bytes(private_pem(key))
    (folder / "leaf.pem").write_bytes(line.issue("dev-1", key))
    (folder / "line.pem").write_bytes(line.pem)
    (folder / "root.pem").write_bytes(root.pem)
    (folder / "chain.pem").write_bytes((folder / "leaf.pem").read_bytes() + line.pem)

    def path(name: str) -> str:
        return str(folder / name)

    openssl(
        "pkcs12", "-export", "-inkey", path("key.pem"), "-in", path("leaf.pem"), "-certfile", path("line.pem"),
        "-name", "dev 1", "-out", path("all.pfx"), "-passout", "pass:",
    )  # fmt: skip
    openssl("pkcs12", "-in", path("all.pfx"), "-nodes", "-passin", "pass:", "-out", path("all.pem"))
    openssl("x509", "-in", path("leaf.pem"), "-outform", "DER", "-out", path("leaf.der"))
    openssl("x509", "-in", path("leaf.pem"), "-trustout", "-addtrust", "clientAuth", "-out", path("trusted.pem"))
    openssl("x509", "-in", path("leaf.pem"), "-text", "-out", path("text.pem"))
    openssl("ec", "-in", path("key.pem"), "-text", "-out", path("text.key"))
    openssl("ec", "-in", path("key.pem"), "-outform", "DER", "-out", path("sec1.der"))
    return folder


def text(name: str) -> Callable[[Path], bytes]:
    return lambda bench: (bench / name).read_bytes()


KEYS: dict[str, Callable[[Path], bytes]] = {
    "bag attributes": text("all.pem"),
    "openssl's text": text("text.key"),
    "SEC 1 DER": text("sec1.der"),
    "a byte-order mark": lambda bench: BOM + (bench / "key.pem").read_bytes(),
    "UTF-16": lambda bench: (bench / "key.pem").read_text().encode("utf-16"),
    "a comment": lambda bench: b"\n# key of dev-1\n" + (bench / "key.pem").read_bytes(),
    "certificate first": lambda bench: (bench / "chain.pem").read_bytes() + (bench / "key.pem").read_bytes(),
    "one line, with \\n": lambda bench: (bench / "key.pem").read_bytes().replace(b"\n", b"\\n"),
    "blank lines": lambda bench: (bench / "key.pem").read_bytes().replace(b"\n", b"\n\n"),
    "base64 of DER": lambda bench: base64.encodebytes((bench / "sec1.der").read_bytes()),
}
CERTIFICATES: dict[str, Callable[[Path], bytes]] = {
    "bag attributes": text("all.pem"),
    "openssl's text": text("text.pem"),
    "DER, as Windows has it": text("leaf.der"),
    "trusted": text("trusted.pem"),
    "a byte-order mark": lambda bench: BOM + (bench / "leaf.pem").read_bytes(),
    "UTF-16": lambda bench: (bench / "leaf.pem").read_text().encode("utf-16"),
    "old label": lambda bench: (bench / "leaf.pem").read_bytes().replace(b" CERT", b" X509 CERT"),
    "base64 of DER": lambda bench: base64.b64encode((bench / "leaf.der").read_bytes()),
    "an issuer twice": lambda bench: (bench / "chain.pem").read_bytes() + (bench / "line.pem").read_bytes(),
}


@pytest.mark.parametrize("form", KEYS)
def test_every_command_reads_the_key(bench: Path, tmp_path: Path, form: str) -> None:
    file = tmp_path / "k"
    file.write_bytes(KEYS[form](bench))
    public = openssl("pkey", "-in", bench / "key.pem", "-pubout")
    made("csr", "dev-1", "--key-file", file, "--out", tmp_path / "r")
    assert openssl("req", "-in", tmp_path / "r", "-noout", "-pubkey") == public
    _, board_key = pairs.check_pair((bench / "chain.pem").read_bytes(), file.read_bytes(), "dev-1")
    assert openssl("pkey", "-inform", "DER", "-pubout", data=board_key) == public
    assert "private key" in esp_dps("inspect", "--json", file).out


@pytest.mark.parametrize("form", CERTIFICATES)
def test_every_command_reads_the_certificate(bench: Path, tmp_path: Path, form: str) -> None:
    file = tmp_path / "c"
    file.write_bytes(CERTIFICATES[form](bench))
    leaf = openssl("x509", "-in", bench / "leaf.pem")
    chain, _ = pairs.check_pair(file.read_bytes(), (bench / "key.pem").read_bytes(), "dev-1")
    assert openssl("x509", data=chain) == leaf
    block = rb"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n"
    assert re.fullmatch(rb"(%s)+" % block, chain), "nothing else goes onto the board"
    done = esp_dps("inspect", "--json", file)
    assert "CN=dev-1" in done.out, done.out
    made("enroll", "create", "g", "--group", "--az", "--cert", file)


def ec_key(number: bytes, prefix: bytes = b"") -> bytes:
    """An EC private key on P-256 by RFC 5915, whose number need not have the 32 bytes it should."""

    def part(tag: int, content: bytes) -> bytes:
        return bytes((tag, len(content))) + content

    curve = bytes.fromhex("06082a8648ce3d030107")
    return part(0x30, b"\x02\x01\x01" + part(4, number) + part(0xA0, curve))


@pytest.mark.parametrize("number", [b"\x05" * 31, b"\x00" + b"\x05" * 32, b"\x07"])
def test_an_ec_number_of_another_length_is_read_as_openssl_reads_it(tmp_path: Path, number: bytes) -> None:
    (tmp_path / "k").write_bytes(ec_key(number))
    made("csr", "dev-1", "--key-file", tmp_path / "k", "--out", tmp_path / "r")
    public = openssl("pkey", "-inform", "DER", "-in", tmp_path / "k", "-pubout")
    assert openssl("req", "-in", tmp_path / "r", "-noout", "-pubkey") == public
    made("inspect", tmp_path / "k")


def test_a_key_of_openssh_is_read(tmp_path: Path) -> None:
    generated = ("ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-f", str(tmp_path / "k"))
    subprocess.run([*generated, "-N", ""], check=True, timeout=30)
    made("csr", "dev-1", "--key-file", tmp_path / "k", "--out", tmp_path / "r")
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-m", "PKCS8", "-N", "", "-f", str(tmp_path / "k")], check=True, timeout=30
    )
    assert openssl("req", "-in", tmp_path / "r", "-noout", "-pubkey") == openssl(
        "pkey", "-in", tmp_path / "k", "-pubout"
    )


def test_a_pfx_in_another_place_is_named(bench: Path, tmp_path: Path) -> None:
    done = esp_dps("csr", "dev-1", "--key-file", bench / "all.pfx", "--out", tmp_path / "r")
    assert done.code == 1 and "pfx import" in done.err
    (tmp_path / "b64").write_bytes(base64.encodebytes((bench / "all.pfx").read_bytes()))
    (tmp_path / "p").write_bytes(b"")
    made("pfx", "import", tmp_path / "b64", "--out", tmp_path / "o", "--passphrase-file", tmp_path / "p")
    assert openssl("x509", "-in", tmp_path / "o.crt") == openssl("x509", "-in", bench / "leaf.pem")


def test_a_pfx_with_a_certificate_that_is_not_its_own_is_noticed(bench: Path, tmp_path: Path) -> None:
    (tmp_path / "more.pem").write_bytes((bench / "line.pem").read_bytes() + Authority("other", kind="ec-p256").pem)
    openssl(
        "pkcs12", "-export", "-inkey", bench / "key.pem", "-in", bench / "leaf.pem", "-certfile", tmp_path / "more.pem",
        "-out", tmp_path / "x.pfx", "-passout", "pass:",
    )  # fmt: skip
    done = esp_dps("pfx", "import", tmp_path / "x.pfx", "--out", tmp_path / "o", ESPDPS_PASSPHRASE="")
    assert done.code == 2 and "certificate 2 is not signed by certificate 3" in done.err
    assert not (tmp_path / "o.key").exists()


def test_a_p7b_is_named(bench: Path) -> None:
    der = subprocess.run(
        ["openssl", "crl2pkcs7", "-nocrl", "-certfile", bench / "chain.pem", "-outform", "DER"],
        capture_output=True, check=True, timeout=30,
    ).stdout  # fmt: skip
    with pytest.raises(ToolError) as caught:
        formats.certificates(der, "x")
    assert "p7b" in caught.value.hint


def wrong_chains(bench: Path) -> dict[str, bytes]:
    leaf, line, root = ((bench / f"{name}.pem").read_bytes() for name in ("leaf", "line", "root"))
    return {
        "wrong order": leaf + root + line,
        "another's issuer": leaf + Authority("line", kind="ec-p256").pem,
        "the leaf twice": leaf + leaf,
        "cut in a certificate": (leaf + line)[:-60],
        "cut in a first line": leaf + line[:8],
    }


@pytest.mark.parametrize(
    "case", ["wrong order", "another's issuer", "the leaf twice", "cut in a certificate", "cut in a first line"]
)
def test_a_chain_that_leads_nowhere_is_noticed_before_dps(bench: Path, tmp_path: Path, case: str) -> None:
    key, chain = bench / "key.pem", tmp_path / "c.pem"
    chain.write_bytes(wrong_chains(bench)[case])
    common = ("--id-scope", "0ne00ABCDEF", "--board", "UNIX", "--devices", tmp_path / "d")
    pair = ("--onboarding-cert", chain, "--onboarding-key-file", key)
    for words in (
        ("new", "dev-1", *common, *pair),
        ("pfx", "export", tmp_path / "o.pfx", "--cert", chain, "--key-file", key, "--new-passphrase-file", chain),
        *([("inspect", chain)] if case != "the leaf twice" else []),
    ):
        done = esp_dps(*words)
        assert done.code in (1, 2), (words[0], done.out + done.err)
    (tmp_path / "plan.csv").write_text(f"registration_id,onboarding_cert,onboarding_key\ndev-1,c.pem,{key}\n")
    assert esp_dps("fleet", tmp_path / "plan.csv", *common).code == 1
    assert not (tmp_path / "d/dev-1").exists()
    made("new", "dev-1", *common, "--onboarding-cert", bench / "chain.pem", "--onboarding-key-file", key)
    good = folder_doctor.examine(tmp_path / "d/dev-1", firmware=None)
    (tmp_path / "d/dev-1/onboarding.crt").write_bytes(chain.read_bytes())
    found = folder_doctor.examine(tmp_path / "d/dev-1", firmware=None)
    assert any(finding.wrong and finding.where == "onboarding.crt" for finding in found)
    assert not any(finding.wrong and finding.where == "onboarding.crt" for finding in good)
    assert folders.find("dev-1", tmp_path / "d")


def test_an_encrypted_onboarding_key_is_said_to_be_that(bench: Path, tmp_path: Path) -> None:
    openssl("pkcs8", "-topk8", "-in", bench / "key.pem", "-passout", "pass:geheim", "-out", tmp_path / "k")
    with pytest.raises(ToolError, match="encrypted"):
        pairs.check_pair((bench / "chain.pem").read_bytes(), (tmp_path / "k").read_bytes(), "dev-1")
