# Device Provisioning Service over MQTT: messages as pure functions, and the dialogue that drives them.
import json
import time

from .errors import AzureError, is_retriable
from .keys import b2a_base64

_ANSWERS = b"$dps/registrations/res/#"


class Assignment:
    """What DPS answered, in the service's own names; issued_certificate_chain: list of base64 DER, or None."""

    def __init__(self, state):
        try:
            self.assigned_hub = state["assignedHub"]
            self.device_id = state["deviceId"]
        except (KeyError, TypeError):
            raise AzureError("protocol", "dps.register", "assigned, but no hub is named")
        self.issued_certificate_chain = state.get("issuedCertificateChain")
        self.substatus = state.get("substatus")
        self.payload = state.get("payload")


def username(id_scope, registration_id, api):
    return "%s/registrations/%s/api-version=%s" % (id_scope, registration_id, api)


def register_topic(rid):
    return "$dps/registrations/PUT/iotdps-register/?$rid=%s" % rid


def status_topic(rid, operation_id):
    return "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=%s&operationId=%s" % (rid, operation_id)


def request(registration_id, csr=None, payload=None):
    """Body of a registration: csr is DER bytes, payload anything JSON can say."""
    body = {"registrationId": registration_id}
    if csr:
        body["csr"] = b2a_base64(csr).strip().decode()
    if payload is not None:
        body["payload"] = payload
    return json.dumps(body)


def parse_topic(topic):
    """Topic of an answer (bytes) -> (status, rid, retry_after in seconds, 0 if none), or None if it is no such topic."""
    try:
        parts = str(topic, "utf-8").split("/", 4)
        if parts[:3] != ["$dps", "registrations", "res"]:
            return None
        rid, retry_after = None, 0
        for pair in parts[4].lstrip("?").split("&"):
            name, _, value = _partition(pair)
            if name == "$rid":
                rid = value
            elif name == "retry-after":
                retry_after = int(value)
        return int(parts[3]), rid, retry_after
    except (ValueError, IndexError):
        return None


def _partition(pair):
    name, equals, value = pair.partition("=")
    return name.lower(), equals, value


def parse_answer(status, body, retry_after):
    """An answer -> Assignment, or the operation id (str) to ask about again; AzureError for anything else.

    status: of the topic; body: JSON bytes. "failed" and "disabled" come with status 200.
    """
    try:
        answer = json.loads(body) if body else {}
        if not isinstance(answer, dict):
            raise ValueError
    except ValueError:
        if status < 300:
            raise AzureError("protocol", "dps.register", "answer %d is not JSON" % status)
        answer = {}
    if status >= 300:
        raise AzureError(
            answer.get("errorCode", status), "dps.register", answer.get("message", ""), retry_after, answer.get("trackingId", "")
        )
    state = answer.get("registrationState") or {}
    name = answer.get("status")
    if name == "assigned":
        return Assignment(state)
    if name in ("assigning", "unassigned"):
        if not answer.get("operationId"):
            raise AzureError("protocol", "dps.register", name + " without operationId")
        return answer["operationId"]
    raise AzureError(
        state.get("errorCode", name if name in ("failed", "disabled") else "protocol"),
        "dps.register",
        state.get("errorMessage", "registration " + str(name)),
    )


def register(identity, payload=None, timeout=120, log=None):
    """One registration of an Identity (with its CSR, if it has one) -> Assignment.

    payload: custom JSON for the allocation; timeout: seconds for all of it; log(step, text) hears of each step.
    Raises AzureError; a retriable one means that the caller may come again after retry_after.
    """
    from .mqtt import Mqtt
    from .stream import pause

    log = log or (lambda step, text: None)
    deadline = time.ticks_add(time.ticks_ms(), timeout * 1000)
    stream = identity.stream("dps.connect", identity.root + "device.crt" if identity.auth == "x509" else None)
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
        csr = identity.csr()
        body = request(identity.registration_id, csr, payload)
        log("dps.register", "with a CSR" if csr else "without a CSR")
        del csr
        rid = 0
        operation = None
        delay = 1
        while True:
            rid += 1
            mqtt.publish(status_topic(rid, operation) if operation else register_topic(rid), "" if operation else body)
            status, retry_after, answer = _answer(mqtt, answers, str(rid), identity.timeout * 1000)
            try:
                outcome = parse_answer(status, answer, retry_after)
                if isinstance(outcome, Assignment):
                    log("dps.assigned", "%s on %s" % (outcome.device_id, outcome.assigned_hub))
                    return outcome
                operation = outcome
                body = ""
                retry_after = retry_after or 2
                log("dps.assigning", "asking again in %d s" % retry_after)
            except AzureError as e:
                if not e.retriable:
                    raise
                retry_after = max(retry_after, delay)
                delay = min(delay * 2, 30)
                log("dps.assigning", "%s, again in %d s" % (e.code, retry_after))
            if time.ticks_diff(deadline, time.ticks_ms()) < retry_after * 1000:
                raise AzureError("timeout", "dps.register", "not assigned within %d s" % timeout)
            del answer
            pause(retry_after)
    finally:
        mqtt.close()


def _answer(mqtt, answers, rid, ms):
    # The answer to rid. Others belong to requests that were given up: they are dropped.
    end = time.ticks_add(time.ticks_ms(), ms)
    while True:
        while answers:
            parsed, body = answers.pop(0)
            if parsed and parsed[1] == rid:
                return parsed[0], parsed[2], body
        left = time.ticks_diff(end, time.ticks_ms())
        if left <= 0:
            raise AzureError("timeout", mqtt.stream.step, "no answer")
        mqtt.wait(left)
