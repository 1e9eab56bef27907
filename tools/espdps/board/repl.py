"""A board at its raw prompt, by mpremote: brought there, asked what it is and what it holds, its files written.
Whatever goes wrong on the way is a ToolError of one line with what to do; no content of a file is ever in it."""

from __future__ import annotations

import ast
import contextlib
import errno
import re
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import serial
from mpremote.transport import TransportError, TransportExecError
from mpremote.transport_serial import SerialTransport

from espdps.board import ports
from espdps.board.monitor import AWAY_SECONDS, SPEED, TICK, Listener, open_port, port_error, restart
from espdps.devices import profiles
from espdps.errors import ToolError

REPL_SECONDS = 5  # longest silence inside an answer of the board
PROMPT_SECONDS = 20.0  # a program may catch Ctrl-C, or crash and start anew, for so long
_CALM_SECONDS = 4.0  # after that no pause between two Ctrl-C: a board that crashes at once listens for moments only
_LATEST_HEARD = 8192  # bytes
_RAW = b"raw REPL; CTRL-B to exit\r\n"
_REBOOT = b"soft reboot\r\n"

# Run on the board: what it is, the blocks of its filesystem, and the device whose settings lie there.
_ABOUT = """
import sys, os
i = sys.implementation
try:
 import machine
 u = machine.unique_id().hex()
except Exception:
 u = ''
try:
 m = os.uname()[4]
except Exception:
 m = ''
s = os.statvfs('/')
try:
 import json
 with open('/device.json') as f:
  o = str(json.load(f)['registration_id'])
except Exception:
 o = ''
print((i[0], i[1][:2], getattr(i, '_mpy', 0) & 255, sys.platform, getattr(i, '_machine', ''), m, u, s[0], s[3], o))
"""

# Run on the board: SHA-256 and size of each file asked for, "-" if missing, and what the library holds; "f" and "d" for
# a file where a folder is wanted, and the other way round.
_SURVEY = """
import os, hashlib, binascii
b = bytearray(512)
def d(p):
 try:
  return os.stat(p)[0] & 0x4000
 except OSError:
  return None
for p in {folders!r}:
 if d(p) == 0:
  print('f', 0, p)
for p in {paths!r}:
 try:
  with open(p, 'rb') as f:
   h = hashlib.sha256()
   z = 0
   n = f.readinto(b)
   while n:
    z += n
    h.update(memoryview(b)[:n])
    n = f.readinto(b)
  print(binascii.hexlify(h.digest()).decode(), z, p)
 except OSError:
  print('d' if d(p) else '-', 0, p)
try:
 for e in os.ilistdir({library!r}):
  print('+', 0, {library!r} + '/' + e[0])
except OSError:
 pass
"""

# Run on the board before its memory is cleared: what the firmware found at its start (hardware.py).
_STARTED = b"import sys\nprint('by watchdog', getattr(sys.modules.get('hardware'), 'by_watchdog', None))\n\x04"

# Makes the files that are only ever overwritten in place: on FAT their clusters and directory entries never change.
_BLANK = """
try:
 for p in {paths!r}:
  with open(p, 'wb') as f:
   for _ in range({size} // 100):
    f.write(b'\\n' * 100)
except OSError as e:
 print(e.errno)
"""


@dataclass(frozen=True)
class About:
    """What a board says it is. `chip` as a profile has it, "" if it says none; `chip_id` in hex, "" if it has none.
    `block`, bytes, is what the filesystem gives out at a time, `free` how many of them there are; `carries` is the
    registration id in its device.json, or ""."""

    runtime: str
    version: tuple[int, int]
    mpy: int
    platform: str
    chip: str
    chip_id: str
    block: int
    free: int
    carries: str


@dataclass(frozen=True)
class Found:
    """A file on the board: its SHA-256 in hex and its size in bytes. Both empty for what is only known to be there."""

    sha256: str = ""
    size: int = 0


class Board(SerialTransport):
    """A board at its raw prompt, its program stopped and its heap fresh. Made by `opened`.

    `by_watchdog`: whether the watchdog had started the program that was stopped; False if that is not known.
    `boot_said` is what its boot.py printed; `boot_interrupted`: it did not end by itself.
    """

    by_watchdog = False
    boot_said = b""
    boot_interrupted = False

    def enter(self) -> None:
        """Stop the program, whatever it does, and start the prompt anew. Raises ToolError that says what was heard."""
        begun = time.monotonic()
        heard = b""
        while not heard.endswith(_RAW + b">"):
            waited = time.monotonic() - begun
            if waited > PROMPT_SECONDS:
                raise _no_prompt(self.device_name, heard)
            # Twice for a program that caught the first one. What is sent too much is read before the reset below.
            self.serial.write(b"\r\x03\x03\r\x01")
            heard += self._hear(_RAW + b">", 1.0 if waited < _CALM_SECONDS else 0.05)
            heard = heard[-_LATEST_HEARD:]
        self.serial.write(_STARTED)
        self.by_watchdog = b"by watchdog True" in self._hear(b"\x04>", REPL_SECONDS)
        self.serial.write(b"\x04")
        heard += self._hear(_REBOOT, REPL_SECONDS * 2)
        if heard.endswith(_REBOOT):
            heard = self._boot()
        if not heard.endswith(_RAW):
            raise _no_prompt(self.device_name, heard)
        self.in_raw_repl = True

    def _boot(self) -> bytes:
        """What comes until the prompt, between which boot.py runs; one that does not end is stopped."""
        heard = self._hear(_RAW, REPL_SECONDS * 2)
        for _ in range(3):  # one may catch Ctrl-C
            if heard.endswith(_RAW):
                break
            self.boot_interrupted = True
            self.serial.write(b"\x03")
            heard += self._hear(_RAW, REPL_SECONDS / 2)
        else:
            if not heard.endswith(_RAW):
                hint = "erase the flash (esptool erase-flash) and install MicroPython again: no program gets past it"
                raise ToolError(f"boot.py of the board on {self.device_name} does not end, even at Ctrl-C", hint)
        self.boot_said = heard[-_LATEST_HEARD:]
        return heard

    def about(self) -> About:
        """What the board is."""
        answer = ast.literal_eval(self.exec(_ABOUT).decode().strip())
        runtime, version, mpy, platform, named, machine, chip_id, block, free, carries = answer
        return About(
            runtime, version, mpy, platform, _chip(platform, named, machine), chip_id, block or 4096, free, carries
        )

    def survey(self, paths: Iterable[str], library: str) -> dict[str, Found]:
        """Those of `paths` that are on the board; anything else in the folder `library` by its name only.

        Raises ToolError if a folder is in the place of a file, or a file in that of a folder.
        """
        found: dict[str, Found] = {}
        folders = [str(parent) for parent in (*reversed(PurePosixPath(library).parents), library)][1:]
        program = _SURVEY.format(paths=list(paths), folders=folders, library=library)
        for line in self.exec(program).decode().splitlines():
            digest, size, path = line.split(" ", 2)
            if digest in ("f", "d"):
                is_, wanted = ("a file", "a folder") if digest == "f" else ("a folder", "a file")
                hint = f"move what you need from it, then remove it: mpremote fs rm -r :{path[1:]}"
                raise ToolError(f"{path} on the board is {is_}, and the firmware needs {wanted} of that name", hint)
            if digest == "+":
                found.setdefault(path, Found())
            elif digest != "-":
                found[path] = Found(digest, int(size))
        return found

    def make_blank(self, paths: list[str], size: int) -> None:
        """Files of `size` bytes, all empty lines; `size` a multiple of 100. OSError as mpremote raises it."""
        if failure := self.exec(_BLANK.format(paths=paths, size=size)):
            raise OSError(int(failure), " and ".join(paths))

    def restart(self) -> Listener:
        """Reset the board, so that its program starts again; what it says comes from the Listener."""
        self.exit_raw_repl()
        self.serial.timeout = TICK  # from here on silence is something to notice, not to wait out
        restart(self.serial)
        return Listener(self.serial, AWAY_SECONDS)

    def _hear(self, ending: bytes, seconds: float) -> bytes:
        # Up to `ending`, or what came in `seconds`.
        data = b""
        deadline = time.monotonic() + seconds
        self.serial.timeout = 0.02
        try:
            while not data.endswith(ending) and time.monotonic() < deadline:
                data += self.serial.read(1)
        finally:
            self.serial.timeout = REPL_SECONDS
        return data


@contextlib.contextmanager
def opened(port: str, open_board: Callable[..., Board] = Board) -> Iterator[Board]:
    """The board at `port`, held alone. Whatever fails inside becomes a ToolError; after one of ours its program is
    started anew, since the board itself is well."""
    port = ports.named(port)
    try:
        board = open_board(port, SPEED, timeout=REPL_SECONDS)
    except TransportError:
        open_port(port).close()  # raises the reason, which mpremote keeps to itself
        raise ToolError(f"{port} cannot be used", "try again") from None
    except (OSError, ValueError) as error:
        raise port_error(port, error) from None
    try:
        board.serial.write_timeout = REPL_SECONDS
        board.enter()
        try:
            yield board
        except ToolError:
            if board.in_raw_repl:
                board.restart()
            raise
    except TransportExecError as error:
        last = (error.error_output.strip().splitlines() or ["no reason given"])[-1]
        if found := re.match(r"OSError: (?:\[Errno )?(\d+)", last):
            raise _filesystem_error(int(found[1]), "") from None
        hint = (
            "reset it and try again"
            if "MemoryError" in last
            else "reset it and try again; esp-dps doctor --port says more"
        )
        raise ToolError(f"the board on {port} failed: {last}", hint) from None
    except serial.SerialTimeoutException:
        hint = "is it a board with MicroPython? Press its reset button and try again"
        raise ToolError(f"no MicroPython prompt on {port}: it takes no input", hint) from None
    except serial.SerialException:
        raise _gone(port) from None
    except (TransportError, struct.error, ValueError, SyntaxError):  # no answer, half of one, or another program's
        hint = "run it again, it goes on where it ended; reset the board if that fails too"
        raise ToolError(f"the board on {port} stopped answering", hint) from None
    except OSError as error:
        if not (error.strerror or "").startswith("/"):
            raise _gone(port) from None
        # of the board's filesystem; mpremote puts the path where the reason belongs
        raise _filesystem_error(error.errno or 0, error.strerror or "") from None
    finally:
        with contextlib.suppress(OSError):
            board.close()


def _gone(port: str) -> ToolError:
    return ToolError(f"{port} went away", "was the board unplugged? Plug it in and run this again: it goes on")


def _filesystem_error(number: int, path: str) -> ToolError:
    if number == errno.ENOSPC:
        did = f"; {path} did not fit" if path else ""
        return ToolError(f"the board's filesystem is full{did}", "remove what is not needed: mpremote fs rm")
    if number == errno.EROFS:
        return ToolError(
            "the board's filesystem is read-only", "see what boot.py mounts; with CircuitPython eject its USB drive"
        )
    reason = errno.errorcode.get(number, "unknown error")
    at = f" at {path}" if path else ""
    return ToolError(
        f"the board's filesystem failed{at}: {reason}",
        "if it stays so, erase its flash (esptool erase-flash) and install MicroPython anew",
    )


def _no_prompt(port: str, heard: bytes) -> ToolError:
    """What a board is about that does not come to its prompt, by what it says; ESP32's boot loader speaks as well."""
    install = "install it: https://micropython.org/download/?port=esp32"
    starts = heard.count(b"soft reboot") + heard.count(b"rst:0x") + heard.count(b"MicroPython v")
    if not heard.strip():
        hint = "is it a board with MicroPython, and the cable one for data? Press its reset button and try again"
        return ToolError(f"no MicroPython prompt on {port}: nothing answers", hint)
    if b"CircuitPython" in heard:
        return ToolError(f"the board on {port} runs CircuitPython, not MicroPython", install)
    if b"invalid header" in heard or b"flash read err" in heard:
        return ToolError(f"no MicroPython prompt on {port}: its flash holds no firmware", install)
    if b"waiting for download" in heard:
        return ToolError(f"the board on {port} waits in its boot loader", "press reset without holding BOOT")
    if starts > 2:
        hint = "its program crashes at once; erase the flash (esptool erase-flash) and install MicroPython anew"
        return ToolError(f"no MicroPython prompt on {port}: the board restarts over and over", hint)
    hint = "its program takes Ctrl-C for itself, or it is no MicroPython; reset it and try again at once"
    return ToolError(f"no MicroPython prompt on {port}, though something answers", hint)


def _chip(platform: str, named: str, machine: str) -> str:
    if platform == "esp32":
        return named.rpartition(" ")[2]
    kind, _, name = machine.partition(" ")
    if kind == "virtual" and name in profiles.names():  # a virtual board stands for one of this profile
        return profiles.load(name).chip
    return ""
