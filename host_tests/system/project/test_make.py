"""`make` on a machine where nothing is set up: what it offers, and what it says of a Python that will not do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from espdps.paths import ROOT


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *words], cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "tools").mkdir()
    for name in ("Makefile", "pyproject.toml", "tools/constraints.txt", "tools/constraints-circuitpython.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def fake_python(folder: Path, text: str) -> Path:
    path = folder / "python"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def test_make_alone_lists_the_targets() -> None:
    listed = make(ROOT).stdout
    for target in ("setup", "demo", "test", "lint", "clean"):
        assert f"make {target} " in listed


@pytest.mark.parametrize(
    ("python", "says"),
    [
        ('case "$2" in *version_info*) exit 1;; esac', "is too old; install Python 3.10 or newer"),
        ('case "$2" in *ensurepip*) exit 1;; esac', "install the package python3-venv"),
        ("exit 127", "no Python found; install Python 3.10 or newer"),
    ],
)
def test_a_python_that_will_not_do_is_said_so(checkout: Path, python: str, says: str) -> None:
    done = make(checkout, f"PYTHON={fake_python(checkout, python)}", "setup")
    assert done.returncode != 0
    assert says in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_second_setup_does_nothing() -> None:
    """Needs a set-up checkout, which is what runs the tests."""
    if not (ROOT / ".venv" / ".packages").exists():
        pytest.fail("run the tests with make test")
    done = make(ROOT, "-n", "setup")
    assert done.returncode == 0
    assert "pip" not in done.stdout


def test_every_package_is_pinned() -> None:
    files = [ROOT / "tools" / name for name in ("constraints.txt", "constraints-circuitpython.txt")]
    lines = [line for file in files for line in file.read_text().splitlines()]
    pinned = [line for line in lines if not line.startswith("#")]
    assert all(line.count("==") == 1 for line in pinned)
    listed = subprocess.run(
        [ROOT / ".venv" / "bin" / "python", "-m", "pip", "freeze", "--all", "--exclude-editable"],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout.splitlines()  # fmt: skip
    of_venv = ("pip==", "setuptools==")  # what a new environment has, by its Python
    installed = {line.lower().replace("_", "-") for line in listed if "==" in line and not line.startswith(of_venv)}
    assert installed <= {line.lower().replace("_", "-") for line in pinned}


def test_git_ignores_what_the_examples_of_the_pages_make(tmp_path: Path) -> None:
    shutil.copy(ROOT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True, timeout=30)
    for name in (
        "device.pem",
        "pfx.passphrase",
        "bench.csr",
        "group.key",
        "bench-1.pfx",
        "bench-1.identity",
        "proof.crt",
    ):
        (tmp_path / name).write_text("")
    said = subprocess.run(
        ["git", "add", "-A", "-n"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30
    )
    assert said.stdout == "add '.gitignore'\n"
