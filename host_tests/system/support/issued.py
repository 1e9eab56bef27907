"""A board with issued certificates in its slots, put there by the firmware's own store."""

from __future__ import annotations

import base64
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

from bench import Bench
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from aziot import store
from espdps.devices import folders

END = 1_900_000_000


def issued(device: folders.Device, key: ec.EllipticCurvePublicKey | None = None) -> list[str]:
    """A chain for the device's key, or another, as a service issues it: base64 of DER, the leaf first."""
    authority = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device.registration_id)])
    mine = x509.load_der_x509_csr((device.folder / "device.csr").read_bytes()).public_key()
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(name, name, serial_number=7).not_valid_before(now)
    leaf = builder.not_valid_after(now + timedelta(30)).public_key(key or mine).sign(authority, hashes.SHA256())  # type: ignore[arg-type]
    return [base64.b64encode(leaf.public_bytes(serialization.Encoding.DER)).decode()]


class Issued:
    """A flashed bench, and the slots that its board has been given by the firmware's own code, run on the PC."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench = bench
        self.port = bench.board.port
        self.backup = folder / "dev-1.identity"
        self._slots = folder / "slots"
        self._slots.mkdir()
        self._root = f"{self._slots}/"

    def issue(self, hub: str = "hub-1.azure-devices.net", key: ec.EllipticCurvePublicKey | None = None) -> None:
        store.activate(store.save(self._root, hub, "dev-1", 5, END, issued(self.bench.device, key)))
        self.send()

    def send(self) -> None:
        for path in self._slots.iterdir():
            self.bench.mpremote("fs", "cp", str(path), f":/{path.name}")

    def fetch(self) -> list[tuple[str, int, bool]]:
        """What the firmware finds in the board's slots."""
        for name in ("identity.a", "identity.b"):
            self.bench.mpremote("fs", "cp", f":/{name}", str(self._slots / name))
        return [(record.hub, record.sequence, record.active) for record in store.load(self._root)]

    def esp_dps(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "espdps.cli", *words, "--port", self.port]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
