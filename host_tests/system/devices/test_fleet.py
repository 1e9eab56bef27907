"""A fleet as whoever makes one meets it: all rows become devices, bad ones are named, nothing is made twice or lost."""

from __future__ import annotations

import base64
import contextlib
import csv
import fcntl
import hashlib
import hmac
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from espdps.devices import folder_doctor
from espdps.paths import ROOT

GROUP_KEY = base64.b64encode(bytes(range(64))).decode()
COMMAND = [sys.executable, "-m", "espdps.cli"]
COMMON = ["--id-scope", "0ne00ABCDEF", "--board", "UNIX", "--key-type", "ec-p256"]


def environment(**more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ESPDPS_")}
    return {**clean, "PYTHONPATH": str(ROOT / "tools"), "COLUMNS": "200", "ESPDPS_GROUP_KEY": GROUP_KEY, **more}


def esp_dps(folder: Path, *words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, words)],
        cwd=folder, env=environment(**more), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def fleet(folder: Path, *words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    return esp_dps(folder, "fleet", "plan.csv", *COMMON, "--processes", "2", *words, **more)


def states(folder: Path) -> dict[str, list[str]]:
    with (folder / "plan.manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        state: [row["registration_id"] for row in rows if row["state"] == state] for state in ("made", "kept", "bad")
    }


def write_plan(folder: Path, count: int) -> list[str]:
    names = [f"unit-{n:03}" for n in range(count)]
    (folder / "plan.csv").write_text("registration_id\n" + "".join(f"{name}\n" for name in names))
    return names


def keys_of(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in folder.glob("[!.]*/device.key")}


def test_a_second_group_key_gives_each_device_a_second_key(tmp_path: Path) -> None:
    other = base64.b64encode(bytes(range(64, 128))).decode()
    (tmp_path / "other.key").write_text(other)
    names = write_plan(tmp_path, 2)
    assert fleet(tmp_path, "--devices", "d", "--secondary-group-key-file", "other.key").returncode == 0
    for name in names:
        made = json.loads((tmp_path / "d" / name / "secrets.json").read_bytes())
        digest = hmac.new(base64.b64decode(other), name.encode(), hashlib.sha256).digest()
        assert made["secondary_device_key"] == base64.b64encode(digest).decode() != made["device_key"]


def test_bad_rows_are_named_and_the_rest_is_made(tmp_path: Path) -> None:
    rows = [
        b"\xef\xbb\xbfRegistration_ID,board,key_type,note",
        b'"good-1",,,"x, y"', b"good-2,ESP32_GENERIC,none,", b"GOOD-1,,,", b"../x,,,", b"good-3,ESP99,,", b"",
        b"a" * 200 + b",,,", b"b" * 65 + b",,,", b"good-4,,dsa,", b"good-5,,,,,,x", b"good-\xff,,,", b'"good-6,,,',
        b",UNIX,,", b"Good-7,,ec-p384,", b"good-7,,,",
    ]  # fmt: skip
    (tmp_path / "plan.csv").write_bytes(b"\r\n".join(rows))
    done = fleet(tmp_path, "--devices", "d", "--json")
    assert done.returncode == 1 and "columns left alone: note" in done.stderr
    *bad, totals = map(json.loads, done.stdout.splitlines())
    assert {fault["line"]: fault["reason"].split(":")[0] for fault in bad} == {
        4: "the same registration id as in line 2 good-1; for DPS, ids that differ in case only are one device",
        5: "no registration id",
        6: "no board profile 'ESP99'",
        8: "no registration id",
        9: "a registration id of 65 characters does not fit into a certificate",
        10: "no key type 'dsa'",
        11: "7 fields for 4 columns",
        12: "not UTF-8",
        13: "not CSV in one line",
        14: "no registration_id",
        16: "the same registration id as in line 15 Good-7; for DPS, ids that differ in case only are one device",
    }
    assert (totals["made"], totals["kept"], totals["bad"]) == (3, 0, 11)
    assert states(tmp_path)["made"] == ["good-1", "good-2", "Good-7"]
    assert sorted(path.name for path in (tmp_path / "d").glob("[!.]*")) == ["Good-7", "good-1", "good-2"]
    for name in ("good-1", "Good-7"):
        assert folder_doctor.examine(tmp_path / "d" / name, group_key=GROUP_KEY, firmware=None) == []
        request = subprocess.run(
            ["openssl", "req", "-inform", "DER", "-in", f"d/{name}/device.csr", "-verify", "-noout", "-subject"],
            cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
        assert name in request.stdout


def test_killed_in_the_middle_it_goes_on_and_makes_nothing_twice(tmp_path: Path) -> None:
    names = write_plan(tmp_path, 60)
    # RSA takes long enough for a kill to find it at work
    words = [*COMMAND, "fleet", "plan.csv", *COMMON[:4], "--key-type", "rsa-2048", "--processes", "2", "--devices", "d"]
    process = psutil.Popen(
        words, cwd=tmp_path, env=environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while process.poll() is None and not keys_of(tmp_path / "d"):
            time.sleep(0.005)
        assert process.poll() is None
        workers = process.children(recursive=True)
    finally:
        process.kill()
        process.wait()
    psutil.wait_procs(workers, timeout=60)
    assert not [worker for worker in workers if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]
    before = keys_of(tmp_path / "d")
    assert 0 < len(before) < len(names)
    assert not (tmp_path / "plan.manifest.csv").exists()

    again = esp_dps(tmp_path, *words[3:])
    assert again.returncode == 0, again.stderr
    after = keys_of(tmp_path / "d")
    assert sorted(after) == names and len(set(after.values())) == len(names)
    assert {name: after[name] for name in before} == before
    found = states(tmp_path)
    assert found["kept"] == sorted(before) and not found["bad"]
    assert len(found["made"]) == len(names) - len(before)
    assert not list((tmp_path / "d").glob(".fleet-*"))


def test_what_is_there_must_be_what_the_plan_asks_for(tmp_path: Path) -> None:
    write_plan(tmp_path, 1)
    assert fleet(tmp_path, "--devices", "d").returncode == 0
    before = keys_of(tmp_path / "d")
    other_key = base64.b64encode(bytes(64)).decode()
    for words, more, differs in (
        ((), {"ESPDPS_GROUP_KEY": other_key}, "another device key"),
        (("--id-scope", "0ne00OTHER0"), {}, "another id_scope"),
        (("--board", "ESP32_GENERIC"), {}, "another board"),
        (("--key-type", "ec-p384"), {}, "another key_type"),
        (("--wifi-ssid", "Greenhouse"), {"ESPDPS_WIFI_PASSWORD": ""}, "another wifi_ssid"),
    ):
        done = fleet(tmp_path, "--devices", "d", *words, **more)
        assert done.returncode == 1 and differs in done.stderr, done.stderr
    (tmp_path / "d" / "unit-000" / "device.csr").write_bytes(b"0")
    assert "another device.csr" in fleet(tmp_path, "--devices", "d").stderr
    (tmp_path / "d" / "unit-000" / "device.csr").unlink()
    assert "damaged" in fleet(tmp_path, "--devices", "d").stderr
    assert keys_of(tmp_path / "d") == before


def test_a_second_run_at_the_same_time_is_refused(tmp_path: Path) -> None:
    write_plan(tmp_path, 1)
    (tmp_path / "d").mkdir()
    with (tmp_path / "d" / ".fleet").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = fleet(tmp_path, "--devices", "d")
        assert done.returncode == 1 and "another run" in done.stderr
    assert fleet(tmp_path, "--devices", "d").returncode == 0


def test_a_full_disk_ends_it_in_one_line_and_leaves_no_half_device(tmp_path: Path) -> None:
    write_plan(tmp_path, 2)
    limited = ["bash", "-c", 'ulimit -f 1; trap "" XFSZ; exec "$@"', "-", *COMMAND, "fleet", "plan.csv", *COMMON]
    done = subprocess.run(
        [*limited, "--devices", "d"],
        cwd=tmp_path, env=environment(PYTHONDONTWRITEBYTECODE="1"), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1 and "File too large" in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "d").iterdir()] == [".fleet"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no column registration_id"),
        (b"name\nx\n", "no column registration_id"),
        ("registration_id\nx\n".encode("utf-16-le"), "is not CSV in UTF-8"),
        (b"registration_id\n\n", "has no rows"),
        (b"registration_id,board,board\nx,,\n", "two columns board"),
        (b"registration_id,device_key\nx,y\n", "no secrets in a plan"),
    ],
)
def test_what_is_no_plan_is_said_so(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "plan.csv").write_bytes(content)
    done = fleet(tmp_path, "--devices", "d")
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "d").glob("[!.]*"))


def test_rows_with_credentials_of_their_own_need_no_group_key(tmp_path: Path) -> None:
    openssl = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for name in ("by-cert", "another"):
        words = [*openssl, "-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN={name}", "-days", "90"]
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, timeout=30)
    (tmp_path / "own.key").write_text(GROUP_KEY + "\n")
    (tmp_path / "plan.csv").write_text(
        "registration_id;device_key_file;onboarding_cert;onboarding_key\n"
        "by-key;own.key;;\nby-cert;;by-cert.crt;by-cert.key\n"
    )
    clean = {name: value for name, value in environment().items() if name != "ESPDPS_GROUP_KEY"}
    words = [*COMMAND, "fleet", "plan.csv", *COMMON, "--processes", "1", "--devices", "d"]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=tmp_path, env=clean, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )

    done = run()
    assert done.returncode == 0, done.stderr
    assert [folder_doctor.examine(tmp_path / "d" / name, firmware=None) for name in ("by-key", "by-cert")] == [[], []]
    assert json.loads((tmp_path / "d" / "by-key" / "secrets.json").read_text()) == {"device_key": GROUP_KEY}
    assert json.loads((tmp_path / "d" / "by-cert" / "device.json").read_text())["auth"] == "x509"
    with (tmp_path / "plan.csv").open("a") as plan:
        plan.write("mixed;own.key;by-cert.crt;by-cert.key\nhalf;;by-cert.crt;\nother;;another.crt;another.key\n")
        plan.write("crossed;;by-cert.crt;another.key\nnone;no.key;;\n")
    done = run()
    assert done.returncode == 1 and states(tmp_path)["kept"] == ["by-key", "by-cert"]
    for line, says in (
        (4, "go together"), (5, "go together"), (6, "is for another"), (7, "belongs to another key"), (8, "No such file"),
    ):  # fmt: skip
        assert any(f"plan.csv:{line}:" in told and says in told for told in done.stderr.splitlines()), done.stderr
    with (tmp_path / "plan.csv").open("a") as plan:
        plan.write("group;;;\n")
    done = run()  # one row that has nothing of its own: now the group's key is needed
    assert done.returncode == 2 and "no group key given" in done.stderr


def test_ctrl_c_ends_it_in_one_line_and_what_is_complete_stays(tmp_path: Path) -> None:
    names = write_plan(tmp_path, 60)
    words = [*COMMAND, "fleet", "plan.csv", *COMMON[:4], "--key-type", "rsa-3072", "--processes", "2", "--devices", "d"]
    with psutil.Popen(
        words, cwd=tmp_path, env=environment(), stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        while process.poll() is None and not keys_of(tmp_path / "d"):
            time.sleep(0.005)
        workers = process.children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to the workers, too
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in out + err, err
    psutil.wait_procs(workers, timeout=60)
    assert not [worker for worker in workers if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]
    before = keys_of(tmp_path / "d")
    assert 0 < len(before) < len(names) and not list((tmp_path / "d").glob(".fleet-*"))
    (tmp_path / "plan.csv").write_text("registration_id\n" + "".join(f"{name}\n" for name in before))
    assert esp_dps(tmp_path, *words[3:]).returncode == 0 and keys_of(tmp_path / "d") == before


def test_it_asks_once_for_each_secret_on_a_terminal(tmp_path: Path) -> None:
    write_plan(tmp_path, 3)
    ours, theirs = pty.openpty()
    clean = {name: value for name, value in environment(COLUMNS="80").items() if name != "ESPDPS_GROUP_KEY"}
    words = [*COMMAND, "fleet", "plan.csv", *COMMON, "--wifi-ssid", "Greenhouse", "--devices", "d"]
    with subprocess.Popen(
        words, cwd=tmp_path, env=clean, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        killer = threading.Timer(120, process.kill)
        killer.start()
        said = b""
        answers = {b"Group key: ": GROUP_KEY, b"Wi-Fi password: ": "correct horse"}
        with contextlib.suppress(OSError):  # the end of a terminal
            while piece := os.read(ours, 1024):
                said += piece
                for question in [question for question in answers if said.endswith(question)]:
                    os.write(ours, answers.pop(question).encode() + b"\n")
        killer.cancel()
        os.close(ours)
    assert process.returncode == 0 and not answers, said
    assert GROUP_KEY.encode() not in said and b"correct horse" not in said and b"3 made" in said
    assert folder_doctor.examine(tmp_path / "d" / "unit-002", group_key=GROUP_KEY, firmware=None) == []
    assert json.loads((tmp_path / "d" / "unit-002" / "secrets.json").read_text())["wifi_password"] == "correct horse"
