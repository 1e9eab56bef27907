"""The commands of az that `esp-dps enroll --az` prints, and how either version of the API names a policy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from enrolling import enroll, esp_dps, key_file, made, refused
from simulator_client import derive, group_key

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
    for environment in ({}, {"ESPDPS_SIM": str(sim.directory)}):
        done = esp_dps("enroll", "device", "four", "--devices", "devices", "--az", folder=tmp_path, **environment)
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
