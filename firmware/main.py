# From power-on to telemetry.
import hardware  # first of all, as it sees to a tidy heap

import app
from aziot.device import Device
from aziot.errors import AzureError

device = None
step = ""  # what runs: an error is the application's only if it is "app"


def live():
    global device, step
    step = "firmware"
    device = device or Device.load("/", hardware.log)
    hardware.start_network()
    session = device.connect()  # by the identity on flash, or through DPS
    try:
        hardware.led(True)
        step = "app"
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
    except Exception as e:  # noqa: BLE001 whatever it is, the board goes on
        hardware.failed(e, step)


hardware.start()
while True:
    try:
        live_on()
    except MemoryError:
        hardware.restart()
