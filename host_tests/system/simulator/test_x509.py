"""X.509 attestation at the simulator: which client certificates are let in, at DPS and at the hub, and what others get.

The certificates are made here, and openssl has to agree with every verdict on a chain.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from simulator_client import (
    RESPONSES,
    RawClient,
    connect_packet,
    derive,
    dps_device,
    dps_token,
    dps_username,
    finish,
    group_key,
    hub_device,
    make_csr,
    provision,
    save_key,
    subscribe_packet,
    token,
)
from simulator_pki import NEW_KEYS, Party, answered, made, pem_file, registered

from espdps.simulator import Options, Simulator, serving

HUB = "hub-1.localhost"
REFUSED = 135  # paho's name for CONNACK 5, not authorized
NOT_FOUND = "CA certificate not found."
NO_MATCH = "Signing certificate info did not match chain elements."
INVALID = "Invalid certificate."


@pytest.fixture
def sim(tmp_path: Path) -> Any:
    with serving(tmp_path / "sim", Options(retry_after=0)) as simulator:
        yield simulator
    assert not [event for event in simulator.events if event["event"] == "fault"]


ROOT = made("Contoso root", ca=True)
FACTORY = made("Contoso factory", ROOT, ca=True)
LINE = made("Contoso line 7", FACTORY, ca=True)


def refused(sim: Simulator, registration_id: str, reason: str, pem: Path | None = None, **changes: Any) -> None:
    start = len(sim.events)
    with dps_device(sim.info, registration_id, chain=pem, **{"password": None, **changes}) as device:
        assert device.connack.value == REFUSED
    assert reason in sim.wait_event("dps.refused", after=start)["reason"]


def openssl_trusts(folder: Path, signer: Party, device: Party, *chain: Party) -> bool:
    for name, parties in (("signer", [signer]), ("chain", [*chain]), ("leaf", [device])):
        (folder / name).write_bytes(b"".join(party.pem for party in parties))
    untrusted = ["-untrusted", "chain"] if chain else []
    command = ["openssl", "verify", "-partial_chain", "-trusted", "signer", *untrusted, "leaf"]
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=30, check=False).returncode == 0


# Enrollment groups


@pytest.mark.parametrize(
    ("signer", "chain"),
    [
        (ROOT, [LINE, FACTORY]),
        (ROOT, [FACTORY, LINE]),  # RFC 5246 wants an order; devices get it wrong
        (ROOT, [LINE, FACTORY, ROOT]),
        (ROOT, [ROOT, made("bystander", ca=True), FACTORY, LINE]),
        (FACTORY, [LINE]),
        (FACTORY, [LINE, FACTORY, ROOT]),
        (LINE, []),
        (LINE, [LINE]),
    ],
)
def test_a_chain_to_the_enrolled_signer(sim: Simulator, tmp_path: Path, signer: Party, chain: list[Party]) -> None:
    sim.add_group("factory", signers=[signer.pem])
    device = made("unit-1", LINE)
    state = registered(sim.info, "unit-1", pem_file(tmp_path, device, *chain))
    assert openssl_trusts(tmp_path, signer, device, *chain)
    assert (state["assignedHub"], state["deviceId"]) == (HUB, "unit-1")
    assert "symmetricKey" not in state
    assert state["x509"]["enrollmentGroupId"] == "factory"
    assert state["x509"]["signingCertificateInfo"]["subjectName"] == signer.certificate.subject.rfc4514_string()
    assert sim.wait_event("dps.connect")["auth"] == "x509"


def test_the_certificate_is_described_as_openssl_does(sim: Simulator, tmp_path: Path) -> None:
    sim.add_group("factory", signers=[ROOT.pem])
    pem = pem_file(tmp_path, made("described", FACTORY), FACTORY)
    info = registered(sim.info, "described", pem)["x509"]["certificateInfo"]
    for digest in ("sha1", "sha256"):
        arguments = ["openssl", "x509", "-in", str(pem), "-noout", "-fingerprint", f"-{digest}", "-serial"]
        shown = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=30).stdout
        fingerprint, serial = (line.split("=")[1] for line in shown.splitlines())
        assert info[f"{digest}Thumbprint"] == fingerprint.replace(":", "")
        assert info["serialNumber"] == serial.lstrip("0")
    assert (info["subjectName"], info["issuerName"]) == ("CN=described", "CN=Contoso factory")
    assert info["version"] == 3
    assert info["notBeforeUtc"] < info["notAfterUtc"]


@pytest.mark.parametrize("kind", list(NEW_KEYS))
def test_each_type_of_key(sim: Simulator, tmp_path: Path, kind: str) -> None:
    """Of the device and of its signer; with a CSR, and then at the hub with either certificate."""
    root = made("root", ca=True, key=NEW_KEYS[kind]())
    sim.add_group("factory", signers=[root.pem])
    device = made("keyed", root, key=NEW_KEYS[kind]())
    onboarding = pem_file(tmp_path, device)
    state = registered(sim.info, "keyed", onboarding, make_csr("keyed", device.key, hashes.SHA256()))
    issued = save_key(tmp_path / "issued.pem", device.key)
    with issued.open("ab") as out:
        for text in state["issuedCertificateChain"]:
            out.write(f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n".encode())
    for pem in (onboarding, issued):
        with hub_device(sim.info, "keyed", pem) as client:
            assert client.connack.value == 0


def test_secondary_signer_and_der(sim: Simulator, tmp_path: Path) -> None:
    other = made("next root", ca=True)
    sim.add_group("factory", signers=[ROOT.pem, other.certificate.public_bytes(Encoding.DER)])
    state = registered(sim.info, "second", pem_file(tmp_path, made("second", other)))
    assert state["x509"]["signingCertificateInfo"]["subjectName"] == "CN=next root"
    registered(sim.info, "first", pem_file(tmp_path, made("first", ROOT)))


def test_the_nearest_signer_counts(sim: Simulator, tmp_path: Path) -> None:
    for name, party in (("by-root", ROOT), ("by-line", LINE), ("by-factory", FACTORY)):
        sim.add_group(name, signers=[party.pem])
    for device_id, issuer, group in (("a", LINE, "by-line"), ("b", FACTORY, "by-factory"), ("c", ROOT, "by-root")):
        pem = pem_file(tmp_path, made(device_id, issuer), LINE, FACTORY, ROOT)
        assert registered(sim.info, device_id, pem)["x509"]["enrollmentGroupId"] == group


def test_letter_case_of_names_does_not_count(sim: Simulator, tmp_path: Path) -> None:
    sim.add_group("factory", signers=[ROOT.pem])
    pem = pem_file(tmp_path, made("Unit-A", ROOT))
    with dps_device(sim.info, "uNIT-a", client_id="UNIT-a", chain=pem, password=None) as device:
        assert finish(device, "unit-a", make_csr("unit-A"))["status"] == "assigned"


def bad_chains() -> list[Any]:
    impostor = made("Contoso root", ca=True)
    narrow = made("narrow", ROOT, ca=True, length=0)
    below = made("below", narrow, ca=True)
    old = made("old factory", ROOT, ca=True, days=(-9, -1))
    peer = made("peer", ROOT)
    stranger = made("stranger", ca=True)
    return [
        pytest.param(stranger, [], NOT_FOUND, id="foreign-root"),
        pytest.param(stranger, [stranger], NOT_FOUND, id="foreign-root-presented"),
        pytest.param(None, [], NOT_FOUND, id="self-signed"),
        pytest.param(FACTORY, [], NOT_FOUND, id="intermediate-missing"),
        pytest.param(LINE, [FACTORY], NO_MATCH, id="gap"),
        pytest.param(LINE, [FACTORY, ROOT], NO_MATCH, id="gap-below-the-root"),
        pytest.param(impostor, [], NO_MATCH, id="forged-name"),
        pytest.param(impostor, [impostor], NO_MATCH, id="forged-name-presented"),
        pytest.param(peer, [peer], NO_MATCH, id="signed-by-a-device"),
        pytest.param(below, [below, narrow], NO_MATCH, id="path-too-long"),
        pytest.param(old, [old], INVALID, id="intermediate-expired"),
    ]


@pytest.mark.parametrize(("issuer", "chain", "message"), bad_chains())
def test_chains_that_lead_nowhere(
    sim: Simulator, tmp_path: Path, issuer: Party | None, chain: list[Party], message: str
) -> None:
    sim.add_group("factory", signers=[ROOT.pem])
    device = made("lost", issuer)
    assert not openssl_trusts(tmp_path, ROOT, device, *chain)
    assert answered(sim.info, "lost", pem_file(tmp_path, device, *chain)) == (401, 401002, message)
    with pytest.raises(KeyError):
        sim.device("lost")


@pytest.mark.parametrize("days", [(-9, -1), (1, 9)], ids=["expired", "not-yet-valid"])
def test_dates_of_a_client_certificate(sim: Simulator, tmp_path: Path, days: tuple[int, int]) -> None:
    sim.add_group("factory", signers=[ROOT.pem])
    member, own = made("late", ROOT, days=days), made("late-too", days=days)
    sim.add_individual("late-too", certificates=[own.pem])
    assert not openssl_trusts(tmp_path, ROOT, member)
    assert answered(sim.info, "late", pem_file(tmp_path, member)) == (401, 401002, INVALID)
    assert answered(sim.info, "late-too", pem_file(tmp_path, own)) == (401, 401002, INVALID)


def test_groups_that_cannot_vouch(sim: Simulator, tmp_path: Path) -> None:
    """Only symmetric keys; a signer that is the device's own certificate; a group that is gone again."""
    device = made("alone", ROOT)
    pem = pem_file(tmp_path, device)
    assert answered(sim.info, "alone", pem)[2] == NOT_FOUND
    sim.add_group("itself", signers=[device.pem])
    assert answered(sim.info, "alone", pem)[2] == NOT_FOUND
    sim.add_group("root", signers=[ROOT.pem])
    registered(sim.info, "alone", pem)
    sim.remove_enrollment("root", group=True)
    assert answered(sim.info, "alone", pem)[2] == NOT_FOUND


def test_disabled_group(sim: Simulator, tmp_path: Path) -> None:
    sim.add_group("factory", signers=[ROOT.pem], provisioning_status="disabled")
    with dps_device(sim.info, "off", chain=pem_file(tmp_path, made("off", ROOT)), password=None) as device:
        device.register("off")
        assert device.answer().body["status"] == "disabled"


# Individual enrollments


def test_individual_by_primary_and_secondary_certificate(sim: Simulator, tmp_path: Path) -> None:
    first, second = made("own"), made("own", ROOT)
    sim.add_individual("own", certificates=[first.pem, second.certificate.public_bytes(Encoding.DER)])
    for party in (first, second):
        proof = registered(sim.info, "own", pem_file(tmp_path, party))["x509"]
        assert proof.keys() == {"certificateInfo"}
        assert (
            proof["certificateInfo"]["sha256Thumbprint"] == party.certificate.fingerprint(hashes.SHA256()).hex().upper()
        )


def test_refused_in_the_connack(sim: Simulator, tmp_path: Path) -> None:
    sim.add_group("factory", signers=[ROOT.pem])
    own = made("own", ROOT)
    sim.add_individual("own", certificates=[own.pem])
    other = "common name of the certificate"
    refused(sim, "own", other, pem_file(tmp_path, made("other", ROOT)))
    refused(sim, "unit", other, pem_file(tmp_path, made([], ROOT)))
    refused(sim, "unit", other, pem_file(tmp_path, made(["unit", "unit"], ROOT)))
    refused(sim, "unit", "client id", pem_file(tmp_path, made("unit", ROOT)), client_id="other")
    refused(sim, "unit", "neither token nor")
    # An individual enrollment alone counts for its id: another certificate for the same key and by the group's signer
    # does not do.
    refused(sim, "own", "not the enrolled one", pem_file(tmp_path, made("own", ROOT, key=own.key)))


def test_the_other_attestation(sim: Simulator, tmp_path: Path) -> None:
    """A certificate where a key is enrolled, and a token where a certificate is."""
    sim.add_individual("keyed")
    assert answered(sim.info, "keyed", pem_file(tmp_path, made("keyed"))) == (401, 401002, "Unauthorized.")
    certified = made("certified")
    sim.add_individual("certified", certificates=[certified.pem])
    pem = pem_file(tmp_path, certified)
    password = dps_token(sim.info, "certified", derive(group_key(sim.info), "certified"))
    assert answered(sim.info, "certified", password=password)[:2] == (401, 401000)
    # Who shows both is taken by the token, as a board that only has its TLS identity set up besides.
    assert answered(sim.info, "certified", pem, password=password)[:2] == (401, 401000)
    # An empty key signs as well, and must not be anybody's.
    empty = dps_token(sim.info, "certified", "")
    assert answered(sim.info, "certified", password=empty)[:2] == (401, 401000)


def test_an_empty_password_is_none(sim: Simulator, tmp_path: Path) -> None:
    """The MQTT client of MicroPython cannot leave the field out."""
    sim.add_group("factory", signers=[ROOT.pem])
    with RawClient(sim.info, chain=pem_file(tmp_path, made("micro", ROOT))) as client:
        client.send(connect_packet("micro", dps_username(sim.info, "micro"), ""))
        assert client.packet() == (0x20, b"\0\0")
        client.send(subscribe_packet(RESPONSES))
        assert client.packet() == (0x90, b"\0\1\1")
    refused(sim, "micro", "neither token nor", password="")


# At the hub


def at_hub(sim: Simulator, device_id: str, pem: Path | None = None, **changes: Any) -> str | None:
    """None if the hub takes the device, else its reason."""
    start = len(sim.events)
    with hub_device(sim.info, device_id, pem, **changes) as device:
        if device.connack.value == 0:
            assert sim.wait_event("hub.connect", after=start)["auth"] == ("sas" if pem is None else "x509")
            return None
    return str(sim.wait_event("hub.refused", after=start)["reason"])


@pytest.mark.parametrize("policy", ["default", None])
def test_group_member_with_its_onboarding_certificate(sim: Simulator, tmp_path: Path, policy: str | None) -> None:
    sim.add_group("factory", signers=[ROOT.pem], credential_policy=policy)
    unit = made("unit", FACTORY)
    pem = pem_file(tmp_path, unit, FACTORY)
    assert "issuedCertificateChain" not in registered(sim.info, "unit", pem)
    assert at_hub(sim, "unit", pem) is None
    # Another certificate by the same authority does as well, if it is for this device, valid, and leads there.
    assert at_hub(sim, "unit", pem_file(tmp_path, made("unit", ROOT))) is None
    assert "common name" in str(at_hub(sim, "unit", pem_file(tmp_path, made("other", ROOT))))
    assert "expired" in str(at_hub(sim, "unit", pem_file(tmp_path, made("unit", ROOT, days=(-9, -1)))))
    assert at_hub(sim, "unit", pem_file(tmp_path, unit)) == NOT_FOUND
    assert at_hub(sim, "unit", pem_file(tmp_path, made("unit"))) == NOT_FOUND
    old = made("old factory", ROOT, ca=True, days=(-9, -1))
    assert at_hub(sim, "unit", pem_file(tmp_path, made("unit", old), old)) == INVALID
    key = derive(group_key(sim.info), "unit")
    assert "not signed" in str(at_hub(sim, "unit", password=token(f"{HUB}/devices/unit", key, skn=None)))


def test_individual_with_its_onboarding_certificate(sim: Simulator, tmp_path: Path) -> None:
    first, second = made("reg"), made("reg")
    sim.add_individual("reg", certificates=[first.pem, second.pem], credential_policy=None, device_id="dev")
    assert registered(sim.info, "reg", pem_file(tmp_path, first))["deviceId"] == "dev"
    # The hub knows it by its thumbprint, so the name in it may be another than the device's.
    for party in (first, second):
        assert at_hub(sim, "dev", pem_file(tmp_path, party)) is None
    again = made("reg", key=first.key)
    assert "not issued by an authority" in str(at_hub(sim, "dev", pem_file(tmp_path, again)))


def test_policy_decides_about_issued_certificates(sim: Simulator, tmp_path: Path) -> None:
    """Without one a CSR brings nothing, and a certificate of another day is good no more."""
    sim.add_group("factory", signers=[ROOT.pem])
    unit = made("unit", ROOT)
    state = registered(sim.info, "unit", pem_file(tmp_path, unit), make_csr("unit", unit.key, hashes.SHA256()))
    issued = save_key(tmp_path / "issued.pem", unit.key)
    with issued.open("a") as out:
        out.write(f"-----BEGIN CERTIFICATE-----\n{state['issuedCertificateChain'][0]}\n-----END CERTIFICATE-----\n")
    assert at_hub(sim, "unit", issued) is None
    sim.set_enrollment("factory", group=True, credential_policy=None)
    state = registered(sim.info, "unit", pem_file(tmp_path, unit), make_csr("unit", unit.key, hashes.SHA256()))
    assert "issuedCertificateChain" not in state
    assert at_hub(sim, "unit", issued) == NOT_FOUND


def test_a_new_enrollment_ends_the_old_way_in(sim: Simulator, tmp_path: Path) -> None:
    sim.add_group("factory", signers=[ROOT.pem])
    pem = pem_file(tmp_path, made("mover", ROOT))
    registered(sim.info, "mover", pem)
    key = sim.add_individual("mover").primary_key
    provision(sim.info, "mover", tmp_path, key)
    assert "not issued by an authority" in str(at_hub(sim, "mover", pem))
    assert at_hub(sim, "mover", password=token(f"{HUB}/devices/mover", key, skn=None)) is None


# Enrolling


def test_enrollments_that_cannot_be(sim: Simulator) -> None:
    for signers in (
        [ROOT.pem, FACTORY.pem, LINE.pem],
        [ROOT.pem + FACTORY.pem],
        [b"no certificate"],
        [b"-----BEGIN x"],
    ):
        with pytest.raises(ValueError):
            sim.add_group("bad", signers=signers)
    with pytest.raises(ValueError, match="either keys or certificates"):
        sim.add_individual("bad", group_key(sim.info), certificates=[ROOT.pem])
    for group in (True, False):
        with pytest.raises(KeyError):
            sim.remove_enrollment("bad", group)


def test_sim_json_tells_the_attestation_and_no_key(tmp_path: Path) -> None:
    async def run() -> dict[str, Any]:
        simulator = Simulator(tmp_path)
        simulator.add_group("factory", signers=[ROOT.pem])
        await simulator.start()
        try:
            info: dict[str, Any] = json.loads(simulator.info_file.read_text())
            return info
        finally:
            await simulator.stop()

    groups = asyncio.run(run())["groups"]
    assert [(group["id"], group["attestation"]) for group in groups] == [
        ("boards", "symmetricKey"),
        ("factory", "x509"),
    ]
    assert groups[1].keys() == {"id", "attestation"}
