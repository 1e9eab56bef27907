"""Device folders for tests, made with the same code as `esp-dps new`, and what tests do with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import secrecy

from espdps.credentials import keys
from espdps.devices import folders
from espdps.simulator import Simulator


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
