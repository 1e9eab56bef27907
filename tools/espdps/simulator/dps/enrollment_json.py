"""Enrollments in the service's JSON: read from a request, written into an answer.

Bounds of fields are the service's. Which fields name the policy that issues certificates depends on the api-version.
A key goes out only where it is asked for.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ..errors import ServiceError, timestamp
from ..memory.records import ALLOCATIONS, NAMESPACE, Enrollment, new_key, policy_key
from ..memory.state import State
from ..names import DEVICE_ID, REGISTRATION_ID
from ..trust import signers
from .allocation import check_twin

# REST specifications: 2025-07-01-preview has the one, 2026-11-01 and later have the three, the ones before have none.
_OLD_POLICY = "credentialPolicyName"
_POLICY = ("namespaceName", "certificateAuthorityName", "certificatePolicyName")
_STATUS = ("enabled", "disabled")
_HIDDEN = "****"  # in place of a webhook's query, which has the key of the function: as seen at the service

Body = dict[str, Any]


def read(id: str, group: bool, body: Any, existing: Enrollment | None, state: State, api_version: str) -> Enrollment:
    """The record for a PUT. Other unknown fields are ignored; keys left out stay, or are made. Raises ServiceError."""
    if not isinstance(body, dict):
        raise ServiceError(400, 400012, "Deserialization error: the body is no JSON object.")
    # Required in the REST specification.
    if str(body.get("enrollmentGroupId" if group else "registrationId")).lower() != id.lower():
        raise _wrong("The ID in the body is missing, or is not the one in the path.")
    status = body.get("provisioningStatus") or "enabled"
    if status not in _STATUS:
        raise _wrong("provisioningStatus: enabled or disabled.")
    device_id = None if group else body.get("deviceId")
    _check_name("deviceId", device_id, DEVICE_ID)
    reprovision = _object(body, "reprovisionPolicy")
    twin = body.get("initialTwin")
    if twin is not None:
        check_twin(twin)
    return Enrollment(
        id=id,
        group=group,
        **_attestation(_object(body, "attestation"), group, existing, state),
        credential_policy=_policy(body, state, api_version),
        reprovision="never"
        if not reprovision.get("updateHubAssignment", True)
        else ("migrate" if reprovision.get("migrateDeviceData", True) else "reset"),
        provisioning_status=status,
        **_allocation(body, existing, state),
        device_id=device_id,
        initial_twin=twin,
        edge=bool(_object(body, "capabilities").get("iotEdge")),
        created=existing.created if existing else timestamp(),
    )


def _policy_names(api_version: str) -> tuple[str, ...]:
    """The fields by which this api-version names a policy."""
    if api_version >= "2026-11-01":
        return _POLICY
    return (_OLD_POLICY,) if api_version == "2025-07-01-preview" else ()


def _policy(body: Body, state: State, api_version: str) -> str | None:
    """The policy that a PUT names, as in Enrollment: all of its fields or none. Raises ServiceError."""
    known = _policy_names(api_version)
    given = {name: body[name] for name in (_OLD_POLICY, *_POLICY) if body.get(name) is not None}
    for name, value in given.items():
        if name not in known:
            # An official service SDK's test: the old field never appears with 2026-11-01. The code is inference.
            raise ServiceError(400, 400012, f"Deserialization error: {name} is not known to {api_version}.")
        _check_name(name, value)
    if not given:
        return None
    if len(given) < len(known):
        raise _wrong(f"{', '.join(known)}: all three or none.")
    if given.get("namespaceName", NAMESPACE).lower() != NAMESPACE:
        raise _wrong("namespaceName: not the namespace that is linked to this service.")
    policy = "/".join(given[name] for name in known if name != "namespaceName")
    # Inference: that the service looks the policy up when it is named, as it does with hubs and authorities.
    if state.policy(policy) is None:
        raise _wrong(f"{known[-1]}: no such policy in the namespace that is linked to this service.")
    return policy


def _shown_policy(enrollment: Enrollment, api_version: str) -> Body:
    """Each version shows what it knows of an enrollment that was made by another one (inference)."""
    known, policy = _policy_names(api_version), enrollment.credential_policy
    if known == (_OLD_POLICY,):
        return {_OLD_POLICY: None if policy is None else policy.rpartition("/")[2]}
    if not known or policy is None:
        return {}
    issuer, _, name = (policy if "/" in policy else policy_key(policy)).partition("/")
    return dict(zip(known, (NAMESPACE, issuer, name), strict=True))


def _check_name(field: str, value: Any, form: re.Pattern[str] = REGISTRATION_ID) -> None:
    """Raises ServiceError."""
    if value is not None and not (isinstance(value, str) and form.fullmatch(value)):
        raise _wrong(f"{field}: not a valid name.")


def _wrong(message: str) -> ServiceError:
    return ServiceError(400, 400004, message)


def _object(body: Body, name: str) -> Body:
    """Raises ServiceError."""
    value = body.get(name) or {}
    if not isinstance(value, dict):
        raise ServiceError(400, 400012, f"Deserialization error: {name} is no object.")
    return value


def _attestation(body: Body, group: bool, existing: Enrollment | None, state: State) -> Body:
    """Raises ServiceError."""
    kind = body.get("type")
    if kind == "symmetricKey":
        keys = _object(body, "symmetricKey")
        return {
            "primary_key": _key(keys.get("primaryKey"), existing.primary_key if existing else None),
            "secondary_key": _key(keys.get("secondaryKey"), existing.secondary_key if existing else None),
        }
    if kind == "tpm":
        raise ServiceError(501, 501000, "Not in this simulator: attestation by TPM.")
    if kind != "x509":
        raise _wrong("attestation.type: symmetricKey or x509.")
    ways = {name: value for name, value in _object(body, "x509").items() if value is not None}
    known = ("signingCertificates", "caReferences") if group else ("clientCertificates",)
    if len(ways) != 1 or not ways.keys() <= set(known):
        raise _wrong(f"attestation.x509: one of {', '.join(known)}.")
    ((way, _),) = ways.items()
    pair = _object(ways, way)
    values = [pair[name] for name in ("primary", "secondary") if pair.get(name) is not None]
    if not values or pair.get("primary") is None:
        raise _wrong(f"attestation.x509.{way}: a primary is needed.")
    if way != "caReferences":
        return {"certificates": tuple(certificate(_text(value)) for value in values)}
    for name in values:
        authority = state.authorities.get(name) if isinstance(name, str) else None
        if authority is None or not authority.verified:
            raise _wrong("attestation.x509.caReferences: not a verified certificate of this service.")
    return {"ca_references": tuple(values)}


def _text(value: Any) -> Any:
    return value.get("certificate") if isinstance(value, dict) else None


def certificate(text: Any) -> x509.Certificate:
    """One certificate out of PEM, the base64 of that, or the base64 of DER. Raises ServiceError."""
    try:
        if "-----BEGIN" in text:
            return signers.load(text.encode())
        return signers.load(base64.b64decode("".join(text.split()), validate=True))
    except (TypeError, AttributeError, ValueError, binascii.Error):
        raise _wrong("certificate: neither PEM nor the base64 of a certificate.") from None


def _key(given: Any, kept: str | None) -> str:
    """A key (base64 of 16 to 64 bytes, the service's bounds), the one there was, or a new one. Raises ServiceError."""
    if given is None or given == "":
        return kept or new_key()
    try:
        size = len(base64.b64decode(given, validate=True))
    except (TypeError, ValueError, binascii.Error):
        size = 0
    if not 16 <= size <= 64:
        raise _wrong("A symmetric key must be the base64 of 16 to 64 bytes.")
    return str(given)


def _allocation(body: Body, existing: Enrollment | None, state: State) -> Body:
    """Raises ServiceError."""
    policy = body.get("allocationPolicy") or "hashed"
    if policy not in ALLOCATIONS:
        raise _wrong(f"allocationPolicy: one of {', '.join(ALLOCATIONS)}.")
    hubs = body.get("iotHubs") or ([body["iotHubHostName"]] if body.get("iotHubHostName") else [])
    if not isinstance(hubs, list) or not set(map(str, hubs)) <= set(state.hubs):
        raise _wrong("iotHubs: not all of them are linked to this service.")
    # None at all is taken (L: the SDK for Node's end-to-end tests); a registration then has no hub to go to.
    if policy == "static" and len(hubs) > 1:
        raise _wrong("iotHubs: static allocation has one at most.")
    if policy != "custom":
        return {"allocation": policy, "hubs": tuple(hubs)}
    definition = _object(body, "customAllocationDefinition")
    url, version = definition.get("webhookUrl"), definition.get("apiVersion")
    if existing is not None and existing.webhook is not None and url == _shown(existing.webhook):
        url = existing.webhook  # as an answer showed it
    # The service takes https alone; a webhook beside the simulator hardly has a certificate.
    if not isinstance(url, str) or not url.startswith(("https://", "http://")) or not isinstance(version, str):
        raise _wrong("customAllocationDefinition: webhookUrl and apiVersion are needed for custom allocation.")
    return {"allocation": policy, "hubs": tuple(hubs), "webhook": url, "webhook_version": version}


def _shown(url: str) -> str:
    path, mark, _ = url.partition("?")
    return path + mark + (_HIDDEN if mark else "")


def write(enrollment: Enrollment, api_version: str, keys: bool = False) -> Body:
    """As the service answers it. ``keys``: whether those of a symmetric key are told."""
    body: Body = {
        "enrollmentGroupId" if enrollment.group else "registrationId": enrollment.id,
        "attestation": mechanism(enrollment, keys),
        "capabilities": {"iotEdge": enrollment.edge},
        "provisioningStatus": enrollment.provisioning_status,
        **_shown_policy(enrollment, api_version),
        "reprovisionPolicy": {
            "updateHubAssignment": enrollment.reprovision != "never",
            "migrateDeviceData": enrollment.reprovision == "migrate",
        },
        "allocationPolicy": enrollment.allocation,
        "iotHubs": list(enrollment.hubs),
        "etag": enrollment.etag,
        "createdDateTimeUtc": enrollment.created,
        "lastUpdatedDateTimeUtc": enrollment.updated,
    }
    if enrollment.device_id is not None:
        body["deviceId"] = enrollment.device_id
    if enrollment.initial_twin is not None:
        body["initialTwin"] = enrollment.initial_twin
    if enrollment.webhook is not None:
        body["customAllocationDefinition"] = {
            "webhookUrl": _shown(enrollment.webhook),
            "apiVersion": enrollment.webhook_version,
        }
    return body


def mechanism(enrollment: Enrollment, keys: bool) -> Body:
    """``keys``: whether those of a symmetric key are told."""
    kind = enrollment.attestation
    if kind == "symmetricKey":
        pair = {"primaryKey": enrollment.primary_key, "secondaryKey": enrollment.secondary_key}
        return {"type": kind, kind: pair} if keys else {"type": kind}
    if enrollment.ca_references:
        return {"type": kind, kind: {"caReferences": _pair(enrollment.ca_references)}}
    certificates = [
        {"certificate": one.public_bytes(Encoding.PEM).decode(), "info": signers.certificate_info(one)}
        for one in enrollment.certificates
    ]
    return {
        "type": kind,
        kind: {"signingCertificates" if enrollment.group else "clientCertificates": _pair(certificates)},
    }


def _pair(values: Iterable[Any]) -> Body:
    return dict(zip(("primary", "secondary"), (*values, None), strict=False))
