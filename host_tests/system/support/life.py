# Runs on every interpreter: the firmware with the files of one folder, as main.py does it, through so many renewals of
# its certificate, with a counter as telemetry; prints the console's lines.
# life.py FOLDER RENEWALS [pause=MILLISECONDS]
import gc
import sys

if hasattr(gc, "threshold"):  # as main.py
    gc.threshold(2048)

from aziot import forget
from aziot.device import Device
from aziot.errors import AzureError
from aziot.runtime import time

options = dict(word.split("=") for word in sys.argv[3:])
renewals = int(sys.argv[2])
started = time.ticks_ms()


def log(step, text=""):
    print("[%8.3f] %-12s %s" % (time.ticks_diff(time.ticks_ms(), started) / 1000, step, text))
    if hasattr(sys.stdout, "flush"):
        sys.stdout.flush()


device = None
number = 1
end = 0  # of the certificate
seen = 0  # certificates so far
for name in ("faults", "renew"):  # so that their names, which stay, are in the heap before it is measured
    __import__("aziot." + name)
    forget(name)
while seen <= renewals:
    try:
        device = device or Device.load(sys.argv[1], log)
        session = device.connect()
        session.on_expiring = lambda left: log("expiring", "%d s left" % left)
        while seen <= renewals:
            if session.record.not_after != end:
                end = session.record.not_after
                seen += 1
                forget("faults", "renew", "chain", "x509", "dps")  # what an error or a renewal loads is no leak
                log("free", str(gc.mem_free()) if hasattr(gc, "mem_free") else "")
            session.send({"count": number})
            number += 1
            session.poll(int(options.get("pause", 200)))
    except AzureError as e:
        log("error", str(e))
        if e.code == "memory":  # as hardware.py: a heap in pieces ends in a restart
            sys.exit(3)
        time.sleep_ms(max(200, e.retry_after * 1000))
session.close()
