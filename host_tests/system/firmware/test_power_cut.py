"""The power fails at each block write in the life of an identity, on real LittleFS and FAT: it is never lost.

The life: first issue, renewal, a certificate that the Hub refuses, assignment to another hub, a restart between any two.
What happens on the board's side is power_cut.py's; here are the plans, and devices that go on with what is left.

A torn sector of FAT is half new and half old. One that is left half erased may be FAT's directory, which the driver
writes whenever a file is closed: no arrangement of files is safe from that, so this is tried on LittleFS only."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pki import Authority
from running import FIRMWARE, HERE, SHIMS, run
from units import make_unit

from espdps.board.flash import ISSUED, SLOT_BYTES
from espdps.simulator import Options, serving
from espdps.virtual_board.micropython import interpreter

SWEEP = bool(os.environ.get("ESP_DPS_SWEEP"))
DISKS = {"littlefs": ("littlefs", ISSUED), "littlefs-bare": ("littlefs", ()), "fat": ("fat", ISSUED)}
FAULTS = ("drop", "torn", "erased", "eio")
STRIDE = 8  # of the cuts on LittleFS, unless all are asked for; eight combinations begin at eight different ones
DEVICES = 10  # that go on from what is left on a disk, at least, unless all are asked for


def step(hub: str, ders: list[bytes], begin: int, end: int, *, accepted: bool = True) -> dict[str, Any]:
    """What is to be stored, and the PEM that has to be found then, as Python's ssl module makes it."""
    return {
        "hub": hub,
        "device_id": "contoso-0001",
        "not_before": begin,
        "not_after": end,
        "chain": [base64.b64encode(der).decode() for der in ders],
        "pem": "".join(ssl.DER_cert_to_PEM_cert(der) for der in ders),
        "accepted": accepted,
    }


def cut(folder: Path, bits: int, **plan: Any) -> dict[str, Any]:
    """What power_cut.py did; AssertionError with its words if an identity was lost."""
    path = folder / "plan.json"
    path.write_text(json.dumps({"first": 0, "stride": 1, "left": "", "slot_bytes": SLOT_BYTES, **plan}))
    done = subprocess.run(
        [interpreter(bits), "-X", "heapsize=4m", HERE / "power_cut.py", path],
        env={"MICROPYPATH": f"{FIRMWARE}:{SHIMS / 'micropython'}:.frozen"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    # Before the last line: files that could not be closed complain when they are collected.
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.sweep
@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("disk", DISKS)
def test_no_cut_loses_an_identity(
    tmp_path: Path, record_property: Callable[[str, object], None], disk: str, bits: int
) -> None:
    noise = random.Random(1)
    filesystem, slots = DISKS[disk]
    # Of every length, so that a shorter chain comes after a longer one.
    steps = [
        step("hub-1", [noise.randbytes(1300) for _ in range(4)], 1, 101),
        step("hub-1", [noise.randbytes(700), noise.randbytes(800)], 2, 102),
        step("hub-1", [noise.randbytes(500), noise.randbytes(900), noise.randbytes(600)], 3, 103, accepted=False),
        step("hub-2", [noise.randbytes(600)], 4, 104),
    ]
    sizes = {"device.json": 300, "device.key": 185, "device.csr": 230, "onboarding.crt": 1800, "onboarding.key": 241}
    files = {name: base64.b64encode(noise.randbytes(size)).decode() for name, size in sizes.items()}
    last = step("hub-3", [noise.randbytes(1000)] * 2, 5, 105)
    every = SWEEP or filesystem == "fat"
    faults = [fault for fault in FAULTS if (disk, fault) != ("fat", "erased")]
    cuts = writes = 0
    for fault in faults:
        result = cut(
            tmp_path,
            bits,
            filesystem=filesystem,
            fault=fault,
            slots=slots,
            steps=steps,
            last=last,
            files=files,
            first=0 if every else FAULTS.index(fault) * 2 + bits // 64,
            stride=1 if every else STRIDE,
        )
        cuts += len(result["cuts"])
        writes += result["writes"]
        least = result["writes"] // (1 if every else STRIDE)
        assert len(result["cuts"]) >= least >= 100 // (1 if every else STRIDE), fault
    record_property(
        "figure",
        f"power cuts on {disk}, {bits}-bit ({', '.join(faults)}): {cuts:,} of {writes:,} tried, no identity lost",
    )


def issued(unit: Path) -> dict[str, Any]:
    """Register a device as it is, and take what it was given from its flash."""
    for name in ISSUED:
        (unit / name).unlink(missing_ok=True)
    outcome = run("micropython-64", unit)
    assert outcome.status == 0, outcome.text
    line, _, pem = (unit / ISSUED[0]).read_text().rstrip("\n").partition("\n")
    *_, begin, end, hub, device_id = line.split()
    assert device_id == "contoso-0001"
    foot = "-----END CERTIFICATE-----"
    ders = [ssl.PEM_cert_to_DER_cert(part.strip() + foot) for part in pem.split(foot)[:-1]]
    return step(hub, ders, int(begin), int(end))


def foreign(unit: Path) -> dict[str, Any]:
    """A certificate of our key and name, by an issuer that the Hub does not know."""
    key = serialization.load_der_private_key((unit / "device.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    der = ssl.PEM_cert_to_DER_cert(Authority("nobody").issue("contoso-0001", key).decode())
    now = int(time.time())
    return step("hub-1.localhost", [der], now - 3600, now + 3600, accepted=False)


@pytest.mark.sweep
@pytest.mark.parametrize("disk", DISKS)
def test_the_device_reconnects_after_a_cut(
    tmp_path: Path, record_property: Callable[[str, object], None], disk: str
) -> None:
    """With real certificates, and with one that the Hub has to refuse; a stored identity needs no DPS."""
    filesystem, slots = DISKS[disk]
    with serving(tmp_path / "sim", Options(hubs=("hub-1.localhost", "hub-2.localhost"), assigning=0)) as sim:
        unit = make_unit(tmp_path, sim)
        sim.set_enrollment(sim.group().id, group=True, hubs=("hub-1.localhost",))
        steps = [issued(unit), issued(unit), foreign(unit)]
        # Assigned anew: the first hub keeps the device, so that every identity stays valid.
        sim._state.remove_registration("contoso-0001")
        sim.set_enrollment(sim.group().id, group=True, hubs=("hub-2.localhost",))
        steps.append(issued(unit))
        assert [step["hub"] for step in steps] == ["hub-1.localhost"] * 3 + ["hub-2.localhost"]
        files = {path.name: path.read_bytes() for path in unit.iterdir() if path.name not in ISSUED}
        (tmp_path / "left").mkdir()
        result = cut(
            tmp_path,
            64,
            filesystem=filesystem,
            fault="torn",
            slots=slots,
            steps=steps,
            last=steps[0],
            files={name: base64.b64encode(content).decode() for name, content in files.items()},
            left=str(tmp_path / "left"),
            stride=1 if SWEEP or filesystem == "fat" else 3,
        )
        left = sorted((tmp_path / "left").iterdir(), key=lambda path: int(path.name.partition("-")[0]))
        tried = left if SWEEP else left[:: max(1, len(left) // DEVICES)]
        refused = 0
        for flash in tried:
            outcome = run("micropython-32", flash)
            assert outcome.status == 0 and outcome.names[-1] == "hub.sent", f"{flash.name}: {outcome.text}"
            done = int(flash.name.partition("-")[2])
            if done:
                assert not [name for name in outcome.names if name.startswith("dps.")], f"{flash.name}: {outcome.text}"
            refused += "error" in outcome.names
            assert {name: (flash / name).read_bytes() for name in files} == files
            shutil.rmtree(flash)
    record_property(
        "figure",
        f"devices that reconnected after a power cut on {disk}: {len(tried)} of {len(left)} states that "
        f"{len(result['cuts'])} cuts left, none lost",
    )
    assert len(tried) >= 8 and (refused or tried != left), "no device came back from a certificate that the Hub refused"
