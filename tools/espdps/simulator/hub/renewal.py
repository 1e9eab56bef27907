"""Certificate renewal at the hub: one operation a device, from its request to the answer that the device has taken.

Neither topics nor connections here. The codes are those seen at the service, where no other source is named.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import re
import uuid
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509

from .. import strict_json
from ..errors import ServiceError, error_body
from ..memory.records import Device
from ..registry import issuance
from ..registry.namespace import Registry
from ..trouble.actions import Chain, Error, Form, Trouble
from ..trust import certificates

_FIELDS = {"id", "csr", "replace"}
_CSR_LIMIT = 8 * 1024
_LIFE = datetime.timedelta(hours=12)
# 4 to 36 letters, digits and dashes, none of the latter at an end.
_RID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{2,34}[A-Za-z0-9]")
_API = "2025-08-01-preview"  # its CSRs have the form that DPS takes today

Body = dict[str, Any] | list[Any]


@dataclass
class Renewal:
    """One operation. ``connection``: the number of the one that it came on. ``answer``: status and body, once known."""

    device: Device
    connection: int
    rid: str
    csr: str
    trouble: Trouble
    correlation_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    expires: datetime.datetime = field(default_factory=lambda: certificates.now() + _LIFE)
    answer: tuple[int, Body] | None = None

    def accepted(self) -> dict[str, Any]:
        """The body of the 202."""
        expires = self.expires.isoformat().replace("+00:00", "Z")
        return {"correlationId": self.correlation_id, "operationExpires": expires}


class Credentials:
    """The operations of all devices. An operation is active until its device has its answer."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._active: dict[tuple[str, str], Renewal] = {}

    def active(self, device: Device) -> Renewal | None:
        """The device's operation, if it has one."""
        renewal = self._active.get((device.hub, device.id))
        return (
            renewal
            if renewal is not None and renewal.device is device and renewal.expires > certificates.now()
            else None
        )

    def begin(self, device: Device, connection: int, rid: str, body: bytes, trouble: Trouble) -> Renewal:
        """Takes a request; ``trouble`` is what is scripted for all of its way. Raises ServiceError."""
        _check_rid(rid, "$rid")
        request = _request(body, device.id)
        if not device.issued or device.policy is None:
            # Inference: where no policy issues certificates, the credential service knows no such device.
            raise ServiceError(404, 404001, "The device has no credential policy.")
        active, replace = self.active(device), request.get("replace")
        if replace is not None and replace != "*":
            _check_rid(replace, "replace")
            if active is None or active.rid != replace:
                info = {"requestId": replace}
                raise ServiceError(412, 412001, "replace: no active request with this ID.", info=info)
        elif replace is None and active is not None:
            info = {"requestId": active.rid, **active.accepted()}
            raise ServiceError(409, 409004, "A request for a certificate is active already.", info=info)
        renewal = Renewal(device, connection, rid, request["csr"], trouble)
        self._active[device.hub, device.id] = renewal
        return renewal

    def finish(self, renewal: Renewal) -> x509.Certificate | None:
        """Makes the answer; returns the certificate that was issued. A replaced operation gets none."""
        if self.active(renewal.device) is not renewal:
            return None
        script = renewal.trouble.at.get("hub.renewal.result")
        try:
            if isinstance(script, Error):
                raise ServiceError(script.status, script.error_code, script.message, script.retry_after, script.info)
            leaf, body = self._issue(renewal)
        except ServiceError as error:
            renewal.answer = error.status, failure(error)
            return None
        renewal.answer = 200, body
        return leaf

    def forget(self, renewal: Renewal) -> None:
        """The device has its answer."""
        if self.active(renewal.device) is renewal:
            del self._active[renewal.device.hub, renewal.device.id]

    def _issue(self, renewal: Renewal) -> tuple[x509.Certificate, Body]:
        device, at = renewal.device, renewal.trouble.at
        terms = self._registry.terms(device)
        try:
            csr = issuance.read(renewal.csr, _API)
            issuance.check(csr, device.id, terms.key_types)
        except ServiceError as error:
            # Seen at the service, with this credentialError; a script may answer 400037 without any info.
            info = {
                "correlationId": renewal.correlation_id,
                "credentialMessage": error.message,
                "credentialError": "400000",
            }
            raise ServiceError(400, 400037, "The certificate request cannot be completed.", info=info) from None
        chain_script, form = at.get("hub.certificate"), at.get("hub.answer")
        chain_trouble = chain_script if isinstance(chain_script, Chain) else None
        leaf, chain = issuance.issue(self._registry.authority, csr, device.id, terms, chain_trouble)
        if isinstance(form, Form) and form.pem and chain is not None:
            chain = [issuance.pem(text) for text in chain]
        # An object unless a script says otherwise: so it is in a live run of January 2026 and in the SDK for C, while
        # some clients expect the list alone.
        if isinstance(form, Form) and form.bare:
            return leaf, chain or []
        body: dict[str, Any] = {"correlationId": renewal.correlation_id, "certificates": chain}
        if chain_trouble == Chain("absent"):
            del body["certificates"]
        return leaf, body


def failure(error: ServiceError) -> dict[str, Any]:
    """An error as the hub writes it."""
    body: dict[str, Any] = {**error_body(error.error_code, error.message), "info": error.info}
    return body if error.retry_after is None else {**body, "retryAfter": error.retry_after}


def _check_rid(rid: Any, name: str) -> None:
    if not isinstance(rid, str) or not _RID.fullmatch(rid):
        raise ServiceError(400, 400004, f"{name}: not a request ID of 4 to 36 letters, digits and inner dashes.")


def _request(body: bytes, device_id: str) -> dict[str, Any]:
    """A valid request. Raises ServiceError."""
    if not body.strip():
        raise ServiceError(400, 400004, "The request has no body: id and csr are missing.")
    try:
        request = strict_json.read(body)
    except ValueError:
        raise ServiceError(400, 400006, "The request is not JSON.") from None
    if not isinstance(request, dict):
        raise ServiceError(400, 400004, "The request is no JSON object.")
    if not request.keys() <= _FIELDS:
        raise ServiceError(400, 400004, "The request has an unknown field: id, csr and replace are known.")
    if request.get("id") != device_id:
        raise ServiceError(400, 400004, "id: not the ID of the device that is connected.")
    csr = request.get("csr")
    if not isinstance(csr, str) or not csr:
        raise ServiceError(400, 400004, "csr: missing.")
    if len(csr) > _CSR_LIMIT:
        raise ServiceError(400, 400004, "csr: larger than 8 KB.")
    try:
        base64.b64decode(csr, validate=True)
    except (ValueError, binascii.Error):
        raise ServiceError(400, 400004, "csr: not base64.") from None
    return request
