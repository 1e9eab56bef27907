"""How many instructions the sums of a start take, by valgrind on real MicroPython (64 bit), which counts the same every
time. What MicroPython takes to start and to load the modules is subtracted; TLS is not in it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

from espdps.bench.row import AGAIN, Row
from espdps.bench.unit import Bench, create
from espdps.errors import ToolError
from espdps.paths import BUILD
from espdps.simulator import Options, serving

_TOTAL = re.compile(r"I\s+refs:\s+([\d,]+)")
_SUMS = {
    "key": ("device key from a group key", "esp-dps"),
    "adafruit": ("device key from a group key", "Adafruit, SHA-256 in Python"),
    "token": ("SAS token", "esp-dps"),
    "chain": ("chain out of DPS's answer, checked", "esp-dps"),
    "json": ("chain out of DPS's answer, checked", "json.loads() instead of ours"),
}


def measure(folder: Path) -> list[Row]:
    if not shutil.which("valgrind"):
        return [Row("instructions", None, "", note="valgrind is not installed: nothing was counted")]
    bench = Bench(folder)
    with serving(folder / "sim", Options(assigning=0)) as sim:
        device = create(folder, sim.info, sim.info["mqtt_port"], name="bench-sums")
        (device / "answer.json").write_text(_answer(device, bench))
    theirs = next((BUILD / "peers").glob("lib/python3*/site-packages/adafruit_azureiot/hmac.py"), None)
    if theirs:
        shutil.copy(theirs, bench.library / "hmac_on_sha256.py")
    idle = _instructions(bench, device, "")
    rows = []
    for sum_, (what, who) in _SUMS.items():
        if sum_ == "adafruit" and not theirs:
            rows.append(Row(what, None, "", by=who, note="not installed in build/peers; make bench does it"))
        else:
            rows.append(Row(what, (_instructions(bench, device, sum_) - idle) / 1000, "thousand", by=who))
    return rows


def _answer(device: Path, bench: Bench) -> str:
    """DPS's answer with the chain that a start of this device got."""
    bench.run("device_life", device, bits=64)
    pem = (device / "identity.a").read_text(encoding="ascii")
    chain = ["".join(part.split("-----END")[0].split()) for part in pem.split("-----BEGIN CERTIFICATE-----")[1:]]
    if not chain:
        raise ToolError("the device on the bench was not given a certificate", AGAIN)
    state = {
        "registrationId": "bench-sums", "assignedHub": "hub-1.localhost", "deviceId": "bench-sums",
        "status": "assigned", "issuedCertificateChain": chain,
    }  # fmt: skip
    return json.dumps({"operationId": "5.316aac5bdc130deb.bench", "status": "assigned", "registrationState": state})


def _instructions(bench: Bench, device: Path, what: str) -> int:
    command, environment = bench.command("sums", device, bits=64)
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--trace-children=yes", *command],
        env={**environment, "BENCH_SUM": what}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    totals = _TOTAL.findall(done.stderr)  # the last is MicroPython's: where it is a script, its tools come before it
    if done.returncode != 0 or not totals:
        raise ToolError(
            f"callgrind did not count {what or 'an empty run'}: {' '.join(done.stderr.splitlines()[-1:])}",
            "does valgrind work here? valgrind --tool=callgrind true",
        )
    return int(totals[-1].replace(",", ""))
