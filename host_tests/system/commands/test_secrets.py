"""Secrets and names as other programs leave them: read where there is one meaning, else named; judged by openssl."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from pathlib import Path

import pytest
from workshop import esp_dps, made, openssl_judges

from espdps import inputs
from espdps.commands import secrets
from espdps.errors import ToolError

KEY = bytes(range(190, 254))  # with + and / in base64
KEY_B64 = base64.b64encode(KEY).decode()
DERIVED = base64.b64encode(hmac.digest(KEY, b"dev-7", hashlib.sha256)).decode()  # the rule of az compute-device-key
BOM = b"\xef\xbb\xbf"
URLSAFE = base64.urlsafe_b64encode(KEY).decode()
FORMS = {
    "a byte-order mark, as Notepad writes it": BOM + KEY_B64.encode() + b"\r\n",
    "UTF-16, as PowerShell 5 writes it": (KEY_B64 + "\r\n").encode("utf-16"),
    "UTF-16, the other way round": b"\xfe\xff" + KEY_B64.encode("utf-16-be"),
    "quotes": f'"{KEY_B64}"\n'.encode(),
    "a JSON text, as az prints it": json.dumps(KEY_B64).encode(),
    "spaces that do not break": f"\u00a0{KEY_B64}\u00a0".encode(),
    "zero-width spaces": f"\u200b{KEY_B64[:9]}\u200b{KEY_B64[9:]}\n".encode(),
    "lines of 64": (KEY_B64[:64] + "\n" + KEY_B64[64:]).encode(),
    "base64 for URLs": URLSAFE.encode(),
}
NAMED = {
    "connection string": (f"HostName=x.azure-devices.net;DeviceId=d;SharedAccessKey={KEY_B64}".encode(), "connection"),
    "token": (b"SharedAccessSignature sr=x&sig=y&se=1", "SAS token"),
    "JSON": (json.dumps({"primaryKey": KEY_B64}).encode(), "JSON"),
    "PEM": (b"-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n", "PEM"),
    "binary": (KEY, "not text"),
    "UTF-16 without a mark": (KEY_B64.encode("utf-16-le"), "UTF-16"),
    "no padding": (KEY_B64.rstrip("=").encode(), "= signs"),
    "two keys": (f"{KEY_B64}\n{KEY_B64}\n".encode(), "base64"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_read_as_programs_save_it(tmp_path: Path, form: str) -> None:
    assert KEY_B64 != URLSAFE
    file = tmp_path / "key"
    file.write_bytes(FORMS[form])
    assert made("derive-key", "dev-7", "--group-key-file", file).out.strip() == DERIVED
    new = ("new", "dev-7", "--id-scope", "0ne00ABCDEF", "--board", "UNIX", "--devices", tmp_path / "d")
    made(*new, "--device-key-file", file)
    assert json.loads((tmp_path / "d/dev-7/secrets.json").read_bytes())["device_key"] == KEY_B64


@pytest.mark.parametrize("form", NAMED)
def test_what_is_no_key_is_named_and_not_shown(tmp_path: Path, form: str) -> None:
    content, says = NAMED[form]
    file = tmp_path / "key"
    file.write_bytes(content)
    done = esp_dps("derive-key", "dev-7", "--group-key-file", file)
    assert done.code in (1, 2) and says in done.err and done.out == ""
    assert KEY_B64[:12] not in done.err


def test_a_fleet_and_an_enrollment_read_the_same_keys(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(FORMS["UTF-16, as PowerShell 5 writes it"])
    (tmp_path / "plan.csv").write_text("registration_id,device_key_file\nf-1,k\nf-2,/dev/zero\n")
    done = esp_dps(
        "fleet", tmp_path / "plan.csv", "--id-scope", "0ne00ABCDEF", "--board", "UNIX", "--devices", tmp_path / "d"
    )
    assert done.code == 1 and "not a file" in done.out + done.err, "the second row alone is bad"
    assert json.loads((tmp_path / "d/f-1/secrets.json").read_bytes())["device_key"] == KEY_B64
    shown = made("enroll", "create", "f-1", "--az", "--key-file", tmp_path / "k").out
    assert "f-1" in shown and KEY_B64 not in shown


@pytest.mark.parametrize("content", [BOM + b"geheim\r\n", "geheim\r\n".encode("utf-16")])
def test_a_passphrase_file_of_windows_opens_what_openssl_opens(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p").write_bytes(content)
    made("keygen", tmp_path / "k", "--new-passphrase-file", tmp_path / "p")
    assert openssl_judges("pkey", "-in", tmp_path / "k", "-passin", "pass:geheim", "-noout")
    made("csr", "dev-1", "--key-file", tmp_path / "k", "--passphrase-file", tmp_path / "p", "--out", tmp_path / "r")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"geheim\ngeheim\n", "one line"),
        (b"ge\x07heim", "control character"),
        ("\u200bgeheim".encode(), "U+200B"),
        (b"geh\xfcim", "not text in UTF-8"),
    ],
)
def test_a_passphrase_that_nobody_could_type_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "p").write_bytes(content)
    done = esp_dps("keygen", tmp_path / "k", "--new-passphrase-file", tmp_path / "p")
    assert done.code and says in done.err and not (tmp_path / "k").exists()


def test_spaces_of_a_passphrase_count() -> None:
    assert inputs.secret_line(" geh\u00fcim \r\n", "passphrase") == " geh\u00fcim "


@pytest.mark.parametrize(
    ("password", "good"),
    [
        ("p" * 63, True),
        ("0123456789abcdefABCDEF" + "0" * 42, True),  # 64: the key itself (IEEE 802.11, annex J)
        ("g" * 64, False),
        ("p" * 65, False),
        ("p" * 7, False),
        ("pass\nword", False),
        ("pass\0word", False),
    ],
)
def test_a_wifi_password_is_what_an_access_point_takes(tmp_path: Path, password: str, good: bool) -> None:
    (tmp_path / "w").write_text(password)
    (tmp_path / "k").write_text(KEY_B64)
    done = esp_dps(
        "new", "dev-7", "--id-scope", "0ne00ABCDEF", "--board", "UNIX", "--devices", tmp_path / "d",
        "--device-key-file", tmp_path / "k", "--wifi-ssid", "Caf\u00e9 \U0001f525", "--wifi-password-file", tmp_path / "w",
    )  # fmt: skip
    assert (done.code == 0) == good, done.err
    if good:  # raw UTF-8: MicroPython reads \ud83d\udd25 as two characters that are none
        assert "Caf\u00e9 \U0001f525".encode() in (tmp_path / "d/dev-7/secrets.json").read_bytes()


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("dps.example.com ", "dps.example.com"),
        ("https://dps.example.com/", "dps.example.com"),
        ("mqtts://dps.example.com:8883", "dps.example.com"),
        ("dps.example.com.", "dps.example.com"),
        ("\u200bdps.example.com", "dps.example.com"),
        ("dps.example.com:443", None),
        ("dps example.com", None),
        ("https://dps.example.com/path", None),
        ("", None),
    ],
)
def test_a_host_is_read_out_of_a_url(given: str, host: str | None) -> None:
    if host:
        assert inputs.host(given, "--dps-host", 8883) == host
    else:
        with pytest.raises(ToolError, match="--dps-host"):
            inputs.host(given, "--dps-host", 8883)


def test_new_says_at_once_what_doctor_would_say_of_a_host(tmp_path: Path) -> None:
    (tmp_path / "k").write_text(KEY_B64)
    new = (
        "new", "dev-7", "--id-scope", "0ne00ABCDEF", "--board", "UNIX", "--devices", tmp_path / "d",
        "--device-key-file", tmp_path / "k", "--dps-host",
    )  # fmt: skip
    assert esp_dps(*new, "dps.example.com:1").code == 2
    made(*new, "https://dps.example.com")
    assert json.loads((tmp_path / "d/dev-7/device.json").read_bytes())["dps_host"] == "dps.example.com"


def test_the_hub_of_an_enrollment_is_read_likewise() -> None:
    words = ("enroll", "create", "pump", "--az", "--allocation", "static", "--hub")
    assert "--iot-hubs hub-1.example.com" in made(*words, "https://hub-1.example.com/").out.replace("\\\n", "")
    done = esp_dps(*words, f"HostName=h;SharedAccessKey={KEY_B64}")
    assert done.code == 2 and "connection string" in done.err and KEY_B64[:12] not in done.err


def test_a_connection_string_in_the_place_of_a_host_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "k").write_text(KEY_B64)
    text = f"HostName=x.azure-devices-provisioning.net;SharedAccessKeyName=o;SharedAccessKey={KEY_B64}"
    for endpoint in (text, KEY_B64):
        done = esp_dps("enroll", "list", "--endpoint", endpoint, "--policy-key-file", tmp_path / "k")
        assert done.code == 2 and KEY_B64[:12] not in done.err
    assert "connection string" in esp_dps("enroll", "list", "--endpoint", text, "--policy-key-file", tmp_path / "k").err


def test_no_other_program_gets_a_secret_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(secrets.GROUP_KEY, KEY_B64)
    secrets.take_environment()
    assert secrets.GROUP_KEY not in os.environ
    assert secrets.group_key(None) == KEY_B64
    secrets.take_environment()


def test_only_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # nothing ever comes out of it
    done = esp_dps("derive-key", "dev-7", "--group-key-file", tmp_path / "pipe")
    assert done.code == 1 and "not a file" in done.err
    reading, writing = os.pipe()
    os.write(writing, KEY_B64.encode())
    os.close(writing)
    try:  # <(command) of a shell
        assert made("derive-key", "dev-7", "--group-key-file", f"/dev/fd/{reading}").out.strip() == DERIVED
    finally:
        os.close(reading)
