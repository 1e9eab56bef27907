# Runs on every interpreter: an application that uses all of a session at once, as main.py does it, with the files of one
# folder; prints the console's lines. Its method "renew" renews the certificate, and "off" ends it before its time.
# busy.py FOLDER SECONDS
import gc
import json
import sys

if hasattr(gc, "threshold"):  # as main.py
    gc.threshold(2048)

from aziot import forget
from aziot.device import Device
from aziot.errors import AzureError
from aziot.runtime import time

started = time.ticks_ms()
number = 0


def passed():
    return time.ticks_diff(time.ticks_ms(), started) / 1000


def log(step, text=""):
    print("[%8.3f] %-12s %s" % (passed(), step, text))
    if hasattr(sys.stdout, "flush"):
        sys.stdout.flush()


def off(payload):
    global seconds
    seconds = 0
    return 200, None


def run(device, session):
    global number

    def add(payload):
        return 200, {"sum": payload["a"] + payload["b"]}

    def desired(patch, version):
        log("desired", "%d %s" % (version, json.dumps(patch)))
        session.report({"seen": version})

    session.on_message(lambda body, properties: log("message", str(body, "utf-8") + " " + json.dumps(properties)))
    session.on_method("add", add)
    session.on_method("off", off)
    session.on_method("renew", lambda payload: (200, session.renew()))
    session.on_desired(desired)
    while passed() < seconds:
        number += 1
        device.send({"count": number}, {"parity": number % 2})
        session.poll(200)
        if number % 50 == 0:
            forget("faults")  # what a lost connection loads is no leak
            log("free", str(gc.mem_free()) if hasattr(gc, "mem_free") else "")


__import__("aziot.faults")  # its names, which stay, are to be in the heap before it is measured
forget("faults")
device = Device.load(sys.argv[1], log)
seconds = int(sys.argv[2])
while passed() < seconds or device.outbox:
    try:
        session = device.connect()
        run(device, session)
        session.close()
    except AzureError as e:
        log("error", str(e))
        if e.code == "memory":  # as hardware.py: a heap in pieces ends in a restart
            sys.exit(3)
        time.sleep_ms(500)
