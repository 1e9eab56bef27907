"""The device registry's namespace over HTTPS: its credential policies, and its devices of all hubs.

Paths and bodies are the ends of those of the Microsoft.DeviceRegistry resource provider, as far as they are documented;
the query and lives in seconds are our own. Authorization is the DPS service API's.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from ..errors import ServiceError, timestamp
from ..hub.hub import Hub
from ..memory.records import NamespaceDevice, Policy, new_etag
from ..memory.state import State
from ..memory.twin import check, merged
from ..options import KEY_TYPES
from ..registry.namespace import NAMESPACE, Registry
from . import query
from .dps_api import check_etag, name_in
from .routes import Api, Routes, answer, dps_error, read_json

_DAY = 86400
_DAYS = range(1, 91)  # the documentation says 7 to 90, that of an earlier preview 1 to 90
_LONGEST = 90 * _DAY


class RegistryApi:
    def __init__(self, registry: Registry, state: State, hub: Hub) -> None:
        self._registry, self._state, self._hub = registry, state, hub

    def add_to(self, routes: Routes) -> None:
        api, base = Api(None, dps_error, 400004), f"/namespaces/{NAMESPACE}"
        policies = f"{base}/credentials/default/policies"
        routes.add(api, "GET", policies, self._list_policies)
        routes.add(api, "GET", policies + "/{id}", self._get_policy)
        routes.add(api, "PUT", policies + "/{id}", self._put_policy)
        routes.add(api, "DELETE", policies + "/{id}", self._delete_policy)
        routes.add(api, "POST", policies + "/{id}/revokeIssuer", self._revoke_policy)
        routes.add(api, "GET", f"{base}/devices", self._list_devices)
        routes.add(api, "POST", f"{base}/devices/query", self._query_devices)
        routes.add(api, "GET", f"{base}/devices/{{id}}", self._get_device)
        routes.add(api, "PATCH", f"{base}/devices/{{id}}", self._patch_device)
        routes.add(api, "POST", f"{base}/devices/{{id}}/revoke", self._revoke_device)

    # Policies

    async def _list_policies(self, request: web.Request) -> web.Response:
        return answer({"value": [self._policy(policy) for policy in self._state.policies.all()]})

    async def _get_policy(self, request: web.Request) -> web.Response:
        return self._policy_response(self._registry.policy(name_in(request)))

    async def _put_policy(self, request: web.Request) -> web.Response:
        name, body = name_in(request), await read_json(request)
        existing = self._state.policies.get(name)
        if existing is not None:
            check_etag(request, existing.etag, required=False)
        leaf = body
        for part in ("properties", "certificate", "leafCertificateConfiguration"):
            leaf = leaf.get(part, {}) if isinstance(leaf, dict) else None
        if not isinstance(leaf, dict):
            raise ServiceError(400, 400004, "properties.certificate.leafCertificateConfiguration: no object.")
        return self._policy_response(self._registry.put_policy(name, _key_types(leaf), _life(leaf)))

    async def _delete_policy(self, request: web.Request) -> web.Response:
        policy = self._registry.policy(name_in(request))
        check_etag(request, policy.etag, required=False)
        self._registry.delete_policy(policy.name)
        return web.Response(status=204)

    async def _revoke_policy(self, request: web.Request) -> web.Response:
        return self._policy_response(self._registry.revoke_policy(name_in(request)))

    def _policy_response(self, policy: Policy) -> web.Response:
        return answer(self._policy(policy), headers={"ETag": policy.etag})

    def _policy(self, policy: Policy) -> dict[str, Any]:
        leaf: dict[str, Any] = {"keyTypes": list(self._registry.key_types(policy.name))}
        if policy.certificate_seconds is not None:
            days, rest = divmod(policy.certificate_seconds, _DAY)
            leaf.update(
                {"validityPeriodInSeconds": policy.certificate_seconds} if rest else {"validityPeriodInDays": days}
            )
        authority = {"keyType": "ECC", "subject": self._registry.issuer(policy.name)}
        certificate = {"certificateAuthorityConfiguration": authority, "leafCertificateConfiguration": leaf}
        properties = {"certificate": certificate, "provisioningState": "Succeeded", "revoked": len(policy.revoked) // 2}
        return {"name": policy.name, "etag": policy.etag, "properties": properties, **_times(policy)}

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
        tags, attributes, enabled = body.get("tags", {}), properties.get("attributes", {}), properties.get("enabled")
        check(tags)
        check(attributes)
        if not all(isinstance(value, (str, type(None))) for value in tags.values()):
            raise ServiceError(400, 400004, "tags: each is a text.")
        if not isinstance(enabled, (bool, type(None))):
            raise ServiceError(400, 400004, "properties.enabled: true or false.")
        device.change(
            tags=merged(device.tags, tags),
            attributes=merged(device.attributes, attributes),
            updated=timestamp(),
            etag=new_etag(),
        )
        if enabled is not None:
            self._set_enabled(device, enabled)
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


def _times(record: Policy | NamespaceDevice) -> dict[str, Any]:
    return {"systemData": {"createdAt": record.created, "lastModifiedAt": record.updated}}


def _device(device: NamespaceDevice) -> dict[str, Any]:
    properties = {
        "uuid": device.uuid,
        "enabled": device.enabled,
        "externalDeviceId": device.name,
        "assignedHub": device.hub,
        "credentialPolicyName": device.policy,
        "attributes": device.attributes,
    }
    return {"name": device.name, "etag": device.etag, "tags": device.tags, "properties": properties, **_times(device)}


def _device_response(device: NamespaceDevice) -> web.Response:
    return answer(_device(device), headers={"ETag": device.etag})
