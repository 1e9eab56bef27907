# Telemetry that outlives its connection: kept in RAM until the Hub has acknowledged it. Loaded by Device.send().
from .errors import AzureError


def add(device, message):
    """Keep one more; the oldest goes when there is no room."""
    device.outbox.append(message)
    if len(device.outbox) > device.identity.outbox:
        del device.outbox[0]
        device.dropped += 1
        device.identity.log("outbox", "%d lost" % device.dropped)


def flush(device):
    """Send what is kept, the oldest first -> whether the Hub has everything now. A lost connection is told to the log:
    the session's next use tells of it. AzureError "message" for one that the Hub will never take; that one goes."""
    queue = device.outbox
    try:
        while queue and device.session:
            device.session.send(*queue[0])
            del queue[0]
    except AzureError as e:
        if e.code == "message":
            del queue[0]
            raise
        device.identity.log("error", str(e))
    return not queue
