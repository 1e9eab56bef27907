"""How fast a fleet is made, against `cryptography` alone making the same keys and requests on the same cores.
Both in turn, several times, so that whatever else the machine does befalls both alike."""

from __future__ import annotations

import base64
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from espdps.bench.row import Row
from espdps.credentials import roots
from espdps.devices import fleet
from espdps.devices.pool import Pool, cores

DEVICES = 8000
ROUNDS = 3
BAR = 80  # percent of what cryptography alone does


def measure(folder: Path) -> list[Row]:
    """Devices a second on all cores, P-384: keys and CSRs alone, into a bundle, into folders; medians of ROUNDS."""
    plan = folder / "plan.csv"
    with plan.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["registration_id"], *([f"bench-{n:06}"] for n in range(DEVICES))])
    key, trusted = base64.b64encode(bytes(64)).decode(), roots.azure_roots()

    def made(devices: Path | None, bundle: Path | None) -> float:
        common = fleet.Common(
            folder=folder, id_scope="0ne00ABCDEF", board="ESP32_GENERIC", roots=trusted, group_key=key,
            wifi_ssid="Bench", wifi_password="not a secret", devices=devices,
        )  # fmt: skip
        return fleet.run(plan, common, bundle, folder / "manifest.csv").rate

    ways: dict[str, Callable[[int], float]] = {
        "cryptography alone": lambda n: _bare(),
        "into a bundle": lambda n: made(None, folder / f"{n}.db"),
        "into folders": lambda n: made(folder / f"{n}", None),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for n in range(ROUNDS):
        for name, way in ways.items():
            rates[name].append(way(n))
    rows = [Row(f"{name}, {cores()} processes", statistics.median(rates[name]), "devices/s") for name in ways]
    bundle, folders = (
        statistics.median(100 * a / b for a, b in zip(rates[name], rates["cryptography alone"], strict=True))
        for name in ("into a bundle", "into folders")
    )
    rows.append(Row("into a bundle, of cryptography alone", bundle, "%", f">= {BAR}", bundle >= BAR))
    rows.append(Row("into folders, of cryptography alone", folders, "%"))  # the disk's figure as much as ours
    return rows


def _bare() -> float:
    """Keys and requests a second with nothing around them, dealt out in equal parts to as many processes."""
    parts = [list(range(n, DEVICES, cores())) for n in range(cores())]
    with Pool(_keys_and_requests, None, cores()) as pool:
        start = time.monotonic()
        for _ in pool.run(parts):
            pass
    return DEVICES / (time.monotonic() - start)  # to the end of the processes, as a fleet's rate


def _keys_and_requests(_: None, numbers: list[int]) -> None:
    for number in numbers:
        key = ec.generate_private_key(ec.SECP384R1())
        key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"bench-{number:06}")])
        request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA384())
        request.public_bytes(serialization.Encoding.DER)
