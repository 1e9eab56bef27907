"""How the commands of `enroll` show an enrollment and a registration. Keys are not in what they get."""

from __future__ import annotations

from espdps.azure import enrollment, service_client
from espdps.azure.enrollment import Body
from espdps.commands import output


def changed(record: Body, done: str, as_json: bool) -> None:
    """Says what was done to an enrollment."""
    one = row(record)
    if as_json:
        output.print_json(one)
    else:
        what = f"{one['kind']} {one['id']}"
        output.out.print(f"{what}: {done}, {one['attestation']}, {policy(record)}", soft_wrap=True)


def policy(record: Body) -> str:
    """Whether its devices get certificates, for a sentence."""
    named = enrollment.policy_of(record)
    return f"certificates by policy {service_client.plain(named)}" if named else "no certificates issued"


def row(record: Body) -> Body:
    group = "enrollmentGroupId" in record
    return {
        "id": record["enrollmentGroupId" if group else "registrationId"],
        "kind": "group" if group else "individual",
        "attestation": record["attestation"]["type"],
        "status": record.get("provisioningStatus"),
        "policy": enrollment.policy_of(record),
        "allocation": record.get("allocationPolicy"),
        "hubs": record.get("iotHubs") or [],
    }


def registration(record: Body) -> Body:
    names = ("registrationId", "deviceId", "assignedHub", "status", "substatus", "lastUpdatedDateTimeUtc")
    keys = ("registration", "device", "hub", "status", "substatus", "updated")
    return {key: record.get(name) for key, name in zip(keys, names, strict=True)}
