# From power-on to telemetry.
import app
import board
from aziot.device import Device
from aziot.errors import AzureError


def live(device):
    board.start_network()
    session = device.connect()  # by the identity on flash, or through DPS
    try:
        board.led(True)
        app.run(session)
    finally:
        board.led(False)
        session.close()


board.start()
device = None
while True:
    try:
        device = device or Device.load("/", board.log)
        live(device)
    except AzureError as e:
        board.log("error", str(e))
        board.wait_after(e)
    except MemoryError:
        board.restart()
