"""`esp-dps enroll`: a person and a script at the DPS service API, against the simulator and against services gone bad."""

from __future__ import annotations

import base64
import http.server
import json
import os
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from enrolling import enroll, esp_dps, key_file, made, refused
from simulator_client import api_call, derive, dps_device, finish
from simulator_pki import registered

from espdps.simulator import Options, Simulator, serving


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with serving(tmp_path_factory.mktemp("enroll"), Options(retry_after=0, assigning=0)) as simulator:
        yield simulator


def test_a_device_by_one_command(sim: Simulator, tmp_path: Path) -> None:
    """Its key is derived from a group's; alone it is as good as any."""
    key = derive(base64.b64encode(os.urandom(64)).decode(), "one")
    (tmp_path / "one.key").write_text(key)
    made(sim, tmp_path, "one", "--device-key-file", "one.key")
    words = ("device", "one", "--devices", "devices")
    assert json.loads(enroll(sim, *words, "--json", folder=tmp_path)) == {
        "id": "one", "kind": "individual", "attestation": "symmetricKey", "status": "enabled",
        "policy": "default/issuer/default",
        "allocation": "hashed", "hubs": [], "created": True,
    }  # fmt: skip
    with dps_device(sim.info, "one", key) as device:
        assert finish(device, "one")["status"] == "assigned"
    again = enroll(sim, *words, folder=tmp_path)
    assert "was enrolled already" in again and again.count("\n") == 1
    enroll(sim, "disable", "one")
    assert "one is there already and is disabled" in refused(1, sim, *words, folder=tmp_path)
    with dps_device(sim.info, "one", key) as device:
        device.register("one")
        assert device.answer().body["status"] == "disabled"
    enroll(sim, "enable", "one")
    with dps_device(sim.info, "one", key) as device:  # the key is the same after both changes
        assert finish(device, "one")["status"] == "assigned"
    _, other = key_file(tmp_path, "one.key")
    made(sim, tmp_path, "one", "--device-key-file", "one.key", "--force")
    assert "has other keys" in refused(1, sim, *words, folder=tmp_path)
    assert other not in again


def test_a_device_by_a_group(sim: Simulator, tmp_path: Path) -> None:
    file, key = key_file(tmp_path, "group.key")
    made(sim, tmp_path, "two", "--group-key-file", file)
    words = ("device", "two", "--devices", "devices", "--group", "line-7")
    assert "Enrollment not found" in refused(3, sim, *words, folder=tmp_path)  # whose key would it have?
    assert "enrolled" in enroll(sim, *words, "--group-key-file", file, folder=tmp_path)
    with dps_device(sim.info, "two", derive(key, "two")) as device:
        assert finish(device, "two")["status"] == "assigned"
    assert "already" in enroll(sim, *words, folder=tmp_path)
    assert "other keys" in refused(1, sim, *words[:-1], "boards", folder=tmp_path)
    wrong, _ = key_file(tmp_path, "wrong.key")
    assert "not derived" in refused(1, sim, *words, "--group-key-file", wrong, folder=tmp_path)
    rows = [json.loads(line) for line in enroll(sim, "registrations", "line-7", "--json").splitlines()]
    assert [(row["registration"], row["hub"], row["status"]) for row in rows] == [
        ("two", "hub-1.localhost", "assigned")
    ]
    assert "deleted" in enroll(sim, "registration", "two", "--delete")
    assert "404202" in refused(3, sim, "registration", "two")


def test_x509_from_the_root_to_a_registration(sim: Simulator, tmp_path: Path) -> None:
    """By the authority of `esp-dps ca`: its own enrollment, a named and verified authority, and a signer's certificate."""
    for words in (("root", "R"), ("intermediate", "I"), ("device", "three")):
        assert esp_dps("ca", *words, folder=tmp_path).returncode == 0
    pair = ("--onboarding-cert", "ca/devices/three.crt", "--onboarding-key-file", "ca/devices/three.key")
    made(sim, tmp_path, "three", *pair)
    pem = tmp_path / "three.pem"
    pem.write_bytes((tmp_path / "ca/devices/three.crt").read_bytes() + (tmp_path / "ca/devices/three.key").read_bytes())
    words = ("device", "three", "--devices", "devices")

    assert "no" in enroll(sim, "ca", "upload", "contoso", "--cert", "ca/root.crt", folder=tmp_path).split()
    message = refused(3, sim, *words, "--group", "named", "--ca", "contoso", folder=tmp_path)
    assert "not a verified certificate" in message and "tracking id" in message
    assert "another" not in enroll(sim, "ca", "verify", "contoso", folder=tmp_path)
    row = json.loads(enroll(sim, "ca", "list", "--json"))
    assert (row["name"], row["subject"], row["verified"]) == ("contoso", "CN=R", "yes")

    assert "which authority" in refused(2, sim, *words, "--group", "named", folder=tmp_path)
    for group, way in (("named", ("--ca", "contoso")), ("signed", ("--signer", "ca/intermediate.crt"))):
        enroll(sim, *words, "--group", group, *way, folder=tmp_path)
        assert registered(sim.info, "three", pem)["x509"]["enrollmentGroupId"] == group
        assert "already" in enroll(sim, *words, "--group", group, *way, folder=tmp_path)
        enroll(sim, "delete", group, "--group")
    enroll(sim, *words, folder=tmp_path)
    assert "enrollmentGroupId" not in registered(sim.info, "three", pem)["x509"]
    enroll(sim, "ca", "delete", "contoso")
    assert not enroll(sim, "ca", "list")

    assert esp_dps("ca", "root", "Other", "--dir", "other", folder=tmp_path).returncode == 0
    message = refused(1, sim, *words, "--group", "g", "--signer", "other/root.crt", folder=tmp_path)
    assert "does not lead to other/root.crt" in message


def test_all_that_create_can_say(sim: Simulator, tmp_path: Path) -> None:
    url = tmp_path / "url"
    url.write_text("http://127.0.0.1:1/api?code=s3cret-of-the-function\n")
    file, key = key_file(tmp_path)
    words = ("--key-file", file, "--device-id", "pump", "--credential-policy", "default/issuer/default")
    more = (
        "--allocation",
        "custom",
        "--webhook-url-file",
        url,
        "--hub",
        "hub-1.localhost",
        "--tags",
        '{"a": 1}',
        "--desired",
        '{"b": 2}',
    )
    output = enroll(sim, "create", "all", *words, *more, "--reprovision", "reset", "--edge", "--disabled")
    shown = json.loads(enroll(sim, "show", "all"))
    assert {name: shown[name] for name in shown if name not in ("etag", "createdDateTimeUtc", "lastUpdatedDateTimeUtc")} == {
        "registrationId": "all",
        "attestation": {"type": "symmetricKey"},
        "capabilities": {"iotEdge": True},
        "provisioningStatus": "disabled",
        "namespaceName": "default",
        "certificateAuthorityName": "issuer",
        "certificatePolicyName": "default",
        "reprovisionPolicy": {"updateHubAssignment": True, "migrateDeviceData": False},
        "allocationPolicy": "custom",
        "iotHubs": ["hub-1.localhost"],
        "deviceId": "pump",
        "initialTwin": {"tags": {"a": 1}, "properties": {"desired": {"b": 2}}},
        "customAllocationDefinition": {"webhookUrl": "http://127.0.0.1:1/api?****", "apiVersion": "2021-10-01"},
    }  # fmt: skip
    assert "s3cret" not in output and key not in output
    enroll(sim, "enable", "all")
    assert sim._state.enrollment("all", False).webhook == url.read_text().strip()  # type: ignore[union-attr]
    assert "409203" in refused(3, sim, "create", "all", "--key-file", file)
    assert "deleted" in enroll(sim, "delete", "all")
    error = refused(3, sim, "show", "all")
    assert re.search(r"Enrollment not found\. \(404201\), tracking id [0-9a-f-]{36}", error) and "enroll list" in error


def test_keys_that_the_service_made(sim: Simulator, tmp_path: Path) -> None:
    enroll(sim, "create", "made", "--group")
    for words, key in (((), sim.group("made").primary_key), (("--secondary",), sim.group("made").secondary_key)):
        out = tmp_path / "made.key"
        said = enroll(sim, "keys", "made", "--group", "--out", out, "--force", *words)
        assert out.read_text() == key + "\n" and key not in said
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert "is there already" in refused(1, sim, "keys", "made", "--group", "--out", out)


def test_the_list_is_longer_than_a_page(sim: Simulator) -> None:
    for number in range(103):
        sim.add_individual(f"many-{number:03}")
    ids = [json.loads(line)["id"] for line in enroll(sim, "list", "--json").splitlines()]
    assert [id for id in ids if id.startswith("many-")] == [f"many-{number:03}" for number in range(103)]
    assert "boards" in ids


def test_a_change_of_somebody_else_is_not_lost(sim: Simulator) -> None:
    """Between our reading and our writing."""
    from espdps.azure.dps_client import DpsClient
    from espdps.azure.service_client import Refused, simulator

    sim.add_individual("raced")

    class Raced(DpsClient):
        def show(self, id: str, group: bool) -> dict[str, Any]:
            found = super().show(id, group)
            body = {**found, "deviceId": "theirs"}
            assert (
                api_call(sim.info, "PUT", "/enrollments/raced?api-version=2026-11-01", body, If_Match=found["etag"])[0]
                == 200
            )
            return found

    client = Raced(simulator(sim.info))
    for act in (lambda: client.enable("raced", False, False), lambda: client.delete("raced", False)):
        with pytest.raises(Refused, match="409203") as raised:
            act()
        assert raised.value.exit_code == 3 and "changed it just now" in raised.value.hint
    left = json.loads(enroll(sim, "show", "raced"))
    assert (left["deviceId"], left["provisioningStatus"]) == ("theirs", "enabled")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["create", "x", "--ca", "y"], "--ca is for a group"),
        (["create", "x", "--group", "--device-id", "y"], "--device-id is for an individual"),
        (["create", "x", "--secondary-key-file", "/dev/null"], "a secondary needs a primary"),
        (["create", "x", "--allocation", "static"], "exactly one hub"),
        (["create", "x", "--allocation", "custom"], "go together"),
        (["create", "x", "--tags", "[1]"], "--tags is no JSON object"),
        (["create", "x", "--desired", "{" * 100_000], "--desired is no JSON object"),
        (["create", "../x"], "no id"),
        (["show", "a/../../b"], "no id"),
        (["show", "a%2fb"], "no id"),
        (["delete", ".."], "no id"),
        (["registration", "x?a=b"], "no id"),
        (["ca", "list", "--endpoint", "a.b"], "exactly one DPS is needed"),
        (["device", "nobody", "--devices", "/nowhere"], "nobody"),
    ],
)
def test_wrong_use(sim: Simulator, words: list[str], says: str) -> None:
    done = esp_dps("enroll", *words, "--sim", sim.directory)
    assert done.returncode in (1, 2) and says in done.stderr and "Traceback" not in done.stderr


def test_of_azure_what_can_be_said_without_it(tmp_path: Path) -> None:
    file, key = key_file(tmp_path)
    for endpoint in ("https://a.b:80", "a.b/c", "global.azure-devices-provisioning.net", "a b", "x@y.z", "localhost:1"):
        done = esp_dps("enroll", "list", "--endpoint", endpoint, "--policy-key-file", file)
        assert done.returncode == 2 and key not in done.stderr, endpoint
    done = esp_dps("enroll", "list", "--endpoint", "a.b")
    assert done.returncode == 2 and "ESPDPS_POLICY_KEY" in done.stderr
    done = esp_dps("enroll", "list", "--endpoint", "a.b", ESPDPS_POLICY_KEY="hunter2 is no key")
    assert done.returncode == 2 and "hunter2" not in done.stderr
    done = esp_dps("enroll", "list", "--endpoint", "nobody.invalid", "--policy-key-file", file)
    assert done.returncode == 1 and "nobody.invalid does not answer" in done.stderr
    done = esp_dps("enroll", "ca", "list", "--endpoint", "nobody.invalid", "--policy-key-file", file)
    assert done.returncode == 1 and "--az" in done.stderr


# Services gone bad


class Bad(http.server.BaseHTTPRequestHandler):
    server: BadService

    def do_GET(self) -> None:
        self.server.seen.append(dict(self.headers))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers, body = self.server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, *_: Any) -> None:
        pass


class BadService(http.server.ThreadingHTTPServer):
    answer: tuple[int, dict[str, str], bytes] = (200, {}, b"")

    def __init__(self, sim: Simulator) -> None:
        import ssl

        super().__init__(("127.0.0.1", 0), Bad)
        self.seen: list[dict[str, str]] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sim._identity.chain_file, sim._identity.key_file)
        self.socket = context.wrap_socket(self.socket, server_side=True)


@pytest.fixture
def bad(sim: Simulator) -> Iterator[BadService]:
    server = BadService(sim)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        ((200, {"Content-Length": "5"}, b"nojsn"), 1, "not its JSON"),
        ((200, {"Content-Length": "100000"}, b"[" * 100_000), 1, "not its JSON"),
        ((200, {"Content-Length": "10"}, b"["), 1, "not its JSON"),
        ((500, {"Content-Length": "4"}, b"oops"), 3, "HTTP 500"),
        ((500, {"Content-Length": "100000"}, b"[" * 100_000), 3, "HTTP 500"),
        ((429, {}, b'{"errorCode": 429001, "message": "Throttled.", "trackingId": "t-1"}'), 3, "wait a minute"),
        ((401, {}, b'{"errorCode": 401002, "message": "\\u001b[31mred"}'), 3, "401002"),
        ((403, {}, b'{"errorCode": [1], "message": {"a": null}}'), 3, "firewall"),
        ((302, {"Location": "https://127.0.0.1:1/elsewhere"}, b""), 3, "HTTP 302"),
        ((200, {"x-ms-continuation": "same"}, b"[]"), 1, "the same page again"),
    ],
)
def test_bad_answers(
    sim: Simulator, bad: BadService, tmp_path: Path, answer: tuple[int, dict[str, str], bytes], code: int, says: str
) -> None:
    bad.answer = answer
    (tmp_path / "sim.json").write_text(json.dumps({**sim.info, "https_port": bad.server_address[1]}))
    done = esp_dps("enroll", "list", "--sim", tmp_path)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr and "\x1b" not in done.stderr
    token = bad.seen[0]["Authorization"]
    assert token.startswith("SharedAccessSignature ") and token not in done.stderr


def test_another_host_is_not_told_the_token(sim: Simulator, bad: BadService, tmp_path: Path) -> None:
    bad.answer = 302, {"Location": f"https://localhost:{sim.info['https_port']}/enrollments/x?api-version=1"}, b""
    (tmp_path / "sim.json").write_text(json.dumps({**sim.info, "https_port": bad.server_address[1]}))
    assert esp_dps("enroll", "show", "x", "--sim", tmp_path).returncode == 3
    assert len(bad.seen) == 1


@pytest.mark.parametrize(
    "command",
    ["", *"device create show list keys enable disable delete registrations registration".split()]
    + [f"ca {word}".strip() for word in ("", "list", "upload", "verify", "delete")],
)
def test_help_fits_a_terminal(command: str) -> None:
    done = esp_dps("enroll", *command.split(), "--help", COLUMNS="80")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and max(map(len, lines)) <= 80
    assert "EXAMPLE" in done.stdout or command == "ca"
