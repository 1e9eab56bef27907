# Runs on every interpreter: telemetry as main.py does it, with the files of one folder, for so many seconds; counts
# how long idle() was not called and how long poll() took.
# flooded.py FOLDER SECONDS
import gc
import sys

if hasattr(gc, "threshold"):  # as main.py
    gc.threshold(2048)

from aziot import forget, stream
from aziot.device import Device
from aziot.errors import AzureError
from aziot.runtime import time

started = time.ticks_ms()
fed = started
longest = {"idle": 0, "poll": 0}
failures = number = 0


def log(step, text=""):
    print("[%8.3f] %-12s %s" % (time.ticks_diff(time.ticks_ms(), started) / 1000, step, text))
    if hasattr(sys.stdout, "flush"):
        sys.stdout.flush()


def idle():
    global fed
    now = time.ticks_ms()
    longest["idle"] = max(longest["idle"], time.ticks_diff(now, fed))
    fed = now


def live():
    session = device.connect()
    try:
        work(session)
    finally:
        session.close()


def work(session):
    global failures, number
    session.on_message(lambda body, properties: None)
    session.on_method("add", lambda payload: (200, None))
    session.on_desired(lambda patch, version: None)
    while time.ticks_diff(time.ticks_ms(), started) < seconds * 1000:
        number += 1
        session.send({"count": number})
        failures = 0
        begun = time.ticks_ms()
        session.poll(200)
        longest["poll"] = max(longest["poll"], time.ticks_diff(time.ticks_ms(), begun))


stream.idle = idle
__import__("aziot.faults")  # its names stay in the heap: not between two connections
forget("faults")
gc.collect()  # as hardware.py does before the first attempt
device = Device.load(sys.argv[1], log)
seconds = int(sys.argv[2])
while time.ticks_diff(time.ticks_ms(), started) < seconds * 1000:
    try:
        live()
    except AzureError as e:
        log("error", str(e))
        if e.code == "memory":  # as hardware.py
            sys.exit(3)
        # as hardware.py, but never shorter for a draw, so that a minute is the longest
        wait = min((2 if e.retriable else 300) << min(failures, 5), 60 if e.retriable else 3600)
        failures += 1
        log("wait", str(wait))
        stream.pause(wait)
log("longest", str(longest["idle"]) + " " + str(longest["poll"]))
