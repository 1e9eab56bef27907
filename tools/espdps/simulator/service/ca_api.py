"""Certificates of customers' authorities over HTTPS: upload, and proof that their owner has the key.

Paths and bodies are the ends of those of the DPS resource provider; authorization is the service API's.
"""

from __future__ import annotations

import base64
import datetime
import os
from email.utils import format_datetime
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from ..dps import enrollment_json
from ..errors import ServiceError, timestamp
from ..memory.records import CertificateAuthority, new_etag
from ..memory.state import State
from ..trust import certificates
from .dps_api import check_etag, name_in
from .routes import Api, Routes, answer, dps_error, read_json


class CaApi:
    def __init__(self, state: State) -> None:
        self._state = state

    def add_to(self, routes: Routes) -> None:
        api = Api(None, dps_error, 400004)
        routes.add(api, "GET", "/certificates", self._list)
        routes.add(api, "GET", "/certificates/{id}", self._get)
        routes.add(api, "PUT", "/certificates/{id}", self._put)
        routes.add(api, "DELETE", "/certificates/{id}", self._delete)
        routes.add(api, "POST", "/certificates/{id}/generateVerificationCode", self._code)
        routes.add(api, "POST", "/certificates/{id}/verify", self._verify)

    def _find(self, request: web.Request) -> CertificateAuthority:
        """Raises ServiceError."""
        authority = self._state.authorities.get(name_in(request))
        if authority is None:
            raise ServiceError(404, 404001, "The certificate does not exist.")
        return authority

    async def _list(self, request: web.Request) -> web.Response:
        return answer({"value": [_body(authority) for authority in self._state.authorities.all()]})

    async def _get(self, request: web.Request) -> web.Response:
        return _response(self._find(request))

    async def _put(self, request: web.Request) -> web.Response:
        """``{"properties": {"certificate": …, "isVerified": true}}``: who says verified at once is believed."""
        name, body = name_in(request), await read_json(request)
        existing = self._state.authorities.get(name)
        if existing is not None:
            check_etag(request, existing.etag, required=True)
        properties = body.get("properties", body) if isinstance(body, dict) else None
        if not isinstance(properties, dict):
            raise ServiceError(400, 400004, "properties: missing.")
        certificate = enrollment_json.certificate(properties.get("certificate"))
        authority = CertificateAuthority(name, certificate, verified=properties.get("isVerified") is True)
        if existing is not None:
            authority.created = existing.created
        self._state.authorities.put(authority)
        return _response(authority)

    async def _delete(self, request: web.Request) -> web.Response:
        """A group that still names it knows no signer any more (inference: the service may refuse)."""
        authority = self._find(request)
        check_etag(request, authority.etag, required=True)
        self._state.authorities.remove(authority)
        return web.Response(status=204)

    async def _code(self, request: web.Request) -> web.Response:
        authority = self._find(request)
        check_etag(request, authority.etag, required=True)
        authority.change(code=os.urandom(24).hex().upper(), updated=timestamp(), etag=new_etag())
        return _response(authority, verificationCode=authority.code)

    async def _verify(self, request: web.Request) -> web.Response:
        """``{"certificate": …}``, signed by the authority, with the code as its common name."""
        body = await read_json(request)
        authority = self._find(request)
        check_etag(request, authority.etag, required=True)
        proof = enrollment_json.certificate(body.get("certificate") if isinstance(body, dict) else None)
        if authority.code is None or certificates.common_name(proof.subject) != authority.code:
            raise ServiceError(400, 400004, "The common name of the certificate is not the verification code.")
        if not _signed(proof, authority.certificate):
            raise ServiceError(400, 400004, "The verification certificate is not signed by the one to verify.")
        authority.change(verified=True, code=None, updated=timestamp(), etag=new_etag())
        return _response(authority)


def _signed(proof: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        proof.verify_directly_issued_by(by)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True


def _body(authority: CertificateAuthority, **more: Any) -> dict[str, Any]:
    certificate = authority.certificate
    properties = {
        "subject": certificate.subject.rfc4514_string(),
        "expiry": format_datetime(certificate.not_valid_after_utc, usegmt=True),
        "thumbprint": certificate.fingerprint(hashes.SHA1()).hex().upper(),
        "isVerified": authority.verified,
        "created": _date(authority.created),
        "updated": _date(authority.updated),
        "certificate": base64.b64encode(certificate.public_bytes(Encoding.DER)).decode(),
        **more,
    }
    return {"name": authority.name, "etag": authority.etag, "properties": properties}


def _date(text: str) -> str:
    """In the form that this API has, unlike the others."""
    return format_datetime(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")), usegmt=True)


def _response(authority: CertificateAuthority, **more: Any) -> web.Response:
    return answer(_body(authority, **more), headers={"ETag": authority.etag})
