# From power-on to telemetry.
import app
import board
from aziot.device import Device
from aziot.errors import AzureError


def live():
    board.start_network()
    session = Device.load("/", board.log).connect()  # by the identity on flash, or through DPS
    try:
        board.led(True)
        app.run(session)
    finally:
        board.led(False)
        session.close()


board.start()
while True:
    try:
        live()
    except AzureError as e:
        board.log("error", str(e))
        board.wait_after(e)
    except MemoryError:
        board.restart()
