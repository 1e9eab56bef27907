"""A fleet that loses its hub at one moment, in virtual time: how its calls to DPS spread.

Every board is the firmware's own Device and hardware.py, one after the other on one clock that only their waiting moves."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import aziot
import hardware
from aziot import clock, device, dps, hub, recover, stream
from aziot.errors import AzureError

BOARDS = 1000
LIMIT = 1000  # registrations a minute that one DPS instance takes (its documented quota)
LOST_AT = 1_800_000_000  # Unix time


class Fleet:
    """Runs boards until each is at the new hub; `calls`: when DPS was asked, in seconds since the loss."""

    def __init__(self, root: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = f"{root}/"
        self.code = code  # what the old hub says
        self.back_at = 1e9  # seconds until it takes its boards again
        self.life = 0  # seconds of a certificate; 0: boards without
        self.moved_after = 0.0  # seconds until DPS names another hub
        self.now = 0.0
        self.calls: list[float] = []
        self.certificates = 0  # that DPS has issued since the loss
        self.done: list[float] = []
        (root / "device.json").write_text(json.dumps({"registration_id": "contoso-0001", "id_scope": "0ne", "ntp": []}))
        for module in (clock, device, dps, hub, recover, stream):
            # Another test may have had the firmware forget it, and load another one.
            monkeypatch.setitem(sys.modules, module.__name__, module)
            monkeypatch.setattr(aziot, module.__name__.rpartition(".")[2], module, raising=False)
        monkeypatch.setattr(clock, "now", lambda: int(LOST_AT + self.now))
        for module in (device, hardware):
            monkeypatch.setattr(module, "pause", self.sleep, raising=False)
        monkeypatch.setattr(stream, "pause", self.sleep)
        monkeypatch.setattr(recover, "due", lambda ms: self.now * 1000 + ms)
        monkeypatch.setattr(recover, "left", lambda end: end - self.now * 1000)
        module = device._module
        monkeypatch.setattr(device, "_module", lambda name: self if name == "store" else module(name))
        monkeypatch.setattr(device, "forget", lambda *names: None)
        monkeypatch.setattr(dps, "register", self.register)
        monkeypatch.setattr(hub.Session, "open", lambda session, record: self.open(session, record))
        monkeypatch.setattr(hardware, "log", lambda step, text="": None)
        monkeypatch.setattr(stream.gc, "collect", lambda: 0)  # a PC's heap is large: most of a test's time otherwise

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    # the store, in memory
    def load(self, root: str) -> list[Any]:
        return self.records

    def save(self, root: str, name: str, device_id: str) -> Any:
        begun = LOST_AT + int(self.now) - self.life // 2 if self.life else 0
        record = SimpleNamespace(
            hub=name, device_id=device_id, not_before=begun, not_after=begun + self.life, active=True, leaf=0,
            sequence=1,
        )  # fmt: skip
        self.records = [record]
        return record

    def register(self, identity: Any, payload: Any, timeout: int, csr: bool) -> dps.Assignment:
        self.calls.append(self.now)
        self.certificates += csr and self.life > 0
        self.now += 4  # a handshake, an answer "assigning" with retry-after
        name = "new" if self.now >= self.moved_after else "old"
        return dps.Assignment({"assignedHub": name, "deviceId": "contoso-0001"})

    def open(self, session: Any, record: Any) -> None:
        self.now += 2
        session.record = record
        if record.hub == "old" and self.now < self.back_at:
            raise AzureError(self.code, "hub.connect")

    def run(self, until: float) -> None:
        for _ in range(BOARDS):
            self.now = random.random() * 2  # when it notices that its connection is gone
            hardware._failures[:] = 0, 0
            hardware._waited = 0
            (Path(self.root) / "notes.json").unlink(missing_ok=True)
            self.save("", "old", "contoso-0001")
            one = device.Device.load(self.root)
            while self.now < until:
                try:
                    one.connect()
                    self.done.append(self.now)
                    break
                except AzureError as e:
                    hardware.wait_after(e)

    def busiest(self, seconds: int) -> int:
        """The most calls within any of the windows of so many seconds."""
        return max(Counter(int(at // seconds) for at in self.calls).values())


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Fleet]:
    random.seed(4)
    return lambda code: Fleet(tmp_path, code, monkeypatch)


def test_refused_all_at_once(fleet: Callable[[str], Fleet], record_property: Callable[[str, object], None]) -> None:
    boards = fleet("connack-5")
    boards.run(3600)
    assert len(boards.done) == len(boards.calls) == BOARDS
    assert min(boards.calls) >= 300  # a hiccup of the hub's sign-in never comes so far
    figure = f"{max(boards.calls):.0f} s, {boards.busiest(60)} in the busiest minute, {boards.busiest(1)} in a second"
    record_property("figure", f"1,000 boards refused by their hub at once ask DPS within {figure}")
    assert boards.busiest(60) <= LIMIT * 0.6
    assert boards.busiest(1) <= 3 * BOARDS / 120  # no spike: three times the even spread over two minutes


def test_refused_and_nothing_helps(
    fleet: Callable[[str], Fleet], record_property: Callable[[str, object], None]
) -> None:
    boards = fleet("connack-5")
    boards.moved_after = 1e9
    boards.run(86400)
    a_board = len(boards.calls) / BOARDS
    record_property("figure", f"refused for a day, a board asks DPS {a_board:.0f} times")
    assert boards.busiest(60) <= LIMIT * 0.6 and a_board <= 60


def test_out_of_reach(fleet: Callable[[str], Fleet], record_property: Callable[[str, object], None]) -> None:
    boards = fleet("dns")
    boards.moved_after = 5400
    boards.run(86400)
    assert len(boards.done) == BOARDS and min(boards.calls) >= 900
    figure = f"{boards.busiest(60)} in the busiest minute; after 90 minutes it has moved, and all are back after"
    record_property(
        "figure", f"1,000 boards whose hub is gone ask DPS at most {figure} {max(boards.done) / 60:.0f} min"
    )
    assert boards.busiest(60) <= LIMIT / 4


def test_the_hub_s_sign_in_is_out_for_an_hour(
    fleet: Callable[[str], Fleet], record_property: Callable[[str, object], None]
) -> None:
    """Boards with certificates that are valid: DPS is asked where the hub is, and issues none."""
    boards = fleet("connack-5")
    boards.moved_after = 1e9
    boards.back_at = 3600
    boards.life = 30 * 86400
    boards.run(86400)
    assert len(boards.done) == BOARDS and boards.certificates == 0
    last = max(boards.done) - boards.back_at
    record_property(
        "figure",
        f"sign-in out for an hour, 1,000 boards: DPS asked {len(boards.calls)} times, {boards.busiest(60)} in the busiest "
        f"minute, {boards.busiest(1)} in a second; no certificate issued; all are back {last / 60:.0f} min after its end",
    )
    assert boards.busiest(60) <= LIMIT / 4 and last <= 900 + 60
