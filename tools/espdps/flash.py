"""Putting firmware and identity onto a board through mpremote, and following it until it is connected.
Sends secrets only to the board, and last; nothing it prints or raises holds the content of a file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import serial
from mpremote.transport import TransportError, TransportExecError
from mpremote.transport_serial import SerialTransport

from espdps import mpy
from espdps.console import Event, Fault
from espdps.devices import Device
from espdps.errors import ToolError
from espdps.monitor import SPEED, TICK, Listener, open_port, port_error, restart
from espdps.paths import FIRMWARE

SOURCES = ("app.py", "board.py", "main.py")  # left as source: a user edits and reads them on the board
PUBLIC = ("roots.pem", "device.json", "device.csr", "onboarding.crt")
SECRET = ("onboarding.key", "device.key", "secrets.json")
ISSUED = ("identity.a", "identity.b")  # what the firmware stores of an issued identity
SLOT_BYTES = 12000  # of each of them, as the firmware makes it (store.py)
OWNER = ("registration_id", "id_scope", "dps_host", "port")  # whose identity it is, by device.json
LIBRARY = "/lib/aziot"
MPY_VERSION = 6  # of the bytecode, from MicroPython 1.19 on
REPL_SECONDS = 5  # longest silence inside an answer of the board
FOLLOW_SECONDS = 120.0
SETTLE_SECONDS = 10.0  # after an error line the board either goes on or says nothing for long
CONNECTED = ("hub.ready", "hub.sent")

# Run on the board: what it is; then the SHA-256 of each file asked for, "-" if missing, and what the library holds.
_ABOUT = """
import sys
i = sys.implementation
print(i[0], '%d.%d' % i[1][:2], getattr(i, '_mpy', 0) & 255, sys.platform, getattr(i, '_machine', '').split(' ')[-1])
"""
_SURVEY = """
import os, hashlib, binascii
b = bytearray(512)
for p in {paths!r}:
 try:
  with open(p, 'rb') as f:
   h = hashlib.sha256()
   n = f.readinto(b)
   while n:
    h.update(memoryview(b)[:n])
    n = f.readinto(b)
  print(binascii.hexlify(h.digest()).decode(), p)
 except OSError:
  print('-', p)
try:
 for e in os.ilistdir({library!r}):
  print('+', {library!r} + '/' + e[0])
except OSError:
 pass
"""

# Makes the files that are only ever overwritten in place: on FAT their clusters and directory entries never change.
_SLOTS = """
try:
 for p in {paths!r}:
  with open(p, 'wb') as f:
   for _ in range({size} // 100):
    f.write(b'\\n' * 100)
except OSError as e:
 print(e.errno)
"""

Tell = Callable[[str, str], None]


@dataclass
class Flashed:
    """What was done, and how it ended: `connected`, or `fault`, or neither when the board was not followed."""

    copied: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    connected: bool = False
    fault: Fault | None = None


def flash(
    device: Device,
    port: str,
    *,
    firmware: Path = FIRMWARE,
    tell: Tell = lambda step, text: None,
    on_event: Callable[[Event], None] = lambda event: None,
    follow: float | None = FOLLOW_SECONDS,
) -> Flashed:
    """Bring a board to the state of `device` and `firmware`, restart it and follow it for at most `follow` seconds.

    Only what differs is copied, and each copy is compared by SHA-256. `tell` hears of the tool's steps, `on_event` of
    the board's; `follow` None leaves after the restart. Raises ToolError for everything that keeps the tool from doing
    it; an error the board reports is no exception but the result's `fault`.
    """
    files = _files(device, firmware)
    library = [name for name in files if name.startswith(LIBRARY)]
    tell("compiled", f"{len(library)} modules, {sum(len(files[name]) for name in library) / 1024:.1f} KB of .mpy")
    result = Flashed()
    with _board(port) as board:
        tell("board", _check_runtime(board, device))
        _copy(board, device, files, result, tell)
        board.exit_raw_repl()
        board.serial.timeout = TICK  # from here on silence is something to notice, not to wait out
        restart(board.serial)
        tell("restarted", "")
        if follow is not None:
            _follow(Listener(board.serial), follow, on_event, result)
    return result


def compile_library(firmware: Path, options: tuple[str, ...]) -> dict[str, bytes]:
    """Path on the board -> content, for each module of firmware/aziot. Raises ToolError with the compiler's words."""
    sources = sorted((firmware / "aziot").glob("*.py"))
    if not sources or not (firmware / "main.py").is_file():
        raise ToolError(f"{firmware} holds no firmware", "it has main.py and a folder aziot")
    return {f"{LIBRARY}/{source.stem}.mpy": mpy.compiled(source, options) for source in sources}


def _files(device: Device, firmware: Path) -> dict[str, bytes]:
    """Path on the board -> content, in the order they are copied: secrets last."""
    files = compile_library(firmware, device.profile.mpy)
    files["/board.json"] = json.dumps(device.profile.board_json()).encode()
    files |= {f"/{name}": (firmware / name).read_bytes() for name in SOURCES if (firmware / name).is_file()}
    for name in PUBLIC + SECRET:
        if (device.folder / name).is_file():
            files[f"/{name}"] = (device.folder / name).read_bytes()
    return files


@contextlib.contextmanager
def _board(port: str) -> Iterator[SerialTransport]:
    """A board at its raw REPL, its program stopped and its heap fresh. Whatever fails inside becomes a ToolError."""
    # mpremote prints what it could not make sense of; the ToolErrors here say it instead.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            board = SerialTransport(port, SPEED, timeout=REPL_SECONDS)
        except TransportError:
            open_port(port).close()  # raises the reason, which mpremote keeps to itself
            raise ToolError(f"{port} cannot be used", "try again") from None
        except (OSError, ValueError) as error:
            raise port_error(port, error) from None
    try:
        board.serial.write_timeout = REPL_SECONDS
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                board.enter_raw_repl()
        except (TransportError, serial.SerialTimeoutException):
            hint = "is it a board with MicroPython? Press its reset button and try again"
            raise ToolError(f"no MicroPython prompt on {port}", hint) from None
        yield board
    except TransportExecError as error:
        last = (error.error_output.strip().splitlines() or ["no reason given"])[-1]
        hint = "reset it and try again" if "MemoryError" in last else ""
        raise ToolError(f"the board failed: {last}", hint) from None
    except TransportError:
        raise ToolError("the board stopped answering", "reset it and try again") from None
    except serial.SerialException:
        raise ToolError(f"{port} went away", "was the board unplugged?") from None
    except OSError as error:  # of the board's filesystem; mpremote puts the path where the reason belongs
        if error.errno == errno.ENOSPC:
            remedy = "remove what is not needed: mpremote fs rm"
            raise ToolError(f"the board's filesystem is full; {error.strerror} did not fit", remedy) from None
        reason = errno.errorcode.get(error.errno or 0, "unknown error")
        raise ToolError(f"the board's filesystem failed at {error.strerror}: {reason}") from None
    finally:
        with contextlib.suppress(OSError):
            board.close()


def _check_runtime(board: SerialTransport, device: Device) -> str:
    """One line on what the board is. Raises ToolError when the firmware cannot run there."""
    profile = device.profile
    name, version, mpy, platform, chip = (board.exec(_ABOUT).decode().split() + [""])[:5]
    remedy = "install MicroPython {}.{} or newer on it".format(*profile.min_version)
    if name != profile.runtime:
        raise ToolError(f"the board runs {name}, not {profile.runtime}", remedy)
    if tuple(int(part) for part in version.split(".")) < profile.min_version:
        raise ToolError(f"the board runs MicroPython {version}, which is too old", remedy)
    if int(mpy) != MPY_VERSION:
        raise ToolError(f"the board reads .mpy version {mpy}, not {MPY_VERSION}", remedy)
    if platform == "esp32" and chip != profile.chip:
        raise ToolError(
            f"the board has an {chip}, and the device was made for {profile.name}",
            "make it anew with the right --board (esp-dps new … --force), or take another board",
        )
    return f"MicroPython {version} on {chip if platform == 'esp32' else platform}"


def _copy(board: SerialTransport, device: Device, files: Mapping[str, bytes], result: Flashed, tell: Tell) -> None:
    """Make the board's files equal to `files`, remove what would get in their way. Fills `result`."""
    ours = [f"/{name}" for name in PUBLIC + SECRET + ISSUED]
    there = _survey(board, [*files, *(name for name in ours if name not in files)])
    stale = [name for name in there if name not in files and (name in ours or name.startswith(LIBRARY))]
    if _other_owner(board, device, files, there):
        blank = hashlib.sha256(b"\n" * SLOT_BYTES).hexdigest()
        stale = [name for name in stale if there[name] != blank]
    else:
        stale = [name for name in stale if name[1:] not in ISSUED]
    for name in stale:  # first, since it makes room, and a module's old .py would be taken before its new .mpy
        board.fs_rmfile(name)
        result.removed.append(name)
    _make_slots(board, [name for name in ours if name[1:] in ISSUED and (name not in there or name in stale)], tell)
    for folder in ("/lib", LIBRARY):
        if not board.fs_isdir(folder):
            board.fs_mkdir(folder)
    start, sent = time.monotonic(), 0
    for name, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        if there.get(name) == digest:
            result.same.append(name)
            continue
        board.fs_writefile(name, content)
        if _survey(board, [name])[name] != digest:
            raise ToolError(f"{name} arrived damaged on the board", "try again, with another cable or port")
        result.copied.append(name)
        sent += len(content)
        tell("copied", f"{name}, {len(content):,} bytes")
    summary = f"{len(result.copied)} copied, {sent / 1024:.1f} KB in {time.monotonic() - start:.1f} s"
    tell("files", f"{summary}; {len(result.same)} were the same, {len(result.removed)} removed")


def _make_slots(board: SerialTransport, paths: list[str], tell: Tell) -> None:
    """Blank files for the identity that will be issued; what is there already is not for this tool to write."""
    if not paths:
        return
    names = " and ".join(paths)
    if failure := board.exec(_SLOTS.format(paths=paths, size=SLOT_BYTES)):
        raise OSError(int(failure), names)
    tell("slots", f"{names}, {SLOT_BYTES:,} bytes each, for what will be issued")


def _survey(board: SerialTransport, paths: list[str]) -> dict[str, str]:
    """SHA-256 in hex of those of `paths` that are on the board, and "" for anything else in the library."""
    found: dict[str, str] = {}
    for line in board.exec(_SURVEY.format(paths=paths, library=LIBRARY)).decode().splitlines():
        digest, _, path = line.partition(" ")
        if digest == "+":
            found.setdefault(path, "")
        elif digest != "-":
            found[path] = digest
    return found


def _other_owner(board: SerialTransport, device: Device, files: Mapping[str, bytes], there: Mapping[str, str]) -> bool:
    """Whether what the board has stored belongs to another device or another key, so that it must not be used again."""
    if "/device.json" not in there:
        return True
    key = hashlib.sha256(files["/device.key"]).hexdigest() if "/device.key" in files else None
    if there.get("/device.key") != key:
        return True
    try:
        before: Any = json.loads(board.fs_readfile("/device.json"))
        return any(before.get(name) != device.config.get(name) for name in OWNER)
    except (ValueError, AttributeError):
        return True


def _follow(listener: Listener, seconds: float, on_event: Callable[[Event], None], result: Flashed) -> None:
    """Follow the board until it is connected or has given up. Raises ToolError when it does neither in time."""
    settled = float("inf")
    deadline = time.monotonic() + seconds
    for event in listener.events(seconds):
        if event is None:
            if time.monotonic() > settled:
                return
            continue
        on_event(event)
        if event.fault:
            # Not the end yet: a stored identity that is refused leads back to DPS.
            result.fault = event.fault
            settled = time.monotonic() + SETTLE_SECONDS
        elif event.step in CONNECTED:
            result.connected, result.fault = True, None
            return
        elif event.step == "wait":
            # The board tries again by itself: worth following if that is soon, and either another way ("then DPS") or
            # not the service's no.
            settled = time.monotonic() + float(event.text.split()[0]) + SETTLE_SECONDS
            refused = result.fault and result.fault.refused and not event.text.endswith("then DPS")
            if settled > deadline or refused:
                return
        elif event.step:
            settled = float("inf")
    if result.fault is None:
        if listener.at_prompt:
            raise ToolError("the program on the board ended before it was connected", "see what it printed last")
        raise ToolError(f"the board was not connected within {seconds:.0f} s", "esp-dps monitor shows how it goes on")
