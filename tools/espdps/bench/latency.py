"""How long it takes from blank to assigned and to the first telemetry, over ways of several lengths, and how near that
is to what no client could undercut: the round trips of the protocols, and the wait that the service asks for.
"""

from __future__ import annotations

from pathlib import Path

from espdps.bench.contestants import Field
from espdps.bench.row import Row
from espdps.bench.tap import Tap
from espdps.bench.unit import Bench, Step
from espdps.simulator import Options, serving

ROUND_TRIPS = (0, 50, 200)  # ms
RETRY_AFTER = 2  # seconds
AIM = 10  # percent over the floor, where the way and not this machine is what takes time
_ROUNDS = 2  # of which the faster one counts
# TCP, TLS 1.2 in full, CONNECT, and then SUBSCRIBE, the registration, the question after it.
_TO_ASSIGNED = 1 + 2 + 1 + 3
# TCP, TLS 1.2 in full, CONNECT, the message.
_TO_TELEMETRY = 1 + 2 + 1 + 1


def floor(rtt: int) -> tuple[int, int]:
    """Milliseconds to assigned and to the first acknowledged message, with round trips of so many."""
    assigned = _TO_ASSIGNED * rtt + RETRY_AFTER * 1000
    return assigned, assigned + _TO_TELEMETRY * rtt


def measure(folder: Path) -> list[Row]:
    rows: list[Row] = []
    with serving(folder / "sim", Options(retry_after=RETRY_AFTER)) as sim, Tap(sim.info["mqtt_port"]) as tap:
        field = Field(folder, sim.info, tap, Bench(folder))
        contestants = field.contestants()
        for rtt in ROUND_TRIPS:
            tap.rtt = rtt / 1000
            assigned, sent = floor(rtt)
            at = f"round trip {rtt} ms"
            rows += [
                Row(f"{at}: assigned", assigned, "ms", by="floor"),
                Row(f"{at}: telemetry", sent, "ms", by="floor"),
            ]
            for contestant in contestants:
                if contestant.missing:
                    if rtt == ROUND_TRIPS[0]:
                        rows.append(Row(f"{at}: assigned", None, "ms", by=contestant.name, note=contestant.missing))
                    continue
                runs = []
                for _ in range(_ROUNDS):
                    runs.append(contestant.run(1))
                    tap.settle()
                for name, what, least in (("dps.assigned", "assigned", assigned), ("hub.sent", "telemetry", sent)):
                    took = min(_at(run, name) for run in runs)
                    if took < float("inf"):
                        rows.append(Row(f"{at}: {what}", took, "ms", by=contestant.name))
                    if contestant.name == "esp-dps" and rtt == ROUND_TRIPS[-1]:
                        rows.append(
                            Row(f"{what} at {rtt} ms, over the floor", 100 * took / least - 100, "%", f"aim {AIM}")
                        )
    return rows


def _at(run: list[Step], name: str) -> float:
    return min((step.ms for step in run if step.name == name), default=float("inf"))
