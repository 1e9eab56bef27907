# Renewal of an issued certificate while telemetry goes on: at the Hub over the connection there is, else at DPS. The
# old certificate stays until the Hub has taken the new one. Loaded only when the time has come.
import json
from binascii import b2a_base64, hexlify
from os import urandom

from . import clock, forget
from .errors import AzureError


class Renewal:
    """What was asked of the Hub; it outlives the connection, as the Hub's own operation does."""

    rid = ""  # of the question
    mqtt = None  # the connection on which the answer is listened for
    until = 0  # the Hub has promised a certificate (202), and till this time (Unix) it is waited for
    replace = False  # an operation of ours, from before a restart, is in the way
    answer = None  # (status, JSON)
    tries = 0  # that the Hub has put off
    at = 0  # Unix time of the next one

    def __init__(self, record, now):
        self.end = now + (record.not_after - now) // 2  # after that DPS is asked


def hear(session, topic, body):
    """A message on $iothub/credentials/res/{status}/?$rid={rid}; what is not for us is nothing."""
    from .chain import loads

    state = session.device.renewal
    try:
        _, _, _, status, rid = str(topic, "utf-8").split("/")
        if state and rid == "?$rid=" + state.rid:
            state.answer = int(status), loads(body, "certificates")
            session.renew_at = 1  # look at it at once
    except ValueError:
        pass


def step(session):
    """Go one step on; session.renew_at says when to come again. Raises AzureError."""
    try:
        _step(session)
    except MemoryError:
        raise AzureError("memory", "hub.renew")


def _step(session):
    device = session.device
    state = device.renewal
    now = clock.now()
    at = max(device.renew_from, state.at if state else 0)
    if now < at:
        session.renew_at = at
        return
    if not state:
        device.renewal = state = Renewal(session.record, now)
        if device.identity.hub_api >= "2025-08" and device.identity.csr():
            return _ask(session, state)
    elif state.answer:
        return _answered(session, state)
    elif not state.rid:
        return _ask(session, state)
    elif now < state.until:
        return _listen(session, state, state.until)  # the connection was lost since
    else:
        # Or the connection ended by the question: not every hub knows of renewal.
        device.identity.log("error", "hub.renew timeout")
    _change(session, True)


def _listen(session, state, until):
    session.renew_at = until
    if state.mqtt is not session.mqtt:
        state.mqtt = session.mqtt
        session.mqtt.subscribe(b"$iothub/credentials/res/#", 1)


def _ask(session, state):
    identity = session.device.identity
    identity.log("hub.renew", "at the Hub")
    forget("faults")  # of the answer before: the chain needs its room
    state.rid = hexlify(urandom(8)).decode()
    _listen(session, state, clock.now() + identity.timeout)
    body = {"id": session.record.device_id, "csr": b2a_base64(identity.csr()).strip().decode()}
    if state.replace:
        body["replace"] = "*"
    session.mqtt.publish("$iothub/credentials/POST/issueCertificate/?$rid=" + state.rid, json.dumps(body), 1)


def _answered(session, state):
    (status, answer), state.answer = state.answer, None
    if status == 202:
        state.until = state.until or _promised(session.record, answer)
        return _listen(session, state, state.until)
    if status == 409 and not state.replace:
        state.replace = True
        return _ask(session, state)
    if status == 200:
        forget("chain", "sas", "outbox", "faults", "escapes")  # the certificates need the room; they are loaded again
        e = _keep(session, answer)
    else:
        from .faults import refusal

        e = refusal("hub.renew", status, answer)
    answer = None
    if not e:
        return _change(session, False)
    device = session.device
    device.identity.log("error", str(e))
    now = clock.now()
    state.tries += 1
    # Throttled or out of order passes: the Hub is asked again, 8 s to an hour later, +-25 %.
    wait = min(2 << 2 * min(state.tries, 6), 3600) * (192 + urandom(1)[0] // 2) // 256
    at = now + (e.retry_after or wait)
    if now < device.renew_from:  # what the Hub issued lives for too short a time, and DPS's would as well
        device.renewal = None
        session.renew_at = device.renew_from
    elif e.retriable and at < state.end:
        state.rid = ""
        state.until = 0
        session.renew_at = state.at = at
    else:
        _change(session, True)


def _promised(record, answer):
    # Until when the Hub works on it ("2026-11-27T20:00:00Z"), but no longer than a board can wait before it asks DPS.
    now = clock.now()
    end = now + 600
    try:
        text = answer["operationExpires"]
        end = max(end, clock.unix([int(text[i : i + 2 + 2 * (i == 0)]) for i in (0, 5, 8, 11, 14, 17)]))
    except (KeyError, TypeError, ValueError):
        pass
    return min(end, now + (record.not_after - now) * 3 // 4)


def _keep(session, answer):
    # None if the chain is ours and on flash, else an AzureError.
    record = session.record
    device = session.device
    try:
        chain = answer if isinstance(answer, list) else answer["certificates"]
        device.keep(record.hub, record.device_id, chain, device.identity.csr(), record)
    except AzureError as e:
        return e
    except (KeyError, TypeError):
        return AzureError("protocol", "hub.renew")


def _change(session, at_dps):
    # To the new certificate, or back to the old one if that does not work. The application hears of it when half of the
    # time for renewal is over.
    device = session.device
    device.renewal = None
    old = session.record
    if at_dps:
        device.identity.log("hub.renew", "at DPS")
    began = clock.now()
    device.connect(None, at_dps)
    now = clock.now()
    left = old.not_after - now
    if session.record.not_after != old.not_after:
        return
    # Telemetry has three times as long as a try that was in vain.
    session.renew_at = max(session.renew_at, now + 3 * (now - began))
    if session.on_expiring:
        if left * 200 < (old.not_after - old.not_before) * (100 - device.identity.renew):
            session.on_expiring(left)
