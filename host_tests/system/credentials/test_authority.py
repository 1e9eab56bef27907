"""`ca` and `pfx`: openssl accepts what they make and reads in it what has to be there, and devices get in with it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import secrecy
from simulator_client import dps_device, finish, save_key
from workshop import esp_dps, made, openssl, openssl_judges

from espdps.credentials import formats
from espdps.simulator import Options, serving

DEVICE = "greenhouse-1"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root, intermediate and one device. Tests may add, but change nothing of these."""
    folder = tmp_path_factory.mktemp("authority") / "ca"
    made("ca", "root", "Contoso root", "--dir", folder)
    made("ca", "intermediate", "Contoso line 7", "--dir", folder, "--key-type", "rsa-2048")
    made("ca", "device", DEVICE, "--dir", folder)
    secrecy.note(folder)
    return folder


def text(certificate: Path) -> str:
    return openssl("x509", "-in", certificate, "-noout", "-text")


def extension(said: str, name: str) -> list[str]:
    """The lines of one extension in openssl's text: its name with `critical`, then what it says."""
    lines = [line.strip() for line in said.splitlines()]
    at = next(index for index, line in enumerate(lines) if line.startswith(f"X509v3 {name}:"))
    return [lines[at].removeprefix(f"X509v3 {name}:").strip(), lines[at + 1]]


def dates(certificate: Path) -> str:
    return openssl("x509", "-in", certificate, "-noout", "-enddate")


def test_openssl_accepts_the_chain(ca: Path) -> None:
    device = ca / "devices" / f"{DEVICE}.crt"
    verify = ("verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", ca / "root.crt", "-untrusted", device)
    assert openssl_judges(*verify, device)
    assert openssl_judges("verify", "-x509_strict", "-CAfile", ca / "root.crt", ca / "intermediate.crt")
    server = [word if word != "sslclient" else "sslserver" for word in verify]
    assert not openssl_judges(*server, device)
    assert device.read_bytes().endswith((ca / "intermediate.crt").read_bytes())
    assert device.read_bytes().count(b"BEGIN") == 2  # the root is at the service
    for path in (ca / "root", ca / "intermediate", ca / "devices" / DEVICE):
        key, crt = Path(f"{path}.key"), Path(f"{path}.crt")
        assert openssl("pkey", "-in", key, "-pubout") == openssl("x509", "-in", crt, "-noout", "-pubkey")
        assert key.stat().st_mode & 0o777 == 0o600
    assert ca.stat().st_mode & 0o777 == 0o700


def test_the_extensions_are_those_of_rfc_5280(ca: Path) -> None:
    root, middle, device = map(text, (ca / "root.crt", ca / "intermediate.crt", ca / "devices" / f"{DEVICE}.crt"))
    assert extension(root, "Basic Constraints") == ["critical", "CA:TRUE, pathlen:1"]
    assert extension(middle, "Basic Constraints") == ["critical", "CA:TRUE, pathlen:0"]
    assert extension(device, "Basic Constraints") == ["critical", "CA:FALSE"]
    for said in (root, middle):
        assert extension(said, "Key Usage") == ["critical", "Certificate Sign, CRL Sign"]
    assert extension(device, "Key Usage") == ["critical", "Digital Signature"]
    assert extension(device, "Extended Key Usage") == ["", "TLS Web Client Authentication"]
    identifiers = [extension(said, "Subject Key Identifier")[1] for said in (root, middle)]
    assert [extension(said, "Authority Key Identifier")[1] for said in (middle, device)] == identifiers
    assert "ecdsa-with-SHA384" in middle and "sha256WithRSAEncryption" in device


def test_serial_numbers_are_long_and_drawn_by_lot(ca: Path, tmp_path: Path) -> None:
    files = [ca / "root.crt", ca / "intermediate.crt", ca / "devices" / f"{DEVICE}.crt"]
    for number in range(5):
        files.append(tmp_path / f"{number}.crt")
        made("ca", "verify-proof", "A" * 48, "--dir", ca, "--out", files[-1])
    numbers = {
        int(openssl("x509", "-in", file, "-noout", "-serial").strip().removeprefix("serial="), 16) for file in files
    }
    assert len(numbers) == len(files)
    assert all(0 < number < 1 << 159 for number in numbers) and max(numbers) > 1 << 128  # 20 bytes, none negative


def test_proof_of_possession(ca: Path) -> None:
    code = "75B86466DA34D2B04C0C4C9557A119687ADAE7D4732BDDB3"
    for issuer in ("root", "intermediate"):
        out = ca.parent / f"{issuer}-proof.crt"
        made("ca", "verify-proof", code, "--dir", ca, "--issuer", issuer, "--out", out)
        names = openssl("x509", "-in", out, "-noout", "-subject", "-nameopt", "RFC2253")
        assert names.strip() == f"subject=CN={code}"
        assert openssl_judges("verify", "-partial_chain", "-trusted", ca / f"{issuer}.crt", out)
    for bad in ("", "a b", "A" * 65, "co\nde", "é"):
        assert "no verification code" in esp_dps("ca", "verify-proof", bad, "--dir", ca, "--out", ca / "bad").err
    assert not (ca / "bad").exists()


def test_path_length_is_kept(ca: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    assert "allows 0 intermediates" in esp_dps(
        "ca", "intermediate", "Too deep", "--dir", ca, "--issuer", "intermediate", "--as", "deep"
    ).err  # fmt: skip
    assert not (ca / "deep.crt").exists()
    made("ca", "root", "R", "--dir", folder, "--path-length", "2", "--key-type", "ec-p256")
    assert "allows 2 intermediates" in esp_dps("ca", "intermediate", "I", "--dir", folder, "--path-length", "2").err
    made("ca", "intermediate", "I", "--dir", folder, "--path-length", "1")
    made("ca", "intermediate", "J", "--dir", folder, "--issuer", "intermediate", "--as", "line-7")
    device = folder / "devices" / "d.crt"
    made("ca", "device", "d", "--dir", folder, "--issuer", "line-7")
    assert openssl_judges("verify", "-x509_strict", "-CAfile", folder / "root.crt", "-untrusted", device, device)
    assert device.read_bytes().count(b"BEGIN") == 3
    assert "is the name of an authority above" in esp_dps("ca", "intermediate", "r", "--dir", folder, "--as", "x").err


def test_nobody_outlives_the_issuer(tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    made("ca", "root", "R", "--dir", folder, "--days", "10")
    done = made("ca", "device", "d", "--dir", folder)  # signed by the root: there is no intermediate
    assert "ends with its issuer" in done.err
    assert dates(folder / "devices" / "d.crt") == dates(folder / "root.crt")
    assert "ends with its issuer" not in made("ca", "device", "e", "--dir", folder, "--days", "9").err


def test_a_key_with_a_passphrase(tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    made("ca", "root", "R", "--dir", folder, "--encrypt", ESPDPS_NEW_PASSPHRASE="open sesame")
    assert openssl_judges("pkey", "-in", folder / "root.key", "-passin", "pass:open sesame", "-noout")
    assert not openssl_judges("pkey", "-in", folder / "root.key", "-passin", "pass:", "-noout")
    before = sorted(folder.rglob("*"))
    wrong = esp_dps("ca", "intermediate", "I", "--dir", folder, ESPDPS_PASSPHRASE="sesam")
    none = esp_dps("ca", "intermediate", "I", "--dir", folder)
    assert (wrong.code, none.code) == (1, 2) and "passphrase is wrong" in wrong.err and "sesam" not in wrong.err
    assert sorted(folder.rglob("*")) == before
    made("ca", "intermediate", "I", "--dir", folder, ESPDPS_PASSPHRASE="open sesame")
    made("ca", "device", "d", "--dir", folder)  # without the root's key


def test_nothing_is_overwritten(ca: Path) -> None:
    before = {path: path.read_bytes() for path in ca.rglob("*") if path.is_file()}
    for words in (("root", "x"), ("intermediate", "x"), ("device", DEVICE), ("device", "GreenHouse-1")):
        done = esp_dps("ca", *words, "--dir", ca)
        assert done.code == 1 and "is there already" in done.err
    assert {path: path.read_bytes() for path in ca.rglob("*") if path.is_file()} == before
    assert "differ in case only" in esp_dps("ca", "device", "GreenHouse-1", "--dir", ca, "--force").err


def test_a_device_that_has_its_own_key(ca: Path, tmp_path: Path) -> None:
    key, csr = tmp_path / "own.key", tmp_path / "own.csr"
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
    openssl("req", "-new", "-key", key, "-subj", "/CN=Own-1", "-outform", "DER", "-out", csr)
    made("ca", "device", "own-1", "--dir", ca, "--csr", csr)
    device = ca / "devices" / "own-1.crt"
    assert openssl("x509", "-in", device, "-noout", "-pubkey") == openssl("pkey", "-in", key, "-pubout")
    assert not device.with_suffix(".key").exists()
    assert "is for Own-1, not for own-2" in esp_dps("ca", "device", "own-2", "--dir", ca, "--csr", csr).err
    broken = bytearray(csr.read_bytes())
    broken[-1] ^= 1
    csr.write_bytes(broken)
    assert "signature of the request is broken" in esp_dps("ca", "device", "own-3", "--dir", ca, "--csr", csr).err


def test_a_folder_that_does_not_fit_together(tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    folder.write_text("in the way")
    assert "Not a directory" in esp_dps("ca", "device", "d", "--dir", folder).err
    folder.unlink()
    assert "ca root makes one" in esp_dps("ca", "device", "d", "--dir", folder).err
    made("ca", "root", "R", "--dir", folder)
    made("ca", "intermediate", "I", "--dir", folder)
    assert "there are: intermediate, root" in esp_dps("ca", "device", "d", "--dir", folder, "--issuer", "line").err
    made("ca", "root", "R", "--dir", folder, "--force")  # another root of the same name
    assert "no certificate of the issuer of I" in esp_dps("ca", "device", "d", "--dir", folder).err
    made("ca", "intermediate", "I", "--dir", folder, "--force")
    made("ca", "device", "d", "--dir", folder)
    device = folder / "devices" / "d"
    for name, content, says in (
        ("intermediate.key", (folder / "root.key").read_bytes(), "is not the key of"),
        ("intermediate.key", b"", "is empty"),
        ("intermediate.key", None, "No such file"),
        ("intermediate.crt", Path(f"{device}.crt").read_bytes(), "not the certificate of an authority"),
        ("intermediate.crt", bytes(99), "holds no certificate"),
    ):
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        assert says in esp_dps("ca", "device", "e", "--dir", folder).err
        (folder / name).write_bytes(kept)
    made("ca", "device", "e", "--dir", folder)


def test_an_authority_of_openssl_whose_time_is_over(tmp_path: Path) -> None:
    key, crt = tmp_path / "root.key", tmp_path / "root.crt"
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-out", key)
    openssl("req", "-x509", "-key", key, "-subj", "/O=Contoso/CN=root", "-days", "9", "-out", crt)
    made("ca", "device", "d", "--dir", tmp_path)
    assert openssl_judges("verify", "-CAfile", crt, tmp_path / "devices" / "d.crt")
    _past(key, crt)
    done = esp_dps("ca", "device", "e", "--dir", tmp_path)
    assert done.code == 1 and "to 2020-02-01 only" in done.err


def _past(key: Path, crt: Path) -> None:
    """A certificate of the past: `openssl ca` is the one command of openssl 3 that takes both dates."""
    folder = crt.parent
    (folder / "index").touch()
    (folder / "conf").write_text(
        f"[ca]\ndefault_ca=a\n[a]\ndatabase={folder}/index\nnew_certs_dir={folder}\nrand_serial=yes\n"
        "default_md=sha256\npolicy=p\nx509_extensions=e\n[p]\nO=supplied\ncommonName=supplied\n"
        "[e]\nbasicConstraints=critical,CA:TRUE\n"
    )
    openssl("req", "-new", "-key", key, "-subj", "/O=Contoso/CN=root", "-out", folder / "csr")
    openssl(
        "ca", "-batch", "-selfsign", "-config", folder / "conf", "-in", folder / "csr", "-keyfile", key, "-out", crt,
        "-notext", "-startdate", "20200101000000Z", "-enddate", "20200201000000Z",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["root", ""], "no name for an authority"),
        (["root", "x" * 65], "no name for an authority"),
        (["root", "a\x1b[31m"], "no name for an authority"),
        (["root", "x", "--days", "0"], "Invalid value"),
        (["root", "x", "--path-length", "-1"], "Invalid value"),
        (["intermediate", "x", "--as", "../x"], "no name for an intermediate's files"),
        (["intermediate", "x", "--as", "root"], "no name for an intermediate's files"),
        (["device", "a" * 65], "65 characters"),
        (["device", "../x"], "no registration id"),
    ],
)
def test_wrong_use_leaves_nothing(tmp_path: Path, words: list[str], says: str) -> None:
    done = esp_dps("ca", *words, "--dir", tmp_path / "ca")
    assert done.code == 2 and says in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_device_of_a_foreign_authority_gets_into_dps(ca: Path, tmp_path: Path) -> None:
    device = ca / "devices" / DEVICE
    made(
        "new", DEVICE, "--id-scope", "0ne00ABCDEF", "--board", "UNIX", "--devices", tmp_path / "devices",
        "--onboarding-cert", f"{device}.crt", "--onboarding-key-file", f"{device}.key",
    )  # fmt: skip
    folder = tmp_path / "devices" / DEVICE
    assert json.loads((folder / "device.json").read_bytes())["auth"] == "x509"
    # What a board presents are these two files
    key = formats.private_key((folder / "onboarding.key").read_bytes(), lambda _: None, "key")
    presented = save_key(tmp_path / "presented.pem", key)
    with presented.open("ab") as file:
        file.write((folder / "onboarding.crt").read_bytes())
    with serving(tmp_path / "sim", Options(retry_after=0)) as sim:
        sim.add_group("factory", signers=[(ca / "root.crt").read_bytes()])
        with dps_device(sim.info, DEVICE, chain=presented, password=None) as client:
            body = finish(client, DEVICE, (folder / "device.csr").read_bytes())
    assert body["status"] == "assigned"
    assert body["registrationState"]["x509"]["enrollmentGroupId"] == "factory"
    assert body["registrationState"]["x509"]["signingCertificateInfo"]["subjectName"] == "CN=Contoso root"


# PFX


def test_openssl_reads_our_pfx(ca: Path, tmp_path: Path) -> None:
    device, out = ca / "devices" / DEVICE, tmp_path / "d.pfx"
    words = ("pfx", "export", out, "--cert", f"{device}.crt", "--key-file", f"{device}.key")
    made(*words, ESPDPS_NEW_PASSPHRASE="open sesame")
    assert out.stat().st_mode & 0o777 == 0o600
    read = ("pkcs12", "-in", out, "-passin", "pass:open sesame", "-nodes")
    assert openssl("pkey", "-pubout", data=openssl(*read, "-nocerts").encode()) == openssl(
        "pkey", "-in", f"{device}.key", "-pubout"
    )
    assert openssl("x509", data=openssl(*read, "-clcerts", "-nokeys").encode()).encode() == formats.pem(
        formats.certificates(Path(f"{device}.crt").read_bytes(), "")[0]
    )
    assert openssl("x509", data=openssl(*read, "-cacerts", "-nokeys").encode()) == (ca / "intermediate.crt").read_text()
    assert not openssl_judges("pkcs12", "-in", out, "-passin", "pass:open sesam", "-nodes", "-noout")
    assert "is there already" in esp_dps(*words).err
    other = esp_dps("pfx", "export", tmp_path / "x.pfx", "--cert", ca / "root.crt", "--key-file", f"{device}.key",
                    ESPDPS_NEW_PASSPHRASE="pw")  # fmt: skip
    assert "belongs to another key" in other.err
    empty = esp_dps(*words, "--force", ESPDPS_NEW_PASSPHRASE="")
    assert empty.code == 2 and "1 to 1023 bytes" in empty.err
    for name in ("x.pfx", "d.pfx"):
        assert (tmp_path / name).exists() == (name == "d.pfx")


@pytest.mark.parametrize(
    ("options", "password"),
    [
        ((), "pw"),
        (("-legacy",), "pw"),  # RC2 and 3DES, as Windows made them for long
        (("-certpbe", "NONE", "-keypbe", "AES-256-CBC"), "pw"),
        ((), "pässwörd"),
        ((), ""),
    ],
)
def test_we_read_a_pfx_of_openssl(ca: Path, tmp_path: Path, options: tuple[str, ...], password: str) -> None:
    device, file, out = ca / "devices" / DEVICE, tmp_path / "d.pfx", tmp_path / "out"
    openssl(
        "pkcs12", "-export", *options, "-inkey", f"{device}.key", "-in", f"{device}.crt", "-out", file,
        "-passout", f"pass:{password}",
    )  # fmt: skip
    made("pfx", "import", file, "--out", out, **({"ESPDPS_PASSPHRASE": password} if password else {}))
    secrecy.note(tmp_path)
    assert Path(f"{out}.crt").read_bytes() == Path(f"{device}.crt").read_bytes()
    key = Path(f"{out}.key")
    assert openssl("pkey", "-in", key, "-pubout") == openssl("pkey", "-in", f"{device}.key", "-pubout")
    assert key.stat().st_mode & 0o777 == 0o600
    assert "is there already" in esp_dps("pfx", "import", file, "--out", out).err


def test_a_pfx_that_cannot_be_used_is_said_so(ca: Path, tmp_path: Path) -> None:
    device, file = ca / "devices" / DEVICE, tmp_path / "d.pfx"
    export = ["pkcs12", "-export", "-passout", "pass:pw", "-out", file]
    openssl(*export, "-inkey", f"{device}.key", "-in", f"{device}.crt")
    good = file.read_bytes()
    openssl(*export, "-nokeys", "-in", f"{device}.crt")
    keyless = file.read_bytes()
    ask = {"ESPDPS_PASSPHRASE": "pw"}
    for content, environment, says in (
        (good, {"ESPDPS_PASSPHRASE": "px"}, "the passphrase is wrong"),
        (good, {}, "ESPDPS_PASSPHRASE in the environment"),
        (good[:-1], ask, "truncated: 1 bytes are missing"),
        (good[:3], ask, "no PFX"),
        (b"", ask, "is empty"),
        (Path(f"{device}.key").read_bytes(), ask, "no PFX"),
        (keyless, ask, "holds no private key"),
    ):
        file.write_bytes(content)
        done = esp_dps("pfx", "import", file, "--out", tmp_path / "out", **environment)
        assert done.code in (1, 2) and says in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["d.pfx"]


COMMANDS = [
    *(["keygen"], ["csr"], ["inspect"], ["ca"]),
    *(["ca", name] for name in ("root", "intermediate", "device", "verify-proof")),
    *(["pfx", name] for name in ("export", "import")),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_is_a_small_manual_and_no_option_takes_a_secret_itself(words: list[str]) -> None:
    said = made(*words, "--help").out
    assert "EXAMPLE" in said and max(map(len, said.splitlines())) <= 80
    for option in said.replace(",", " ").split():
        if option.startswith("--") and ("pass" in option or "key" in option):
            assert option.endswith("-file") or option == "--key-type"


KILL = """
import os, signal, sys
from pathlib import Path
real, count = {what}, 0
def moving(*words, **options):
    global count
    count += 1
    if count > {moves}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*words, **options)
{what} = moving
from espdps import cli
sys.argv = ["esp-dps", "ca", "root", "second", "--key-type", "ec-p256", "--dir", {folder!r}, *{force!r}]
cli.main()
"""


@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize("moves", [0, 1])
def test_a_root_that_is_killed_half_way_is_whole_in_the_end(tmp_path: Path, force: bool, moves: int) -> None:
    ca = tmp_path / "ca"
    if force:
        made("ca", "root", "first", "--key-type", "ec-p256", "--dir", ca)
    program = KILL.format(
        what="Path.replace" if force else "os.link", moves=moves, folder=str(ca), force=["--force"] if force else []
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    made("ca", "device", "dev-1", "--dir", ca)
    assert openssl("x509", "-in", ca / "root.crt", "-noout", "-pubkey") == openssl(
        "pkey", "-in", ca / "root.key", "-pubout"
    )
    assert sorted(path.name for path in ca.iterdir()) == ["devices", "root.crt", "root.key"]


def test_a_code_is_taken_as_it_was_copied(tmp_path: Path) -> None:
    made("ca", "root", "r", "--key-type", "ec-p256", "--dir", tmp_path)
    made("ca", "verify-proof", '"75B86466DA34D2B0"\u200b\r\n', "--dir", tmp_path)
    assert openssl("x509", "-in", tmp_path / "proof.crt", "-noout", "-subject").strip().endswith("75B86466DA34D2B0")
