# Runs on every interpreter: the firmware with the files of one folder, once for each line on stdin; prints the console's
# lines and then one of its own, "result CODE STEP MILLISECONDS FREE", with CODE "ok" if all went well.
# fault_driver.py FOLDER; a line is "blank N", which forgets the identity first, or "cached N"; N is sent to the hub.
import gc
import os
import sys

if hasattr(gc, "threshold"):  # as main.py
    gc.threshold(2048)

from aziot.device import Device
from aziot.errors import AzureError
from aziot.runtime import time

root = sys.argv[1]
started = time.ticks_ms()


def log(step, text=""):
    print("[%8.3f] %-12s %s" % (time.ticks_diff(time.ticks_ms(), started) / 1000, step, text))


def attempt(number):
    session = Device.load(root, log).connect()
    try:
        session.send({"count": number})
        session.poll(20)
    finally:
        session.close()


while True:
    words = sys.stdin.readline().split()
    if not words:
        break
    if words[0] == "blank":
        for name in os.listdir(root):
            if name.startswith("identity."):
                os.remove(root + name)
    gc.collect()  # as hardware.py does before the first attempt
    begun = time.ticks_ms()
    code, step = "ok", "-"
    try:
        attempt(int(words[1]))
    except AzureError as e:
        log("error", str(e))
        code, step = e.code, e.step
    except MemoryError:  # main.py restarts the board then
        code, step = "memory", "main"
    took = time.ticks_diff(time.ticks_ms(), begun)
    gc.collect()
    print("result", code, step, took, gc.mem_free())
    if hasattr(sys.stdout, "flush"):
        sys.stdout.flush()
    if code == "memory":  # as hardware.py: a heap that has fallen into pieces ends in a restart
        sys.exit(1)
