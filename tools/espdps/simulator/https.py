"""The DPS service API over HTTPS: enrollments, enrollment groups and registrations, for tools that prepare them.

Checks the policy's token at each call, also of what others add; a key goes out in no answer.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from . import sas
from .errors import ServiceError, error_body, timestamp
from .records import ID, Enrollment, new_etag, new_key
from .state import State

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_STATUS = ("enabled", "disabled")


class ServiceApi:
    """``policy``: name and key (base64) of the one shared access policy."""

    def __init__(self, state: State, policy_name: str, policy_key: str) -> None:
        self._state = state
        self._policy_name, self._policy_key = policy_name, policy_key

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard])
        for path, group in (("/enrollments/{id}", False), ("/enrollmentGroups/{id}", True)):
            application.router.add_get(path, self._bound(self._get, group))
            application.router.add_put(path, self._bound(self._put, group))
            application.router.add_delete(path, self._bound(self._delete, group))
        application.router.add_get("/registrations/{id}", self._get_registration)
        application.router.add_delete("/registrations/{id}", self._delete_registration)
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Authorizes the call, and gives every failure the service's form."""
        try:
            self._authorize(request)
            if not request.query.get("api-version"):
                raise ServiceError(400, 400012, "api-version is missing.")
            return await handler(request)
        except ServiceError as error:
            body = error_body(error.error_code, error.message)
            return web.json_response(body if error.info is None else {**body, "info": error.info}, status=error.status)
        except web.HTTPException as error:
            return web.json_response(error_body(error.status * 1000, f"{error.reason}."), status=error.status)

    def _authorize(self, request: web.Request) -> None:
        try:
            token = sas.parse(request.headers.get("Authorization", ""))
        except sas.BadToken:
            raise ServiceError(401, 401002, "Unauthorized.") from None
        good = (
            token.resource == (request.url.host or "").lower()
            and (token.skn or "").lower() == self._policy_name.lower()
            and not token.expired()
        )
        if not token.signed_by([self._policy_key]) or not good:
            raise ServiceError(401, 401002, "Unauthorized.")

    @staticmethod
    def _bound(handler: Callable[[web.Request, bool], Awaitable[web.Response]], group: bool) -> _Handler:
        async def call(request: web.Request) -> web.StreamResponse:
            return await handler(request, group)

        return call

    # Enrollments

    async def _get(self, request: web.Request, group: bool) -> web.Response:
        return _enrollment_response(self._find(request, group))

    async def _put(self, request: web.Request, group: bool) -> web.Response:
        id = _id(request)
        body = await read_json(request)
        # No await from here to the end: what is compared is what gets replaced.
        existing = self._state.enrollment(id, group)
        if existing is not None:
            check_etag(request, existing.etag, required=True)
        enrollment = _read_enrollment(id, group, body, existing, self._state.hubs)
        self._state.put_enrollment(enrollment)
        return _enrollment_response(enrollment)

    async def _delete(self, request: web.Request, group: bool) -> web.Response:
        enrollment = self._find(request, group)
        check_etag(request, enrollment.etag, required=False)
        self._state.remove_enrollment(enrollment.id, group)
        return web.Response(status=204)

    def _find(self, request: web.Request, group: bool) -> Enrollment:
        enrollment = self._state.enrollment(_id(request), group)
        if enrollment is None:
            raise ServiceError(404, 404201, "Enrollment not found.")
        return enrollment

    # Registrations

    async def _get_registration(self, request: web.Request) -> web.Response:
        registration = self._state.registration(_id(request))
        if registration is None:
            raise ServiceError(404, 404202, "Registration not found.")
        body = {
            "registrationId": registration.registration_id,
            "createdDateTimeUtc": registration.created,
            "assignedHub": registration.hub,
            "deviceId": registration.device_id,
            "status": "assigned",
            "substatus": registration.substatus,
            "lastUpdatedDateTimeUtc": registration.updated,
            "etag": registration.etag,
        }
        return web.json_response(body, headers={"ETag": registration.etag})

    async def _delete_registration(self, request: web.Request) -> web.Response:
        registration = self._state.registration(_id(request))
        if registration is None:
            raise ServiceError(404, 404202, "Registration not found.")
        check_etag(request, registration.etag, required=False)
        self._state.remove_registration(registration.registration_id)
        return web.Response(status=204)


async def read_json(request: web.Request) -> Any:
    """Raises ServiceError."""
    try:
        return await request.json()
    except (ValueError, RecursionError):
        raise ServiceError(400, 400012, "Deserialization error: the body is not JSON.") from None


def _id(request: web.Request) -> str:
    id = request.match_info["id"]
    if not ID.fullmatch(id):
        raise ServiceError(400, 400004, "Invalid ID.")
    return id


def check_etag(request: web.Request, etag: str, required: bool) -> None:
    """If-Match as HTTP has it; replacing what exists without one is taken for a mistake, as at the service.

    Raises ServiceError.
    """
    wanted = request.headers.get("If-Match")
    if wanted is None and not required:
        return
    if wanted != "*" and wanted != etag:
        raise ServiceError(409, 409203, "Precondition failed.")


def _read_enrollment(id: str, group: bool, body: Any, existing: Enrollment | None, hubs: tuple[str, ...]) -> Enrollment:
    """The record for a PUT. Unknown fields are ignored; keys left out stay, or are made. Raises ServiceError."""
    if not isinstance(body, dict):
        raise ServiceError(400, 400012, "Deserialization error: the body is no JSON object.")
    if body.get("enrollmentGroupId" if group else "registrationId", id) != id:
        raise ServiceError(400, 400004, "The ID in the body is not the one in the path.")
    attestation = body.get("attestation")
    if not isinstance(attestation, dict) or attestation.get("type") != "symmetricKey":
        raise ServiceError(400, 400004, "attestation.type: this simulator knows symmetricKey.")
    keys = attestation.get("symmetricKey") or {}
    if not isinstance(keys, dict):
        raise ServiceError(400, 400012, "Deserialization error: attestation.symmetricKey is no object.")
    status = body.get("provisioningStatus") or "enabled"
    if status not in _STATUS:
        raise ServiceError(400, 400004, "provisioningStatus: enabled or disabled.")
    linked = body.get("iotHubs") or []
    if not isinstance(linked, list) or not set(map(str, linked)) <= set(hubs):
        raise ServiceError(400, 400004, "iotHubs: not all of them are linked to this service.")
    policy, device_id = body.get("credentialPolicyName"), None if group else body.get("deviceId")
    reprovision = body.get("reprovisionPolicy") or {}
    if not isinstance(reprovision, dict):
        raise ServiceError(400, 400012, "Deserialization error: reprovisionPolicy is no object.")
    for name, value in (("credentialPolicyName", policy), ("deviceId", device_id)):
        if value is not None and not (isinstance(value, str) and ID.fullmatch(value)):
            raise ServiceError(400, 400004, f"{name}: not a valid name.")
    return Enrollment(
        id=id,
        group=group,
        primary_key=_key(keys.get("primaryKey"), existing.primary_key if existing else None),
        secondary_key=_key(keys.get("secondaryKey"), existing.secondary_key if existing else None),
        credential_policy=policy,
        reprovision="never"
        if not reprovision.get("updateHubAssignment", True)
        else ("migrate" if reprovision.get("migrateDeviceData", True) else "reset"),
        provisioning_status=status,
        hubs=tuple(linked),
        device_id=device_id,
        etag=new_etag(),
        created=existing.created if existing else timestamp(),
    )


def _key(given: Any, kept: str | None) -> str:
    """A key (base64 of 16 to 64 bytes, the service's bounds), the one there was, or a new one. Raises ServiceError."""
    if given is None or given == "":
        return kept or new_key()
    try:
        size = len(base64.b64decode(given, validate=True))
    except (TypeError, ValueError, binascii.Error):
        size = 0
    if not 16 <= size <= 64:
        raise ServiceError(400, 400004, "A symmetric key must be the base64 of 16 to 64 bytes.")
    return str(given)


def _enrollment_response(enrollment: Enrollment) -> web.Response:
    body: dict[str, Any] = {
        "enrollmentGroupId" if enrollment.group else "registrationId": enrollment.id,
        "attestation": {"type": enrollment.attestation},  # a plain GET does not return the keys
        "provisioningStatus": enrollment.provisioning_status,
        "credentialPolicyName": enrollment.credential_policy,
        "reprovisionPolicy": {
            "updateHubAssignment": enrollment.reprovision != "never",
            "migrateDeviceData": enrollment.reprovision == "migrate",
        },
        "allocationPolicy": "hashed",
        "iotHubs": list(enrollment.hubs),
        "etag": enrollment.etag,
        "createdDateTimeUtc": enrollment.created,
        "lastUpdatedDateTimeUtc": enrollment.updated,
    }
    if enrollment.device_id is not None:
        body["deviceId"] = enrollment.device_id
    return web.json_response(body, headers={"ETag": enrollment.etag})
