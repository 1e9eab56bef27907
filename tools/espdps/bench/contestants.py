"""Who does the same job on the bench: a registration with DPS, a connection to the hub, telemetry, over one tap.

Each is the real thing, unmodified: MicroPython's umqtt.simple by itself, Microsoft's SDK, Adafruit's library.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espdps.bench.row import AGAIN
from espdps.bench.tap import Tap
from espdps.bench.tunnel import proxy
from espdps.bench.unit import DEADLINE, Bench, Step, create, forget, steps
from espdps.credentials import keys
from espdps.errors import ToolError
from espdps.paths import BUILD

PEERS = Path(__file__).parent / "peers"
_NO_HUB = "subscribes to $iothub/methods/#, which Azure documents as $iothub/methods/POST/#: the simulator refuses it"


@dataclass(frozen=True)
class Contestant:
    """``run(messages)`` goes from a blank device to so many messages; ``missing``: why it cannot, "" if it can;
    ``no_hub``: why it goes as far as the registration only, "" if it goes all the way.
    """

    name: str
    run: Callable[[int], list[Step]]
    missing: str = ""
    no_hub: str = ""


class Field:
    """All contestants, before one simulator that a tap leads to."""

    def __init__(self, folder: Path, info: dict[str, Any], tap: Tap, bench: Bench) -> None:
        self._info, self._tap, self._bench = info, tap, bench
        self.certificate = create(folder, info, tap.port, name="bench-csr")
        self.token = create(folder, info, tap.port, kind=None, name="bench-sas")

    def ours(self, device: Path, messages: int, blank: bool = True) -> list[Step]:
        """esp-dps; with ``blank`` false it has the identity of the last time."""
        if blank:
            forget(device)
        return self._on_board("device_life", device, messages)

    def contestants(self) -> list[Contestant]:
        return [
            Contestant("esp-dps", lambda n: self.ours(self.certificate, n)),
            Contestant("umqtt alone", lambda n: self._on_board("plain_umqtt", self.certificate, n)),
            Contestant("esp-dps, SAS", lambda n: self.ours(self.token, n)),
            self._peer("azure-iot-device, SAS", "sdk", "azure_iot_device"),
            self._peer("Adafruit, SAS", "peers", "adafruit_azureiot", _NO_HUB),
        ]

    def _on_board(self, program: str, device: Path, messages: int) -> list[Step]:
        done = self._bench.run(program, device, bits=64, extra={"BENCH_MESSAGES": str(messages)})
        return _checked(program, done)

    def _peer(self, name: str, environment: str, script: str, no_hub: str = "") -> Contestant:
        if not (BUILD / environment / ".packages").exists():
            return Contestant(name, lambda n: [], f"not installed in build/{environment}; make bench does it")
        return Contestant(name, lambda n: self._on_pc(environment, script, n), no_hub=no_hub)

    def _on_pc(self, environment: str, script: str, messages: int) -> list[Step]:
        info, port = self._info, self._tap.port
        with proxy({"mqtt_port": port, "https_port": info["https_port"]}) as tunnel:
            id = f"bench-{environment}"
            settings = {
                "name": id, "key": keys.derive_device_key(info["groups"][0]["primary_key"], id), "port": port,
                "id_scope": info["id_scope"], "host": info["host"], "roots": info["roots"], "tunnel": tunnel.port,
                "messages": messages,
            }  # fmt: skip
            try:
                done = subprocess.run(
                    [BUILD / environment / "bin" / "python", "-B", "-W", "ignore", PEERS / f"{script}.py"],
                    input=json.dumps(settings), capture_output=True, text=True, timeout=DEADLINE,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise ToolError(f"{script} did not end within {DEADLINE:.0f} s", AGAIN) from None
        return _checked(script, done)


def _checked(program: str, done: subprocess.CompletedProcess[str]) -> list[Step]:
    said = steps(done.stdout)
    if not any(step.name == "dps.assigned" or step.name == "hub.sent" for step in said):
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise ToolError(f"{program} came to nothing: {' '.join(last)}", AGAIN)
    return said
