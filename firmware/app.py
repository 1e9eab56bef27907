# Your application: telemetry, a message, a method, a desired property. main.py calls run() whenever the board has been
# connected; an error of the connection leads back there, and then here again.
import hardware

interval = 10  # seconds between two messages; the device twin's desired property "interval" changes it


def run(session):
    session.on_message(message)
    session.on_method("led", led)
    session.on_desired(lambda patch, version: session.report(configure(patch)))
    while True:
        session.send({"count": session.sent + 1})
        session.poll(interval * 1000)


def message(body, properties):
    hardware.log("message", "%s %s" % (str(body, "utf-8"), properties))


def led(payload):
    hardware.led(payload["on"])  # whatever is raised here is answered with status 500
    return 200, {"on": payload["on"]}


def configure(patch):
    global interval
    if "interval" in patch:
        interval = max(1, min(int(patch["interval"] or 10), 3600))
        hardware.log("interval", "%d s" % interval)
    return {"interval": interval}
