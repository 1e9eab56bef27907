"""Device folders for tests, made with the same code as `esp-dps new`, and what tests do with them."""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path
from typing import Any

import secrecy
from pki import Authority, private_pem

from espdps.credentials import keys
from espdps.devices import folders
from espdps.simulator import Simulator

ID = "contoso-0001"


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def stored(unit: Path) -> dict[str, bytes]:
    """The issued identity on the board's flash, as bytes."""
    return {path.name: path.read_bytes() for path in unit.rglob("identity.[ab]")}


def make_unit(
    folder: Path,
    sim: Simulator,
    registration_id: str = "contoso-0001",
    kind: str | None = "ec-p384",
    *,
    device_key: str | None = None,
    onboarding: tuple[bytes, bytes] | None = None,
) -> Path:
    """A device folder as `esp-dps new --sim` makes it, with deadlines that a test can wait for.

    Without a device key or an onboarding certificate the key is derived from the group's.
    """
    info = sim.info
    if not device_key and not onboarding:
        device_key = keys.derive_device_key(info["groups"][0]["primary_key"], registration_id)
    plan = folders.Plan(
        registration_id=registration_id,
        id_scope=info["id_scope"],
        board="UNIX",
        device_key=device_key,
        onboarding=onboarding,
        roots=Path(info["roots"]).read_bytes(),
        key_kind=kind,
        dps_host=info["host"],
        port=info["mqtt_port"],
    )
    unit = folders.create(plan, folder / "devices", force=True)
    edit(unit / "device.json", timeout=10, spread=0)
    secrecy.note(unit)
    secrecy.note(sim.directory)
    return unit


def content(folder: Path) -> dict[str, bytes]:
    """File name -> bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def prepare(attestation: str, kind: str, csr: bool, folder: Path, sim: Simulator) -> Path:
    """Enroll at the simulator, and make the device's folder."""
    policy = {} if csr else {"credential_policy": None}
    if attestation == "group-key":
        if not csr:
            sim.set_enrollment(sim.info["groups"][0]["id"], group=True, credential_policy=None)
        return make_unit(folder, sim, kind=kind if csr else None)
    if attestation == "individual-key":
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        sim.add_individual(ID, key, **policy)
        return make_unit(folder, sim, kind=kind if csr else None, device_key=key)
    root = Authority("Contoso Root")
    factory = Authority("Contoso Factory 7", root)
    private = keys.new_key(kind)
    sim.add_group("x509", signers=[root.pem], **policy)
    onboarding = factory.issue(ID, private) + factory.pem, private_pem(private)
    return make_unit(folder, sim, kind=kind if csr else None, onboarding=onboarding)
