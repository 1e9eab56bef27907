"""`esp-dps enroll`: a person and a script at the DPS service API, against the simulator and against services gone bad."""

from __future__ import annotations

import base64
import http.server
import json
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simulator_client import api_call, derive, dps_device, finish, group_key
from simulator_pki import registered

from espdps.paths import ROOT
from espdps.simulator import Options, Simulator, serving

# Options of az iot dps: azure-iot 0.32.0b1 by its reference, and the last three of 1.0.0b2, which came in the place of
# --credential-policy-name.
AZ_OPTIONS = """
    --dps-name --resource-group --enrollment-id --attestation-type --primary-key --secondary-key --certificate-path
    --secondary-certificate-path --root-ca-name --secondary-root-ca-name --device-id --credential-policy-name
    --reprovision-policy --allocation-policy --iot-hubs --webhook-url --api-version --initial-twin-tags
    --initial-twin-properties --edge-enabled --provisioning-status --registration-id --certificate-name --path --etag
    --show-keys --query --output --auth-type --adr-namespace --adr-ca-name --adr-cert-policy-name
""".split()
CERTIFICATE_FILES = ("--path", "--certificate-path", "--secondary-certificate-path")


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with serving(tmp_path_factory.mktemp("enroll"), Options(retry_after=0, assigning=0)) as simulator:
        yield simulator


def esp_dps(*words: str | Path, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ESPDPS_")}
    return subprocess.run(
        [sys.executable, "-m", "espdps.cli", *map(str, words)],
        env={**clean, "PYTHONPATH": str(ROOT / "tools"), "COLUMNS": "120", **environment},
        cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def enroll(sim: Simulator, *words: str | Path, folder: Path | None = None) -> str:
    done = esp_dps("enroll", *words, "--sim", sim.directory, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(code: int, sim: Simulator, *words: str | Path, folder: Path | None = None) -> str:
    done = esp_dps("enroll", *words, "--sim", sim.directory, folder=folder)
    assert done.returncode == code, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr and not done.stdout
    return done.stderr


def made(sim: Simulator, folder: Path, name: str, *words: str | Path) -> None:
    """A device folder in folder/devices."""
    common = ("new", name, "--sim", sim.directory, "--board", "UNIX", "--devices", "devices", "--key-type", "ec-p256")
    done = esp_dps(*common, *words, folder=folder)
    assert done.returncode == 0, done.stderr


def key_file(folder: Path, name: str = "a.key") -> tuple[Path, str]:
    key = base64.b64encode(os.urandom(64)).decode()
    (folder / name).write_text(key + "\n")
    return folder / name, key


def test_a_device_by_one_command(sim: Simulator, tmp_path: Path) -> None:
    """Its key is derived from a group's; alone it is as good as any."""
    key = derive(base64.b64encode(os.urandom(64)).decode(), "one")
    (tmp_path / "one.key").write_text(key)
    made(sim, tmp_path, "one", "--device-key-file", "one.key")
    words = ("device", "one", "--devices", "devices")
    assert json.loads(enroll(sim, *words, "--json", folder=tmp_path)) == {
        "id": "one", "kind": "individual", "attestation": "symmetricKey", "status": "enabled",
        "policy": "default/issuer/default",
        "allocation": "hashed", "hubs": [], "created": True,
    }  # fmt: skip
    with dps_device(sim.info, "one", key) as device:
        assert finish(device, "one")["status"] == "assigned"
    again = enroll(sim, *words, folder=tmp_path)
    assert "was enrolled already" in again and again.count("\n") == 1
    enroll(sim, "disable", "one")
    assert "one is there already and is disabled" in refused(1, sim, *words, folder=tmp_path)
    with dps_device(sim.info, "one", key) as device:
        device.register("one")
        assert device.answer().body["status"] == "disabled"
    enroll(sim, "enable", "one")
    with dps_device(sim.info, "one", key) as device:  # the key is the same after both changes
        assert finish(device, "one")["status"] == "assigned"
    _, other = key_file(tmp_path, "one.key")
    made(sim, tmp_path, "one", "--device-key-file", "one.key", "--force")
    assert "has other keys" in refused(1, sim, *words, folder=tmp_path)
    assert other not in again


def test_a_device_by_a_group(sim: Simulator, tmp_path: Path) -> None:
    file, key = key_file(tmp_path, "group.key")
    made(sim, tmp_path, "two", "--group-key-file", file)
    words = ("device", "two", "--devices", "devices", "--group", "line-7")
    assert "Enrollment not found" in refused(3, sim, *words, folder=tmp_path)  # whose key would it have?
    assert "enrolled" in enroll(sim, *words, "--group-key-file", file, folder=tmp_path)
    with dps_device(sim.info, "two", derive(key, "two")) as device:
        assert finish(device, "two")["status"] == "assigned"
    assert "already" in enroll(sim, *words, folder=tmp_path)
    assert "other keys" in refused(1, sim, *words[:-1], "boards", folder=tmp_path)
    wrong, _ = key_file(tmp_path, "wrong.key")
    assert "not derived" in refused(1, sim, *words, "--group-key-file", wrong, folder=tmp_path)
    rows = [json.loads(line) for line in enroll(sim, "registrations", "line-7", "--json").splitlines()]
    assert [(row["registration"], row["hub"], row["status"]) for row in rows] == [
        ("two", "hub-1.localhost", "assigned")
    ]
    assert "deleted" in enroll(sim, "registration", "two", "--delete")
    assert "404202" in refused(3, sim, "registration", "two")


def test_x509_from_the_root_to_a_registration(sim: Simulator, tmp_path: Path) -> None:
    """By the authority of `esp-dps ca`: its own enrollment, a named and verified authority, and a signer's certificate."""
    for words in (("root", "R"), ("intermediate", "I"), ("device", "three")):
        assert esp_dps("ca", *words, folder=tmp_path).returncode == 0
    pair = ("--onboarding-cert", "ca/devices/three.crt", "--onboarding-key-file", "ca/devices/three.key")
    made(sim, tmp_path, "three", *pair)
    pem = tmp_path / "three.pem"
    pem.write_bytes((tmp_path / "ca/devices/three.crt").read_bytes() + (tmp_path / "ca/devices/three.key").read_bytes())
    words = ("device", "three", "--devices", "devices")

    assert "no" in enroll(sim, "ca", "upload", "contoso", "--cert", "ca/root.crt", folder=tmp_path).split()
    message = refused(3, sim, *words, "--group", "named", "--ca", "contoso", folder=tmp_path)
    assert "not a verified certificate" in message and "tracking id" in message
    assert "another" not in enroll(sim, "ca", "verify", "contoso", folder=tmp_path)
    row = json.loads(enroll(sim, "ca", "list", "--json"))
    assert (row["name"], row["subject"], row["verified"]) == ("contoso", "CN=R", "yes")

    assert "which authority" in refused(2, sim, *words, "--group", "named", folder=tmp_path)
    for group, way in (("named", ("--ca", "contoso")), ("signed", ("--signer", "ca/intermediate.crt"))):
        enroll(sim, *words, "--group", group, *way, folder=tmp_path)
        assert registered(sim.info, "three", pem)["x509"]["enrollmentGroupId"] == group
        assert "already" in enroll(sim, *words, "--group", group, *way, folder=tmp_path)
        enroll(sim, "delete", group, "--group")
    enroll(sim, *words, folder=tmp_path)
    assert "enrollmentGroupId" not in registered(sim.info, "three", pem)["x509"]
    enroll(sim, "ca", "delete", "contoso")
    assert not enroll(sim, "ca", "list")

    assert esp_dps("ca", "root", "Other", "--dir", "other", folder=tmp_path).returncode == 0
    message = refused(1, sim, *words, "--group", "g", "--signer", "other/root.crt", folder=tmp_path)
    assert "does not lead to other/root.crt" in message


def test_all_that_create_can_say(sim: Simulator, tmp_path: Path) -> None:
    url = tmp_path / "url"
    url.write_text("http://127.0.0.1:1/api?code=s3cret-of-the-function\n")
    file, key = key_file(tmp_path)
    words = ("--key-file", file, "--device-id", "pump", "--credential-policy", "default/issuer/default")
    more = (
        "--allocation",
        "custom",
        "--webhook-url-file",
        url,
        "--hub",
        "hub-1.localhost",
        "--tags",
        '{"a": 1}',
        "--desired",
        '{"b": 2}',
    )
    output = enroll(sim, "create", "all", *words, *more, "--reprovision", "reset", "--edge", "--disabled")
    shown = json.loads(enroll(sim, "show", "all"))
    assert {name: shown[name] for name in shown if name not in ("etag", "createdDateTimeUtc", "lastUpdatedDateTimeUtc")} == {
        "registrationId": "all",
        "attestation": {"type": "symmetricKey"},
        "capabilities": {"iotEdge": True},
        "provisioningStatus": "disabled",
        "namespaceName": "default",
        "certificateAuthorityName": "issuer",
        "certificatePolicyName": "default",
        "reprovisionPolicy": {"updateHubAssignment": True, "migrateDeviceData": False},
        "allocationPolicy": "custom",
        "iotHubs": ["hub-1.localhost"],
        "deviceId": "pump",
        "initialTwin": {"tags": {"a": 1}, "properties": {"desired": {"b": 2}}},
        "customAllocationDefinition": {"webhookUrl": "http://127.0.0.1:1/api?****", "apiVersion": "2021-10-01"},
    }  # fmt: skip
    assert "s3cret" not in output and key not in output
    enroll(sim, "enable", "all")
    assert sim._state.enrollment("all", False).webhook == url.read_text().strip()  # type: ignore[union-attr]
    assert "409203" in refused(3, sim, "create", "all", "--key-file", file)
    assert "deleted" in enroll(sim, "delete", "all")
    error = refused(3, sim, "show", "all")
    assert re.search(r"Enrollment not found\. \(404201\), tracking id [0-9a-f-]{36}", error) and "enroll list" in error


def test_keys_that_the_service_made(sim: Simulator, tmp_path: Path) -> None:
    enroll(sim, "create", "made", "--group")
    for words, key in (((), sim.group("made").primary_key), (("--secondary",), sim.group("made").secondary_key)):
        out = tmp_path / "made.key"
        said = enroll(sim, "keys", "made", "--group", "--out", out, "--force", *words)
        assert out.read_text() == key + "\n" and key not in said
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert "is there already" in refused(1, sim, "keys", "made", "--group", "--out", out)


def test_the_list_is_longer_than_a_page(sim: Simulator) -> None:
    for number in range(103):
        sim.add_individual(f"many-{number:03}")
    ids = [json.loads(line)["id"] for line in enroll(sim, "list", "--json").splitlines()]
    assert [id for id in ids if id.startswith("many-")] == [f"many-{number:03}" for number in range(103)]
    assert "boards" in ids


def test_a_change_of_somebody_else_is_not_lost(sim: Simulator) -> None:
    """Between our reading and our writing."""
    from espdps.azure.dps_client import DpsClient
    from espdps.azure.service_client import Refused, simulator

    sim.add_individual("raced")

    class Raced(DpsClient):
        def show(self, id: str, group: bool) -> dict[str, Any]:
            found = super().show(id, group)
            body = {**found, "deviceId": "theirs"}
            assert (
                api_call(sim.info, "PUT", "/enrollments/raced?api-version=2026-11-01", body, If_Match=found["etag"])[0]
                == 200
            )
            return found

    client = Raced(simulator(sim.info))
    for act in (lambda: client.enable("raced", False, False), lambda: client.delete("raced", False)):
        with pytest.raises(Refused, match="409203") as raised:
            act()
        assert raised.value.exit_code == 3 and "changed it just now" in raised.value.hint
    left = json.loads(enroll(sim, "show", "raced"))
    assert (left["deviceId"], left["provisioningStatus"]) == ("theirs", "enabled")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["create", "x", "--ca", "y"], "--ca is for a group"),
        (["create", "x", "--group", "--device-id", "y"], "--device-id is for an individual"),
        (["create", "x", "--secondary-key-file", "/dev/null"], "a secondary needs a primary"),
        (["create", "x", "--allocation", "static"], "exactly one hub"),
        (["create", "x", "--allocation", "custom"], "go together"),
        (["create", "x", "--tags", "[1]"], "--tags is no JSON object"),
        (["create", "x", "--desired", "{" * 100_000], "--desired is no JSON object"),
        (["create", "../x"], "no id"),
        (["show", "a/../../b"], "no id"),
        (["show", "a%2fb"], "no id"),
        (["delete", ".."], "no id"),
        (["registration", "x?a=b"], "no id"),
        (["ca", "list", "--endpoint", "a.b"], "exactly one DPS is needed"),
        (["device", "nobody", "--devices", "/nowhere"], "nobody"),
    ],
)
def test_wrong_use(sim: Simulator, words: list[str], says: str) -> None:
    done = esp_dps("enroll", *words, "--sim", sim.directory)
    assert done.returncode in (1, 2) and says in done.stderr and "Traceback" not in done.stderr


def test_of_azure_what_can_be_said_without_it(tmp_path: Path) -> None:
    file, key = key_file(tmp_path)
    for endpoint in ("https://a.b", "a.b/c", "global.azure-devices-provisioning.net", "a b", "x@y.z", "localhost:1"):
        done = esp_dps("enroll", "list", "--endpoint", endpoint, "--policy-key-file", file)
        assert done.returncode == 2 and key not in done.stderr, endpoint
    done = esp_dps("enroll", "list", "--endpoint", "a.b")
    assert done.returncode == 2 and "ESPDPS_POLICY_KEY" in done.stderr
    done = esp_dps("enroll", "list", "--endpoint", "a.b", ESPDPS_POLICY_KEY="hunter2 is no key")
    assert done.returncode == 2 and "hunter2" not in done.stderr
    done = esp_dps("enroll", "list", "--endpoint", "nobody.invalid", "--policy-key-file", file)
    assert done.returncode == 1 and "nobody.invalid does not answer" in done.stderr
    done = esp_dps("enroll", "ca", "list", "--endpoint", "nobody.invalid", "--policy-key-file", file)
    assert done.returncode == 1 and "--az" in done.stderr


# What az would be told


def az(folder: Path, *words: str | Path) -> tuple[list[list[str]], str]:
    """What a shell hands to az when it runs what --az prints, and the printed text."""
    done = esp_dps("enroll", *words, "--az", folder=folder)
    assert done.returncode == 0, done.stderr
    fake = folder / "bin" / "az"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text(f'#!{sys.executable}\nimport json, sys\nopen("{folder}/said", "a").write(json.dumps(sys.argv[1:]) + "\\n")\n'
                    'print("ANSWER")\n')  # fmt: skip
    fake.chmod(0o700)
    said = folder / "said"
    said.unlink(missing_ok=True)
    path = f"{fake.parent}:{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-ec", done.stdout], cwd=folder, timeout=120, check=True, capture_output=True,
        env={**os.environ, "PATH": path, "DPS": "contoso", "RESOURCE_GROUP": "rg"},
    )  # fmt: skip
    commands = [json.loads(line) for line in said.read_text().splitlines()]
    for command in commands:
        assert command[:2] == ["iot", "dps"]
        assert {word for word in command if word.startswith("--")} <= set(AZ_OPTIONS)
        assert command[command.index("--dps-name") + 1] == "contoso"
        assert command[command.index("--resource-group") + 1] == "rg"
        for name in CERTIFICATE_FILES:
            if name in command:  # by az itself: "Certificate file type must be either '.pem' or '.cer'."
                path = folder / option(command, name)
                assert path.suffix in (".pem", ".cer") and b"BEGIN CERTIFICATE" in path.read_bytes()
    return commands, done.stdout


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_az_gets_all_of_it_and_no_key_is_printed(tmp_path: Path) -> None:
    _, key = key_file(tmp_path, "it's a.key")
    (tmp_path / "url").write_text("https://f.example/api?code=s3cret\n")
    words = (
        "--key-file",
        "it's a.key",
        "--secondary-key-file",
        "it's a.key",
        "--allocation",
        "custom",
        "--hub",
        "a",
        "--hub",
        "b",
    )
    more = (
        "--webhook-url-file",
        "url",
        "--tags",
        '{"it\'s": "$HOME `id`"}',
        "--reprovision",
        "never",
        "--edge",
        "--disabled",
    )
    (command,), text = az(tmp_path, "create", "pump", *words, *more)
    assert command[2:4] == ["enrollment", "create"]
    assert option(command, "--enrollment-id") == "pump" and option(command, "--attestation-type") == "symmetricKey"
    assert option(command, "--primary-key") == option(command, "--secondary-key") == key
    assert option(command, "--webhook-url") == "https://f.example/api?code=s3cret"
    assert json.loads(option(command, "--initial-twin-tags")) == {"it's": "$HOME `id`"}
    assert command[command.index("--iot-hubs") + 1 :][:2] == ["a", "b"]
    assert option(command, "--reprovision-policy") == "never" and option(command, "--provisioning-status") == "disabled"
    assert key not in text and "s3cret" not in text


def test_az_for_a_device_and_for_an_authority(sim: Simulator, tmp_path: Path) -> None:
    if not any((Path(folder) / "jq").exists() for folder in os.environ["PATH"].split(os.pathsep)):
        jq = tmp_path / "bin" / "jq"  # as far as the printed command needs it
        jq.parent.mkdir()
        jq.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.load(open(sys.argv[3]))[sys.argv[2][1:]])\n")
        jq.chmod(0o700)
    made(sim, tmp_path, "four")
    full = ("--credential-policy", "contoso/issuer/short")
    (command,), text = az(tmp_path, "device", "four", "--devices", "devices", *full)
    assert option(command, "--primary-key") == derive(group_key(sim.info), "four")
    assert option(command, "--adr-cert-policy-name") == "short"
    assert option(command, "--primary-key") not in text
    done = esp_dps("enroll", "device", "four", "--devices", "devices", "--az", folder=tmp_path)
    assert done.returncode == 2 and "no credential policy is named" in done.stderr

    assert esp_dps("ca", "root", "R", folder=tmp_path).returncode == 0
    (command,), _ = az(tmp_path, "create", "g", "--group", "--ca", "contoso")
    assert command[2:4] == ["enrollment-group", "create"] and option(command, "--root-ca-name") == "contoso"
    (command,), _ = az(tmp_path, "create", "g", "--group", "--cert", "ca/root.crt")
    assert option(command, "--certificate-path") == "ca/root.crt.pem"
    (tmp_path / "ca" / "other.cer").write_bytes((tmp_path / "ca" / "root.crt").read_bytes())
    (command,), text = az(tmp_path, "create", "g", "--group", "--cert", "ca/other.cer")
    assert option(command, "--certificate-path") == "ca/other.cer" and "cp " not in text
    esp_dps_command = tmp_path / "bin" / "esp-dps"
    esp_dps_command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT / "tools"} exec {sys.executable} -m espdps.cli "$@"\n')
    esp_dps_command.chmod(0o700)
    commands, _ = az(tmp_path, "ca", "verify", "contoso")
    assert [command[2:4] for command in commands] == [
        ["certificate", "show"], ["certificate", "generate-verification-code"],
        ["certificate", "show"], ["certificate", "verify"],
    ]  # fmt: skip
    assert option(commands[-1], "--path") == "proof.pem" and option(commands[-1], "--etag") == "ANSWER"
    proof = subprocess.run(
        ["openssl", "x509", "-in", "proof.pem", "-noout", "-subject"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "ANSWER" in proof.stdout
    for words, verb in (
        (("show", "a", "--group"), ["enrollment-group", "show"]),
        (("disable", "a"), ["enrollment", "update"]),
        (("delete", "a"), ["enrollment", "delete"]),
        (("registrations", "g"), ["enrollment-group", "registration", "list"]),
        (("registration", "a", "--delete"), ["enrollment-group", "registration", "delete"]),
        (("ca", "upload", "contoso", "--cert", "ca/root.crt"), ["certificate", "create"]),
        (("ca", "delete", "contoso"), ["certificate", "delete"]),
    ):
        commands, _ = az(tmp_path, *words)
        assert commands[-1][2 : 2 + len(verb)] == verb


OLD = ("--api-version", "2025-07-01-preview")


def test_az_names_a_policy_in_full_or_as_before_where_told_to(tmp_path: Path) -> None:
    (command,), _ = az(tmp_path, "create", "g", "--group", "--credential-policy", "contoso/issuer/short")
    assert option(command, "--adr-namespace") == "contoso" and option(command, "--adr-ca-name") == "issuer"
    assert option(command, "--adr-cert-policy-name") == "short" and "--credential-policy-name" not in command
    (command,), _ = az(tmp_path, "create", "g", "--group", "--credential-policy", "short", *OLD)
    assert option(command, "--credential-policy-name") == "short" and "--adr-namespace" not in command
    for policy, api in (
        ("", ()), ("short", ()), ("a/b", ()), ("a//b", ()), ("a/b/", ()), ("a/b/c/d", ()), ("a/b/c", OLD), ("", OLD),
    ):  # fmt: skip
        words = ("create", "g", "--group", "--credential-policy", policy, *api)
        done = esp_dps("enroll", *words, "--az", folder=tmp_path)
        assert (done.returncode, done.stdout) == (2, "") and "credential policy" in done.stderr, policy


def test_az_signs_in_by_entra(tmp_path: Path) -> None:
    (command,), _ = az(tmp_path, "show", "g", "--group", "--auth", "entra")
    assert option(command, "--auth-type") == "login"
    (command,), _ = az(tmp_path, "ca", "list", "--auth", "entra")  # of the resource manager: always so
    assert "--auth-type" not in command
    (command,), _ = az(tmp_path, "show", "g", "--group")
    assert "--auth-type" not in command


# The policy, by both versions


def test_a_policy_in_full(sim: Simulator, tmp_path: Path) -> None:
    sim.add_issuer("line-8")
    sim.add_policy("line-8/short", certificate_seconds=600)
    key = ("--key-file", key_file(tmp_path)[0])
    said = enroll(sim, "create", "full", *key, "--credential-policy", "default/line-8/short")
    assert "certificates by policy default/line-8/short" in said
    shown = json.loads(enroll(sim, "show", "full"))
    assert (shown["namespaceName"], shown["certificateAuthorityName"], shown["certificatePolicyName"]) == (
        "default", "line-8", "short",
    )  # fmt: skip
    assert "credentialPolicyName" not in shown
    for change in ("disable", "enable"):  # read and written back whole
        assert "default/line-8/short" in enroll(sim, change, "full")
    row = [json.loads(line) for line in enroll(sim, "list", "--json").splitlines()]
    assert [one["policy"] for one in row if one["id"] == "full"] == ["default/line-8/short"]
    for policy in ("other/line-8/short", "default/other/short", "default/line-8/other"):
        error = refused(3, sim, "create", "never", *key, "--credential-policy", policy)
        assert "the namespace that is linked to this service" in error
    assert "API version" in refused(2, sim, "show", "full", "--api-version", "latest")


def test_a_policy_as_before_only_where_told_to(sim: Simulator, tmp_path: Path) -> None:
    key = ("--key-file", key_file(tmp_path)[0])
    error = refused(2, sim, "create", "before", *key, "--credential-policy", "default")
    assert "NAMESPACE/AUTHORITY/POLICY" in error and "2025-07-01-preview" in error
    said = enroll(sim, "create", "before", *key, "--credential-policy", "default", *OLD)
    assert "certificates by policy default" in said
    shown = json.loads(enroll(sim, "show", "before", *OLD))
    assert shown["credentialPolicyName"] == "default" and "namespaceName" not in shown
    assert "by policy default" in enroll(sim, "disable", "before", *OLD)


# Microsoft Entra ID


def test_entra_by_the_simulators_token(sim: Simulator, tmp_path: Path) -> None:
    entra = ("--auth", "entra")
    assert "created" in enroll(sim, "create", "by-entra", "--key-file", key_file(tmp_path)[0], *entra)
    assert "disabled" in enroll(sim, "disable", "by-entra", *entra)
    assert json.loads(enroll(sim, "list", "--json", *entra).splitlines()[0])["id"] == "boards"
    done = esp_dps("registry", "authorities", "--sim", sim.directory, *entra)
    assert done.returncode == 0 and "issuer" in done.stdout, done.stderr
    wrong = {**sim.info, "service_bearer": sim.info["service_bearer"][:-1] + "_"}
    (tmp_path / "sim.json").write_text(json.dumps(wrong))
    done = esp_dps("enroll", "list", "--sim", tmp_path, *entra)
    assert done.returncode == 3 and "401002" in done.stderr and sim.info["service_bearer"][:-1] not in done.stderr


def test_entra_by_azure_identity_and_az(sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real azure-identity, which asks az for a token of the DPS service API, and a stand-in for az."""
    from espdps.azure import entra
    from espdps.azure.dps_client import DpsClient
    from espdps.azure.service_client import Refused, Service

    az = tmp_path / "az"
    az.write_text(
        f"#!{sys.executable}\nimport json, sys, time\n"
        f'open("{tmp_path}/said", "a").write(" ".join(sys.argv[1:]) + "\\n")\n'
        f'print(json.dumps({{"accessToken": open("{tmp_path}/token").read(), "expires_on": int(time.time()) + 3600}}))\n'
    )
    az.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")  # and nobody else is asked
    for token, good in ((sim.info["service_bearer"], True), ("of-another-service", False)):
        (tmp_path / "token").write_text(token)
        service = Service("localhost", entra.authorization(), sim.info["https_port"], sim.info["roots"], simulated=True)
        client = DpsClient(service)
        if good:
            assert [one["enrollmentGroupId"] for one in client.all(True)][0] == "boards"
        else:
            with pytest.raises(Refused, match="401002"):
                client.show("boards", True)
    asked = (tmp_path / "said").read_text().splitlines()
    assert asked and all("https://azure-devices-provisioning.net" in line for line in asked)


def fake_identity(folder: Path, body: str) -> str:
    """A stand-in for azure-identity, for PYTHONPATH: what esp-dps uses of it, as its reference has it."""
    for name in ("azure/identity", "azure/core"):
        (folder / "fake" / name).mkdir(parents=True)
    (folder / "fake/azure/core/exceptions.py").write_text(
        "class ClientAuthenticationError(Exception):\n"
        "    def __init__(self, message):\n        super().__init__(message)\n        self.message = message\n"
    )
    (folder / "fake/azure/identity/__init__.py").write_text(
        "from azure.core.exceptions import ClientAuthenticationError\n"
        "class DefaultAzureCredential:\n    def get_token(self, *scopes):\n" + body
    )
    return os.pathsep.join((str(folder / "fake"), str(ROOT / "tools")))


def test_entra_gives_no_token(tmp_path: Path) -> None:
    words = ("enroll", "list", "--auth", "entra", "--endpoint")
    path = fake_identity(tmp_path, "        raise ClientAuthenticationError('Nobody is signed in.\\nAttempted: …')\n")
    done = esp_dps(*words, "contoso.azure-devices-provisioning.net", PYTHONPATH=path)
    assert done.returncode == 1 and "gave no token: Nobody is signed in." in done.stderr and "az login" in done.stderr
    for other in (
        "contoso.example.com",
        "azure-devices-provisioning.net.example.com",
        "contoso-azure-devices-provisioning.net",
    ):
        done = esp_dps(*words, other, PYTHONPATH=path)
        assert done.returncode == 2 and "not the name of a DPS instance" in done.stderr, other


def test_entra_needs_its_package(tmp_path: Path) -> None:
    path = fake_identity(tmp_path, "        pass\n")
    (tmp_path / "fake/azure/identity/__init__.py").write_text("raise ImportError\n")
    done = esp_dps(
        "enroll", "list", "--auth", "entra", "--endpoint", "contoso.azure-devices-provisioning.net", PYTHONPATH=path
    )
    assert done.returncode == 2 and "azure-identity" in done.stderr and "pip install 'esp-dps[entra]'" in done.stderr


# Services gone bad


class Bad(http.server.BaseHTTPRequestHandler):
    server: BadService

    def do_GET(self) -> None:
        self.server.seen.append(dict(self.headers))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers, body = self.server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, *_: Any) -> None:
        pass


class BadService(http.server.ThreadingHTTPServer):
    answer: tuple[int, dict[str, str], bytes] = (200, {}, b"")

    def __init__(self, sim: Simulator) -> None:
        import ssl

        super().__init__(("127.0.0.1", 0), Bad)
        self.seen: list[dict[str, str]] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sim._identity.chain_file, sim._identity.key_file)
        self.socket = context.wrap_socket(self.socket, server_side=True)


@pytest.fixture
def bad(sim: Simulator) -> Iterator[BadService]:
    server = BadService(sim)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        ((200, {"Content-Length": "5"}, b"nojsn"), 1, "not its JSON"),
        ((200, {"Content-Length": "100000"}, b"[" * 100_000), 1, "not its JSON"),
        ((200, {"Content-Length": "10"}, b"["), 1, "not its JSON"),
        ((500, {"Content-Length": "4"}, b"oops"), 3, "HTTP 500"),
        ((500, {"Content-Length": "100000"}, b"[" * 100_000), 3, "HTTP 500"),
        ((429, {}, b'{"errorCode": 429001, "message": "Throttled.", "trackingId": "t-1"}'), 3, "wait a minute"),
        ((401, {}, b'{"errorCode": 401002, "message": "\\u001b[31mred"}'), 3, "401002"),
        ((403, {}, b'{"errorCode": [1], "message": {"a": null}}'), 3, "firewall"),
        ((302, {"Location": "https://127.0.0.1:1/elsewhere"}, b""), 3, "HTTP 302"),
        ((200, {"x-ms-continuation": "same"}, b"[]"), 1, "the same page again"),
    ],
)
def test_bad_answers(
    sim: Simulator, bad: BadService, tmp_path: Path, answer: tuple[int, dict[str, str], bytes], code: int, says: str
) -> None:
    bad.answer = answer
    (tmp_path / "sim.json").write_text(json.dumps({**sim.info, "https_port": bad.server_address[1]}))
    done = esp_dps("enroll", "list", "--sim", tmp_path)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr and "\x1b" not in done.stderr
    token = bad.seen[0]["Authorization"]
    assert token.startswith("SharedAccessSignature ") and token not in done.stderr


def test_another_host_is_not_told_the_token(sim: Simulator, bad: BadService, tmp_path: Path) -> None:
    bad.answer = 302, {"Location": f"https://localhost:{sim.info['https_port']}/enrollments/x?api-version=1"}, b""
    (tmp_path / "sim.json").write_text(json.dumps({**sim.info, "https_port": bad.server_address[1]}))
    assert esp_dps("enroll", "show", "x", "--sim", tmp_path).returncode == 3
    assert len(bad.seen) == 1


@pytest.mark.parametrize(
    "command",
    ["", *"device create show list keys enable disable delete registrations registration".split()]
    + [f"ca {word}".strip() for word in ("", "list", "upload", "verify", "delete")],
)
def test_help_fits_a_terminal(command: str) -> None:
    done = esp_dps("enroll", *command.split(), "--help", COLUMNS="80")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and max(map(len, lines)) <= 80
    assert "EXAMPLE" in done.stdout or command == "ca"
