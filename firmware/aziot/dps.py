# Device Provisioning Service over MQTT: messages as pure functions, and the dialogue that drives them.
import gc
import json
from binascii import b2a_base64
from os import urandom

from .chain import loads
from .clock import due, left
from .errors import AzureError, seconds
from .mqtt import Mqtt


class Assignment:
    """What DPS answered, in the service's own names.

    issued_certificate_chain: list of base64 DER (str or bytes-like), or None. ValueError, TypeError or KeyError if
    state (dict) names no hub or device, or a way to connect that is not ours. Device checks the form of those names.
    """

    def __init__(self, state):
        self.assigned_hub = state["assignedHub"]
        self.device_id = state["deviceId"]
        if not self.assigned_hub or str(state.get("connectionProfile") or "classic").lower() != "classic":
            raise ValueError
        self.assigned_hub + self.device_id + ""  # TypeError if they are not texts
        self.issued_certificate_chain = state.get("issuedCertificateChain")
        self.substatus = state.get("substatus")
        self.payload = state.get("payload")


def username(id_scope, registration_id, dps_api):
    return "%s/registrations/%s/api-version=%s" % (id_scope, registration_id, dps_api)


def register_topic(rid):
    return "$dps/registrations/PUT/iotdps-register/?$rid=%s" % rid


def status_topic(rid, operation_id):
    return "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=%s&operationId=%s" % (rid, operation_id)


def request(registration_id, csr=None, payload=None, form=None):
    """Body of a registration (JSON str).

    csr: DER bytes; payload: anything JSON can say; form: the module of an older API, or None.
    """
    body = {"registrationId": registration_id}
    if csr:
        if form:
            form.add_csr(body, csr)
        else:
            body["csr"] = b2a_base64(csr).strip().decode()
    if payload is not None:
        body["payload"] = payload
    return json.dumps(body)


def parse_topic(topic):
    """Topic of an answer (bytes) -> (status, rid, retry_after), or None if it is no such topic.

    rid in lower case; retry_after: seconds, 0 if there is none that makes sense.
    """
    try:
        head, _, query = str(topic, "utf-8").lower().partition("?")
        pairs = {}
        for pair in query.split("&"):
            name, _, value = pair.partition("=")
            pairs[name] = value
        status = int(head.strip("/").replace("$dps/registrations/res/", ""))
        return status, pairs["$rid"], seconds(pairs.get("retry-after"))
    except (ValueError, KeyError):
        return None


def parse_answer(status, body, retry_after=0, form=None):
    """An answer -> Assignment, or the operation id (str) to ask about again.

    status: of the topic; body: JSON bytes. AzureError for any other; "failed" and "disabled" come with status 200.
    """
    answer = None
    try:
        answer = loads(body, "registrationState", "issuedCertificateChain")
        name = answer.get("status")
        if status < 300:
            if name == "assigned":
                state = answer["registrationState"]
                if form:
                    form.read_chain(state)
                return Assignment(state)
            if name in ("assigning", "unassigned") and answer["operationId"]:
                return answer["operationId"] + ""
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    from .faults import refusal

    raise refusal("dps.register", status, answer, retry_after)


def wait_time(attempt, retry_after):
    """Seconds until the next question: what the service asked for, else 1 to 30 doubling, +-20 %; never under 2,
    for a device may ask five times in ten seconds."""
    return max(2, retry_after or min(1 << attempt, 30) * (80 + urandom(1)[0] % 41) / 100)


def register(identity, payload=None, timeout=120, csr=True):
    """One registration of an Identity (with its CSR, if it has one and csr is true) -> Assignment.

    payload: custom JSON for the allocation, None for that of the settings; timeout: seconds for all of it.
    Raises AzureError; a retriable one means that the caller may come again after retry_after.
    """
    from .stream import pause

    if payload is None:
        payload = identity.payload or None
    form = None
    if identity.dps_api < "2025":
        from . import dps2021 as form
    log = identity.log
    end = due(timeout * 1000)
    rid = 0  # a new one for each question, so that a late answer to an earlier one is not taken for this one's
    answer = operation = None

    def hear(topic, body):
        nonlocal answer
        parsed = parse_topic(topic)
        if parsed and parsed[1] == str(rid or 1):
            answer = parsed, body

    name = identity.registration_id
    stream = identity.stream("dps.connect")
    stream.timeout = min(stream.timeout, timeout * 1000)
    mqtt = Mqtt(
        stream,
        hear,
        identity.dps_host,
        identity.port,
        name,
        username(identity.id_scope, name, identity.dps_api),
        identity.password(),
    )
    try:
        log("dps.connect", identity.dps_host)
        stream.step = "dps.register"
        mqtt.subscribe(b"$dps/registrations/res/#")
        log("dps.register", "%s in %s" % (name, identity.id_scope))
        while True:
            rid += 1
            body = "" if operation else request(name, identity.csr() if csr else None, payload, form)
            mqtt.publish(status_topic(rid, operation) if operation else register_topic(rid), body)
            body = None
            gc.collect()
            limit = due(max(0, min(stream.timeout, left(end))))
            while not answer:
                if left(limit) <= 0:
                    raise AzureError("timeout", "dps.register")
                mqtt.wait(left(limit))
            (status, _, retry_after), body = answer
            answer = None
            try:
                outcome = parse_answer(status, body, retry_after, form)
                if isinstance(outcome, Assignment):
                    log("dps.assigned", "%s on %s" % (outcome.device_id, outcome.assigned_hub))
                    return outcome
                operation = outcome
                outcome = "assigning"
                late = None
            except AzureError as e:
                if operation and e.code in (404, 404203):
                    operation = None  # the service has forgotten it: begin again
                elif not e.retriable:
                    raise
                outcome = e.code
                retry_after = e.retry_after
                late = e
            wait = wait_time(rid - 1, retry_after)
            if left(end) < wait * 1000:
                raise late or AzureError("timeout", "dps.register", outcome, retry_after)
            log("dps.assigning", "%s, asking again in %.3g s" % (outcome, wait))
            pause(wait)
    except MemoryError:
        raise AzureError("memory", "dps.register")
    finally:
        mqtt.close()
