# From power-on to telemetry.
import app
import board
from aziot.device import Device
from aziot.errors import AzureError

log = board.log
log("start", board.about())

while True:
    try:
        board.start_network()
        session = Device.load("/", log).connect()
        app.run(session)
    except AzureError as e:
        log("error", str(e))
        board.wait_after(e)
