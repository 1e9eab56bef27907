"""Certificates that the simulator issues: both forms of the API, types of keys, chains of every length and fault."""

from __future__ import annotations

import base64
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from simulator_client import Key, dps_device, finish, hub_device, make_csr, save_key

from espdps.simulator import Assigning, Chain, Options, Simulator, Trouble, serving

OLD_API = "2021-11-01-preview"
PEM = re.compile(r"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("issuance"), Options(retry_after=0, assigning=0)) as simulator:
        yield simulator


@pytest.fixture
def sim(service: Simulator) -> Any:
    yield service
    service.trouble = Trouble()


def pem_csr(common_name: str, key: Key | None = None) -> str:
    request = x509.load_der_x509_csr(make_csr(common_name, key))
    return request.public_bytes(Encoding.PEM).decode()


def csr_of(common_name: str, key: Key | None = None) -> str:
    return base64.b64encode(make_csr(common_name, key)).decode()


def registered(sim: Simulator, registration_id: str, version: str, **fields: Any) -> dict[str, Any]:
    with dps_device(sim.info, registration_id, version=version) as device:
        state: dict[str, Any] = finish(device, registration_id, **fields)["registrationState"]
    return state


def openssl_verifies(folder: Path, chain: list[str]) -> bool:
    """``chain``: PEM, leaf first, root last."""
    for name, parts in (("leaf", chain[:1]), ("untrusted", chain[1:-1]), ("root", chain[-1:])):
        (folder / name).write_text("".join(parts))
    command = "openssl verify -x509_strict -purpose sslclient -CAfile root -untrusted untrusted leaf".split()
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=30, check=False).returncode == 0


def pem_of(text: str) -> str:
    return x509.load_der_x509_certificate(base64.b64decode(text)).public_bytes(Encoding.PEM).decode()


def issuer_of(pem: str) -> str:
    return x509.load_pem_x509_certificate(pem.encode()).issuer.rfc4514_string()


def hub_takes(sim: Simulator, device_id: str, folder: Path, key: Key, certificates: list[str]) -> bool:
    pem = save_key(folder / "device.pem", key)
    with pem.open("a") as file:
        file.write("".join(certificates))
    with hub_device(sim.info, device_id, pem) as device:
        return bool(device.connack.value == 0)


# The API of 2021-11-01-preview


def test_the_older_form(sim: Simulator, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    state = registered(sim, "elder", OLD_API, clientCertificateCsr=pem_csr("elder", key))
    assert "issuedCertificateChain" not in state
    text = state["issuedClientCertificate"]
    chain = PEM.findall(text)
    assert "".join(chain) == text
    assert len(chain) == 3
    assert max(map(len, text.splitlines())) == 64
    leaf = x509.load_pem_x509_certificate(chain[0].encode())
    assert leaf.public_key() == key.public_key()
    bundle = state["trustBundle"]
    root = bundle["certificates"][0]
    assert root["certificate"] == chain[-1]
    assert root["metadata"]["subjectName"] == issuer_of(chain[-1])
    assert bundle["id"] and bundle["etag"]
    assert openssl_verifies(tmp_path, chain[:-1] + [root["certificate"]])
    assert hub_takes(sim, "elder", tmp_path, key, chain[:2])
    assert sim.wait_event("dps.register", device="elder")["csr"]


def test_each_version_ignores_the_others_name(sim: Simulator) -> None:
    today = base64.b64encode(make_csr("mixed")).decode()
    for version, fields in (
        (OLD_API, {"csr": today}),
        ("2025-07-01-preview", {"clientCertificateCsr": pem_csr("mixed")}),
        ("2021-06-01", {"clientCertificateCsr": pem_csr("mixed")}),
    ):
        state = registered(sim, "mixed", version, **fields)
        assert state["status"] == "assigned"
        assert not state.keys() & {"issuedCertificateChain", "issuedClientCertificate", "trustBundle"}


def test_later_versions_have_todays_form(sim: Simulator) -> None:
    today = base64.b64encode(make_csr("later")).decode()
    assert len(registered(sim, "later", "2026-11-01", csr=today)["issuedCertificateChain"]) == 3


@pytest.mark.parametrize(
    ("csr", "code"),
    [
        (base64.b64encode(make_csr("dev")).decode(), 400012),
        ("", 400012),
        (7, 400012),
        (["x"], 400012),
        ("-----BEGIN CERTIFICATE REQUEST-----\n%%\n-----END CERTIFICATE REQUEST-----\n", 400012),
        (pem_csr("other"), 400004),
        (pem_csr("dev", ec.generate_private_key(ec.SECP521R1())), 400004),
    ],
)
def test_bad_csr_in_the_older_form(sim: Simulator, csr: Any, code: int) -> None:
    with dps_device(sim.info, "dev", version=OLD_API) as device:
        device.register("dev", clientCertificateCsr=csr)
        answer = device.answer()
    assert (answer.status, answer.body["errorCode"]) == (400, code)


def test_the_older_form_needs_a_policy_too(sim: Simulator) -> None:
    key = sim.add_individual("no-policy", credential_policy=None).primary_key
    with dps_device(sim.info, "no-policy", key, version=OLD_API) as device:
        state = finish(device, "no-policy", clientCertificateCsr=pem_csr("no-policy"))["registrationState"]
    assert not state.keys() & {"issuedClientCertificate", "trustBundle"}


def test_faults_in_the_older_form(sim: Simulator) -> None:
    def issued(kind: str) -> Any:
        sim.trouble = Trouble({"certificate": Chain(kind)})
        return registered(sim, "elder", OLD_API, clientCertificateCsr=pem_csr("elder"))["issuedClientCertificate"]

    with pytest.raises(KeyError):
        issued("absent")
    assert issued("null") is None
    assert issued("empty") == ""
    assert len(PEM.findall(issued("leaf-only"))) == 1
    assert len(PEM.findall(issued("longer"))) == 4
    backwards = PEM.findall(issued("reversed"))
    assert x509.load_pem_x509_certificate(backwards[-1].encode()).subject.rfc4514_string() == "CN=elder"
    assert not PEM.findall(issued("garbage"))


# Chains


@pytest.mark.parametrize(("kind", "length"), [("leaf-only", 1), ("no-root", 2), (None, 3), ("longer", 4)])
def test_chains_of_one_to_four(sim: Simulator, tmp_path: Path, kind: str | None, length: int) -> None:
    root = pem_of(registered(sim, "any", "2025-07-01-preview", csr=csr_of("any"))["issuedCertificateChain"][-1])
    sim.trouble = Trouble({"certificate": Chain(kind)} if kind else {})
    key = ec.generate_private_key(ec.SECP384R1())
    state = registered(sim, "long", "2025-07-01-preview", csr=csr_of("long", key))
    chain = [pem_of(text) for text in state["issuedCertificateChain"]]
    assert len(chain) == length
    assert (chain[-1] == root) == (length > 2)
    names = [x509.load_pem_x509_certificate(pem.encode()) for pem in chain]
    assert [below.issuer == above.subject for below, above in zip(names, names[1:], strict=False)] == [True] * (
        length - 1
    )
    if length > 1:
        assert openssl_verifies(tmp_path, chain if length > 2 else [*chain, root])
    assert hub_takes(sim, "long", tmp_path, key, chain[:1])  # the leaf alone is enough


def test_a_longer_chain_outlives_a_restart(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    options = Options(retry_after=0, assigning=0)
    with serving(tmp_path / "sim", options) as sim:
        sim.trouble = Trouble({"certificate": Chain("longer")})
        chain = registered(sim, "long", "2025-07-01-preview", csr=csr_of("long", key))["issuedCertificateChain"]
    with serving(tmp_path / "sim", options) as sim:
        registered(sim, "long", "2025-07-01-preview")
        assert hub_takes(sim, "long", tmp_path, key, [pem_of(chain[0])])


# Key types


def keys() -> dict[str, tuple[str, Key]]:
    """Name: type in Options.key_types, a key."""
    return {
        "p-384": ("ec-p384", ec.generate_private_key(ec.SECP384R1())),
        "p-256": ("ec-p256", ec.generate_private_key(ec.SECP256R1())),
        "rsa-2048": ("rsa", rsa.generate_private_key(65537, 2048)),
        "rsa-3072": ("rsa", rsa.generate_private_key(65537, 3072)),
    }


@pytest.mark.parametrize("allowed", [("ec-p384",), ("ec-p256", "rsa"), ("rsa",), None], ids=str)
def test_what_the_policy_certifies(tmp_path: Path, allowed: tuple[str, ...] | None) -> None:
    strict = {"key_types": allowed} if allowed else {}
    with serving(tmp_path, Options(retry_after=0, assigning=0, **strict)) as sim:  # type: ignore[arg-type]
        for name, (kind, key) in keys().items():
            with dps_device(sim.info, name) as device:
                device.register(name, make_csr(name, key, hashes.SHA256()))
                answer = device.answer()
            if allowed is None or kind in allowed:
                assert len(answer.body["registrationState"]["issuedCertificateChain"]) == 3
            else:
                assert (answer.status, answer.body["errorCode"]) == (400, 400004)
                assert f"keys of type {', '.join(allowed)} only" in answer.body["message"]


def test_names_in_a_csr_may_differ_in_case(sim: Simulator, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    state = registered(
        sim, "mixed-case", "2025-07-01-preview", csr=csr_of("Mixed-Case", key), registrationId="MIXED-case"
    )
    leaf = pem_of(state["issuedCertificateChain"][0])
    assert x509.load_pem_x509_certificate(leaf.encode()).subject.rfc4514_string() == "CN=mixed-case"
    assert hub_takes(sim, "mixed-case", tmp_path, key, [leaf])


def test_a_later_poll_answers_in_the_form_of_the_registration(sim: Simulator) -> None:
    """An operation outlives its connection, and its result is made once."""
    sim.trouble = Trouble({"assigning": Assigning(1, 0)})
    with dps_device(sim.info, "twice") as device:
        body = finish(device, "twice", make_csr("twice"))
    with dps_device(sim.info, "twice", version=OLD_API) as device:
        device.poll(body["operationId"])
        assert device.answer().body == body
