import json

import vectors
from aziot.identity import Identity
from check import Folder, raises, write

CONFIG = {"registration_id": "contoso-0001", "id_scope": "0ne00C0FFEE"}


def test_defaults_are_azure_s():
    with Folder() as root:
        write(root + "device.json", json.dumps(CONFIG))
        identity = Identity(root)
        assert identity.dps_host == "global.azure-devices-provisioning.net"
        assert (identity.port, identity.auth, identity.dps_api) == (8883, "symmetric-key", "2025-07-01-preview")
        assert identity.csr() is None


def test_what_is_missing_is_named():
    with Folder() as root:
        assert "device.json" in str(raises("config", Identity, root))
        for content, word in (("{", "device.json"), ("[]", "device.json"), ('{"id_scope": "0ne"}', "registration_id")):
            write(root + "device.json", content)
            assert word in str(raises("config", Identity, root))


def test_tokens_need_a_key_and_never_show_it():
    with Folder() as root:
        write(root + "device.json", json.dumps(CONFIG))
        identity = Identity(root)
        assert "secrets.json" in str(raises("config", identity.dps_password))
        write(root + "secrets.json", "{}")
        assert "device_key" in str(raises("config", identity.dps_password))
        write(root + "secrets.json", json.dumps({"device_key": vectors.DEVICE_KEY}))
        token = identity.dps_password()
        assert token.startswith("SharedAccessSignature sr=0ne00C0FFEE%2Fregistrations%2Fcontoso-0001&sig=")
        assert token.endswith("&skn=registration")
        assert vectors.DEVICE_KEY not in token


def test_a_request_in_pem_is_found_here():
    with Folder() as root:
        write(root + "device.json", json.dumps(CONFIG))
        write(root + "device.csr", b"-----BEGIN CERTIFICATE REQUEST-----")
        raises("csr", Identity(root).csr)
