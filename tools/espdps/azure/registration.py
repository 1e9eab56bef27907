"""A device registers from this PC, by the firmware's own modules: a set-up is checked before a board is touched.
The device folder is only read, unless the identity is kept; what runs works on a copy that nobody else may read."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from espdps import files
from espdps.board.console import Event, Fault, Lines, parse
from espdps.devices import folders
from espdps.errors import ToolError, of_system
from espdps.paths import FIRMWARE, MODULES, SHIMS

SLOTS = ("identity.a", "identity.b")
# All that the firmware's modules read, and not what else lies there: on a blank board there is no identity, and a
# user's own module must not be taken for one of Python's.
READ = ("device.json", "secrets.json", "roots.pem", "device.csr", "device.key", "onboarding.crt", "onboarding.key")
_ELSEWHERE = "a copy of the device is made there for a moment; TMPDIR names another place"
_ENDS = (signal.SIGTERM, signal.SIGHUP)  # a terminal that is closed sends the second


def register(
    device: folders.Device,
    tell: Callable[[Event], None],
    *,
    hub: bool = False,
    keep: bool = False,
    seconds: float = 180,
) -> Fault | None:
    """Register at the endpoint that the device's settings name; None if it worked, else the fault that ended it.

    `tell` hears of each step as it comes. `hub`: go on to IoT Hub and send one message. `keep`: the identity is written
    to the device folder. Raises ToolError if there is nothing to register with, or no end after `seconds`.
    """
    if device.on_board_only:
        raise ToolError(
            f"{device.folder.name}: its keys are on the board only", "look at the board itself: esp-dps monitor"
        )
    if keep and not os.access(device.folder, os.W_OK | os.X_OK):  # before anything is asked of the service
        raise ToolError(f"{device.folder} cannot be written to", "without --keep it need not be")
    with _ending_tidily(), _scratch() as flash:
        try:
            for name in READ:
                if (device.folder / name).is_file():
                    shutil.copyfile(device.folder / name, flash / name)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ToolError(f"{flash.parent}: {error.strerror}", _ELSEWHERE) from None
            raise of_system(error, error.filename or flash) from None
        fault = _run(flash, tell, hub, seconds)
        if keep and fault is None:
            found = [slot for slot in SLOTS if (flash / slot).is_file()]
            kept = [files.Output(device.folder / slot, (flash / slot).read_bytes(), secret=True) for slot in found]
            files.write(kept, force=True)
            for slot in set(SLOTS) - set(found):
                (device.folder / slot).unlink(missing_ok=True)
    return fault


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for one run, which nobody else may read. Raises ToolError."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="esp-dps-register-")  # 0700
    except OSError as error:
        raise ToolError(f"a copy of the device cannot be made: {error.strerror}", _ELSEWHERE) from None
    with folder as name:
        yield Path(name)


@contextlib.contextmanager
def _ending_tidily() -> Iterator[None]:
    """Who is told to end leaves no process and no copy of a key behind either."""

    def end(number: int, _frame: object) -> None:
        sys.exit(128 + number)  # as shells count it

    try:
        before = [signal.signal(number, end) for number in _ENDS]
    except ValueError:  # not the main thread, which alone hears signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in zip(_ENDS, before, strict=True):
            signal.signal(number, handler)


def _run(flash: Path, tell: Callable[[Event], None], hub: bool, seconds: float) -> Fault | None:
    paths = (FIRMWARE, SHIMS / "cpython", MODULES)
    # Keys that other commands take from the environment are no business of this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ESPDPS_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "espdps.azure.on_pc", str(flash), *(["hub"] if hub else [])],
        cwd=flash,
        env={**environment, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a traceback could show what nobody shall see
    )
    late = threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, stop)
    timer.start()
    fault, step = None, ""
    try:
        lines = Lines()
        assert process.stdout
        for data in process.stdout:
            for event in map(parse, lines.feed(data)):
                fault, step = event.fault or fault, event.step or step
                tell(event)
        status = process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    if late.is_set():
        raise ToolError(
            f"no answer to the end within {seconds:.0f} s; the last step was {step or 'none'}",
            "a service that throttles is asked again and again: look there, or give it longer: --timeout SECONDS",
        )
    if status == 0:
        return None
    if fault is None:
        raise ToolError(f"the firmware ended with status {status}", "is the device folder whole? esp-dps doctor DEVICE")
    return fault
