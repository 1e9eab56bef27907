"""The package as a user installs it: built, in an environment of its own, used in an empty folder, from init to connected.

What the package depends on comes from the environment of the tests, so that nothing is fetched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from espdps.paths import BUILD, FIRMWARE, ROOT

PATIENCE = 120.0


def run(*words: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{words}:\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """Built from the sdist, as a package index would have it."""
    with tarfile.open(sdist) as archive:
        archive.extractall(sdist.parent, filter="data")
    source = next(path for path in sdist.parent.iterdir() if path.is_dir())
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", sdist.parent, cwd=source)
    return next(sdist.parent.glob("*.whl"))


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of an environment with the package, which is not an editable one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    binaries = folder / "bin"
    run(
        sys.executable, "-m", "pip", "--python", binaries / "python", "install", "-q", "--disable-pip-version-check",
        "--no-deps", "--no-index", wheel, cwd=folder,
    )  # fmt: skip
    packages = Path(
        run(binaries / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    assert (packages / "espdps" / "cli.py").is_file()
    # A path file is read for its imports alone: what the tests' environment adds by path files itself, such as this
    # checkout, does not come along.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return binaries


def test_the_sdist_has_what_its_tests_need_and_nothing_made(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "Makefile",
        "README.md",
        "host_tests/conftest.py",
        "docs/settings.md",
        "boards/UNIX.toml",
        "firmware/app.py",
    ):
        assert name in names
    assert not [
        name for name in names if name.startswith((".venv", "build", "devices/", "ca/")) or "__pycache__" in name
    ]


def test_the_wheel_has_the_firmware_and_absolute_links(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        about = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    firmware = {f"espdps/data/firmware/{path.relative_to(FIRMWARE).as_posix()}" for path in FIRMWARE.rglob("*.py")}
    assert firmware <= set(names) and "espdps/shims/cpython/tls.py" in names
    assert {f"espdps/data/boards/{path.name}" for path in (ROOT / "boards").iterdir()} <= set(names)
    links = [part.partition(")")[0] for part in about.partition("\n\n")[2].split("](")[1:]]
    assert links and [link for link in links if not link.startswith(("https://", "#"))] == []


class Terminals:
    """Commands in a folder, each as a user types it; those in the background end with the test."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("ESPDPS_", "PYTHON"))}
        # real MicroPython, which the package would fetch into the user's cache
        self.env = {
            **clean,
            "HOME": str(folder.parent),
            "XDG_CACHE_HOME": str(folder.parent / "cache"),
            "PYTHONUNBUFFERED": "1",
        }
        self.env["PATH"] = f"{programs}:{clean['PATH']}"
        cache = folder.parent / "cache" / "esp-dps"
        cache.mkdir(parents=True)
        (cache / "micropython").symlink_to((BUILD / "micropython").resolve())
        self.program = programs / "esp-dps"
        self._running: list[subprocess.Popen[bytes]] = []

    def type(self, *words: str) -> str:
        return run(self.program, *words, cwd=self.folder, env=self.env)

    def start(self, *words: str, until: Path) -> None:
        output = self.folder.parent / f"{words[0]}.txt"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [self.program, *words], cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL, stdout=file,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._running.append(process)
        deadline = time.monotonic() + PATIENCE
        while not until.exists():
            assert process.poll() is None and time.monotonic() < deadline, output.read_text()
            time.sleep(0.05)

    def close(self) -> None:
        for process in reversed(self._running):
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def terminals(tmp_path: Path, programs: Path) -> Iterator[Terminals]:
    (tmp_path / "empty").mkdir()
    opened = Terminals(tmp_path / "empty", programs)
    yield opened
    opened.close()


def test_from_init_to_connected_as_installed(terminals: Terminals, programs: Path) -> None:
    packages = next(programs.parent.glob("lib/python3*/site-packages"))
    before = {path for path in packages.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"}
    assert terminals.type("--version").startswith("esp-dps ")
    terminals.type("init", "--sim", "sim", "--board", "UNIX", "--port", "board/port")
    terminals.start("sim", until=terminals.folder / "sim" / "sim.json")
    terminals.type("new", "greenhouse-1")
    terminals.type("list")
    terminals.type("doctor", "greenhouse-1")
    assert "registered" in terminals.type("register", "greenhouse-1")
    terminals.start("board", "--dir", "board", until=terminals.folder / "board" / "port")
    app = terminals.folder / "app" / "app.py"
    app.write_text(app.read_text() + "# mine\n")
    said = terminals.type("flash", "greenhouse-1")
    assert "hub.ready" in said and said.rstrip().endswith("connected")
    terminals.type("flash", "greenhouse-1", "--app-only", "--verify")
    assert "greenhouse-1" in terminals.type("hub", "monitor", "--past", "--count", "1")
    terminals.type("keygen", "line.key")
    terminals.type("inspect", "line.key")
    terminals.type("ca", "root", "Contoso")
    assert (terminals.folder / "devices" / "greenhouse-1" / "device.key").is_file()
    assert (terminals.folder / "ca" / "root.crt").is_file()
    after = {path for path in packages.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"}
    assert after == before, "something was written into the package"
