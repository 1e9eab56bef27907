"""Sign-in by Microsoft Entra ID: a token of the simulator, the real azure-identity, and what goes wrong."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from enrolling import enroll, esp_dps, key_file

from espdps.paths import ROOT
from espdps.simulator import Options, Simulator, serving


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with serving(tmp_path_factory.mktemp("enroll"), Options(retry_after=0, assigning=0)) as simulator:
        yield simulator


def test_entra_by_the_simulators_token(sim: Simulator, tmp_path: Path) -> None:
    entra = ("--auth", "entra")
    assert "created" in enroll(sim, "create", "by-entra", "--key-file", key_file(tmp_path)[0], *entra)
    assert "disabled" in enroll(sim, "disable", "by-entra", *entra)
    assert json.loads(enroll(sim, "list", "--json", *entra).splitlines()[0])["id"] == "boards"
    done = esp_dps("registry", "authorities", "--sim", sim.directory, *entra)
    assert done.returncode == 0 and "issuer" in done.stdout, done.stderr
    wrong = {**sim.info, "service_bearer": "x" + sim.info["service_bearer"]}
    (tmp_path / "sim.json").write_text(json.dumps(wrong))
    done = esp_dps("enroll", "list", "--sim", tmp_path, *entra)
    assert done.returncode == 3 and "401002" in done.stderr and sim.info["service_bearer"] not in done.stderr


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
