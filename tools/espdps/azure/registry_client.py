"""The simulator's device registry, for the commands `esp-dps registry …`: credential policies, devices of all hubs.
Speaks the HTTPS API alone."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import quote

from espdps.azure.service_client import ServiceClient, simulator

Body = dict[str, Any]


class RegistryClient(ServiceClient):
    """One namespace; see ServiceClient for what is raised."""

    api = "2025-11-01-preview"
    name = "the registry"
    hints: ClassVar = {"404001": "esp-dps registry policies and esp-dps registry devices list what there is"}

    def __init__(self, info: Body) -> None:
        super().__init__(simulator(info))
        self._base = f"/namespaces/{info['namespace']}"

    def policies(self) -> list[Body]:
        found: list[Body] = self._json("GET", self._path())["value"]
        return found

    def put_policy(self, name: str, leaf: Body) -> Body:
        """`leaf`: the service's leafCertificateConfiguration."""
        body = {"properties": {"certificate": {"leafCertificateConfiguration": leaf}}}
        policy: Body = self._json("PUT", self._path(name), body)
        return policy

    def delete_policy(self, name: str) -> None:
        self._json("DELETE", self._path(name))

    def revoke_policy(self, name: str) -> Body:
        policy: Body = self._json("POST", f"{self._path(name)}/revokeIssuer")
        return policy

    def devices(self, where: str | None) -> list[Body]:
        """All of them, page by page."""
        query = "SELECT * FROM devices" + (f" WHERE {where}" if where else "")
        return list(self._pages(f"{self._base}/devices/query", {"query": query}))

    def device(self, name: str, patch: Body) -> Body:
        """The device, after a change if there is one."""
        path = f"{self._base}/devices/{quote(name, safe='')}"
        device: Body = self._json("PATCH", path, patch) if patch else self._json("GET", path)
        return device

    def revoke_device(self, name: str, disable: bool) -> Body:
        path = f"{self._base}/devices/{quote(name, safe='')}/revoke"
        device: Body = self._json("POST", path, {"disable": disable})
        return device

    def _path(self, name: str | None = None) -> str:
        path = f"{self._base}/credentials/default/policies"
        return path if name is None else f"{path}/{quote(name, safe='')}"
