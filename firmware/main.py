# From power-on to telemetry.
import gc

# Tidy early: a heap that fills up first falls into pieces, and a certificate chain wants a large one.
gc.threshold(2048)

import app  # noqa: E402
import hardware  # noqa: E402
from aziot.device import Device  # noqa: E402
from aziot.errors import AzureError  # noqa: E402

device = None


def live():
    global device
    device = device or Device.load("/", hardware.log)
    hardware.start_network()
    session = device.connect()  # by the identity on flash, or through DPS
    try:
        hardware.led(True)
        app.run(session)
    finally:
        hardware.led(False)
        session.close()


def live_on():
    try:
        live()
    except AzureError as e:
        hardware.log("error", str(e))
        hardware.wait_after(e)
    except MemoryError:
        raise
    except Exception as e:  # noqa: BLE001 the application's own
        hardware.failed(e)


hardware.start()
while True:
    try:
        live_on()
    except MemoryError:
        hardware.restart()
