# Runs on every interpreter: the firmware with the files of one folder, once; prints the console's lines.
# once.py FOLDER [clock=YYYY-MM-DD] [wait=MILLISECONDS] [count=N] [payload=TEXT]
import gc
import sys

if hasattr(gc, "threshold"):  # as main.py
    gc.threshold(2048)

from aziot.device import Device
from aziot.errors import AzureError
from aziot.runtime import time

options = dict(word.split("=") for word in sys.argv[2:])
if "clock" in options:
    import machine

    year, month, day = [int(n) for n in options["clock"].split("-")]
    machine.RTC().datetime((year, month, day, 0, 12, 0, 0, 0))
time.sleep_ms(int(options.get("wait", 0)))
started = time.ticks_ms()


def log(step, text=""):
    print("[%8.3f] %-12s %s" % (time.ticks_diff(time.ticks_ms(), started) / 1000, step, text))


try:
    device = Device.load(sys.argv[1], log)
    session = device.connect(options.get("payload"))
    if device.payload is not None:
        log("payload", str(device.payload))
    for n in range(int(options.get("count", 1))):
        session.send({"count": n + 1})
    session.close()
except AzureError as e:
    log("error", str(e))
    sys.exit(1)
