"""The simulator's device registry, for the commands `esp-dps registry …`: authorities, policies, devices of all hubs.
Speaks the HTTPS API alone."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import quote

from espdps.azure.service_client import ServiceClient, simulator

Body = dict[str, Any]


class RegistryClient(ServiceClient):
    """One namespace; see ServiceClient for what is raised."""

    api = "2026-11-01"
    name = "the registry"
    hints: ClassVar = {"404001": "List what exists: esp-dps registry authorities, policies, devices."}

    def __init__(self, info: Body, entra: bool = False) -> None:
        super().__init__(simulator(info, entra))
        self._base = f"/namespaces/{info['namespace']}"

    def authorities(self) -> list[Body]:
        found: list[Body] = self._json("GET", self._authority())["value"]
        return found

    def put_authority(self, name: str) -> Body:
        """One that issues to devices, below the root."""
        issuer = {"issuerType": "Microsoft", "certificateAuthorityResourceId": self._authority("root")}
        body = {"properties": {"certificateAuthorityType": "ICA", "keyType": "ECC", "issuer": issuer}}
        authority: Body = self._json("PUT", self._authority(name), body)
        return authority

    def delete_authority(self, name: str) -> None:
        self._json("DELETE", self._authority(name))

    def revoke_authority(self, name: str) -> Body:
        """The authority after it was revoked: another certificate issues from now on."""
        self._json("POST", f"{self._authority(name)}/revokeAndRotate")
        authority: Body = self._json("GET", self._authority(name))
        return authority

    def policies(self, authority: str) -> list[Body]:
        found: list[Body] = self._json("GET", f"{self._authority(authority)}/certificatePolicies")["value"]
        return found

    def put_policy(self, authority: str, name: str, terms: Body) -> Body:
        """`terms`: the service's properties.certificate."""
        policy: Body = self._json("PUT", self._policy(authority, name), {"properties": {"certificate": terms}})
        return policy

    def delete_policy(self, authority: str, name: str) -> None:
        self._json("DELETE", self._policy(authority, name))

    def devices(self, where: str | None) -> list[Body]:
        """All of them, page by page."""
        query = "SELECT * FROM devices" + (f" WHERE {where}" if where else "")
        return list(self._pages(f"{self._base}/registryDevices/query", {"query": query}))

    def device(self, name: str, patch: Body) -> Body:
        """The device, after a change if there is one."""
        path = f"{self._base}/registryDevices/{quote(name, safe='')}"
        device: Body = self._json("PATCH", path, patch) if patch else self._json("GET", path)
        return device

    def revoke_device(self, name: str, disable: bool) -> Body:
        path = f"{self._base}/registryDevices/{quote(name, safe='')}/revoke"
        device: Body = self._json("POST", path, {"disable": disable})
        return device

    def _authority(self, name: str | None = None) -> str:
        path = f"{self._base}/certificateAuthorities"
        return path if name is None else f"{path}/{quote(name, safe='')}"

    def _policy(self, authority: str, name: str) -> str:
        return f"{self._authority(authority)}/certificatePolicies/{quote(name, safe='')}"
