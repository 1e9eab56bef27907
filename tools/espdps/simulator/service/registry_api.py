"""The device registry's namespace over HTTPS: its certificate authorities, their policies, and its devices of all hubs.

Paths and bodies are the ends of those of the Microsoft.DeviceRegistry resource provider, 2026-11-01. Our own are: the
query, the revocation of a device, key types and lives in seconds of a policy, attributes, hub and policy of a device.
Authorization is the DPS service API's.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from ..errors import ServiceError, timestamp
from ..hub.hub import Hub
from ..memory.records import NAMESPACE, CertificatePolicy, Issuer, NamespaceDevice, new_etag, policy_key
from ..memory.state import State
from ..memory.twin import check, merged
from ..options import KEY_TYPES
from ..registry.namespace import ROOT, Registry
from . import query
from .dps_api import check_etag, name_in
from .routes import Api, Routes, answer, dps_error, read_json

_DAY = 86400
_DAYS = range(1, 91)  # az, 2026: 1 to 90; a page of the documentation says 7 to 90
_LONGEST = 90 * _DAY
_STATES = {"Enabled": True, "Disabled": False}


class RegistryApi:
    def __init__(self, registry: Registry, state: State, hub: Hub) -> None:
        self._registry, self._state, self._hub = registry, state, hub

    def add_to(self, routes: Routes) -> None:
        api, base = Api(None, dps_error, 400004), f"/namespaces/{NAMESPACE}"
        authorities, devices = f"{base}/certificateAuthorities", f"{base}/registryDevices"
        routes.add(api, "GET", authorities, self._list_authorities)
        routes.add(api, "GET", f"{authorities}/{{id}}", self._get_authority)
        routes.add(api, "PUT", f"{authorities}/{{id}}", self._put_authority)
        routes.add(api, "DELETE", f"{authorities}/{{id}}", self._delete_authority)
        routes.add(api, "POST", f"{authorities}/{{id}}/revokeAndRotate", self._revoke_authority)
        policies = f"{authorities}/{{authority}}/certificatePolicies"
        routes.add(api, "GET", policies, self._list_policies)
        routes.add(api, "GET", f"{policies}/{{id}}", self._get_policy)
        routes.add(api, "PUT", f"{policies}/{{id}}", self._put_policy)
        routes.add(api, "DELETE", f"{policies}/{{id}}", self._delete_policy)
        routes.add(api, "GET", devices, self._list_devices)
        routes.add(api, "POST", f"{devices}/query", self._query_devices)
        routes.add(api, "GET", f"{devices}/{{id}}", self._get_device)
        routes.add(api, "PATCH", f"{devices}/{{id}}", self._patch_device)
        routes.add(api, "POST", f"{devices}/{{id}}/revoke", self._revoke_device)

    # Certificate authorities

    async def _list_authorities(self, request: web.Request) -> web.Response:
        issuers = [self._issuer(issuer) for issuer in self._state.issuers.all()]
        return answer({"value": [self._root(), *issuers]})

    async def _get_authority(self, request: web.Request) -> web.Response:
        name = name_in(request)
        if name.lower() == ROOT:
            return answer(self._root())
        return self._issuer_response(self._registry.issuer(name))

    async def _put_authority(self, request: web.Request) -> web.Response:
        name, body = name_in(request), await read_json(request)
        properties = body.get("properties") if isinstance(body, dict) else None
        kind, issuer = (
            map(properties.get, ("certificateAuthorityType", "issuer"))
            if isinstance(properties, dict)
            else (None, None)
        )
        if kind != "ICA" or not isinstance(issuer, dict) or issuer.get("issuerType") != "Microsoft":
            raise ServiceError(400, 400004, "This simulator makes authorities of type ICA with issuerType Microsoft.")
        return self._issuer_response(self._registry.put_issuer(name))

    async def _delete_authority(self, request: web.Request) -> web.Response:
        issuer = self._registry.issuer(name_in(request))
        check_etag(request, issuer.etag, required=False)
        self._registry.delete_issuer(issuer.name)
        return web.Response(status=204)

    async def _revoke_authority(self, request: web.Request) -> web.Response:
        self._registry.revoke_issuer(name_in(request))
        return web.Response(status=204)

    def _issuer_response(self, issuer: Issuer) -> web.Response:
        return answer(self._issuer(issuer), headers={"ETag": issuer.etag})

    def _issuer(self, issuer: Issuer) -> dict[str, Any]:
        above = {"issuerType": "Microsoft", "certificateAuthorityResourceId": _id(ROOT)}
        subject = self._registry.authority.issuer(issuer.key)
        properties = {**_properties("ICA", subject), "issuer": above, "revoked": len(issuer.revoked) // 2}
        name, etag = issuer.name, issuer.etag
        return {"id": _id(name), "name": name, "etag": etag, "properties": properties, **_times(issuer)}

    def _root(self) -> dict[str, Any]:
        subject = self._registry.authority.root.certificate.subject.rfc4514_string().removeprefix("CN=")
        return {"id": _id(ROOT), "name": ROOT, "properties": _properties("Root", subject)}

    # Policies

    async def _list_policies(self, request: web.Request) -> web.Response:
        name = request.match_info["authority"]
        policies = [] if name.lower() == ROOT else self._registry.policies(self._registry.issuer(name).name)
        return answer({"value": [self._policy(policy) for policy in policies]})

    async def _get_policy(self, request: web.Request) -> web.Response:
        return self._policy_response(self._registry.policy(_policy_in(request)))

    async def _put_policy(self, request: web.Request) -> web.Response:
        authority, name, body = request.match_info["authority"], name_in(request), await read_json(request)
        existing = self._state.policy(f"{authority}/{name}")
        if existing is not None:
            check_etag(request, existing.etag, required=False)
        terms = body
        for part in ("properties", "certificate"):
            terms = terms.get(part, {}) if isinstance(terms, dict) else None
        if not isinstance(terms, dict):
            raise ServiceError(400, 400004, "properties.certificate: no object.")
        return self._policy_response(self._registry.put_policy(authority, name, _key_types(terms), _life(terms)))

    async def _delete_policy(self, request: web.Request) -> web.Response:
        policy = self._registry.policy(_policy_in(request))
        check_etag(request, policy.etag, required=False)
        self._registry.delete_policy(policy.key)
        return web.Response(status=204)

    def _policy_response(self, policy: CertificatePolicy) -> web.Response:
        return answer(self._policy(policy), headers={"ETag": policy.etag})

    def _policy(self, policy: CertificatePolicy) -> dict[str, Any]:
        terms: dict[str, Any] = {"keyTypes": list(self._registry.key_types(policy.key))}
        if policy.certificate_seconds is not None:
            days, rest = divmod(policy.certificate_seconds, _DAY)
            terms.update(
                {"validityPeriodInSeconds": policy.certificate_seconds} if rest else {"validityPeriodInDays": days}
            )
        id = f"{_id(policy.issuer)}/certificatePolicies/{policy.name}"
        properties = {"certificate": terms, "provisioningState": "Succeeded"}
        return {"id": id, "name": policy.name, "etag": policy.etag, "properties": properties, **_times(policy)}

    # Devices

    async def _list_devices(self, request: web.Request) -> web.Response:
        return answer({"value": [_device(device) for device in self._state.namespace.all()]})

    async def _query_devices(self, request: web.Request) -> web.Response:
        records = [(device.key, _device(device)) for device in self._state.namespace.all()]
        return await query.page(request, "device", records, query.selected)

    async def _get_device(self, request: web.Request) -> web.Response:
        return _device_response(self._registry.device(name_in(request)))

    async def _patch_device(self, request: web.Request) -> web.Response:
        """Tags, attributes, and whether it is enabled. Names that are left out stay, null deletes one."""
        body = await read_json(request)
        device = self._registry.device(name_in(request))
        check_etag(request, device.etag, required=False)
        properties = body.get("properties", {}) if isinstance(body, dict) else None
        if not isinstance(properties, dict):
            raise ServiceError(400, 400004, "properties: no object.")
        tags, attributes = body.get("tags", {}), properties.get("attributes", {})
        enabled = properties.get("enablementState")
        check(tags)
        check(attributes)
        if not all(isinstance(value, (str, type(None))) for value in tags.values()):
            raise ServiceError(400, 400004, "tags: each is a text.")
        if enabled is not None and (not isinstance(enabled, str) or enabled not in _STATES):
            raise ServiceError(400, 400004, "properties.enablementState: Enabled or Disabled.")
        device.change(
            tags=merged(device.tags, tags),
            attributes=merged(device.attributes, attributes),
            updated=timestamp(),
            etag=new_etag(),
        )
        if enabled is not None:
            self._set_enabled(device, _STATES[enabled])
        return _device_response(device)

    async def _revoke_device(self, request: web.Request) -> web.Response:
        """``{"disable": true}`` keeps the device from getting another one. It has to connect anew either way."""
        body = await read_json(request) if request.can_read_body else {}
        device = self._registry.revoke_device(name_in(request))
        for record in self._state.devices(device.name):
            self._hub.hang_up(record, "the device's certificates were revoked")
        if isinstance(body, dict) and body.get("disable") is True:
            self._set_enabled(device, False)
        return _device_response(device)

    def _set_enabled(self, device: NamespaceDevice, enabled: bool) -> None:
        for record in self._registry.set_enabled(device, enabled):
            if not enabled:
                self._hub.hang_up(record, "device was disabled")


def _id(authority: str) -> str:
    """As a resource's id ends."""
    return f"/namespaces/{NAMESPACE}/certificateAuthorities/{authority}"


def _properties(kind: str, subject: str) -> dict[str, Any]:
    return {
        "certificateAuthorityType": kind,
        "keyType": "ECC",
        "subject": f"CN={subject}",
        "provisioningState": "Succeeded",
    }


def _policy_in(request: web.Request) -> str:
    """Raises ServiceError."""
    return f"{request.match_info['authority']}/{name_in(request)}"


def _key_types(leaf: dict[str, Any]) -> tuple[str, ...]:
    types = leaf.get("keyTypes") or []
    if not isinstance(types, list) or not set(map(str, types)) <= set(KEY_TYPES):
        raise ServiceError(400, 400004, f"keyTypes: some of {', '.join(KEY_TYPES)}.")
    return tuple(types)


def _life(leaf: dict[str, Any]) -> int | None:
    days, seconds = leaf.get("validityPeriodInDays"), leaf.get("validityPeriodInSeconds")
    if days is not None and (type(days) is not int or days not in _DAYS):
        raise ServiceError(400, 400004, "validityPeriodInDays: 1 to 90.")
    if seconds is not None and (type(seconds) is not int or not 1 <= seconds <= _LONGEST):
        raise ServiceError(400, 400004, "validityPeriodInSeconds: 1 second to 90 days.")
    return seconds if seconds is not None else days and days * _DAY


def _times(record: Issuer | CertificatePolicy | NamespaceDevice) -> dict[str, Any]:
    return {"systemData": {"createdAt": record.created, "lastModifiedAt": record.updated}}


def _device(device: NamespaceDevice) -> dict[str, Any]:
    issuer, _, policy = policy_key(device.policy).partition("/") if device.policy else (None, "", None)
    properties = {
        "uuid": device.uuid,
        "enablementState": "Enabled" if device.enabled else "Disabled",
        "externalDeviceId": device.name,
        "assignedHub": device.hub,
        "certificateAuthorityName": issuer,
        "certificatePolicyName": policy,
        "attributes": device.attributes,
    }
    return {"name": device.name, "etag": device.etag, "tags": device.tags, "properties": properties, **_times(device)}


def _device_response(device: NamespaceDevice) -> web.Response:
    return answer(_device(device), headers={"ETag": device.etag})
