"""What can be seen to be wrong with a board itself, at its prompt: runtime, heap, room, clock, Wi-Fi, identity.
Reads only; of a file with a secret it learns no more than that it is there."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator
from typing import Any

from espdps.board.flash import ISSUED, LIBRARY, SLOT_BYTES
from espdps.board.identity_backup import Slot, date, parse
from espdps.board.repl import About, Board
from espdps.devices.folder_doctor import SOON, Finding
from espdps.devices.profiles import OLDEST

NEEDED = ("/main.py", "/app.py", "/hardware.py", "/device.json", "/roots.pem", "/secrets.json")
FLASH = "flash it: esp-dps flash DEVICE --port PORT"
SET_SINCE = 1767225600  # 2026-01-01: an earlier clock was never set
_OFFSET = 300  # seconds a clock may be off before certificates and tokens suffer
_WEAK = -80  # dBm
_DAY = 86400

# Run on the board: heap in bytes, its filesystem's blocks, Unix time, Wi-Fi. On ESP32 the heap grows: "free" includes
# what it could still take from the system's memory, in one piece.
_STATE = """
import gc, os, time
gc.collect()
r = {'free': gc.mem_free(), 'used': gc.mem_alloc()}
s = os.statvfs('/')
r['block'], r['blocks'], r['room'] = s[0], s[2], s[3]
r['time'] = int(time.time()) + (946684800 if time.gmtime(0)[0] == 2000 else 0)
try:
 import network
 w = network.WLAN(network.STA_IF)
 r['joined'] = w.isconnected()
 try:
  r['rssi'] = w.status('rssi')
 except Exception:
  pass
except ImportError:
 pass
print(r)
"""


def examine(board: Board, now: float | None = None) -> list[Finding]:
    """Everything wrong with the board at the prompt, and what is worth knowing; `now` is Unix time, this PC's if None.

    Raises ToolError if the board stops answering, or OSError as mpremote raises it.
    """
    about = board.about()
    state = ast.literal_eval(board.exec(_STATE).decode().strip())
    return list(_findings(board, about, state, time.time() if now is None else now))


def _findings(board: Board, about: About, state: dict[str, Any], now: float) -> Iterator[Finding]:
    version = ".".join(map(str, about.version))
    yield _note("runtime", f"{about.runtime} {version} on {about.chip or about.platform}, id {about.chip_id or 'none'}")
    if about.runtime != "micropython" or about.version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        yield Finding("runtime", f"the firmware needs MicroPython {oldest} or newer", "install it: micropython.org")
    free, used = state["free"] // 1024, state["used"] // 1024
    if about.platform == "esp32":
        shared = "including memory that the heap shares with TLS and Wi-Fi"
        text = f"{used} KB in use, {free} KB free at the prompt, {shared}"
    else:
        text = f"{free + used} KB, {free} of them free at the prompt"
    yield _note("heap", text)
    yield _note(
        "filesystem",
        f"{state['room'] * state['block'] // 1024:,} KB of {state['blocks'] * state['block'] // 1024:,} free",
    )
    if board.by_watchdog:
        yield Finding("start", "its watchdog had to start it", "see what it said before: esp-dps monitor", wrong=False)
    yield from _clock(state["time"], now)
    yield from _wifi(state)
    yield from _files(board, state["room"] * state["block"], now, about.carries)


def _note(where: str, message: str) -> Finding:
    return Finding(where, message, wrong=False)


def _clock(there: int, now: float) -> Iterator[Finding]:
    if there < SET_SINCE:
        yield _note("clock", "not set since power-on: the firmware sets it by NTP before it connects")
    elif abs(there - now) > _OFFSET:
        off = f"{there - now:+,.0f} s off this PC's"
        yield Finding("clock", off, "look whether the time servers under ntp in device.json can be reached")
    else:
        yield _note("clock", f"{date(there)}, as this PC's")


def _wifi(state: dict[str, Any]) -> Iterator[Finding]:
    if "joined" not in state:
        yield _note("Wi-Fi", "this runtime has none")
    elif not state["joined"]:
        yield _note("Wi-Fi", "not joined now: the firmware does so at its start")
    else:
        rssi = state.get("rssi")
        yield _note("Wi-Fi", "joined" if rssi is None else f"joined, {rssi} dBm")
        if isinstance(rssi, int) and rssi < _WEAK:
            yield Finding("Wi-Fi", "the signal is weak", "bring board and access point nearer together", wrong=False)


def _files(board: Board, room: int, now: float, carries: str) -> Iterator[Finding]:
    there = board.survey([*NEEDED, "/onboarding.key", *(f"/{name}" for name in ISSUED)], LIBRARY)
    missing = [name for name in NEEDED if name not in there]
    if not any(name.startswith(f"{LIBRARY}/") for name in there):
        missing.append(LIBRARY)
    if missing:
        yield Finding("files", f"missing: {', '.join(missing)}", FLASH)
    if not carries:
        yield Finding("identity", "the board carries no device", FLASH)
        return
    slots = {name: there.get(f"/{name}") for name in ISSUED}
    lacking = sum(found is None for found in slots.values()) * SLOT_BYTES
    if lacking > room:
        yield Finding("filesystem", "no room for what will be issued", "remove what is not needed: mpremote fs rm")
    read = [parse(bytes(board.fs_readfile(f"/{name}"))) for name, found in slots.items() if found]
    yield from _identity(carries, [slot for slot in read if slot and slot.state != "X"], now)


def _identity(carries: str, slots: list[Slot], now: float) -> Iterator[Finding]:
    if not slots:
        yield _note("identity", f"{carries}: none issued yet; it registers at DPS at its start")
        return
    slot = max(slots, key=lambda one: one.sequence)
    pending = "" if slot.state == "A" else ", which the hub has not accepted yet"
    text = f"{carries} on {slot.hub} as {slot.device_id}{pending}"
    if not slot.not_after:
        yield _note("identity", f"{text}, without a certificate")
        return
    days = (slot.not_after - now) / _DAY
    yield _note("identity", f"{text}, certificate until {date(slot.not_after)}")
    if days < 0:
        yield Finding("identity", "the certificate has ended", "let it run: it registers at DPS again", wrong=False)
    elif days < SOON / 10:
        yield Finding("identity", f"{days:.1f} days left", "let it run: it renews in time", wrong=False)
