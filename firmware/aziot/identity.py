# Who this board is before Azure knows it: configuration and onboarding credential, made on the PC, only read here.
import json
import os

from . import clock
from .errors import AzureError

_ID = "-._:0123456789abcdefghijklmnopqrstuvwxyz"


class Identity:
    """Reads device.json below root (str ending in "/"); AzureError "config" names what is missing or malformed.

    log(step, text) hears of each step of whatever is done with this identity.
    """

    # What device.json may say, and what holds where it says nothing
    registration_id = ""
    id_scope = ""
    dps_host = "global.azure-devices-provisioning.net"
    port = 8883
    dps_api = "2025-07-01-preview"
    hub_api = "2021-04-12"
    auth = "symmetric-key"  # or "x509"
    ntp = ["pool.ntp.org"]
    timeout = 30  # seconds for whatever has begun
    token_life = 3600  # seconds; the Hub ends a connection some minutes after its token

    def __init__(self, root="/", log=None):
        self.root = root
        if log:
            self.log = log
        for name, value in self._json("device.json").items():
            if not name.startswith("_") and hasattr(Identity, name):
                if type(value) is not type(getattr(Identity, name)):
                    raise AzureError("config", "identity", "device.json: wrong type of " + name)
                setattr(self, name, value)
        # Letters, digits and -._: up to 128 (DPS REST specification)
        rid = self.registration_id
        for name, good in (
            ("registration_id", 0 < len(rid) <= 128 and not [c for c in rid.lower() if c not in _ID]),
            ("id_scope", self.id_scope),
            ("auth", self.auth in ("symmetric-key", "x509")),
            ("timeout", 0 < self.timeout <= 600),
        ):
            if not good:
                raise AzureError("config", "identity", "device.json: %s missing or malformed" % name)

    def log(self, step, text):
        pass

    def _json(self, name):
        try:
            with open(self.root + name) as f:
                value = json.load(f)
            if isinstance(value, dict):
                return value
        except (OSError, ValueError, MemoryError):
            pass
        raise AzureError("config", "identity", name + " is missing or not JSON")

    def csr(self):
        """The certificate signing request, DER, or None for a board that has none."""
        path = self.root + "device.csr"
        try:
            size = os.stat(path)[6]
        except OSError:
            return None
        csr = b""
        if size < 4096:  # the service takes 8 KB of base64
            with open(path, "rb") as f:
                csr = f.read(size)
        if csr[:1] != b"0":  # the tag of a SEQUENCE
            raise AzureError("csr", "identity", "device.csr is not DER")
        return csr

    def _token(self, make, *resource):
        # A fresh token for one connection; none where a certificate speaks. Nobody signs by a clock that is not set.
        if self.auth == "x509":
            return ""
        secrets = self._json("secrets.json")
        key = secrets.get("device_key")
        if not key:
            if not secrets.get("group_key"):
                raise AzureError("config", "identity", "secrets.json lacks device_key")
            from .keys import derive_device_key

            self.log("warning", "the group key is on this board: for development only")
            key = derive_device_key(secrets["group_key"], self.registration_id)
        return make(*resource, key, clock.require() + self.token_life)

    def dps_password(self):
        """SAS token for DPS, "" with X.509; AzureError "clock", "key" or "config"."""
        from .sas import dps_token

        return self._token(dps_token, self.id_scope, self.registration_id)

    def hub_password(self, hub, device_id):
        """The same for IoT Hub: a symmetric-key enrollment's device key is the Hub's too."""
        from .sas import hub_token

        return self._token(hub_token, hub, device_id)

    def stream(self, step, issued=None):
        """A Stream with this board's roots. It proves who it is by an issued certificate (path of a PEM), else as in
        onboarding."""
        from .stream import Stream

        root = self.root
        if issued:
            pair = issued, root + "device.key"
        elif self.auth == "x509":
            pair = root + "onboarding.crt", root + "onboarding.key"
        else:
            pair = None, None
        return Stream(step, self.timeout, root + "roots.pem", *pair)
