# A board's life on real MicroPython, as main.py leads it, with a line for each step: milliseconds since the start, the
# step, bytes of heap in use when what is no longer needed has been collected.
# Settings come by the environment: BENCH_UNIT (the folder that is the board's flash), BENCH_LIBRARY (where aziot is),
# BENCH_MESSAGES (how many), BENCH_HEAP (set: look at the heap).
import gc
import sys

from uos import getenv

gc.threshold(2048)  # as main.py
sys.path.insert(0, getenv("BENCH_LIBRARY"))

messages = int(getenv("BENCH_MESSAGES") or 3)


def main():
    from time import ticks_diff, ticks_ms

    from aziot.device import Device
    from aziot.errors import AzureError

    start = ticks_ms()
    measured = getenv("BENCH_HEAP")

    def log(step, text=""):
        ms = ticks_diff(ticks_ms(), start)
        if measured:
            gc.collect()
        print("%d %s %d %s" % (ms, step, gc.mem_alloc() if measured else 0, text))

    try:
        device = Device.load(getenv("BENCH_UNIT"), log)
        log("loaded")
        session = device.connect()
        for _ in range(messages):
            session.send({"temperature": 21.5})
        log("steady")
        session.close()
    except AzureError as e:
        log("error", str(e))
        sys.exit(1)


main()
