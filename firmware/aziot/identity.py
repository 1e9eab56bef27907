# Who this board is before Azure knows it: configuration and onboarding credential, made on the PC, only read here.
from . import forget
from .errors import AzureError
from .runtime import read, table
from .stream import Stream


class Identity:
    """Reads device.json below root (str ending in "/"); AzureError "config" names what is missing or malformed.

    log(step, text) hears of each step of whatever is done with this identity.
    """

    # What device.json may say, and what holds where it says nothing
    registration_id = ""
    id_scope = ""
    dps_host = "global.azure-devices-provisioning.net"
    port = 8883
    dps_api = "2026-11-01"
    hub_api = "2021-04-12"
    auth = "symmetric-key"  # or "x509"
    payload = {}  # custom JSON for DPS, if connect() is given none
    model_id = ""  # of IoT Plug and Play
    ntp = ["pool.ntp.org"]
    timeout = 30  # seconds for whatever has begun
    token_life = 3600  # seconds; the Hub ends a connection some minutes after its token
    chain = True  # whether the Hub is shown the intermediates, too; the leaf alone saves 3 KB a handshake
    will = ""  # telemetry that the Hub sends itself when the connection is lost
    outbox = 20  # messages that Device.send() keeps
    renew = 66  # percent of a certificate's life, or up to five less
    report = True  # the certificate's dates in the device twin, which the basic tier does not have
    spread = 120  # seconds over which a fleet comes to DPS
    patience = 900  # seconds, or up to twice as many, to wait for a Hub out of reach before DPS is asked
    refusal_patience = 300  # the same for a Hub that refuses a valid identity; 0: ask for a new one at once

    def __init__(self, root="/", log=None):
        self.root = root
        if log:
            self.log = log
        self.secondary = False  # whether the secondary device key is in use
        self.notes = {}  # what to remember of troubles
        self.model = ""  # of the Hub's user name
        config = self.json("device.json")  # what stays of it shall not lie above the module that goes
        from .settings import apply

        apply(self, config)
        forget("settings", "notes", "sas")

    def log(self, step, text):
        pass

    def json(self, name):
        """The JSON object in a file; AzureError "config" if there is none."""
        try:
            value = table(self.root + name)
            if isinstance(value, dict):
                return value
        except (OSError, ValueError):
            pass
        raise AzureError("config", "identity", name)

    def csr(self):
        """The certificate signing request, DER, or None for a board that has none."""
        try:
            csr = read(self.root + "device.csr")
        except OSError:
            return None
        if csr[:1] != b"0" or len(csr) > 2047:  # the tag of a SEQUENCE; of RSA-4096: 1,600
            raise AzureError("csr", "identity")
        return csr

    def password(self, *hub):
        """A fresh SAS token for one connection to DPS, or to (hub, device id); "" with X.509.

        AzureError "clock", "key" or "config".
        """
        if self.auth == "x509":
            return ""
        forget()
        from .sas import password

        token = password(self, *hub)
        forget("sas", "keys")
        return "%s" % token  # a copy, which doesn't lie where those two have lain

    def stream(self, step, record=None):
        """A Stream with this board's roots. It proves who it is by the certificate of a Record, else as in
        onboarding."""
        root = self.root
        pair = ()
        if record and record.not_after:
            pair = record.path, root + "device.key", record.size if self.chain else record.leaf
        elif self.auth == "x509":
            pair = root + "onboarding.crt", root + "onboarding.key"
        return Stream(step, self.timeout, root + "roots.pem", *pair)
