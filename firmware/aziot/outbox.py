# Telemetry that outlives its connection: kept in RAM until the Hub has acknowledged it. Loaded by Device.send().
from .errors import AzureError


def send(device, *message):
    """Keep one more, as it goes over the wire, and flush(). The oldest goes when there is no room. AzureError "message"
    for one that the Hub would never take: that is not kept."""
    from .hub import packed

    queue = device.outbox = device.outbox or []
    queue.append(packed(*message))
    if len(queue) > device.identity.outbox:
        del queue[0]
        device.dropped += 1
        device.identity.log("outbox", "%d lost" % device.dropped)
    return flush(device)


def flush(device):
    """Send what is kept, the oldest first -> whether the Hub has everything now. A lost connection is told to the log:
    the session's next use tells of it."""
    queue = device.outbox
    try:
        while queue and device.session:
            device.session.send(*queue[0])
            del queue[0]
    except AzureError as e:
        device.identity.log("error", str(e))
    return not queue
