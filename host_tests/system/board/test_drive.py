"""Flashing a CIRCUITPY drive: what lies on it then, in which order it came, what of a user's stays.
The drive is a folder and the firmware a stand-in of a few lines; the libraries are those of PyPI."""

from __future__ import annotations

import dataclasses
import json
import ssl
from pathlib import Path

import pytest
from bench import KEY, PASSWORD
from cryptography.hazmat.primitives import serialization
from drive_bench import UID, DriveBench, blank_drive, boot_out, working
from pki import Authority, private_pem

from espdps.credentials import keys
from espdps.devices import bindings, drive_content, folders, settings_toml
from espdps.errors import ToolError

try:
    import tomllib
except ImportError:
    import tomli as tomllib  # type: ignore[no-redef]


@pytest.fixture
def bench(tmp_path: Path) -> DriveBench:
    return working(tmp_path)


def test_a_blank_drive_gets_everything_with_secrets_late_and_code_last(bench: DriveBench) -> None:
    done = bench.flash()
    libraries = sorted(name for name in done.copied if name.startswith("/lib/adafruit_"))
    assert {name.split("/")[2] for name in libraries} == {
        "adafruit_connection_manager.py", "adafruit_minimqtt", "adafruit_ticks.py",
    }  # fmt: skip
    assert [name for name in done.copied if name not in libraries] == [
        "/boot.py", "/hardware.py", "/lib/aziot/__init__.py", "/lib/aziot/one.py", "/lib/aziot/two.py",
        "/lib/ntptime.py", "/board.json", "/app.py", "/roots.pem", "/device.csr", "/device.key", "/settings.toml",
        "/code.py",
    ]  # fmt: skip
    assert bench.text("code.py") == "import app\n"
    assert "two" in bench.text("lib/aziot/two.py") and "hardware" in bench.text("hardware.py")
    assert bench.root.joinpath("device.csr").read_bytes() == (bench.device.folder / "device.csr").read_bytes()
    assert json.loads(bench.text("board.json"))["button"] == "BUTTON"
    assert bench.text("identity.a") == bench.text("identity.b") == "\n" * 12000
    assert "secrets.json" not in {path.name for path in bench.root.rglob("*")}
    assert ("libraries", "connectionmanager {}, minimqtt {}, ticks {}".format(*drive_content.versions().values())) in (
        bench.said
    )


def test_the_key_is_pem_and_that_of_the_csr(bench: DriveBench, tmp_path: Path) -> None:
    bench.flash()
    pem = bench.root / "device.key"
    key = serialization.load_pem_private_key(pem.read_bytes(), None)
    der = (bench.device.folder / "device.key").read_bytes()
    assert keys.key_der(key) == der  # type: ignore[arg-type]
    with pytest.raises(ssl.SSLError):  # why PEM: what ssl loads from files is nothing else
        ssl.create_default_context().load_cert_chain(bench.device.folder / "device.key")


def test_settings_say_what_the_folder_says(bench: DriveBench) -> None:
    bench.flash()
    table = tomllib.loads(bench.text("settings.toml"))
    config = bench.device.config
    assert table == {
        "CIRCUITPY_WIFI_SSID": "Greenhouse",
        "CIRCUITPY_WIFI_PASSWORD": PASSWORD,
        **{f"AZIOT_{name.upper()}": value for name, value in config.items() if name != "ntp"},
        "AZIOT_NTP": "pool.ntp.org,time.windows.com",
        "AZIOT_DEVICE_KEY": KEY,
    }


@pytest.mark.parametrize(
    "text", ['a"b', "back\\slash", "# no comment", "[no table]", "ü€😀", "a\tb\x01\x7f", " = ", "'", "\\u0041", ""]
)
def test_any_name_and_password_survive(text: str) -> None:
    table: dict[str, str | int] = {"CIRCUITPY_WIFI_SSID": text, "CIRCUITPY_WIFI_PASSWORD": text[::-1]}
    content = settings_toml.merged(table, b"")
    marked = settings_toml.merged(table, b"\xef\xbb\xbfMINE = 1\r\n")  # as Notepad saves it
    assert tomllib.loads(marked.decode())["MINE"] == 1
    assert tomllib.loads(content.decode()) == table
    # The documented escapes only, and each line one entry
    assert content.count(b"\n") == 3 and not set(content) & {*range(10), *range(11, 32), 127}


def test_settings_of_other_types() -> None:
    config = {"chain": False, "report": True, "port": 8883, "ntp": ["a", "b"]}
    assert settings_toml.entries(config, {"other": "x"}) == {
        "AZIOT_CHAIN": 0, "AZIOT_REPORT": 1, "AZIOT_PORT": 8883, "AZIOT_NTP": "a,b",
    }  # fmt: skip
    payload = {"site": "K\u00f6ln", "floor": 2}
    assert json.loads(str(settings_toml.entries({"payload": payload}, {})["AZIOT_PAYLOAD"])) == payload
    assert settings_toml.entries({}, {"device_key": "a", "secondary_device_key": "b"}) == {
        "AZIOT_DEVICE_KEY": "a", "AZIOT_SECONDARY_DEVICE_KEY": "b",
    }  # fmt: skip
    assert b"AZIOT_CHAIN = 0\nAZIOT_REPORT = 1\n" in settings_toml.text(settings_toml.entries(config, {}))
    for value in (None, 1.5, {"a": 1}, [1], ["a,b"]):
        with pytest.raises(ToolError, match="ntp of device.json cannot be said"):
            settings_toml.entries({"ntp": value}, {})
    with pytest.raises(ToolError, match="AZIOT_WILL holds a character"):
        settings_toml.text({"AZIOT_WILL": "a\0b"})


def test_a_users_lines_stay_and_ours_are_said_once(bench: DriveBench) -> None:
    own = b'# mine\r\nTOKEN = "x"\r\nAZIOT_OLD = 1\r\nCIRCUITPY_WIFI_SSID = "before"\r\n[table]\r\nAZIOT_OLD = 2'
    (bench.root / "settings.toml").write_bytes(own)
    bench.flash()
    first = (bench.root / "settings.toml").read_bytes()
    assert first.endswith(b'# mine\r\nTOKEN = "x"\r\n[table]\r\nAZIOT_OLD = 2')
    table = tomllib.loads(first.decode())
    assert table["CIRCUITPY_WIFI_SSID"] == "Greenhouse" and table["TOKEN"] == "x" and "AZIOT_OLD" not in table
    assert not bench.flash().copied and (bench.root / "settings.toml").read_bytes() == first


def test_only_what_differs_is_copied_and_code_is_away_meanwhile(bench: DriveBench) -> None:
    first = bench.flash()
    second = bench.flash()
    assert not second.copied and not second.removed and sorted(second.same) == sorted(first.copied)
    (bench.firmware / "aziot" / "one.py").write_text("NAME = 'changed'\n")
    seen: list[bool] = []
    third = bench.flash(
        tell=lambda step, text: seen.append((bench.root / "code.py").exists()) if step == "copied" else None
    )
    assert third.copied == ["/lib/aziot/one.py", "/code.py"] and seen == [False, True]
    assert "changed" in bench.text("lib/aziot/one.py")


def test_old_modules_go_and_the_users_files_stay(bench: DriveBench) -> None:
    bench.flash()
    for name in ("lib/aziot/gone.py", "lib/aziot/one.mpy", "lib/own.py", "data.txt", "onboarding.key"):
        (bench.root / name).write_text("")
    done = bench.flash()
    assert sorted(done.removed) == ["/lib/aziot/gone.py", "/lib/aziot/one.mpy", "/onboarding.key"]
    assert (bench.root / "lib/own.py").exists() and (bench.root / "data.txt").exists()


def test_a_library_that_is_there_as_mpy_is_left(bench: DriveBench) -> None:
    (bench.root / "lib/adafruit_ticks.mpy").write_bytes(b"C\x06")
    done = bench.flash()
    assert "/lib/adafruit_ticks.py" not in done.copied and not (bench.root / "lib/adafruit_ticks.py").exists()
    assert any(step == "note" and "/lib/adafruit_ticks.py" in text for step, text in bench.said)
    assert bench.flash(verify=True).differs == []


def test_an_issued_identity_stays_with_its_device_alone(bench: DriveBench, tmp_path: Path) -> None:
    bench.flash()
    (bench.root / "identity.a").write_text("A issued")
    bench.flash()
    assert bench.text("identity.a") == "A issued"
    config = {**bench.device.config, "id_scope": "0ne00FFFFFF"}
    (bench.device.folder / "device.json").write_text(json.dumps(config))
    bench.device = folders.load(bench.device.folder)
    done = bench.flash()
    assert done.removed == ["/identity.a"] and bench.text("identity.a") == "\n" * 12000


def test_another_key_ends_an_issued_identity(bench: DriveBench, tmp_path: Path) -> None:
    bench.flash()
    (bench.root / "identity.b").write_text("A issued")
    plan = dataclasses.replace(working(tmp_path / "other").device, folder=bench.device.folder)
    for name in ("device.csr", "device.key", "manifest.json"):
        (bench.device.folder / name).write_bytes((tmp_path / "other/devices/dev-1" / name).read_bytes())
    bench.device = folders.load(plan.folder)
    bench.flash()
    assert bench.text("identity.b") == "\n" * 12000


def test_verify_copies_nothing_and_app_only_the_application(bench: DriveBench) -> None:
    before = sorted(path for path in bench.root.rglob("*"))
    done = bench.flash(verify=True)
    assert "/code.py" in done.differs and "/identity.a" in done.differs and not done.copied
    assert sorted(path for path in bench.root.rglob("*")) == before
    assert bindings.read(bench.device.folder.parent) == {}
    (bench.firmware / "helper.py").write_text("")
    assert bench.flash(app_only=True).copied == ["/app.py", "/helper.py"]
    assert bindings.read(bench.device.folder.parent) == {}


def test_a_board_is_bound_by_its_uid(bench: DriveBench, tmp_path: Path) -> None:
    bench.flash()
    bound = bindings.read(bench.device.folder.parent)["dev-1"]
    assert bound.chip_id == UID.lower() and bound.flashed_at
    bench.root = blank_drive(tmp_path / "other", boot_out(uid="0123456789AB"))
    for verify in (True, False):
        with pytest.raises(ToolError, match=f"dev-1 is already on chip {UID.lower()}"):
            bench.flash(verify=verify)
    assert not (bench.root / "device.key").exists()
    bench.flash(rebind=True)
    assert bindings.read(bench.device.folder.parent)["dev-1"].chip_id == "0123456789ab"


def test_an_onboarding_credential_goes_as_pem(tmp_path: Path) -> None:
    authority, key = Authority("Contoso root"), keys.new_key("ec-p256")
    onboarding = authority.issue("dev-1", key), keys.key_der(key)
    bench = working(tmp_path, onboarding=onboarding, device_key=None)
    done = bench.flash()
    assert done.copied[-5:] == ["/onboarding.crt", "/onboarding.key", "/device.key", "/settings.toml", "/code.py"]
    assert (bench.root / "onboarding.key").read_bytes() == private_pem(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(bench.root / "onboarding.crt", bench.root / "onboarding.key")
    table = tomllib.loads(bench.text("settings.toml"))
    assert table["AZIOT_AUTH"] == "x509" and "AZIOT_DEVICE_KEY" not in table
