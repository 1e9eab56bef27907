# From power-on to telemetry.
import app
import board
from aziot.device import Device
from aziot.errors import AzureError

board.start()
while True:
    try:
        board.start_network()
        device = Device.load("/", board.log)
        session = device.connect()  # by the identity on flash, or through DPS
        board.led(True)
        app.run(session)
    except AzureError as e:
        board.led(False)
        board.log("error", str(e))
        board.wait_after(e)
