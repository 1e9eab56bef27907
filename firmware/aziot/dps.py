# Device Provisioning Service over MQTT: messages as pure functions, and the dialogue that drives them.
import gc
import json
from binascii import b2a_base64
from os import urandom

from .clock import due, left
from .errors import AzureError

_ANSWERS = b"$dps/registrations/res/#"


def is_name(value):
    return isinstance(value, str) and value != ""


class Assignment:
    """What DPS answered, in the service's own names.

    issued_certificate_chain: list of base64 DER (str or bytes-like), or None.
    """

    def __init__(self, state):
        try:
            self.assigned_hub = state["assignedHub"]
            self.device_id = state["deviceId"]
            profile = state.get("connectionProfile")
        except (KeyError, TypeError, AttributeError):
            state = {}
        if not (state and is_name(self.assigned_hub) and is_name(self.device_id)):
            raise AzureError("protocol", "dps.register", "assigned, but no hub or device is named")
        if profile not in (None, "classic"):
            raise AzureError("profile", "dps.register", "the hub wants connection profile %s" % profile)
        self.issued_certificate_chain = state.get("issuedCertificateChain")
        self.substatus = state.get("substatus")
        self.payload = state.get("payload")


def username(id_scope, registration_id, api):
    return "%s/registrations/%s/api-version=%s" % (id_scope, registration_id, api)


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

    rid in lower case; retry_after: seconds, 0 if there is none.
    """
    try:
        head, pairs = str(topic, "utf-8").lower().split("/?")
        pairs = dict([pair.split("=") for pair in pairs.split("&")])
        return int(head.replace("$dps/registrations/res/", "")), pairs["$rid"], int(pairs.get("retry-after", 0))
    except (ValueError, KeyError):
        return None


def cut_chain(body):
    """JSON bytes -> its issuedCertificateChain as a list of memoryviews of base64 (None if there is none as plain as
    that), and the JSON without it. So 4 KB of it are in memory once, not three times."""
    at = body.find(b'"issuedCertificateChain":[')
    start = body.find(b"[", at)
    end = body.find(b"]", start)
    if at < 0 or end < 0 or body.find(b"\\", start, end) >= 0:
        return None, body
    chain = []
    at = start
    while True:
        at = body.find(b'"', at, end) + 1
        if not at:
            return chain, body[: start + 1] + body[end:]
        close = body.find(b'"', at, end)
        if close < 0:  # the bracket found was part of a text
            return None, body
        chain.append(memoryview(body)[at:close])
        at = close + 1


def parse_answer(status, body, retry_after=0):
    """An answer -> registrationState (dict) when assigned, or the operation id (str) to ask about again.

    status: of the topic; body: JSON bytes. AzureError for any other; "failed" and "disabled" come with status 200.
    """
    chain, body = cut_chain(body)
    try:
        answer = json.loads(body)
        state = answer.get("registrationState")
        operation = answer.get("operationId")
        name = answer.get("status")
        if status < 300:
            if name == "assigned":
                if chain and isinstance(state, dict):
                    state["issuedCertificateChain"] = chain
                return state
            if name in ("assigning", "unassigned") and operation and isinstance(operation, str):
                return operation
    except (ValueError, AttributeError):
        answer = None
    from .faults import refusal

    raise refusal(status, answer, retry_after)


def wait_time(attempt, retry_after):
    """Seconds until the next question: what the service asked for, else 1 to 30 doubling, +-20 %; never under 2,
    for a device may ask five times in ten seconds."""
    if not retry_after:
        retry_after = min(1 << attempt, 30) * (80 + urandom(1)[0] % 41) / 100
    return max(retry_after, 2)


def register(identity, payload=None, timeout=120):
    """One registration of an Identity (with its CSR, if it has one) -> Assignment.

    payload: custom JSON for the allocation; timeout: seconds for all of it.
    Raises AzureError; a retriable one means that the caller may come again after retry_after.
    """
    from .mqtt import Mqtt
    from .stream import pause

    form = None
    if identity.dps_api < "2025":
        from . import dps2021 as form
    log = identity.log
    end = due(timeout * 1000)
    stream = identity.stream("dps.connect")
    answers = []
    mqtt = Mqtt(stream, lambda topic, body: answers.append((parse_topic(topic), body)))
    try:
        mqtt.connect(
            identity.dps_host,
            identity.port,
            identity.registration_id,
            username(identity.id_scope, identity.registration_id, identity.dps_api),
            identity.dps_password(),
        )
        log("dps.connect", "%s as %s" % (identity.dps_host, identity.registration_id))
        stream.step = "dps.register"
        mqtt.subscribe(_ANSWERS)
        rid = 0  # a new one for each question, so that a late answer to an earlier one is not taken for this one's
        operation = None
        while True:
            rid += 1
            if operation:
                mqtt.publish(status_topic(rid, operation), "")
            else:
                csr = identity.csr()
                log("dps.register", "with a CSR" if csr else "without a CSR")
                mqtt.publish(register_topic(rid), request(identity.registration_id, csr, payload, form))
                csr = None
            gc.collect()  # the answer wants 5 KB in one piece
            status, retry_after, body = _answer(mqtt, answers, str(rid))
            try:
                outcome = parse_answer(status, body, retry_after)
                body = None
                if not isinstance(outcome, str):
                    if form:
                        form.read_chain(outcome)
                    assignment = Assignment(outcome)
                    log("dps.assigned", "%s on %s" % (assignment.device_id, assignment.assigned_hub))
                    return assignment
                operation = outcome
                outcome = "assigning"
            except AzureError as e:
                if operation and e.code in (404, 404203):
                    operation = None  # the service has forgotten it: begin again
                elif not e.retriable:
                    raise
                outcome = e.code
            seconds = wait_time(rid - 1, retry_after)
            log("dps.assigning", "%s, asking again in %.3g s" % (outcome, seconds))
            if left(end) < seconds * 1000:
                raise AzureError("timeout", "dps.register", "%s, not assigned within %d s" % (outcome, timeout))
            pause(seconds)
    except MemoryError:
        raise AzureError("memory", "dps.register")
    finally:
        mqtt.close()


def _answer(mqtt, answers, rid):
    # The answer to rid; others belong to questions that were given up.
    end = due(mqtt.stream.timeout)
    while True:
        while answers:
            parsed, body = answers.pop(0)
            if parsed and parsed[1] == rid:
                return parsed[0], parsed[2], body
        if left(end) <= 0:
            raise AzureError("timeout", "dps.register", "no answer")
        mqtt.wait(left(end))
