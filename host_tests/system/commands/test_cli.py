"""The command esp-dps as a user or a script meets it: options, exit codes, output, no secret where none belongs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from espdps.paths import ROOT

GROUP_KEY = base64.b64encode(bytes(range(64))).decode()
PASSWORD = "correct horse battery"
COMMANDS = """
    init new list doctor register fleet flash monitor explain erase backup restore sim board demo keygen csr derive-key sas inspect
""".split()


def esp_dps(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ESPDPS_")}
    return subprocess.run(
        [sys.executable, "-m", "espdps.cli", *map(str, words)],
        env={**clean, "PYTHONPATH": str(ROOT / "tools"), "COLUMNS": "120", **environment},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.fixture
def group_key(tmp_path: Path) -> Path:
    path = tmp_path / "group.key"
    path.write_text(GROUP_KEY + "\n")
    return path


def new(tmp_path: Path, *words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    common = ("--id-scope", "0ne00ABCDEF", "--board", "ESP32_GENERIC_C3", "--devices", tmp_path / "devices")
    return esp_dps("new", "dev-1", *common, *words, **environment)


def test_help_is_a_small_manual() -> None:
    text = esp_dps("--help").stdout
    for word in (*COMMANDS, "EXAMPLE", "ESPDPS_GROUP_KEY", "0  done", "1  failed", "2  wrong use", "3  refused"):
        assert word in text


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example(command: str) -> None:
    done = esp_dps(command, "--help")
    assert done.returncode == 0
    assert "EXAMPLE" in done.stdout
    assert str(ROOT) not in done.stdout


@pytest.mark.parametrize("command", ["flash", "monitor", "erase", "backup", "restore"])
def test_help_fits_a_terminal(command: str) -> None:
    lines = esp_dps(command, "--help", COLUMNS="80").stdout.splitlines()
    assert len(lines) > 10 and max(map(len, lines)) <= 80


def test_new_says_in_one_line_what_it_made(tmp_path: Path, group_key: Path) -> None:
    done = new(tmp_path, "--group-key-file", group_key)
    assert done.returncode == 0 and "no --wifi-ssid" in done.stderr and done.stderr.count("\n") == 1
    assert done.stdout.count("\n") == 1 and "ec-p384 key and CSR" in done.stdout
    again = new(tmp_path, "--group-key-file", group_key)
    assert again.returncode == 1 and "--force" in again.stderr
    assert new(tmp_path, "--group-key-file", group_key, "--force").returncode == 0


def test_new_for_a_script(tmp_path: Path) -> None:
    done = new(tmp_path, "--json", "--key-type", "ec-p256", ESPDPS_GROUP_KEY=GROUP_KEY)
    table = json.loads(done.stdout)
    assert table["registration_id"] == "dev-1" and table["key_type"] == "ec-p256" and len(table["csr_sha256"]) == 64
    assert Path(table["folder"]) == tmp_path / "devices" / "dev-1"


def test_the_key_is_the_same_from_file_environment_and_command(tmp_path: Path, group_key: Path) -> None:
    assert new(tmp_path, "--group-key-file", group_key).returncode == 0
    in_folder = json.loads((tmp_path / "devices" / "dev-1" / "secrets.json").read_bytes())["device_key"]
    printed = esp_dps("derive-key", "dev-1", ESPDPS_GROUP_KEY=GROUP_KEY)
    assert printed.stdout == in_folder + "\n" and printed.stderr == ""
    assert json.loads(esp_dps("derive-key", "dev-1", "--group-key-file", group_key, "--json").stdout) == {
        "registration_id": "dev-1",
        "device_key": in_folder,
    }


def test_a_second_group_key_gives_a_second_device_key(tmp_path: Path, group_key: Path) -> None:
    other = base64.b64encode(bytes(range(64, 128))).decode()
    (tmp_path / "other.key").write_text(other)
    both = ("--group-key-file", group_key, "--secondary-group-key-file", tmp_path / "other.key")
    assert new(tmp_path, *both).returncode == 0
    made = json.loads((tmp_path / "devices" / "dev-1" / "secrets.json").read_bytes())
    for name, key in (("device_key", GROUP_KEY), ("secondary_device_key", other)):
        digest = hmac.new(base64.b64decode(key), b"dev-1", hashlib.sha256).digest()  # DPS, symmetric key attestation
        assert made[name] == base64.b64encode(digest).decode()
    done = new(tmp_path, "--device-key-file", group_key, "--secondary-group-key-file", group_key, "--force")
    assert done.returncode == 2 and "--secondary-group-key-file" in done.stderr


def test_an_individual_key_is_taken_as_it_is(tmp_path: Path, group_key: Path) -> None:
    assert new(tmp_path, "--device-key-file", group_key).returncode == 0
    assert json.loads((tmp_path / "devices" / "dev-1" / "secrets.json").read_bytes())["device_key"] == GROUP_KEY


def test_wifi_password_from_a_file_and_from_the_environment(tmp_path: Path, group_key: Path) -> None:
    file = tmp_path / "wifi"
    file.write_text(PASSWORD + "\n")
    key = ("--group-key-file", group_key, "--wifi-ssid", "Greenhouse", "--force")
    for words, environment in (((), {"ESPDPS_WIFI_PASSWORD": PASSWORD}), (("--wifi-password-file", file), {})):
        done = new(tmp_path, *key, *words, **environment)
        assert done.returncode == 0, done.stderr
        secrets = json.loads((tmp_path / "devices" / "dev-1" / "secrets.json").read_bytes())
        assert (secrets["wifi_ssid"], secrets["wifi_password"]) == ("Greenhouse", PASSWORD)


def test_a_token_from_the_device_folder(tmp_path: Path, group_key: Path) -> None:
    assert new(tmp_path, "--group-key-file", group_key).returncode == 0
    before = int(time.time())
    done = esp_dps("sas", "dev-1", "--seconds", "600", "--devices", tmp_path / "devices", "--json")
    table = json.loads(done.stdout)
    assert before + 600 <= table["expires"] <= int(time.time()) + 600
    assert table["token"].startswith("SharedAccessSignature sr=0ne00ABCDEF%2Fregistrations%2Fdev-1&sig=")
    hub = esp_dps("sas", "dev-1", "--hub", "h.azure-devices.net", "--devices", tmp_path / "devices").stdout
    assert hub.startswith("SharedAccessSignature sr=h.azure-devices.net%2Fdevices%2Fdev-1&sig=") and "skn" not in hub


def test_everything_from_a_simulators_folder(tmp_path: Path) -> None:
    root = tmp_path / "roots.pem"
    assert new(tmp_path, ESPDPS_GROUP_KEY=GROUP_KEY).returncode == 0  # for a file of roots
    root.write_bytes((tmp_path / "devices" / "dev-1" / "roots.pem").read_bytes())
    groups = [
        {"id": "x", "attestation": "x509"},
        {"id": "g", "attestation": "symmetricKey", "primary_key": GROUP_KEY},
    ]
    info = {"host": "localhost", "mqtt_port": 12345, "ntp_port": 3, "id_scope": "0neSIM", "roots": str(root)}
    info |= {"groups": groups}
    (tmp_path / "sim.json").write_text(json.dumps(info))
    done = esp_dps("new", "dev-2", "--board", "UNIX", "--sim", tmp_path, "--devices", tmp_path / "devices")
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "devices" / "dev-2" / "device.json").read_bytes())
    assert (config["dps_host"], config["port"], config["id_scope"]) == ("localhost", 12345, "0neSIM")
    assert config["spread"] == 5  # seconds; a person waits for this board
    secrets = json.loads((tmp_path / "devices" / "dev-2" / "secrets.json").read_bytes())
    assert secrets["device_key"] == esp_dps("derive-key", "dev-2", ESPDPS_GROUP_KEY=GROUP_KEY).stdout.strip()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["new"], "Missing argument"),
        (["new", "dev-1"], "no board is given"),
        (["new", "dev-1", "--board", "UNIX"], "no id scope"),
        (["new", "dev-1", "--board", "UNIX", "--id-scope", "0ne00ABCDEF"], "no group key given"),
        (["new", "-dev"], "No such option"),
        (["new", "dev/1", "--board", "UNIX", "--id-scope", "0ne00ABCDEF"], "no registration id"),
        (["new", "dev-1", "--board", "UNIX", "--id-scope", "0ne00ABCDEF", "--group-key", GROUP_KEY], "No such option"),
        (["derive-key", "dev-1"], "ESPDPS_GROUP_KEY in the environment"),
        (["sas", "nobody", "--hub", "h", "--seconds", "0"], "Invalid value"),
        (["flash", "nobody", "--port", "/dev/null"], "no device 'nobody'"),
        (["board", "--dir", "/nowhere", "--board", "ESP9"], "no board profile"),
        (["frob"], "No such command"),
    ],
)
def test_wrong_use_is_exit_code_2(words: list[str], says: str) -> None:
    done = esp_dps(*words)
    assert done.returncode == 2
    assert says in done.stderr
    assert GROUP_KEY not in done.stderr + done.stdout and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["monitor", "flash"])
def test_a_port_that_is_not_there(tmp_path: Path, group_key: Path, command: str) -> None:
    # complete, so that nothing is said of the folder before the port is opened
    new(tmp_path, "--group-key-file", group_key, "--wifi-ssid", "Greenhouse", ESPDPS_WIFI_PASSWORD=PASSWORD)
    words = ("dev-1", "--devices", tmp_path / "devices") if command == "flash" else ()
    done = esp_dps(command, *words, "--port", tmp_path / "ttyUSB0")
    assert done.returncode == 1
    assert "ttyUSB0 is not there" in done.stderr and "plugged in?" in done.stderr


def test_a_bad_secret_is_not_shown(tmp_path: Path, group_key: Path) -> None:
    group_key.write_text("hunter2hunter2 is no base64")
    done = new(tmp_path, "--group-key-file", group_key)
    assert done.returncode == 2 and "hunter2" not in done.stdout + done.stderr
    group_key.write_bytes(b"\xff\xfe\x00")
    done = new(tmp_path, "--group-key-file", group_key)
    assert done.returncode == 1 and "is not text" in done.stderr


def test_no_secret_in_any_output_of_new(tmp_path: Path, group_key: Path) -> None:
    for words in ((), ("--json", "--force"), ("--no-csr", "--force"), ()):
        done = new(tmp_path, "--group-key-file", group_key, "--wifi-ssid", "x", *words, ESPDPS_WIFI_PASSWORD=PASSWORD)
        secrets = json.loads((tmp_path / "devices" / "dev-1" / "secrets.json").read_bytes())
        for secret in (GROUP_KEY, PASSWORD, secrets["device_key"]):
            assert secret not in done.stdout + done.stderr


def test_no_option_takes_a_secret() -> None:
    for command in ("new", "derive-key", "sas"):
        options = [word.strip(".:,") for word in esp_dps(command, "--help").stdout.split() if word.startswith("--")]
        named = [word for word in options if "key" in word or "password" in word]
        assert set(named) <= {
            "--group-key-file",
            "--secondary-group-key-file",
            "--device-key-file",
            "--onboarding-key-file",
            "--wifi-password-file",
            "--key-type",
        }


def test_a_closed_pipe_is_no_traceback() -> None:
    command = f"{sys.executable} -m espdps.cli --help | true"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr


@contextmanager
def served(there: str, *words: str | Path) -> Iterator[None]:
    """A command that serves, from the line that has `there` in it until Ctrl-C, which it must end at with 0."""
    command = [sys.executable, "-m", "espdps.cli", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools"), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        killer = threading.Timer(60, running.kill)  # a deadline for all of it
        killer.start()
        try:
            while there not in (line := running.stdout.readline()):
                assert line, f"{words[0]} ended before it served"
            yield
            running.send_signal(signal.SIGINT)
            assert running.wait(20) == 0
        finally:
            killer.cancel()
            running.kill()


def test_sim_and_board_serve_until_they_are_stopped(tmp_path: Path) -> None:
    sim, board = tmp_path / "sim", tmp_path / "board"
    with served("see ", "sim", "--dir", sim):
        assert json.loads((sim / "sim.json").read_bytes())["id_scope"].startswith("0ne")
        with served("/dev/", "board", "--dir", board, "--board", "ESP32_GENERIC_S2", "--sim", sim):
            assert (board / "port").exists()
    assert not (board / "port").exists()
