"""A project folder: what init makes, where commands take their defaults from, and where they put things."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from workshop import esp_dps, made

from espdps import paths
from espdps.credentials import roots
from espdps.devices import application, project
from espdps.errors import ToolError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KEY = base64.b64encode(bytes(range(64))).decode()
AZURE = 'id_scope = "0ne00ABCDEF"\nboard = "UNIX"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, without any variable of ours."""
    for name in ("ID_SCOPE", "SIM", "BOARD", "PORT", "DEVICES"):
        monkeypatch.delenv(f"ESPDPS_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def simulator(folder: Path, id_scope: str) -> Path:
    """What a running simulator's folder has, as far as `new` reads it."""
    folder.mkdir()
    group = {"id": "g", "attestation": "symmetricKey", "primary_key": KEY}
    info = {"host": "localhost", "mqtt_port": 12345, "ntp_port": 3, "id_scope": id_scope, "groups": [group]}
    (folder / "sim.json").write_text(json.dumps(info | {"roots": str(folder / "roots.pem")}))
    (folder / "roots.pem").write_bytes(roots.azure_roots())
    return folder


def config(device: str) -> dict[str, object]:
    return dict(json.loads((Path("devices") / device / "device.json").read_bytes()))


def test_init_makes_a_project_and_overwrites_nothing(folder: Path) -> None:
    (folder / "here").mkdir()
    (folder / "here" / "README.md").write_text("mine")
    done = made(
        "init",
        "here",
        "--id-scope",
        "0ne00ABCDEF",
        "--board",
        "UNIX",
        "--wifi-ssid",
        'Bob\'s "Net" \\',
        "--port",
        "COM3",
    )
    assert sorted(str(path.relative_to("here")) for path in Path("here").rglob("*") if path.is_file()) == [
        ".gitignore", "README.md", "app/app.py", "esp-dps.toml",
    ]  # fmt: skip
    assert tomllib.loads(Path("here/esp-dps.toml").read_text()) == {
        "id_scope": "0ne00ABCDEF", "board": "UNIX", "wifi_ssid": 'Bob\'s "Net" \\', "port": "COM3",
    }  # fmt: skip
    assert Path("here/README.md").read_text() == "mine" and "kept  here/README.md" in done.out
    assert Path("here/app/app.py").read_bytes() == (paths.FIRMWARE / "app.py").read_bytes()
    before = Path("here/esp-dps.toml").read_bytes()
    again = esp_dps("init", "here", "--board", "ESP32_GENERIC")
    assert again.code == 1 and "already exists" in again.err
    assert Path("here/esp-dps.toml").read_bytes() == before


def test_init_without_an_id_scope_uses_a_simulator(folder: Path) -> None:
    assert made("init", "--json").table["kept"] == []
    assert tomllib.loads(Path("esp-dps.toml").read_text()) == {"simulator": "sim"}


@pytest.mark.parametrize(
    "words", [["--board", "ESP9"], ["--id-scope", "x"], ["--id-scope", "0ne00ABCDEF", "--sim", "s"]]
)
def test_init_refuses_what_no_command_could_use(folder: Path, words: list[str]) -> None:
    assert esp_dps("init", *words).code == 2
    assert list(folder.iterdir()) == []


def test_the_gitignore_covers_every_secret_that_the_tools_make(folder: Path) -> None:
    made("init", "--id-scope", "0ne00ABCDEF", "--board", "UNIX")
    made("new", "dev-1", ESPDPS_GROUP_KEY=KEY)
    made("ca", "root", "Contoso")
    made("ca", "device", "dev-1")
    made("keygen", "device.pem")
    made("keygen", "line.key")
    Path("pfx.passphrase").write_text("secret words here")
    made(
        "pfx", "export", "d.pfx", "--cert", "ca/devices/dev-1.crt", "--key-file", "ca/devices/dev-1.key",
        "--new-passphrase-file", "pfx.passphrase",
    )  # fmt: skip
    subprocess.run(["git", "init", "-q"], check=True, timeout=30)
    subprocess.run(["git", "add", "."], check=True, timeout=30)
    added = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, timeout=30).stdout.split()
    assert sorted(added) == [".gitignore", "README.md", "app/app.py", "esp-dps.toml"]


def test_devices_and_authority_are_in_the_project_from_any_folder_below(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "esp-dps.toml").write_text(AZURE)
    (folder / "app" / "deep").mkdir(parents=True)
    monkeypatch.chdir(folder / "app" / "deep")
    made("new", "dev-1", ESPDPS_GROUP_KEY=KEY)
    made("ca", "root", "Contoso")
    assert (folder / "devices" / "dev-1" / "device.json").is_file() and (folder / "ca" / "root.crt").is_file()
    assert list((folder / "app").rglob("*")) == [folder / "app" / "deep"]


def test_without_a_project_they_are_in_the_current_folder(folder: Path) -> None:
    made("new", "dev-1", "--id-scope", "0ne00ABCDEF", "--board", "UNIX", ESPDPS_GROUP_KEY=KEY)
    made("ca", "root", "Contoso")
    assert sorted(path.name for path in folder.iterdir()) == ["ca", "devices"]


def test_in_the_checkout_they_are_in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(paths.ROOT / "docs")
    assert paths.devices() == paths.ROOT / "devices" and paths.authority() == Path("../ca")
    assert project.app() is None


def test_an_option_comes_before_the_environment_and_that_before_the_file(folder: Path) -> None:
    Path("esp-dps.toml").write_text(AZURE)
    made("new", "by-file", ESPDPS_GROUP_KEY=KEY)
    made("new", "by-environment", ESPDPS_GROUP_KEY=KEY, ESPDPS_ID_SCOPE="0neENV", ESPDPS_BOARD="ESP32_GENERIC")
    made(
        "new", "by-option", "--id-scope", "0neOPTION", "--board", "UNIX", ESPDPS_GROUP_KEY=KEY, ESPDPS_ID_SCOPE="0neENV"
    )
    assert config("by-file")["id_scope"] == "0ne00ABCDEF"
    assert config("by-environment")["id_scope"] == "0neENV"
    assert json.loads(Path("devices/by-environment/manifest.json").read_bytes())["board"] == "ESP32_GENERIC"
    assert config("by-option")["id_scope"] == "0neOPTION"


def test_a_simulator_that_is_named_nearer_comes_before_an_id_scope(folder: Path) -> None:
    simulator(folder / "one", "0neONE")
    simulator(folder / "two", "0neTWO")
    Path("esp-dps.toml").write_text(AZURE)
    made("new", "a", "--sim", "one")
    made("new", "b", ESPDPS_SIM="two")
    made("new", "c", ESPDPS_ID_SCOPE="0neENV", ESPDPS_GROUP_KEY=KEY)
    assert [config(name)["id_scope"] for name in "abc"] == ["0neONE", "0neTWO", "0neENV"]
    Path("esp-dps.toml").write_text('simulator = "one"\nboard = "UNIX"\n')
    made("new", "d")
    made("new", "e", ESPDPS_SIM="two")
    made("new", "f", "--id-scope", "0neOPTION", ESPDPS_GROUP_KEY=KEY, ESPDPS_SIM="two")
    assert [config(name)["id_scope"] for name in "def"] == ["0neONE", "0neTWO", "0neOPTION"]
    assert config("f")["dps_host"] == "global.azure-devices-provisioning.net"
    Path("plan.csv").write_text("registration_id\ng\n")
    made("fleet", "plan.csv")
    assert config("g")["id_scope"] == "0neONE"


def test_the_groups_key_is_read_from_the_file_that_the_project_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("esp-dps.toml").write_text(AZURE + 'group_key_file = "group.key"\n')
    Path("group.key").write_text(KEY + "\n")
    (folder / "app").mkdir()
    monkeypatch.chdir(folder / "app")
    made("new", "dev-1")
    derived = made("derive-key", "dev-1", ESPDPS_GROUP_KEY=KEY).out.strip()
    assert json.loads((folder / "devices/dev-1/secrets.json").read_bytes())["device_key"] == derived


def test_the_ports_default(folder: Path) -> None:
    Path("esp-dps.toml").write_text(AZURE + 'port = "board/port"\n')
    assert f"{folder}/board/port is not there" in esp_dps("monitor").err
    assert "/nowhere/tty is not there" in esp_dps("monitor", ESPDPS_PORT="/nowhere/tty").err
    made("new", "dev-1", ESPDPS_GROUP_KEY=KEY)
    (folder / "app").mkdir()
    (folder / "app" / "app.py").write_text("")
    assert f"{folder}/board/port is not there" in esp_dps("flash", "dev-1").err
    Path("esp-dps.toml").write_text(AZURE)
    done = esp_dps("monitor")
    assert done.code == 2 and "no port is given" in done.err and "ESPDPS_PORT" in done.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bord = 'UNIX'", "write board"),
        ("board = 3", "'board' is not a text"),
        ("board = ''", "'board' is not a text"),
        ("board", "is not valid TOML"),
        ("id_scope = '0neA'\nsimulator = 'sim'", "both id_scope and simulator"),
    ],
)
def test_a_mistake_in_the_file_is_named(folder: Path, text: str, says: str) -> None:
    Path("esp-dps.toml").write_text(text)
    done = esp_dps("new", "dev-1")
    assert done.code == 2 and says in done.err and "esp-dps.toml" in done.err
    assert made("--version").out and made("new", "--help").out  # neither needs the file


def test_the_application_is_the_projects(folder: Path) -> None:
    Path("esp-dps.toml").write_text(AZURE)
    (folder / "app").mkdir()
    (folder / "app" / "app.py").write_text("import sensor")
    (folder / "app" / "sensor.py").write_text("pass")
    (folder / "app" / "notes.txt").write_text("")
    found = project.app()
    assert found and application.read(found) == {"/app.py": b"import sensor", "/sensor.py": b"pass"}
    assert application.read(paths.FIRMWARE / "examples" / "sensor.py").keys() == {"/app.py"}
    (folder / "app" / "main.py").write_text("")
    with pytest.raises(ToolError, match="main.py has the name of a file of the firmware"):
        application.read(found)
    (folder / "app" / "app.py").unlink()
    with pytest.raises(ToolError, match="holds no application"):
        application.read(found)
    with pytest.raises(ToolError, match="does not exist"):
        application.read(folder / "elsewhere")
