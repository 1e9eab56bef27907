"""The Device Provisioning Service as a device sees it over MQTT: who may register, and what it is answered.

Neither sockets nor packets here; a device's key and token are compared and forgotten.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from . import attestation, ca, sas
from .events import EventLog
from .mqtt import Connect, Message, Refused
from .options import Options
from .packets import Violation
from .state import ID, Enrollment, Operation, State, timestamp
from .trouble import Assigning, Chain, Error, Raw, Rid, Troubles
from .trouble import State as FinalState

_USERNAME = re.compile(r"(?P<scope>[^/]+)/registrations/(?P<id>[^/]+)/api-version=(?P<version>[^&/]+)(&.*)?", re.DOTALL)
_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?")
_CSR_SINCE = "2025-07-01"  # the first api-version with certificate issuance of this form
_PEM_API = "2021-11-01-preview"  # certificate issuance as it was first: PEM text under other names
_RESPONSES = "$dps/registrations/res/"
_REGISTER = "$dps/registrations/PUT/iotdps-register/"
_POLL = "$dps/registrations/GET/iotdps-get-operationstatus/"
_BODY_LIMIT = 96 * 1024
_DAY = 86400


class ServiceError(Exception):
    """An answer in the service's error form."""

    def __init__(self, status: int, error_code: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.error_code, self.message, self.retry_after = status, error_code, message, retry_after


def error_body(error_code: int, message: str) -> dict[str, Any]:
    return {
        "errorCode": error_code,
        "trackingId": str(uuid.uuid4()),
        "message": message,
        "timestampUtc": timestamp(),
    }


@dataclass(frozen=True)
class Dps:
    """What all connections to DPS share."""

    id_scope: str
    state: State
    authority: ca.IssuingAuthority
    options: Options
    log: EventLog
    troubles: Troubles
    allocate: Callable[
        [str, Any], Any
    ]  # registration id and the device's payload -> the payload that goes back, or None

    def open(self, connect: Connect) -> DpsConnection:
        """Raises Refused when the username is not of the form ``{scope}/registrations/{id}/api-version={version}``."""
        match = _USERNAME.fullmatch(connect.username)
        if match is None or not _VERSION.fullmatch(match["version"]):
            raise Refused("dps", connect.client_id, 5, "username of another form")
        if match["scope"] != self.id_scope:
            raise Refused("dps", connect.client_id, 5, "unknown id scope")
        return DpsConnection(self, connect, match["id"], match["version"])


class DpsConnection:
    """One device's dialogue with DPS."""

    name = "dps"
    prefix = ""

    def __init__(self, dps: Dps, connect: Connect, registration_id: str, api_version: str) -> None:
        self.device = registration_id
        self._dps, self._connect, self._version = dps, connect, api_version
        self._number = 0
        self._enrollment: Enrollment | None = None
        self._problem: ServiceError | None = None

    def accept(self, connection: int) -> None:
        self._number = connection
        if self._connect.client_id != self.device:
            raise self._refused("client id is not the registration id")
        if self._connect.will_topic is not None:
            raise self._refused("DPS takes no will")
        if self._connect.password is None:
            self._accept_certificate()
            return
        try:
            resource = f"{self._dps.id_scope}/registrations/{self.device}"
            token = sas.check(self._connect.password, resource, "registration")
        except sas.BadToken as error:
            raise self._refused(str(error)) from None
        # Seen at the real service: who signs wrongly is let in and told so when it registers.
        try:
            self._enrollment = self._attest(token)
        except ServiceError as error:
            self._problem = error
        self._report("dps.connect", api_version=self._version)

    def _accept_certificate(self) -> None:
        leaf = self._connect.certificate
        if leaf is None:
            raise self._refused("neither token nor client certificate")
        name = ca.common_name(leaf.subject)
        if name is None or name.lower() != self.device.lower():
            raise self._refused("common name of the certificate is not the registration id")
        try:
            self._enrollment = self._attest_chain(attestation.Chain(leaf, self._connect.others))
        except ServiceError as error:
            self._problem = error
        self._report("dps.connect", api_version=self._version)

    def grant(self, topic_filter: str) -> bool:
        return topic_filter == _RESPONSES + "#"

    def place(self, topic: str) -> str:
        path, _, _ = topic.partition("?")
        if path == _REGISTER:
            return "register"
        if path == _POLL:
            return "poll"
        raise Violation("a topic that DPS does not know")

    def publish(self, message: Message) -> Sequence[Message]:
        if len(message.body) > _BODY_LIMIT:
            raise Violation("a message larger than DPS takes")
        place = self.place(message.topic)
        query = _query(message.topic)
        rid = query.get("$rid")
        if not rid:
            raise Violation("a request without $rid")
        try:
            answer = self._answer(place, query, message.body, rid)
        except ServiceError as error:
            answer = self._error(error, rid)
        action = self._dps.troubles.at(place, self.device)
        if isinstance(action, Rid):
            foreign = replace(answer, topic=answer.topic.replace(f"$rid={rid}", f"$rid={uuid.uuid4()}"))
            return [foreign, answer] if action.first else [foreign]
        return [answer]

    def end(self) -> None:
        """Nothing is held for a connection: an operation outlives it."""

    # Attestation

    def _attest(self, token: sas.Token) -> Enrollment:
        """The enrollment whose key signed the token. Raises ServiceError.

        An individual enrollment is the only one that counts for its registration id. A key derived from no group's
        cannot be told from a wrong one, so only where there is no group at all the enrollment is what is missing.
        """
        state = self._dps.state
        if not ID.fullmatch(self.device):
            raise ServiceError(400, 400004, "Invalid registration ID.")
        individual = state.enrollment(self.device, group=False)
        candidates = [individual] if individual is not None else state.groups()
        candidates = [enrollment for enrollment in candidates if enrollment.attestation == "symmetricKey"]
        if not candidates:
            raise ServiceError(404, 404201, "Enrollment not found.")
        for enrollment in candidates:
            if token.signed_by(enrollment.device_keys(self.device)):
                return enrollment
        raise ServiceError(401, 401000, "Unauthorized.")

    def _attest_chain(self, chain: attestation.Chain) -> Enrollment:
        """The enrollment that this client certificate belongs to. Raises ServiceError."""
        state = self._dps.state
        if not ID.fullmatch(self.device):
            raise ServiceError(400, 400004, "Invalid registration ID.")
        individual = state.enrollment(self.device, group=False)
        if individual is not None:
            if chain.leaf not in individual.certificates or not ca.is_valid(chain.leaf):
                raise ServiceError(401, 401002, attestation.INVALID)
            return individual
        problem = attestation.NOT_FOUND
        for group in state.groups():
            if not group.signers:
                continue
            found = chain.problem(group.signers)
            if found is None:
                return group
            if problem == attestation.NOT_FOUND:
                problem = found
        raise ServiceError(401, 401002, problem)

    def _refused(self, reason: str) -> Refused:
        return Refused("dps", self.device, 5, reason)

    # Requests

    def _answer(self, place: str, query: dict[str, str], body: bytes, rid: str) -> Message:
        action = self._dps.troubles.at(place, self.device)
        if isinstance(action, Error):
            raise ServiceError(action.status, action.error_code, action.message, action.retry_after)
        if isinstance(action, Raw):
            self._report("dps.answer", status=action.status, error_code=None, state=None, tracking_id=None)
            return _message(action.status, rid, action.body)
        if isinstance(action, FinalState):
            return self._final(action.status, rid, action.error_code, action.message)
        if self._problem is not None:
            raise self._problem
        return self._register(body, rid) if place == "register" else self._poll(query.get("operationId", ""), rid)

    def _register(self, body: bytes, rid: str) -> Message:
        request = _json(body)
        pem = request.get("clientCertificateCsr") if self._version == _PEM_API else None
        csr = _without_armor(pem) if pem is not None else request.get("csr")
        self._report("dps.register", csr=csr is not None, payload="payload" in request)
        # A body for another id contradicts the connection; the service's code for it is not known, this is its kin.
        if request.get("registrationId", self.device) != self.device:
            raise ServiceError(400, 400004, "The registration ID in the body is not the one of the connection.")
        signing_request = None
        if csr is not None:
            if pem is None and self._version[: len(_CSR_SINCE)] < _CSR_SINCE:
                raise ServiceError(400, 400012, f"csr: not known to api-version {self._version}.")
            signing_request = _certificate_request(csr, self.device)
        enrollment = self._current()
        if enrollment.provisioning_status != "enabled":
            return self._final("disabled", rid)
        operation = Operation(enrollment, self._assigning().times, signing_request, request.get("payload"))
        self._dps.state.begin(self.device, operation)
        return self._progress(operation, rid)

    def _poll(self, operation_id: str, rid: str) -> Message:
        operation = self._dps.state.operation(self.device, operation_id)
        if operation is None:
            raise ServiceError(404, 404203, "Operation not found.")
        if self._current().provisioning_status != "enabled":
            return self._final("disabled", rid)
        return self._progress(operation, rid)

    def _current(self) -> Enrollment:
        """The enrollment as it is now: it may have been disabled, changed or deleted since the CONNECT."""
        known = self._enrollment
        enrollment = self._dps.state.enrollment(known.id, known.group) if known is not None else None
        if enrollment is None:
            raise ServiceError(404, 404201, "Enrollment not found.")
        return enrollment

    def _assigning(self) -> Assigning:
        action = self._dps.troubles.at("assigning", self.device)
        if isinstance(action, Assigning):
            return action
        return Assigning(self._dps.options.assigning, self._dps.options.retry_after)

    def _progress(self, operation: Operation, rid: str) -> Message:
        if operation.assigning_left > 0:
            operation.assigning_left -= 1
            pause = self._assigning().retry_after
            self._report("dps.assigning", retry_after=pause)
            return _message(202, rid, {"operationId": operation.id, "status": "assigning"}, pause)
        if operation.result is None:
            operation.result = self._assign(operation)
        result = {"operationId": operation.id, "status": "assigned", "registrationState": operation.result}
        return _message(200, rid, result)

    def _assign(self, operation: Operation) -> dict[str, Any]:
        """The registrationState of an assigned device; makes its hub record and its certificate."""
        enrollment = operation.enrollment
        registration = self._dps.state.assign(self.device, enrollment)
        result: dict[str, Any] = {
            "registrationId": self.device,
            "createdDateTimeUtc": registration.created,
            "assignedHub": registration.hub,
            "deviceId": registration.device_id,
            "status": "assigned",
            "substatus": registration.substatus,
            "lastUpdatedDateTimeUtc": registration.updated,
            "etag": registration.etag,
            enrollment.attestation: {"enrollmentGroupId": enrollment.id} if enrollment.group else {},
        }
        returned = self._dps.allocate(self.device, operation.payload)
        if returned is not None:
            result["payload"] = returned
        certificate = None
        if operation.csr is not None and enrollment.credential_policy is not None:
            chain, certificate = self._issue(operation.csr, registration.device_id)
            if self._version == _PEM_API and isinstance(chain, list):
                result["issuedClientCertificate"] = "".join(_armored(part) for part in chain)
            elif chain != "absent":
                result["issuedCertificateChain"] = chain
        self._report(
            "dps.assigned",
            hub=registration.hub,
            device_id=registration.device_id,
            certificate=certificate and ca.facts(certificate),
        )
        return result

    def _issue(
        self, csr: x509.CertificateSigningRequest, device_id: str
    ) -> tuple[list[str] | str | None, x509.Certificate]:
        """The chain as the answer shows it, and its leaf. Trouble at ``certificate`` says what is wrong."""
        action = self._dps.troubles.at("certificate", self.device)
        kind = action.kind if isinstance(action, Chain) else ""
        life = self._dps.options.certificate_seconds
        key = ec.generate_private_key(ec.SECP384R1()).public_key() if kind == "other-key" else csr.public_key()
        name = device_id + "-other" if kind == "other-name" else device_id
        begins = {"expired": -life - 60, "not-yet-valid": _DAY}.get(kind, 0)
        leaf = self._dps.authority.issue(name, key, life, begins)
        chain = [base64.b64encode(der).decode() for der in self._dps.authority.chain(leaf)]
        if kind == "reversed":
            chain.reverse()
        elif kind == "leaf-only":
            chain = chain[:1]
        elif kind == "empty":
            chain = []
        elif kind == "garbage":
            chain = ["%% no base64 %%" + part[:60] for part in chain]
        if kind == "absent":
            return "absent", leaf
        return (None if kind == "null" else chain), leaf

    # Answers

    def _error(self, error: ServiceError, rid: str) -> Message:
        body = error_body(error.error_code, error.message)
        self._report(
            "dps.answer",
            status=error.status,
            error_code=error.error_code,
            state=None,
            tracking_id=body["trackingId"],
        )
        return _message(error.status, rid, body, error.retry_after)

    def _final(self, status: str, rid: str, error_code: int = 0, message: str = "") -> Message:
        state: dict[str, Any] = {"registrationId": self.device, "status": status}
        if error_code:
            state.update(errorCode=error_code, errorMessage=message)
        self._report("dps.answer", status=200, error_code=error_code or None, state=status, tracking_id=None)
        return _message(200, rid, {"operationId": "", "status": status, "registrationState": state})

    def _report(self, kind: str, **details: Any) -> None:
        self._dps.log.report(kind, self._number, self.device, **details)


def _query(topic: str) -> dict[str, str]:
    """The properties of a topic, as they are: the service hands ``$rid`` back verbatim."""
    _, _, text = topic.partition("?")
    return dict(pair.partition("=")[::2] for pair in text.split("&"))


def _message(status: int, rid: str, body: bytes | dict[str, Any], retry_after: int | None = None) -> Message:
    topic = f"{_RESPONSES}{status}/?$rid={rid}"
    if retry_after is not None:
        topic += f"&retry-after={retry_after}"
    return Message(topic, body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode())


def _json(body: bytes) -> dict[str, Any]:
    """A request body; all of its fields, and the body itself, may be left out. Raises ServiceError."""
    if not body.strip():
        return {}
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise ServiceError(400, 400012, "Deserialization error: the body is not JSON.") from None
    if not isinstance(request, dict):
        raise ServiceError(400, 400012, "Deserialization error: the body is no JSON object.")
    return request


def _without_armor(pem: Any) -> str:
    """The base64 inside of a PEM text, "" if it is none: the caller's decoder says what is wrong."""
    lines = pem.strip().splitlines() if isinstance(pem, str) else []
    if len(lines) < 3 or lines[0] != "-----BEGIN CERTIFICATE REQUEST-----":
        return ""
    return "".join(lines[1:-1])


def _armored(text: str) -> str:
    lines = "\n".join(text[i : i + 64] for i in range(0, len(text), 64))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"


def _certificate_request(text: Any, common_name: str) -> x509.CertificateSigningRequest:
    """The CSR of a request: base64 of the DER. Raises ServiceError.

    PEM is a deserialization error, as seen at the service. Its codes for a CSR that can be read but not be used are
    not known; 400004 is what the Hub says in that case.
    """
    try:
        csr = x509.load_der_x509_csr(base64.b64decode(text, validate=True))
    except (TypeError, ValueError, binascii.Error, UnsupportedAlgorithm):
        raise ServiceError(400, 400012, "Deserialization error: csr is not the base64 of a PKCS#10 in DER.") from None
    try:
        good = csr.is_signature_valid
        key = csr.public_key()
        name = ca.common_name(csr.subject)
    except (TypeError, ValueError, InvalidSignature, UnsupportedAlgorithm):
        raise ServiceError(400, 400004, "csr: cannot be verified.") from None
    if not good:
        raise ServiceError(400, 400004, "csr: the signature is not by its own key.")
    if isinstance(key, rsa.RSAPublicKey):
        usable = key.key_size >= 2048
    else:
        usable = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, (ec.SECP256R1, ec.SECP384R1))
    if not usable:
        raise ServiceError(400, 400004, "csr: the key must be EC P-256, EC P-384, or RSA of 2048 bits or more.")
    if name != common_name:
        raise ServiceError(400, 400004, "csr: the common name is not the registration ID.")
    return csr
