# A sensor, in the place of app.py: readings with properties, of which none is lost while the connection is.
import random

import hardware

LIMIT = 30.0  # degrees Celsius; the desired property "limit" changes it

limit = LIMIT


def read():
    # Put yours here, for example machine.ADC(0).read_uv(), or a driver's; this is a random walk.
    return 20 + random.getrandbits(8) / 16


def run(session):
    session.on_desired(configure)
    send = session.device.send  # keeps what the Hub has not acknowledged and sends it after the reconnect
    while True:
        reading = read()
        # Properties can be routed on at the Hub without a look into the body. None is a name without a value.
        properties = {"unit": "Celsius", "alarm": None} if reading > limit else {"unit": "Celsius"}
        send({"temperature": reading}, properties)
        session.poll(5000)


def configure(patch, version):
    global limit
    if "limit" in patch:  # None when it was deleted
        limit = LIMIT if patch["limit"] is None else float(patch["limit"])
        hardware.log("limit", str(limit))
