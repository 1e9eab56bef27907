"""The pinned roots: which two certificates they are, that each is a root in its dates, and that others can be given."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from pki import Authority, private_pem

from espdps.credentials import roots
from espdps.errors import ToolError


def test_azures_roots_are_the_two_that_are_pinned() -> None:
    certificates = x509.load_pem_x509_certificates(roots.azure_roots())
    found = {}
    for certificate in certificates:
        assert certificate.issuer == certificate.subject
        certificate.verify_directly_issued_by(certificate)  # its own signature
        assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        name = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
        found[name] = certificate.fingerprint(hashes.SHA256()).hex()
    assert found == roots.AZURE and len(certificates) == 2


def test_they_are_valid_for_years() -> None:
    now = datetime.now(timezone.utc)
    for certificate in x509.load_pem_x509_certificates(roots.azure_roots()):
        assert certificate.not_valid_before_utc < now < certificate.not_valid_after_utc - timedelta(days=5 * 365)


def test_a_bundle_without_one_of_them_is_no_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(Authority("not pinned").pem)
    monkeypatch.setattr(roots.certifi, "where", lambda: str(bundle))
    with pytest.raises(ToolError, match="no longer has DigiCert Global Root G2") as caught:
        roots.azure_roots()
    assert "--roots FILE" in caught.value.hint


def test_others_from_a_file_come_without_what_else_is_in_it(tmp_path: Path) -> None:
    mine, file = Authority("mine"), tmp_path / "mine.pem"
    file.write_bytes(private_pem(mine.key) + mine.pem)
    assert roots.read_roots(file) == mine.pem
