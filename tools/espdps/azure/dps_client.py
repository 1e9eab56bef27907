"""The DPS service API, for the commands `esp-dps enroll …`: enrollments, registrations, certificates of CAs.
Changes nothing that somebody else changed meanwhile: every change names the etag of what was read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar
from urllib.parse import quote

from espdps.azure.enrollment import API, Body, Enrollment, check_id
from espdps.azure.service_client import OWNER, Refused, Service, ServiceClient
from espdps.errors import ToolError

_CHANGED = "it is there already, or somebody else changed it just now: look at it with show, and try again"


class DpsClient(ServiceClient):
    """One DPS instance; see ServiceClient for what is raised."""

    name = "DPS"
    hints: ClassVar = {
        "400004": "esp-dps explain 400004 lists what it can mean.",
        "400012": "Check --api-version: this version may not know what the request contains.",
        "401": f"Check the key, and that its policy has the right: {OWNER} has all. "
        "If this DPS instance accepts no keys, use --auth entra.",
        "403": "With --auth entra, give your account the role Device Provisioning Service Data Contributor on the DPS "
        "instance. Or let its firewall accept this network.",
        "403000": "New roles take effect after some minutes: try again. esp-dps explain 403000 has more.",
        "404201": "esp-dps enroll list shows what there is; groups with --group",
        "404202": "it has not registered yet, or by another DPS instance",
        "404": "esp-dps enroll list shows what there is",
        "409": _CHANGED,
        "412": _CHANGED,
        "429": "the service is busy: wait a minute",
    }

    def __init__(self, service: Service, api: str = API) -> None:
        super().__init__(service)
        self.api = api
        self._simulated = service.simulated

    # Enrollments

    def create(self, enrollment: Enrollment) -> Body:
        """The new enrollment as the service has it; one that is there already is left alone: Refused."""
        made: Body = self._json("PUT", _path(enrollment.id, enrollment.group), enrollment.body())
        return made

    def ensure(self, enrollment: Enrollment) -> tuple[Body, bool]:
        """The enrollment, made or there already, and whether it was made. Raises ToolError for another of its id."""
        try:
            return self.create(enrollment), True
        except Refused as refusal:
            if refusal.status not in (409, 412):
                raise
        there = self.show(enrollment.id, enrollment.group)
        reason = enrollment.fits(there, self.mechanism(enrollment.id, enrollment.group))
        if reason:
            words = " --group" if enrollment.group else ""
            hint = f"esp-dps enroll show {enrollment.id}{words}; delete it, or take another id"
            if there.get("provisioningStatus") == "disabled":
                hint = f"esp-dps enroll enable {enrollment.id}{words}"
            raise ToolError(f"{enrollment.id} is there already and {reason}", hint)
        return there, False

    def show(self, id: str, group: bool) -> Body:
        """Without its keys."""
        found: Body = self._json("GET", _path(id, group))
        return found

    def all(self, group: bool) -> Iterator[Body]:
        """All of them, page by page."""
        return self._pages(f"{_base(group)}/query", {"query": "SELECT * FROM " + _base(group)[1:]})

    def enable(self, id: str, group: bool, enabled: bool) -> Body:
        """The enrollment after the change, which touches nothing else: keys that are left out may be made anew."""
        there = self.show(id, group)
        if there["attestation"]["type"] == "symmetricKey":
            there["attestation"] = self.mechanism(id, group)
        there["provisioningStatus"] = "enabled" if enabled else "disabled"
        changed: Body = self._json("PUT", _path(id, group), there, etag=_etag(there))
        return changed

    def delete(self, id: str, group: bool) -> None:
        self._json("DELETE", _path(id, group), etag=_etag(self.show(id, group)))

    def mechanism(self, id: str, group: bool) -> Body:
        """How its devices prove who they are: the one answer with keys in it."""
        found: Body = self._json("POST", f"{_path(id, group)}/attestationmechanism")
        return found

    # Registrations

    def registrations(self, group: str) -> Iterator[Body]:
        """What came of the devices of a group, page by page."""
        return self._pages(f"/registrations/{_name(group)}/query", {"query": "SELECT * FROM registrations"})

    def registration(self, id: str) -> Body:
        found: Body = self._json("GET", f"/registrations/{_name(id)}")
        return found

    def delete_registration(self, id: str) -> None:
        self._json("DELETE", f"/registrations/{_name(id)}", etag=_etag(self.registration(id)))

    # Certificates of authorities: of a simulator only, as Azure has them at its resource manager

    def authorities(self) -> list[Body]:
        found: list[Body] = self._authority("GET")["value"]
        return found

    def authority(self, name: str) -> Body:
        return self._authority("GET", name)

    def upload(self, name: str, pem: str) -> Body:
        """A new one, or another certificate for one that is there; not verified yet."""
        try:
            etag = _etag(self.authority(name))
        except Refused as refusal:
            if refusal.status != 404:
                raise
            etag = ""
        return self._authority("PUT", name, {"properties": {"certificate": pem}}, etag)

    def verification_code(self, name: str) -> tuple[str, str]:
        """A new code, and the etag that its proof has to name."""
        found = self._authority("POST", f"{name}/generateVerificationCode", None, _etag(self.authority(name)))
        return str(found["properties"]["verificationCode"]), _etag(found)

    def verify(self, name: str, proof_pem: str, etag: str) -> Body:
        return self._authority("POST", f"{name}/verify", {"certificate": proof_pem}, etag)

    def delete_authority(self, name: str) -> None:
        self._authority("DELETE", name, None, _etag(self.authority(name)))

    def _authority(self, method: str, path: str = "", body: Any = None, etag: str = "") -> Any:
        if not self._simulated:
            hint = "--az prints the commands of Azure's own tool"
            raise ToolError("certificates of authorities are not in the service API of Azure", hint)
        name, slash, rest = path.partition("/")
        end = f"/{_name(name)}{slash}{rest}" if name else ""
        return self._json(method, f"/certificates{end}", body, etag=etag)


def _base(group: bool) -> str:
    return "/enrollmentGroups" if group else "/enrollments"


def _path(id: str, group: bool) -> str:
    return f"{_base(group)}/{_name(id)}"


def _name(id: str) -> str:
    return quote(check_id(id), safe="")


def _etag(record: Body) -> str:
    """As If-Match takes it: quoted. Raises ToolError where there is none, as the change could undo another one."""
    etag = record.get("etag")
    if not isinstance(etag, str) or not etag or not etag.isprintable():
        raise ToolError("DPS did not say which version that is", "try again")
    return etag if etag.startswith('"') else f'"{etag}"'
