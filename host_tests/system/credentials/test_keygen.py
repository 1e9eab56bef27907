"""`keygen` and `csr`, judged by openssl: what they make it reads, what it makes they read."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest
import secrecy
from workshop import esp_dps, made, openssl, openssl_judges

from espdps.paths import ROOT

KINDS = {
    "ec-p256": "ASN1 OID: prime256v1",
    "ec-p384": "ASN1 OID: secp384r1",
    "rsa-2048": "Private-Key: (2048 bit",
    "rsa-3072": "Private-Key: (3072 bit",
    "rsa-4096": "Private-Key: (4096 bit",
}


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text("open sesame\n")
    return path


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files by openssl, good and bad, and some that are nothing. No test may change what is in this folder."""
    folder = tmp_path_factory.mktemp("bench")
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", folder / "ec.pem")
    openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", folder / "rsa.pem")
    openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", folder / "weak.pem")
    openssl("genpkey", "-algorithm", "ed25519", "-out", folder / "ed.pem")
    openssl("ecparam", "-name", "secp521r1", "-genkey", "-noout", "-out", folder / "p521.pem")
    openssl("pkey", "-in", folder / "ec.pem", "-pubout", "-out", folder / "public.pem")
    openssl("pkey", "-in", folder / "ec.pem", "-outform", "DER", "-out", folder / "ec.der")
    (folder / "half.pem").write_bytes((folder / "ec.pem").read_bytes()[:120])
    (folder / "half.der").write_bytes((folder / "ec.der").read_bytes()[:60])
    (folder / "garbage").write_bytes(bytes(range(256)) * 3)
    (folder / "empty").touch()
    os.mkfifo(folder / "pipe")
    (folder / "there").write_text("mine")
    with (folder / "large").open("wb") as file:
        file.truncate(50 << 20)
    return folder


def public_of(key: Path, *words: str) -> str:
    return openssl("pkey", "-in", key, *words, "-pubout")


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_reads_what_keygen_and_csr_make(tmp_path: Path, kind: str) -> None:
    key, csr = tmp_path / "a.key", tmp_path / "a.csr"
    made("keygen", key, "--key-type", kind)
    secrecy.note(tmp_path)
    assert key.stat().st_mode & 0o777 == 0o600
    assert KINDS[kind] in openssl("pkey", "-in", key, "-noout", "-text")
    made("csr", "greenhouse-1", "--key-file", key, "--out", csr)
    request = ("req", "-in", csr, "-noout")
    assert openssl(*request, "-subject", "-nameopt", "RFC2253").strip() == "subject=CN=greenhouse-1"
    assert openssl(*request, "-pubkey", "-verify") == public_of(key)


def test_der_is_what_a_board_reads(tmp_path: Path) -> None:
    key, csr = tmp_path / "a.key", tmp_path / "a.csr"
    assert made("keygen", key, "--der", "--json").table == {
        "file": str(key), "key_type": "ec-p384", "format": "DER", "encrypted": False,
    }  # fmt: skip
    secrecy.note(tmp_path)
    made("csr", "greenhouse-1", "--key-file", key, "--out", csr, "--der")
    assert openssl("req", "-inform", "DER", "-in", csr, "-noout", "-pubkey") == public_of(key, "-inform", "DER")


def test_a_passphrase_from_file_and_environment(tmp_path: Path, passphrase: Path) -> None:
    one, two, csr = tmp_path / "one.pem", tmp_path / "two.pem", tmp_path / "a.csr"
    made("keygen", one, "--new-passphrase-file", passphrase)
    made("keygen", two, "--encrypt", ESPDPS_NEW_PASSPHRASE="open sesame")
    for key in (one, two):
        assert b"BEGIN ENCRYPTED PRIVATE KEY" in key.read_bytes()
        assert not openssl_judges("pkey", "-in", key, "-passin", "pass:open sesam", "-noout")
        public = public_of(key, "-passin", "pass:open sesame")
        made("csr", "d", "--key-file", key, "--out", csr, "--force", "--passphrase-file", passphrase)
        assert openssl("req", "-in", csr, "-noout", "-pubkey") == public
        made("csr", "d", "--key-file", key, "--out", csr, "--force", ESPDPS_PASSPHRASE="open sesame")
    before = csr.read_bytes()
    for words, environment, says in (
        ((), {"ESPDPS_PASSPHRASE": "open sesam"}, "the passphrase is wrong"),
        ((), {"ESPDPS_PASSPHRASE": ""}, "the passphrase is wrong"),
        ((), {}, "ESPDPS_PASSPHRASE in the environment"),
        (("--passphrase-file", tmp_path), {}, "Is a directory"),
    ):
        done = esp_dps("csr", "d", "--key-file", one, "--out", csr, "--force", *words, **environment)
        assert done.code in (1, 2) and says in done.err and "sesam" not in done.err
    assert csr.read_bytes() == before


def test_a_passphrase_at_a_prompt_is_typed_twice_and_not_shown(tmp_path: Path) -> None:
    key = tmp_path / "a.pem"

    def typed(*answers: str) -> tuple[int, str]:
        master, slave = pty.openpty()
        command = [sys.executable, "-m", "espdps.cli", "keygen", str(key), "--encrypt"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        said, asked = "", 0
        try:
            while select.select([master], [], [], 60)[0]:
                try:
                    said += os.read(master, 1000).decode()
                except OSError:  # the other end is closed
                    break
                if said.count(": ") > asked and said.endswith(": "):  # by then it takes what is typed
                    os.write(master, answers[asked].encode() + b"\n")
                    asked += 1
            return process.wait(60), said
        finally:
            process.kill()
            os.close(master)

    code, said = typed("open sesam", "open seasme", "open sesame", "open sesame")
    assert code == 0 and "open sesam" not in said
    assert openssl_judges("pkey", "-in", key, "-passin", "pass:open sesame", "-noout")


OPENSSL_KEYS = {
    "PKCS #8": "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
    "PKCS #8 DER": "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -outform DER",
    "SEC 1 after its parameters": "ecparam -name secp384r1 -genkey",
    "SEC 1 DER": "ec -in ec.pem -outform DER",
    "SEC 1 encrypted": "ec -in ec.pem -aes256 -passout pass:pw",
    "PKCS #1": "rsa -in rsa.pem -traditional",
    "PKCS #1 DER": "rsa -in rsa.pem -traditional -outform DER",
    "PKCS #1 encrypted": "rsa -in rsa.pem -traditional -aes128 -passout pass:pw",
    "PBES2": "pkcs8 -topk8 -in ec.pem -passout pass:pw",
    "PBES2 DER": "pkcs8 -topk8 -in rsa.pem -passout pass:pw -outform DER",
    "PBES1": "pkcs8 -topk8 -v1 PBE-SHA1-3DES -in ec.pem -passout pass:pw",
    "scrypt": "pkcs8 -topk8 -scrypt -in ec.pem -passout pass:pw",
}


@pytest.mark.parametrize("form", OPENSSL_KEYS)
def test_keys_of_openssl_in_every_form(tmp_path: Path, bench: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.chdir(bench)
    key, csr = tmp_path / "a.key", tmp_path / "a.csr"
    openssl(*OPENSSL_KEYS[form].split(), "-out", key)
    made("csr", "greenhouse-1", "--key-file", key, "--out", csr, ESPDPS_PASSPHRASE="pw")
    der = ("-inform", "DER") if form.endswith("DER") else ()
    assert openssl("req", "-in", csr, "-noout", "-pubkey") == public_of(key, *der, "-passin", "pass:pw")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["keygen", "there"], 1, "there is there already"),
        (["keygen", "."], 1, "is a folder"),
        (["keygen", ".", "--force"], 1, "is a folder"),
        (["keygen", "pipe", "--force"], 1, "or a device"),
        (["keygen", "--", "-"], 2, "no name for a file"),
        (["keygen", "there/a"], 1, "there"),
        (["keygen", "a" * 300], 1, "File name too long"),
        (["keygen", "a", "--key-type", "dsa"], 2, "Invalid value"),
        (["keygen", "a", "--der", "--encrypt"], 2, "cannot have a passphrase"),
        (["keygen", "a", "--encrypt"], 2, "--new-passphrase-file"),
        (["keygen", "a", "--passphrase", "x"], 2, "No such option"),
        (["csr", "a" * 65, "--key-file", "ec.pem", "--out", "a"], 2, "65 characters"),
        (["csr", "a b", "--key-file", "ec.pem", "--out", "a"], 2, "no registration id"),
        (["csr", "../a", "--key-file", "ec.pem", "--out", "a"], 2, "no registration id"),
        (["csr", "d", "--key-file", "none", "--out", "a"], 1, "No such file"),
        (["csr", "d", "--key-file", ".", "--out", "a"], 1, "Is a directory"),
        (["csr", "d", "--key-file", "empty", "--out", "a"], 1, "empty is empty"),
        (["csr", "d", "--key-file", "garbage", "--out", "a"], 1, "no private key"),
        (["csr", "d", "--key-file", "half.pem", "--out", "a"], 1, "truncated"),
        (["csr", "d", "--key-file", "half.der", "--out", "a"], 1, "no private key"),
        (["csr", "d", "--key-file", "public.pem", "--out", "a"], 1, "holds no private key"),
        (["csr", "d", "--key-file", "ed.pem", "--out", "a"], 1, "of type ed25519"),
        (["csr", "d", "--key-file", "weak.pem", "--out", "a"], 1, "of type rsa-1024"),
        (["csr", "d", "--key-file", "p521.pem", "--out", "a"], 1, "of type ec-p521"),
        (["csr", "d", "--key-file", "large", "--out", "a"], 1, "larger than any key"),
        (["csr", "d", "--key-file", "ec.pem", "--out", "there"], 1, "there already"),
        (["csr", "d", "--key-file", "ec.pem", "--out", "/proc/none/a"], 1, "/proc/none/a"),
    ],
)
def test_what_cannot_be_is_said_and_leaves_nothing(
    bench: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, says: str
) -> None:
    monkeypatch.chdir(bench)
    before = {path.name: path.stat().st_mtime_ns for path in bench.iterdir()}
    done = esp_dps(*words)
    assert done.code == code and says in done.err
    assert {path.name: path.stat().st_mtime_ns for path in bench.iterdir()} == before


def test_force_replaces_and_narrows_who_may_read(tmp_path: Path) -> None:
    key = tmp_path / "a.key"
    key.write_text("old")
    key.chmod(0o644)
    made("keygen", key, "--force", "--key-type", "ec-p256")
    secrecy.note(tmp_path)
    assert openssl_judges("pkey", "-in", key, "-noout") and key.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["a.key"]
