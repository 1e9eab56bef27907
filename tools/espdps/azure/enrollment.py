"""What an enrollment at DPS is to be, and the service's JSON for it; also the one that fits a device folder.
Speaks to nobody. A key is in the JSON for the service, and in no exception text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from espdps import files
from espdps.credentials import formats, keys, pairs
from espdps.devices import folders
from espdps.errors import WRONG_USE, ToolError

ALLOCATIONS = ("hashed", "geoLatency", "static", "custom")
REPROVISION = ("migrate", "reset", "never")
API = "2026-11-01"  # of the service API: the first that names a policy in full
_NAMES = ("namespaceName", "certificateAuthorityName", "certificatePolicyName")  # by this API, all three or none
_OLD_NAME = "credentialPolicyName"  # by the API before
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
# IoT Hub allows more in names of its own devices, of which + and # cannot be in a topic of MQTT.
_DEVICE_ID = re.compile(r"[A-Za-z0-9._%*?!(),:=@$'-]{1,128}")

Body = dict[str, Any]


@dataclass(frozen=True)
class Key:
    """A symmetric key (base64), and how a shell gets at it without showing it."""

    value: str = field(repr=False)
    shell: str


@dataclass(frozen=True)
class Certificate:
    """A certificate of an enrollment, and its file: the first in it counts."""

    certificate: x509.Certificate
    file: Path

    @property
    def pem(self) -> str:
        return formats.pem(self.certificate).decode()


@dataclass(frozen=True, kw_only=True)
class Enrollment:
    """An individual enrollment, or with `group` a group's. Primary first, and at most two each: `keys` (none: the
    service makes them), `certificates` (the device's, or the signers of a group), `authorities` (names of certificates
    that the service has verified, for a group). `api`: the version of the service API that it is written for.
    `policy`: NAMESPACE/AUTHORITY/POLICY; for an `api` before 2026-11-01 the policy's name alone. `webhook`: URL and API
    version, for custom allocation.
    """

    id: str
    group: bool = False
    keys: Sequence[Key] = ()
    certificates: Sequence[Certificate] = ()
    authorities: Sequence[str] = ()
    device_id: str | None = None
    policy: str | None = None
    reprovision: str = "migrate"
    allocation: str = "hashed"
    hubs: Sequence[str] = ()
    webhook: tuple[Key, str] | None = None
    tags: Body | None = None
    desired: Body | None = None
    edge: bool = False
    enabled: bool = True
    api: str = API

    def __post_init__(self) -> None:
        """Raises ToolError for what no service takes."""
        check_id(self.id)
        if sum(map(bool, (self.keys, self.certificates, self.authorities))) > 1:
            raise ToolError(
                "keys, certificates and names of authorities exclude each other", "give one kind", WRONG_USE
            )
        if self.authorities and not self.group:
            raise ToolError("--ca is for a group", "an individual enrollment has the device's own --cert", WRONG_USE)
        if self.device_id is not None and self.group:
            raise ToolError("--device-id is for an individual enrollment", "leave it or --group out", WRONG_USE)
        if self.allocation == "static" and len(self.hubs) != 1:
            raise ToolError("static allocation has exactly one hub", "give one --hub", WRONG_USE)
        if (self.allocation == "custom") != (self.webhook is not None):
            raise ToolError("custom allocation and --webhook-url-file go together", "give both", WRONG_USE)
        if self.policy is not None:
            self._check_policy(self.policy.split("/"))
        for key in self.keys:
            keys.decode_key(key.value, "enrollment's key")

    def _check_policy(self, names: list[str]) -> None:
        """Raises ToolError."""
        if named_in_full(self.api):
            hint = (
                "Give --credential-policy NAMESPACE/AUTHORITY/POLICY. "
                "Only a namespace from before 2026-11-01 has a name alone: add --api-version 2025-07-01-preview."
            )
        else:
            hint = f"Give the policy's name alone: --api-version {self.api} does not know the other two."
        if len(names) != (3 if named_in_full(self.api) else 1) or "" in names:
            raise ToolError(f"{self.policy!r} does not name a credential policy", hint, WRONG_USE)

    @property
    def attestation(self) -> str:
        """As the service names it."""
        return "x509" if self.certificates or self.authorities else "symmetricKey"

    def body(self) -> Body:
        """The JSON of a PUT. What is left out is the service's own. Raises ToolError."""
        body: Body = {
            "enrollmentGroupId" if self.group else "registrationId": self.id,
            "attestation": self._attestation(),
            "capabilities": {"iotEdge": self.edge},
            "provisioningStatus": "enabled" if self.enabled else "disabled",
            "reprovisionPolicy": {
                "updateHubAssignment": self.reprovision != "never",
                "migrateDeviceData": self.reprovision == "migrate",
            },
            "allocationPolicy": self.allocation,
        }
        if self.hubs:
            body["iotHubs"] = list(self.hubs)
        if self.device_id is not None:
            body["deviceId"] = self.device_id
        if self.policy is not None:
            names = self.policy.split("/")
            body.update(zip(_NAMES if len(names) == 3 else (_OLD_NAME,), names, strict=True))
        if self.webhook is not None:
            url, version = self.webhook
            body["customAllocationDefinition"] = {"webhookUrl": url.value, "apiVersion": version}
        if self.tags is not None or self.desired is not None:
            body["initialTwin"] = {"tags": self.tags or {}, "properties": {"desired": self.desired or {}}}
        return body

    def _attestation(self) -> Body:
        if self.attestation == "symmetricKey":
            pair = dict(zip(("primaryKey", "secondaryKey"), (key.value for key in self.keys), strict=False))
            return {"type": "symmetricKey", "symmetricKey": pair}
        if self.authorities:
            return {"type": "x509", "x509": {"caReferences": _pair(self.authorities)}}
        way = "signingCertificates" if self.group else "clientCertificates"
        return {"type": "x509", "x509": {way: _pair([{"certificate": one.pem} for one in self.certificates])}}

    def fits(self, there: Body, mechanism: Body) -> str:
        """Why a device made for this enrollment would not get in by the one that the service has: "" if it would.

        `there`: as the service answers it, `mechanism`: its attestation with the keys.
        """
        if there.get("provisioningStatus") == "disabled":
            return "is disabled"
        if mechanism.get("type") != self.attestation:
            return f"is by {mechanism.get('type')}"
        if self.keys and self.keys[0].value not in (mechanism.get("symmetricKey") or {}).values():
            return "has other keys"
        x509_part = mechanism.get("x509") or {}
        if self.authorities and not set(self.authorities) <= set((x509_part.get("caReferences") or {}).values()):
            return "names other authorities"
        if self.certificates:
            pair = x509_part.get("signingCertificates" if self.group else "clientCertificates") or {}
            known = {(one.get("info") or {}).get("sha256Thumbprint", "").upper() for one in pair.values() if one}
            if self.certificates[0].certificate.fingerprint(hashes.SHA256()).hex().upper() not in known:
                return "has other certificates"
        if self.policy and not policy_of(there):
            return "has no credential policy, and the board asks for a certificate"
        return ""


def named_in_full(api: str) -> bool:
    """Whether this version of the service API names a policy by namespace, authority and name."""
    return api >= API


def policy_of(there: Body) -> str | None:
    """The policy of an enrollment as the service answers it: in full, or by the API before its name alone."""
    names = [there.get(name) for name in _NAMES]
    return "/".join(map(str, names)) if all(names) else there.get(_OLD_NAME)


def check_id(id: str) -> str:
    """The id of an enrollment, a group or a registration itself, if it can be one. Raises ToolError."""
    if not _ID.fullmatch(id):
        hint = "1 to 128 letters, digits and - . _ : with a letter or digit in front"
        raise ToolError(f"{id!r} is no id of an enrollment", hint, WRONG_USE)
    return id


def check_device_id(id: str) -> str:
    """The id of a device at its hub itself, if it can be one. Raises ToolError."""
    if not _DEVICE_ID.fullmatch(id):
        hint = "1 to 128 letters, digits and - . % _ * ? ! ( ) , : = @ $ '"
        raise ToolError(f"{id!r} is not a device id", hint, WRONG_USE)
    return id


def certificate(path: Path) -> Certificate:
    """The first certificate of a file. Raises ToolError."""
    return Certificate(formats.certificates(files.read(path), str(path))[0], path)


def for_device(
    folder: Path, group: str | None, group_key: Key | None, signer: Path | None, authority: str | None, **fields: Any
) -> Enrollment:
    """The enrollment by which the device of this folder gets in: its own, or `group`, an enrollment group.

    A group by symmetric key needs `group_key`, unless it is there already; one by X.509 `signer`, a file, or
    `authority`, a name. Raises ToolError.
    """
    device = folders.load(folder)
    if fields.get("policy") is None and (folder / "device.csr").is_file():
        hint = "Give --credential-policy NAMESPACE/AUTHORITY/POLICY, or make the device folder with --no-csr."
        raise ToolError(f"{folder.name} asks for a certificate, and no credential policy is named", hint, WRONG_USE)
    id, common = device.registration_id, {"group": group is not None, **fields}
    if device.config.get("auth") != "x509":
        if signer or authority:
            raise ToolError(f"{id} has no certificate to come with", "leave --signer and --ca out", WRONG_USE)
        if group is None:
            key = Key(folders.device_key(folder), f"$(jq -r .device_key {shlex.quote(str(folder / 'secrets.json'))})")
            return Enrollment(id=id, keys=[key], **common)
        if group_key is not None and not made_by(group_key.value, folder, id):
            raise ToolError(f"the device key of {id} is not derived from this group key", "take the one of `new`")
        return Enrollment(id=group, keys=[group_key] if group_key else [], **common)
    if group_key:
        raise ToolError(f"{id} comes with a certificate", "leave --group-key-file out", WRONG_USE)
    path = folder / "onboarding.crt"
    chain = formats.certificates(files.read(path), str(path))
    if group is None:
        if signer or authority:
            raise ToolError("--signer and --ca are for a group", "give --group as well", WRONG_USE)
        return Enrollment(id=id, certificates=[Certificate(chain[0], path)], **common)
    if authority is not None:
        return Enrollment(id=group, authorities=[authority], **common)
    if signer is None:
        raise ToolError(
            f"which authority vouches for {id}?",
            "--signer FILE, its certificate or an intermediate's; or --ca NAME, one that DPS has verified",
            WRONG_USE,
        )
    vouching = certificate(signer)
    if not _leads(chain, vouching.certificate):
        raise ToolError(f"{path} does not lead to {signer}", "take the certificate of the authority that signed it")
    return Enrollment(id=group, certificates=[vouching], **common)


def policy_for(folder: Path, info: dict[str, Any]) -> str | None:
    """The policy of a simulator, by its sim.json, for the device of a folder; None for one without a CSR."""
    return info.get("credential_policy") if (folder / "device.csr").is_file() else None


def made_by(group_key: str, folder: Path, registration_id: str) -> bool:
    """Whether the device key of a folder is derived from this group key (base64). Raises ToolError."""
    return keys.derive_device_key(group_key, registration_id) == folders.device_key(folder)


def _leads(chain: list[x509.Certificate], signer: x509.Certificate) -> bool:
    """Whether a certificate of the chain is the signer's or by the signer; DPS judges the rest."""
    return any((one == signer and one is not chain[0]) or pairs.issued_by(one, signer) for one in chain)


def _pair(values: Sequence[Any]) -> Body:
    return dict(zip(("primary", "secondary"), values, strict=False))
