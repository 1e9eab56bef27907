"""Who a device is at DPS: the enrollment that its token or its client certificate belongs to.

Judges one CONNECT and keeps nothing of it.
"""

from __future__ import annotations

from typing import Any

from ..errors import ServiceError
from ..memory.records import Enrollment
from ..memory.state import State
from ..names import REGISTRATION_ID
from ..trust import certificates, sas, signers
from ..wire.mqtt import Connect, Refused

# The enrollment, and how registrationState tells the attestation.
Identity = tuple[Enrollment, dict[str, Any]]


def refused(device: str, reason: str) -> Refused:
    return Refused("dps", device, 5, reason)


def is_me(device: str, name: str) -> bool:
    return name.lower() == device.lower()  # registration ids are case-insensitive


def by_token(state: State, id_scope: str, connect: Connect, device: str) -> Identity:
    """The enrollment whose key signed the token. Raises Refused and ServiceError.

    An individual enrollment is the only one that counts for its registration id. A key derived from no group's
    cannot be told from a wrong one, so only where there is no group at all the enrollment is what is missing.
    """
    try:
        token = sas.check(connect.password, f"{id_scope}/registrations/{device}", "registration")
    except sas.BadToken as error:
        raise refused(device, str(error)) from None
    individual = _individual(state, device)
    candidates = [individual] if individual is not None else state.groups()
    if not candidates:
        raise ServiceError(404, 404201, "Enrollment not found.")
    for enrollment in candidates:
        if token.signed_by(enrollment.device_keys(device)):
            return enrollment, {"symmetricKey": {"enrollmentGroupId": enrollment.id} if enrollment.group else {}}
    raise ServiceError(401, 401000, "Unauthorized.")


def by_certificate(state: State, connect: Connect, device: str) -> Identity:
    """The enrollment of the client certificate or of its signer. Raises Refused and ServiceError.

    Seen at the service: a certificate that is not this device's is refused in the CONNACK, and 401002 with one of
    three texts answers the registration of others. Which fault gets which is inference, here and in attestation.py.
    """
    leaf, chain = connect.certificate, connect.chain
    if leaf is None:
        raise refused(device, "neither token nor client certificate")
    name = certificates.common_name(leaf.subject)
    if name is None or not is_me(device, name):
        raise refused(device, "common name of the certificate is not the registration id")
    proof: dict[str, Any] = {"certificateInfo": signers.certificate_info(leaf)}
    enrollment = _individual(state, device)
    if enrollment is not None:
        if not enrollment.certificates:
            raise ServiceError(401, 401002, "Unauthorized.")
        if leaf not in enrollment.certificates:
            raise refused(device, "client certificate is not the enrolled one")
        if certificates.out_of_date(leaf) is not None:
            raise ServiceError(401, 401002, signers.OUT_OF_DATE)
    else:
        # A signer that two groups share counts for the elder.
        enrolled = {signer: group for group in reversed(state.groups()) for signer in state.signers(group)}
        try:
            signer = signers.signer_of(leaf, chain, enrolled)
        except signers.Untrusted as error:
            raise ServiceError(401, 401002, str(error)) from None
        enrollment = enrolled[signer]
        proof["enrollmentGroupId"] = enrollment.id
        proof["signingCertificateInfo"] = signers.certificate_info(signer)
    return enrollment, {"x509": proof}


def _individual(state: State, device: str) -> Enrollment | None:
    """The individual enrollment of a registration id. Raises ServiceError for an id that is none."""
    if not REGISTRATION_ID.fullmatch(device):
        raise ServiceError(400, 400004, "Invalid registration ID.")
    return state.enrollment(device, group=False)
