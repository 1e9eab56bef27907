"""API versions: which are known, what one that is not is answered, and one that is withdrawn while devices use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulator_client import dps_device, finish, hub_device, hub_username, provision

from espdps.simulator import Options, Simulator, serving

HUB = "hub-1.localhost"


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    with serving(tmp_path / "sim", Options(assigning=0, retry_after=0)) as simulator:
        yield simulator


# Those of Microsoft's device SDKs, of its service SDKs, of both kinds of issued certificates, of REST's stable version.
@pytest.mark.parametrize(
    "version", ["2019-03-31", "2021-06-01", "2021-10-01", "2021-11-01-preview", "2025-07-01-preview", "2026-11-01"]
)
def test_versions_that_dps_knows(sim: Simulator, version: str) -> None:
    with dps_device(sim.info, "known", version=version) as device:
        assert finish(device, "known")["status"] == "assigned"


@pytest.mark.parametrize("version", ["2020-01-01", "2026-11-02-preview", "2099-01-01"])
def test_a_version_that_dps_does_not_know(sim: Simulator, version: str) -> None:
    with dps_device(sim.info, "early", version=version) as device:
        device.register("early")
        answer = device.answer()
    assert (answer.status, answer.body["errorCode"]) == (400, 400004)
    assert "Unsupported API version" in answer.body["message"]


def test_a_preview_that_dps_is_told_of(tmp_path: Path) -> None:
    options = Options(assigning=0, retry_after=0, dps_api=("2026-11-01", "2026-11-15-preview"))
    with serving(tmp_path / "sim", options) as sim, dps_device(sim.info, "new", version="2026-11-15-preview") as device:
        assert finish(device, "new")["status"] == "assigned"


def test_a_preview_is_withdrawn(sim: Simulator) -> None:
    with dps_device(sim.info, "late") as device:
        assert finish(device, "late")["status"] == "assigned"
        sim.set_api(dps=["2026-11-01"])
        device.register("late")
        assert device.answer().body["errorCode"] == 400004
    with dps_device(sim.info, "late", version="2026-11-01") as device:
        assert finish(device, "late")["status"] == "assigned"


def test_versions_at_a_hub(sim: Simulator, tmp_path: Path) -> None:
    _, pem = provision(sim.info, "dev", tmp_path)

    def connack(username: str) -> int:
        with hub_device(sim.info, "dev", pem, username=username) as device:
            return int(device.connack.value)

    for version in ("2016-11-14", "2019-10-01", "2020-09-30", "2021-04-12", "2025-08-01-preview"):
        assert connack(hub_username(HUB, "dev", version)) == 0, version
    assert connack(hub_username(HUB, "dev", "2099-01-01")) != 0
    sim.set_api(hub=["2021-04-12"])
    assert connack(hub_username(HUB, "dev", "2025-08-01-preview")) != 0
    assert connack(hub_username(HUB, "dev", "2021-04-12")) == 0


def test_a_hub_only_recommends_a_version(sim: Simulator, tmp_path: Path) -> None:
    """D: iot-hub-mqtt-support. The oldest one has no topics for certificates."""
    _, pem = provision(sim.info, "dev", tmp_path)
    adafruit = f"{HUB}/dev/api-version=2016-11-14"  # as its library writes it, without the question mark
    for username in (f"{HUB}/dev", f"{HUB}/dev/", f"{HUB}/dev/?", f"{HUB}/dev/?model-id=dtmi%3Aa%3Ab%3B1", adafruit):
        with hub_device(sim.info, "dev", pem, username=username) as device:
            assert device.connack.value == 0, username
            assert device.subscribe("$iothub/credentials/res/#") == [128]
