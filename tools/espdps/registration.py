"""A device registers from this PC, by the firmware's own modules: a set-up is checked before a board is touched.
The device folder is only read, unless the identity is kept; what runs works on a copy that nobody else may read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from espdps import devices
from espdps.console import Event, Fault, Lines, parse
from espdps.errors import ToolError
from espdps.paths import FIRMWARE, ROOT, SHIMS

SLOTS = ("identity.a", "identity.b")


def register(
    device: devices.Device,
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
    with tempfile.TemporaryDirectory(prefix="esp-dps-register-") as name:  # 0700
        flash = Path(name)
        for path in device.folder.iterdir():
            if path.is_file() and path.name not in SLOTS:  # as on a blank board
                shutil.copy2(path, flash / path.name)
        fault = _run(flash, tell, hub, seconds)
        if keep and fault is None:
            found = {slot: (flash / slot).read_bytes() for slot in SLOTS if (flash / slot).is_file()}
            for slot in SLOTS:
                (device.folder / slot).unlink(missing_ok=True)
            devices.write_files(str(device.folder), found)
    return fault


def _run(flash: Path, tell: Callable[[Event], None], hub: bool, seconds: float) -> Fault | None:
    paths = (FIRMWARE, SHIMS / "cpython", ROOT / "tools")
    process = subprocess.Popen(
        [sys.executable, "-m", "espdps.on_pc", str(flash), *(["hub"] if hub else [])],
        cwd=flash,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1"},
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
    fault = None
    try:
        lines = Lines()
        assert process.stdout
        for data in process.stdout:
            for event in map(parse, lines.feed(data)):
                fault = event.fault or fault
                tell(event)
        status = process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    if late.is_set():
        raise ToolError(f"no answer to the end within {seconds:.0f} s", "give it longer: --timeout SECONDS")
    if status == 0:
        return None
    if fault is None:
        raise ToolError(f"the firmware ended with status {status}", "is the device folder whole? esp-dps doctor DEVICE")
    return fault
