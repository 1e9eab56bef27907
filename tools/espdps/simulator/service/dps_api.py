"""The DPS service API over HTTPS: enrollments, enrollment groups and registrations, for tools that prepare them.

Checks the token at each call, also of what others add: the policy's, or one that stands for Microsoft Entra ID's. Keys
go out as an attestation mechanism and to who changes them.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from ..dps import enrollment_json
from ..errors import ServiceError
from ..memory.records import Enrollment, Registration
from ..memory.state import State
from ..names import REGISTRATION_ID
from ..trust import sas
from . import query
from .routes import Api, Handler, Routes, answer, dps_error, read_json


class ServiceApi:
    """``policy``: name and key (base64) of the one shared access policy. ``bearer``: a token of our own making, good
    for all that one of Microsoft Entra ID could be good for.
    """

    def __init__(self, state: State, policy_name: str, policy_key: str, bearer: str) -> None:
        self._state = state
        self._policy_name, self._policy_key, self._bearer = policy_name, policy_key, bearer

    def routes(self) -> Routes:
        """With the paths of DPS; those of the other APIs are added."""
        routes, api = Routes(self._authorize), Api(lambda: self._state.dps_api, dps_error, 400004)
        for path, group in (("/enrollments", False), ("/enrollmentGroups", True)):
            routes.add(api, "POST", f"{path}/query", self._bound(self._query, group))
            routes.add(api, "GET", f"{path}/{{id}}", self._bound(self._get, group))
            routes.add(api, "PUT", f"{path}/{{id}}", self._bound(self._put, group))
            routes.add(api, "DELETE", f"{path}/{{id}}", self._bound(self._delete, group))
            routes.add(api, "POST", f"{path}/{{id}}/attestationmechanism", self._bound(self._mechanism, group))
        routes.add(api, "GET", "/registrations/{id}", self._get_registration)
        routes.add(api, "DELETE", "/registrations/{id}", self._delete_registration)
        routes.add(api, "POST", "/registrations/{id}/query", self._query_registrations)
        return routes

    def _authorize(self, request: web.Request) -> None:
        """A token of the policy for this host, or for the part of it that its resource names. Raises ServiceError."""
        given = request.headers.get("Authorization", "")
        scheme, _, text = given.partition(" ")
        if scheme.lower() == "bearer":  # RFC 6750, 2.1; RFC 9110, 11.1: schemes are told without regard to case
            if not hmac.compare_digest(text.encode(errors="replace"), self._bearer.encode()):
                raise ServiceError(401, 401002, "Unauthorized.")
            return
        try:
            token = sas.parse(given)
        except sas.BadToken:
            raise ServiceError(401, 401002, "Unauthorized.") from None
        # A resource is written without a protocol (D); a client in use writes https://{host}/ and is let in.
        resource = token.resource.lower().removeprefix("https://").rstrip("/")
        asked = (request.url.host or "").lower() + request.path.lower()
        good = (
            f"{asked}/".startswith(f"{resource}/")
            and (token.skn or "").lower() == self._policy_name.lower()
            and not token.expired()
        )
        if not token.signed_by([self._policy_key]) or not good:
            raise ServiceError(401, 401002, "Unauthorized.")

    @staticmethod
    def _bound(handler: Callable[[web.Request, bool], Awaitable[web.Response]], group: bool) -> Handler:
        async def call(request: web.Request) -> web.StreamResponse:
            return await handler(request, group)

        return call

    # Enrollments

    async def _get(self, request: web.Request, group: bool) -> web.Response:
        return _enrollment_response(request, self._find(request, group))

    async def _put(self, request: web.Request, group: bool) -> web.Response:
        id = name_in(request)
        body = await read_json(request)
        # No await from here to the end: what is compared is what gets replaced.
        existing = self._state.enrollment(id, group)
        if existing is not None:
            check_etag(request, existing.etag, required=True)
        enrollment = enrollment_json.read(id, group, body, existing, self._state, _version(request))
        self._state.put_enrollment(enrollment)
        return _enrollment_response(request, enrollment, keys=True)  # L: with those that it made

    async def _delete(self, request: web.Request, group: bool) -> web.Response:
        enrollment = self._find(request, group)
        check_etag(request, enrollment.etag, required=False)
        self._state.remove_enrollment(enrollment.id, group)
        return web.Response(status=204)

    async def _query(self, request: web.Request, group: bool) -> web.Response:
        kept = [one for one in self._state.enrollments.all() if one.group == group]
        records = [(one.key, enrollment_json.write(one, _version(request))) for one in kept]
        return await query.page(request, "enrollmentGroup" if group else "enrollment", records)

    async def _mechanism(self, request: web.Request, group: bool) -> web.Response:
        return answer(enrollment_json.mechanism(self._find(request, group), keys=True))

    def _find(self, request: web.Request, group: bool) -> Enrollment:
        enrollment = self._state.enrollment(name_in(request), group)
        if enrollment is None:
            raise ServiceError(404, 404201, "Enrollment not found.")
        return enrollment

    # Registrations

    async def _get_registration(self, request: web.Request) -> web.Response:
        registration = self._state.registration(name_in(request))
        if registration is None:
            raise ServiceError(404, 404202, "Registration not found.")
        return answer(_registration_body(registration), headers={"ETag": registration.etag})

    async def _query_registrations(self, request: web.Request) -> web.Response:
        """Those of one group; one that is not there has none. The body may be missing (L: az, the SDK for Node)."""
        group = name_in(request).lower()
        kept = [one for one in self._state.registrations.all() if (one.group or "").lower() == group]
        records = [(one.key, _registration_body(one)) for one in kept]
        return await query.page(request, "deviceRegistrationState", records, optional=True)

    async def _delete_registration(self, request: web.Request) -> web.Response:
        registration = self._state.registration(name_in(request))
        if registration is None:
            raise ServiceError(404, 404202, "Registration not found.")
        check_etag(request, registration.etag, required=False)
        self._state.remove_registration(registration.registration_id)
        return web.Response(status=204)


def name_in(request: web.Request) -> str:
    """The name that ends a path. Raises ServiceError."""
    id = request.match_info["id"]
    if not REGISTRATION_ID.fullmatch(id):
        raise ServiceError(400, 400004, "Invalid ID.")
    return id


def check_etag(request: web.Request, etag: str, required: bool) -> None:
    """If-Match as HTTP has it; replacing what exists without one is taken for a mistake, as at the service.

    Raises ServiceError.
    """
    wanted = request.headers.get("If-Match")
    if wanted is None and not required:
        return
    # Quoted as HTTP has it or not, the asterisk as well: the SDKs do either.
    if wanted is None or wanted.strip('"') not in ("*", etag.strip('"')):
        raise ServiceError(409, 409203, "Precondition failed.")


def _version(request: web.Request) -> str:
    return str(request.query["api-version"])


def _enrollment_response(request: web.Request, enrollment: Enrollment, keys: bool = False) -> web.Response:
    return answer(enrollment_json.write(enrollment, _version(request), keys), headers={"ETag": enrollment.etag})


def _registration_body(registration: Registration) -> dict[str, Any]:
    return {
        "registrationId": registration.registration_id,
        "createdDateTimeUtc": registration.created,
        "assignedHub": registration.hub,
        "deviceId": registration.device_id,
        "status": "assigned",
        "substatus": registration.substatus,
        "lastUpdatedDateTimeUtc": registration.updated,
        "etag": registration.etag,
    }
