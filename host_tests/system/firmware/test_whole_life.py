"""One board from blank to old age, with one folder as its flash: each trouble of a fleet's years, one after the other."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from running import Outcome, run
from units import edit, make_unit, stored

from espdps.credentials import keys
from espdps.simulator import Cut, Error, Options, Refuse, Simulator, Trouble, serving
from espdps.simulator.errors import ServiceError

ID = "contoso-0001"
GROUP = "boards"
PREVIEW, RELEASED = "2025-07-01-preview", "2026-11-01"  # of DPS
RENEWING, PLAIN = "2025-08-01-preview", "2021-04-12"  # of the hub
HEAP = "72k"  # an application with all handlers, the twin, and a renewal at DPS after a refusal
SECONDS = 30  # after which a board switches itself off if nobody does


class Life:
    """The board, its simulator, and what both said so far."""

    def __init__(self, sim: Simulator, unit: Path, runtime: str, library: Path) -> None:
        self.sim, self.unit = sim, unit
        self._runtime, self._library = runtime, library
        self.began = 0  # the first event of the present phase
        self.outcome = Outcome("", 0)  # of the last time that the board was on

    @contextmanager
    def on(self) -> Iterator[None]:
        """The board is on, and was heard of, until this is left; then it said goodbye, and lost no telemetry."""
        start = self.phase()
        with ThreadPoolExecutor(1) as pool:
            board: Future[Outcome] = pool.submit(
                run, self._runtime, self.unit, str(SECONDS), script="busy.py", heap=HEAP, library=self._library,
                timeout=SECONDS + 20,
            )  # fmt: skip
            try:
                self.telemetry(start)
                yield
            finally:
                self.sim.trouble = Trouble()  # so that it can end, whatever has failed
                with contextlib.suppress(ServiceError, KeyError):
                    self.sim.call_method(ID, "off")
                self.outcome = board.result()
                print(self.outcome.text)  # seen when a test fails
        assert self.outcome.status == 0, self.outcome.text
        bodies = [json.loads(event["body"]) for event in self.sim.events[start:] if event["event"] == "hub.telemetry"]
        numbers = [body["count"] for body in bodies]
        assert numbers == sorted(numbers) and set(numbers) == set(range(1, numbers[-1] + 1)), numbers

    def phase(self) -> int:
        """Another phase begins; where in the events."""
        self.began = len(self.sim.events)
        return self.began

    def wait(self, kind: str, after: int | None = None, **match: Any) -> int:
        """The index behind the first such event, of this phase or behind another."""
        event = self.sim.wait_event(kind, 20, after=self.began if after is None else after, **match)
        return self.sim.events.index(event) + 1

    def telemetry(self, after: int) -> int:
        return self.wait("hub.telemetry", after)

    def lose_connection(self, then: Trouble | None = None) -> int:
        """Ends the connection at the next telemetry; `then`: the trouble from there on."""
        after = len(self.sim.events)
        self.sim.trouble = Trouble({**(then or Trouble()).at, "hub.telemetry": Cut()})
        end = self.wait("closed", after, device=ID)
        self.sim.trouble = then or Trouble()
        return end

    def renew(self) -> None:
        """The application asks for another certificate; the board has it when this returns."""
        self.lengthen()
        before = stored(self.unit)
        after = len(self.sim.events)
        assert self.sim.call_method(ID, "renew") == (200, None)
        self.telemetry(self.wait("hub.connect", after))
        assert stored(self.unit) != before

    def lengthen(self) -> None:
        """Certificates live a day longer from now on: one that ends in the same second as the last is no renewal."""
        seconds = self.sim.group().certificate_seconds or self.sim.options.certificate_seconds
        self.sim.set_enrollment(GROUP, group=True, certificate_seconds=seconds + 86400)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Those of this phase."""
        return [event for event in self.sim.events[self.began :] if event["event"] == kind]

    @property
    def errors(self) -> list[str]:
        """Steps and codes that the board told of when it was on the last time."""
        return [" ".join(text.split()[:2]) for step, text in self.outcome.steps if step == "error"]

    @property
    def heard(self) -> list[str]:
        """Messages that it had then."""
        return [text.partition(" {")[0] for step, text in self.outcome.steps if step == "message"]

    @property
    def notes(self) -> dict[str, Any]:
        """What it remembers on flash."""
        found: dict[str, Any] = json.loads(next(self.unit.rglob("notes.json")).read_text())
        return found

    @property
    def certificates(self) -> tuple[int, int]:
        """How many DPS and the hub have issued, in the whole life."""
        everything = self.sim.events
        at_dps = [event for event in everything if event["event"] == "dps.assigned" and event["certificate"]]
        at_hub = [event for event in everything if event["event"] == "hub.renewal" and event["status"] == 200]
        return len(at_dps), len(at_hub)


@pytest.mark.parametrize("runtime", ["micropython-32", "circuitpython"])
def test_a_whole_life(runtime: str, tmp_path: Path, mpy: Path) -> None:
    with serving(tmp_path / "sim", Options(assigning=0)) as sim:
        unit = make_unit(tmp_path, sim)
        rolled = base64.b64encode(secrets.token_bytes(64)).decode()
        # A hub that refuses is waited for 1 to 2 seconds before DPS is asked where it is, in place of 5 to 10 minutes
        edit(unit / "device.json", ntp=[], dps_api=PREVIEW, hub_api=RENEWING, refusal_patience=1)
        edit(unit / "secrets.json", secondary_device_key=keys.derive_device_key(rolled, ID))
        life = Life(sim, unit, runtime, mpy)

        # 1. A blank board registers, has a certificate, and sends.
        with life.on():
            pass
        assert life.errors == [] and life.certificates == (1, 0)
        assert [event["auth"] for event in life.events("hub.connect")] == ["x509"]

        # 2. It was off, and messages have waited for it.
        waiting = [f"waiting {number}" for number in range(5)]
        for text in waiting:
            sim.send_message(ID, text.encode())
        with life.on():
            woken = [event["event"] for event in sim.events[life.began :]]
            assert "hub.subscribe" not in woken and not [kind for kind in woken if kind.startswith("dps.")], woken

            # 3. The hub puts a renewal off, three times, and then grants it.
            life.phase()
            life.lengthen()
            sim.trouble = Trouble({"hub.renewal": Error(429, 429002, "Too many requests")})
            assert sim.call_method(ID, "renew") == (200, None)
            asked = life.wait("hub.renewal", status=429)
            sim.trouble = Trouble({"hub.renewal": Error(429, 429002, "Too many requests", 2)})
            asked = life.wait("hub.renewal", asked, status=429)
            sim.trouble = Trouble({"hub.renewal": Error(500, 500001, "Out of order", 2)})
            asked = life.wait("hub.renewal", asked, status=500)
            sim.trouble = Trouble()
            life.telemetry(life.wait("hub.connect", life.wait("hub.renewal", asked, status=200)))
            assert life.certificates == (1, 1) and not life.events("dps.register")

            # 4. The previews are withdrawn. The hub's next connection shows it, and so does a renewal, now at DPS.
            life.phase()
            sim.set_api(dps=(RELEASED,), hub=(PLAIN,))
            life.telemetry(life.wait("hub.connect", life.lose_connection()))
            life.renew()
            assert life.certificates == (2, 1)
        assert life.heard == waiting
        renewal = ["hub.renew 429002"] * 2 + ["hub.renew 500001"]
        assert life.errors[:3] == renewal and life.errors[-1] == "dps.register 400004", life.errors
        assert {error.split()[1] for error in life.errors[3:-1]} == {"closed"}, life.errors
        assert (life.notes["dps_api"], life.notes["hub_api"]) == (RELEASED, PLAIN)

        # 5. What works is known at the next start. The group's key is rolled: the board's other key is the right one.
        with life.on():
            assert not life.events("hub.refused") and not life.events("dps.register")
            life.phase()
            sim.set_enrollment(GROUP, group=True, primary_key=rolled)
            life.renew()
            assert life.certificates == (3, 1) and len(life.events("dps.connect")) == 2
        assert life.errors == ["dps.register 401000"] and life.notes["secondary"] is True

        # 6. The hub refuses every sign-in. DPS is asked where the hub is, but for no certificate.
        with life.on():
            life.phase()
            before = stored(unit)
            life.wait("dps.assigned", life.lose_connection(Trouble({"hub.connect": Refuse(5)})))
            life.wait("hub.refused", len(sim.events))
            assert {event["csr"] for event in life.events("dps.register")} == {False} and stored(unit) == before

            # 7. It is back.
            life.phase()
            sim.trouble = Trouble()
            life.telemetry(life.wait("hub.connect"))
            reported = len(sim.events)
            version = sim.desire(ID, {"interval": 5})
            sim.send_message(ID, b"welcome back")
            life.wait("hub.c2d", state="completed")
            while sim.twin(ID).reported.get("seen") != version:
                reported = life.wait("hub.twin", reported, status=204)
            life.telemetry(len(sim.events))
        assert life.heard == ["welcome back"] and "refused" not in life.notes
        assert {error.split()[1] for error in life.errors} == {"closed", "connack-5"}, life.errors
        shown = [event["certificate"] for event in sim.events if event["event"] == "hub.connect"]
        assert life.certificates == (3, 1) and len({facts["sha256"] for facts in shown}) == 4
        first, last = (shown[-1][name].replace("+00:00", "Z") for name in ("not_before", "not_after"))
        dates = {"validFrom": first, "validUntil": last}
        assert sim.twin(ID).reported == {"certificate": dates, "seen": version}
        assert not [event for event in sim.events if event["event"] == "fault"]
