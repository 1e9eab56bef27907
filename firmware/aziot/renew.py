# Renewal of an issued certificate while telemetry goes on: at the Hub over the connection there is, else at DPS. The
# old certificate stays until the Hub has taken the new one. Loaded only when the time has come.
import json
from binascii import b2a_base64, hexlify
from os import urandom

from . import clock
from .chain import loads
from .errors import AzureError


class Renewal:
    """What was asked of the Hub; it outlives the connection, as the Hub's own operation does."""

    rid = ""  # of the question
    mqtt = None  # the connection on which the answer is listened for
    until = 0  # the Hub has promised a certificate (202), and till this time (Unix) it is waited for
    replace = False  # an operation of ours, from before a restart, is in the way
    answer = None  # (status, JSON)
    tries = 0  # that the Hub has put off


def hear(session, topic, body):
    """A message on $iothub/credentials/res/{status}/?$rid={rid}; what is not for us is nothing."""
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
    device = session.device
    state = device.renewal
    if not state:
        device.renewal = state = Renewal()
        if device.identity.hub_api >= "2025-08" and device.identity.csr():
            return _ask(session, state)
    elif state.answer:
        return _answered(session, state)
    elif not state.rid:
        return _ask(session, state)
    elif clock.now() < state.until:
        return _listen(session, state, state.until)  # the connection was lost since
    else:
        # Or the connection ended by the question: not every hub knows of renewal.
        device.identity.log("error", "hub.renew timeout")
    _change(session, True)


def _listen(session, state, until):
    session.renew_at = until
    if state.mqtt is not session.mqtt:
        state.mqtt = session.mqtt
        session.mqtt.subscribe(b"$iothub/credentials/res/#")


def _ask(session, state):
    identity = session.device.identity
    identity.log("hub.renew", "at the Hub")
    state.rid = hexlify(urandom(8)).decode()
    _listen(session, state, clock.now() + identity.timeout)
    body = {"id": session.record.device_id, "csr": b2a_base64(identity.csr()).strip().decode()}
    if state.replace:
        body["replace"] = "*"
    session.mqtt.publish("$iothub/credentials/POST/issueCertificate/?$rid=" + state.rid, json.dumps(body))


def _answered(session, state):
    (status, answer), state.answer = state.answer, None
    if status == 202:
        state.until = state.until or clock.now() + 600
        return _listen(session, state, state.until)
    if status == 409 and not state.replace:
        state.replace = True
        return _ask(session, state)
    if status == 200:
        e = _keep(session, answer)
    else:
        from .faults import refusal

        e = refusal("hub.renew", status, answer)
    answer = None
    if not e:
        return _change(session, False)
    session.device.identity.log("error", str(e))
    state.tries += 1
    if 0 < e.retry_after < (session.record.not_after - clock.now()) // 2 and state.tries < 4:
        state.rid = ""
        session.renew_at = clock.now() + e.retry_after
    else:
        _change(session, True)


def _keep(session, answer):
    # None if the chain is ours and on flash, else an AzureError.
    try:
        chain = [_der(text) for text in (answer if isinstance(answer, list) else answer["certificates"])]
        record = session.record
        session.device.keep(record.hub, record.device_id, chain, session.device.identity.csr())
    except AzureError as e:
        return e
    except (KeyError, TypeError, IndexError):
        return AzureError("protocol", "hub.renew")


def _der(text):
    # Base64 of DER, of which one page of the documentation says that it is PEM.
    return "".join(text.split("-----")[2].split()) if isinstance(text, str) and "-----" in text else text


def _change(session, at_dps):
    # To the new certificate, or back to the old one if that does not work. The application hears of it when half of the
    # time for renewal is over.
    device = session.device
    device.renewal = None
    old = session.record
    if at_dps:
        device.identity.log("hub.renew", "at DPS")
    device.connect(None, at_dps)
    left = old.not_after - clock.now()
    if session.record.not_after == old.not_after and session.on_expiring:
        if left * 200 < (old.not_after - old.not_before) * (100 - device.identity.renew):
            session.on_expiring(left)
