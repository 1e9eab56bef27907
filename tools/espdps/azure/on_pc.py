"""The firmware's own modules on this PC, once, with a folder as the board's flash; prints what a board's console would.

    python -m espdps.azure.on_pc FOLDER [hub]

A process of its own, as the modules change what Python has in `time`. It must never write outside of FOLDER."""

from __future__ import annotations

import sys
import time


def main(folder: str, hub: bool) -> int:
    """Register, or with `hub` go on to IoT Hub and send one message; 0 if that went well."""
    from aziot import clock, store  # type: ignore[import-not-found]
    from aziot.device import Device  # type: ignore[import-not-found]
    from aziot.errors import AzureError  # type: ignore[import-not-found]

    begun = time.monotonic()

    def log(step: str, text: str = "") -> None:
        text = "".join(c if c >= " " else "?" for c in text[:300])
        print(f"[{time.monotonic() - begun:8.3f}] {step:<12} {text}", flush=True)

    try:
        device = Device.load(folder + "/", log)
        if not clock.is_set():
            raise AzureError("clock", "pc", f"this PC says {clock.iso(clock.now())}")
        if hub:
            session = device.connect()
            session.send({"count": 1})
            session.close()
        else:
            # The part of connect() before the hub: register, check the certificate, store it as pending.
            device._provision(None)
            assert store.load(folder + "/")
    except AzureError as error:
        log("error", str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], "hub" in sys.argv[2:]))
