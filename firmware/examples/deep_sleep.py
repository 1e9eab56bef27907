# Deep sleep, in the place of app.py: wake, one handshake, send, hear what has waited, sleep. The clock goes on and the
# identity is on flash, so nobody asks a time server or DPS.
import hardware
import machine
from aziot import clock

SLEEP = 300  # seconds
LISTEN = 2  # seconds, for messages that the Hub has kept


def run(session):
    session.on_message(lambda body, properties: hardware.log("message", str(body, "utf-8")))
    session.send({"woken": machine.reset_cause() == machine.DEEPSLEEP_RESET})
    session.poll(LISTEN * 1000)
    record = session.record
    if clock.now() > record.not_after - (record.not_after - record.not_before) // 4 > 0:
        session.renew()  # nobody is awake when it would be due by itself
        session.poll(30000)
    session.close()  # with a goodbye, so that a last will is not sent
    hardware.log("sleep", "%d s" % SLEEP)
    machine.deepsleep(SLEEP * 1000)
