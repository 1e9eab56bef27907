"""How fast a fleet is made, against `cryptography` alone making the same keys and requests on the same cores.

Both run in turn. Each run of one is compared with the run of the other just before it, and by the processor time of
their processes, so that other load on the machine does not change the ratio. No limit is set: the speed itself depends
on the disk, too.
"""

from __future__ import annotations

import base64
import csv
import os
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

DEVICES = 1000  # in each run
PAIRS = 7


def measure(folder: Path) -> list[Row]:
    """Devices a second on all cores, P-384: keys and CSRs alone, and whole device folders; medians."""
    plan = folder / "plan.csv"
    with plan.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["registration_id"], *([f"bench-{n:06}"] for n in range(DEVICES))])
    key, trusted = base64.b64encode(bytes(64)).decode(), roots.azure_roots()

    def folders(n: int) -> float:
        common = fleet.Common(
            folder=folder, devices=folder / f"{n}", id_scope="0ne00ABCDEF", board="ESP32_GENERIC", roots=trusted,
            group_key=key, wifi_ssid="Bench", wifi_password="not a secret",
        )  # fmt: skip
        return fleet.run(plan, common, folder / "manifest.csv").rate

    alone, made, ratios = [], [], []
    for n in range(PAIRS):
        rate, bare = _timed(_bare)
        alone.append(rate)
        rate, ours = _timed(lambda n=n: folders(n))  # type: ignore[misc]
        made.append(rate)
        ratios.append(100 * bare / ours)
    return [
        Row(f"keys and CSRs, {cores()} processes", statistics.median(alone), "devices/s", by="cryptography alone"),
        Row(f"device folders, {cores()} processes", statistics.median(made), "devices/s", by="esp-dps"),
        Row("processor time of cryptography alone, of that for folders", statistics.median(ratios), "%", by="esp-dps"),
    ]


def _timed(run: Callable[[], float]) -> tuple[float, float]:
    """The rate that it says, and the seconds of processor time that it and its processes took."""
    before = os.times()
    rate = run()
    after = os.times()
    return rate, sum(after[:4]) - sum(before[:4])


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
