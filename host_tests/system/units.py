"""Device folders for tests, made with the same code as `esp-dps new`, and what tests do with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from espdps.simulator import Simulator


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def stored(unit: Path) -> dict[str, bytes]:
    """The issued identity on the board's flash, as bytes."""
    return {path.name: path.read_bytes() for path in unit.glob("identity.*")}


def make_unit(tmp_path: Path, sim: Simulator, registration_id: str = "contoso-0001", kind="ec-p384") -> Path:
    import base64, hashlib, hmac, shutil, sys
    sys.path.insert(0, "/tmp/wt/tools/tools/espdps")
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography import x509
    from cryptography.x509.oid import NameOID
    from cryptography.hazmat.primitives import hashes, serialization as S
    unit = tmp_path / registration_id
    shutil.rmtree(unit, ignore_errors=True); unit.mkdir()
    k=ec.generate_private_key(ec.SECP384R1())
    csr=x509.CertificateSigningRequestBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME,registration_id)])).sign(k,hashes.SHA384())
    (unit/'device.key').write_bytes(k.private_bytes(S.Encoding.DER,S.PrivateFormat.PKCS8,S.NoEncryption())); (unit/'device.csr').write_bytes(csr.public_bytes(S.Encoding.DER))
    i=sim.info; gk=base64.b64decode(i['groups'][0]['primary_key'])
    (unit/'device.json').write_text(json.dumps({'registration_id':registration_id,'id_scope':i['id_scope'],'dps_host':i['host'],'port':i['mqtt_port'],'ntp':['pool.ntp.org'],'timeout':10}))
    (unit/'secrets.json').write_text(json.dumps({'device_key':base64.b64encode(hmac.new(gk,registration_id.encode(),hashlib.sha256).digest()).decode()}))
    shutil.copy(i['roots'],unit/'roots.pem')
    return unit
