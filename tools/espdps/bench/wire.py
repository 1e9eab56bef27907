"""What goes over the wire: how often a device waits for a round trip, in how many TLS records and bytes.

Counted by a tap outside of every program, the same for all. A message's share is what runs with more of them have more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

from espdps.bench.contestants import Contestant, Field
from espdps.bench.row import AGAIN, Row
from espdps.bench.tap import Link, Tap
from espdps.bench.unit import Bench
from espdps.errors import ToolError
from espdps.simulator import Options, serving

FLIGHTS = 4  # for a registration with one assigning answer
FLIGHTS_A_MESSAGE = 1
_MORE = 16  # messages


@dataclass(frozen=True)
class Traffic:
    """Of a connection or a part of one. ``flights`` wait for an answer; records and bytes include TLS's handshake for
    bytes, and are of application data for records.
    """

    flights: int
    records_out: int
    records_in: int
    bytes_out: int
    bytes_in: int

    @classmethod
    def of(cls, link: Link) -> Traffic:
        return cls(link.flights, link.sent.records, link.got.records, link.sent.size, link.got.size)

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __truediv__(self, number: int) -> Traffic:
        return Traffic(*(round(a / number) for a in astuple(self)))


@dataclass(frozen=True)
class Wire:
    """``restart``: all of a start with the identity on flash, by ``connections``; None for who has none."""

    registration: Traffic
    hub: Traffic | None
    message: Traffic | None
    restart: Traffic | None = None
    connections: int = 0


def counted(tap: Tap, run: Callable[[], object]) -> list[Traffic]:
    """The traffic of each connection that is made meanwhile."""
    tap.links.clear()
    run()
    tap.settle()
    return [Traffic.of(link) for link in tap.links]


def wire(tap: Tap, contestant: Contestant) -> Wire:
    """Raises ToolError when it does not make just one connection to DPS and one to the hub, if it comes there."""
    if contestant.no_hub:
        return Wire(counted(tap, lambda: contestant.run(1))[0], None, None)
    one = counted(tap, lambda: contestant.run(1))
    more = counted(tap, lambda: contestant.run(1 + _MORE))
    if len(one) != 2 or len(more) != 2:
        raise ToolError(f"{contestant.name} made {len(one)} and {len(more)} connections", AGAIN)
    message = (more[1] - one[1]) / _MORE  # how a connection ends, in a packet more or less, is rounded away
    return Wire(one[0], one[1] - message, message)


def ours(field: Field, tap: Tap) -> Wire:
    """esp-dps with a certificate, and its restart."""
    first = wire(tap, Contestant("esp-dps", lambda n: field.ours(field.certificate, n)))
    again = counted(tap, lambda: field.ours(field.certificate, 1, blank=False))
    return Wire(first.registration, first.hub, first.message, again[-1], len(again))


def measure(folder: Path) -> list[Row]:
    rows: list[Row] = []
    with serving(folder / "sim", Options(retry_after=1)) as sim, Tap(sim.info["mqtt_port"]) as tap:
        field = Field(folder, sim.info, tap, Bench(folder))
        for contestant in field.contestants():
            if contestant.missing:
                rows.append(Row("registration: flights", None, "", by=contestant.name, note=contestant.missing))
            else:
                mine = contestant.name == "esp-dps"
                if contestant.no_hub:
                    rows.append(Row("hub: flights", None, "", by=contestant.name, note=contestant.no_hub))
                rows += _rows(contestant.name, ours(field, tap) if mine else wire(tap, contestant), mine)
    return rows


def _rows(name: str, found: Wire, ours: bool) -> list[Row]:
    rows = []
    for what, traffic in (
        ("registration", found.registration), ("hub", found.hub), ("message", found.message),
        ("restart", found.restart),
    ):  # fmt: skip
        if traffic:
            limit = {"registration": FLIGHTS, "message": FLIGHTS_A_MESSAGE}.get(what) if ours else None
            bar, met = (f"<= {limit}", traffic.flights <= limit) if limit else ("", None)
            rows += [
                Row(f"{what}: flights", traffic.flights, "", bar, met, name),
                Row(f"{what}: TLS records out", traffic.records_out, "", by=name),
                Row(f"{what}: bytes out", traffic.bytes_out, "", by=name),
                Row(f"{what}: bytes in", traffic.bytes_in, "", by=name),
            ]
    if found.restart:
        rows.append(Row("restart: handshakes", found.connections, "", "<= 1", found.connections <= 1, name))
    return rows
