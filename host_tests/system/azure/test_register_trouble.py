"""What goes wrong while a device registers from the PC: each ends in time with one line, nothing stays behind, and
nothing of a user's is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from pki import Authority, private_pem
from units import content, edit, make_unit, prepare
from workshop import esp_dps

from espdps.azure import registration
from espdps.credentials import keys
from espdps.simulator import Chain, Options, Silence, Simulator, Trouble, serving

ID = "contoso-0001"


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    with serving(tmp_path / "sim", Options(assigning=0)) as simulator:
        yield simulator


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.mark.parametrize("csr", [True, False], ids=["csr", "no-csr"])
@pytest.mark.parametrize("attestation", ["individual-key", "x509"])
def test_every_attestation(attestation: str, csr: bool, tmp_path: Path, sim: Simulator) -> None:
    unit = prepare(attestation, "ec-p256", csr, tmp_path, sim)
    done = esp_dps("register", unit, "--hub")
    assert done.code == 0 and ("certificate issued" in done.out) == csr, done.out + done.err
    assert sim.wait_event("hub.connect")["auth"] == ("x509" if csr or attestation == "x509" else "sas")


@pytest.mark.parametrize("csr", [True, False], ids=["csr", "no-csr"])
def test_an_onboarding_certificate_that_nobody_enrolled(csr: bool, tmp_path: Path, sim: Simulator) -> None:
    private = keys.new_key("ec-p256")
    leaf = Authority("Stranger").issue(ID, private)
    unit = make_unit(tmp_path, sim, kind="ec-p256" if csr else None, onboarding=(leaf, private_pem(private)))
    done = esp_dps("register", unit)
    assert done.code == 3 and "not registered: dps." in done.err, done.out + done.err


def test_no_certificate_is_no_plain_success(tmp_path: Path, sim: Simulator) -> None:
    sim.trouble = Trouble({"certificate": Chain("absent")})
    done = esp_dps("register", make_unit(tmp_path, sim))
    assert done.code == 0 and "no-certificate" in done.out and "registered, but not without an error" in done.out


def test_no_end_in_time(tmp_path: Path, sim: Simulator, scratch: Path) -> None:
    sim.trouble = Trouble({"register": Silence()})
    unit, picture = make_unit(tmp_path, sim), tmp_path / "late.svg"
    edit(unit / "device.json", timeout=60)
    begun = time.monotonic()
    done = esp_dps("register", unit, "--timeout", "4", "--svg", picture)
    assert done.code == 1 and "no answer to the end within 4 s; the last step was dps.register" in done.err, (
        done.out + done.err
    )
    assert time.monotonic() - begun < 15 and not list(scratch.iterdir())
    assert "TLS to DPS" in picture.read_text()


@pytest.mark.parametrize("seconds", ["0", "nan", "inf", "1e12"])
def test_a_time_that_is_none(tmp_path: Path, sim: Simulator, seconds: str) -> None:
    assert esp_dps("register", make_unit(tmp_path, sim), "--timeout", seconds).code == 2
    assert not [event for event in sim.events if event["event"].startswith("dps.")]


def python(folder: Path, program: str) -> SimpleNamespace:
    """What registration.py is to take for sys: with an interpreter that runs `program` first."""
    start = "import sys; from espdps.azure import on_pc; sys.exit(on_pc.main(sys.argv[3], 'hub' in sys.argv[4:]))"
    path = folder / "python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{program}; {start}" "$@"\n')
    path.chmod(0o700)
    return SimpleNamespace(executable=str(path), exit=sys.exit)


@pytest.mark.parametrize("words", [(), ("--hub",)])
def test_a_clock_that_is_not_set(
    words: tuple[str, ...], tmp_path: Path, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "sys", python(tmp_path, "import time; time.time = lambda: 86400.0"))
    done = esp_dps("register", make_unit(tmp_path, sim), *words)
    assert done.code == 1 and "not registered: pc clock" in done.err, done.out + done.err
    assert "this PC says 1970-01-02" in done.out and "This PC's clock is not set" in done.out
    assert not [event for event in sim.events if event["event"].startswith("dps.")]


def test_what_the_modules_get_to_see(
    tmp_path: Path, sim: Simulator, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key from the environment, and of the folder only what a board would read: no module of a user's."""
    unit, seen = make_unit(tmp_path, sim), tmp_path / "seen"
    (unit / "hashlib.py").write_text(f"open({str(seen)!r}, 'w')\n")
    (unit / "large.bin").write_bytes(bytes(10))
    look = f"import os; open('{tmp_path}/saw', 'w').write(' '.join([*os.environ, *os.listdir(sys.argv[3]), *sys.argv]))"
    monkeypatch.setattr(registration, "sys", python(tmp_path, f"import sys; {look}"))
    assert esp_dps("register", unit, ESPDPS_GROUP_KEY="c2VjcmV0").code == 0
    assert not seen.exists() and not list(scratch.iterdir())
    saw = (tmp_path / "saw").read_text()
    assert "device.key" in saw and "PYTHONPATH" in saw
    assert not {"ESPDPS_GROUP_KEY", "hashlib.py", "large.bin", "manifest.json"} & set(saw.split())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended meanwhile
        return b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_told_to_end_it_leaves_nothing_behind(number: signal.Signals, tmp_path: Path, sim: Simulator) -> None:
    sim.trouble = Trouble({"register": Silence()})
    unit, scratch = make_unit(tmp_path, sim), tmp_path / "scratch"
    edit(unit / "device.json", timeout=60)
    scratch.mkdir()
    before = content(unit)
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "espdps.cli", "register", str(unit), "--keep", "--json"],
        env={**os.environ, "TMPDIR": str(scratch)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout and process.stderr
        for line in process.stdout:
            if json.loads(line)["step"] == "dps.connect":
                break
        assert len(list(scratch.iterdir())) == 1
        process.send_signal(number)  # to it alone, as by kill
        rest = process.stderr.read()  # ends with the last process that could write there
        assert process.wait(20) == 128 + number and "Traceback" not in rest, rest
    assert not list(scratch.iterdir()) and content(unit) == before
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(scratch).encode() in _read(path)]


def test_a_folder_that_cannot_be_written(tmp_path: Path, sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = make_unit(tmp_path, sim)
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not (Path(path) == unit and mode & os.W_OK) and real(path, mode)
    )
    done = esp_dps("register", unit, "--keep")
    assert done.code == 1 and f"{unit} cannot be written to" in done.err
    assert not [event for event in sim.events if event["event"].startswith("dps.")]
    assert esp_dps("register", unit).code == 0


def test_what_was_kept_before_stays_if_the_new_one_cannot_be_written(
    tmp_path: Path, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = make_unit(tmp_path, sim)
    assert esp_dps("register", unit, "--keep").code == 0
    before = content(unit)

    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("espdps.files.os.fsync", full)
    done = esp_dps("register", unit, "--keep")
    assert done.code == 1 and "identity.a: No space left on device" in done.err, done.err
    assert content(unit) == before


def test_no_room_for_the_copy(tmp_path: Path, sim: Simulator, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, os.strerror(28), str(source))

    unit = make_unit(tmp_path, sim)
    monkeypatch.setattr(registration.shutil, "copyfile", full)
    done = esp_dps("register", unit)
    assert done.code == 1 and f"{scratch}: No space left on device" in done.err and "TMPDIR" in done.err
    assert not list(scratch.iterdir())


def test_a_port_that_takes_connections_and_says_nothing(tmp_path: Path, sim: Simulator, scratch: Path) -> None:
    unit = make_unit(tmp_path, sim)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        edit(unit / "device.json", port=silent.getsockname()[1], dps_host="127.0.0.1", timeout=5)
        done = esp_dps("register", unit)
    assert done.code == 1 and "not registered: dps.connect timeout" in done.err, done.out + done.err
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("place", ["folder", "file/x.svg", "precious.txt"])
def test_a_picture_that_has_no_place_is_told_before(place: str, tmp_path: Path, sim: Simulator) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "precious.txt").write_text("precious")
    done = esp_dps("register", make_unit(tmp_path, sim), "--svg", tmp_path / place)
    assert done.code == 1 and place.split("/")[0] in done.err, done.err
    assert (tmp_path / "precious.txt").read_text() == "precious"
    assert not [event for event in sim.events if event["event"].startswith("dps.")]
