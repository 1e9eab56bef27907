"""mosquitto's own clients take the simulator for Azure; left out where they are missing.

They are an MQTT client of many machines and no SDK: what works with them works with the topics alone. They verify the
simulator's certificate for the name localhost, which is in it beside the hubs'.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulator_client import derive, dps_token, dps_username, group_key, hub_username, provision, token

from espdps.simulator import Options, Simulator, serving

HUB = "hub-1.localhost"

pytestmark = pytest.mark.skipif(
    shutil.which("mosquitto_pub") is None, reason="mosquitto's clients are missing (Debian: mosquitto-clients)"
)


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with serving(tmp_path_factory.mktemp("sim"), Options(retry_after=0, assigning=0)) as simulator:
        yield simulator


def words(sim: Simulator, client: str, id: str, username: str, password: str | None = None) -> list[str]:
    # -V: version 3.1.1, -h: a name that resolves everywhere; the user name says which hub.
    return [
        client, "-V", "mqttv311", "-h", "localhost", "-p", str(sim.info["mqtt_port"]), "--cafile", sim.info["roots"],
        "-i", id, "-u", username, *(["-P", password] if password else []), "-q", "1",
    ]  # fmt: skip


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_registers(sim: Simulator) -> None:
    """The request, by its topic. Its answer comes to the same connection, which mosquitto_pub does not listen to, and
    mosquitto_rr takes no filter with a wildcard.
    """
    key = derive(group_key(sim.info), "mosquito")
    name, password = dps_username(sim.info, "mosquito"), dps_token(sim.info, "mosquito", key)
    topic = "$dps/registrations/PUT/iotdps-register/?$rid=1"
    done = run([*words(sim, "mosquitto_pub", "mosquito", name, password), "-t", topic, "-m", "{}"])
    assert done.returncode == 0, done.stderr
    assert sim.wait_event("dps.assigned", device="mosquito")["hub"] == HUB


def test_sends_and_receives(sim: Simulator, tmp_path: Path) -> None:
    """With an issued certificate."""
    _, pem = provision(sim.info, "mosquito-2", tmp_path)
    certificate = ["--cert", str(pem), "--key", str(pem)]
    name = hub_username(HUB, "mosquito-2")
    done = run([
        *words(sim, "mosquitto_pub", "mosquito-2", name), *certificate,
        "-t", "devices/mosquito-2/messages/events/kind=test", "-m", "hello",
    ])  # fmt: skip
    assert done.returncode == 0, done.stderr
    event = sim.wait_event("hub.telemetry", device="mosquito-2")
    assert (event["body"], event["properties"]) == ("hello", {"kind": "test"})
    sim.send_message("mosquito-2", b"for you")
    done = run([
        *words(sim, "mosquitto_sub", "mosquito-2", name), *certificate, "-c",
        "-t", "devices/+/messages/devicebound/#", "-C", "1", "-W", "20",
    ])  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "for you\n")


def test_a_wrong_key_is_refused(sim: Simulator) -> None:
    password = token(f"{HUB}/devices/nobody", group_key(sim.info), skn=None)
    done = run([*words(sim, "mosquitto_pub", "nobody", hub_username(HUB, "nobody"), password), "-t", "x", "-m", "x"])
    assert done.returncode != 0
    assert "not authorised" in (done.stdout + done.stderr).lower()
