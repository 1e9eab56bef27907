# Who this board is before Azure knows it: configuration and onboarding credential, made on the PC, only read here.
import json

from micropython import const

from . import clock
from .errors import AzureError

_TOKEN_LIFE = const(3600)  # seconds; the service ends a connection some minutes after its token


class Identity:
    """Reads device.json below root (str ending in "/"); AzureError "config" names what is missing or malformed."""

    def __init__(self, root="/"):
        self.root = root
        config = self._json("device.json")
        for name, default in (
            ("registration_id", None),
            ("id_scope", None),
            ("dps_host", "global.azure-devices-provisioning.net"),
            ("port", 8883),
            ("dps_api", "2025-07-01-preview"),
            ("hub_api", "2021-04-12"),
            ("auth", "symmetric-key"),
            ("ntp", ("pool.ntp.org",)),
            ("timeout", 30),  # seconds
        ):
            value = config.get(name, default)
            if value is None:
                raise AzureError("config", "identity", "device.json lacks " + name)
            setattr(self, name, value)

    def _json(self, name):
        try:
            with open(self.root + name) as f:
                value = json.load(f)
            if isinstance(value, dict):
                return value
        except (OSError, ValueError):
            pass
        raise AzureError("config", "identity", name + " is missing or not JSON")

    def csr(self):
        """The certificate signing request, DER, or None for a board that has none."""
        try:
            with open(self.root + "device.csr", "rb") as f:
                csr = f.read()
        except OSError:
            return None
        if csr[:1] != b"0":  # the tag of a SEQUENCE
            raise AzureError("csr", "identity", "device.csr is not DER")
        return csr

    def device_key(self):
        try:
            return self._json("secrets.json")["device_key"]
        except KeyError:
            raise AzureError("config", "identity", "secrets.json lacks device_key")

    def dps_password(self):
        """A SAS token for DPS that lives for an hour; "" where a client certificate speaks. Needs a set clock."""
        if self.auth == "x509":
            return ""
        from .sas import dps_token

        return dps_token(self.id_scope, self.registration_id, self.device_key(), clock.require() + _TOKEN_LIFE)

    def hub_password(self, hub, device_id):
        """The same for IoT Hub: a symmetric-key enrollment's device key is the Hub's too."""
        from .sas import hub_token

        return hub_token(hub, device_id, self.device_key(), clock.require() + _TOKEN_LIFE)

    def stream(self, step, certificate=None):
        """A Stream with this board's roots, and with certificate (a path, PEM) if there is one."""
        from .stream import Stream

        return Stream(step, self.timeout, self.root + "roots.pem", certificate, self.root + "device.key")
