# A board's life with Azure: by the identity on flash as long as it works, else through DPS. A new certificate counts
# once the Hub has taken it.
from os import urandom

from . import clock, forget
from .clock import due, left
from .errors import AzureError
from .identity import Identity
from .stream import pause


class Device:
    """Device.load("/").connect() -> Session."""

    session = None
    renewal = None  # what renew.py has begun
    payload = None
    outbox = None  # telemetry that the Hub has not acknowledged
    dropped = 0  # messages that send() had no room for
    _trusted = True  # the clock, if it is set at all
    _ask = None  # when DPS is to be asked for a Hub that cannot be reached

    def __init__(self, identity):
        self.identity = identity

    @staticmethod
    def load(root="/", log=None):
        """The device whose files lie below root (str ending in "/"); AzureError "config" if they don't fit.

        log(step, text) hears of each step.
        """
        identity = Identity(root, log)
        csr = ", CSR" if identity.csr() else ""
        identity.log("identity", identity.registration_id + ", " + identity.auth + csr)
        device = Device(identity)
        # A module leaves its names behind when it goes. Each of a start once now, so that they lie at the bottom of the
        # heap and don't break into pieces what is above.
        for name in ("dps", "chain", "x509", "store", "hub") + (("sas", "keys") if identity.auth != "x509" else ()):
            _module(name)
            forget(name)
        return device

    def connect(self, payload=None, renew=False):
        """The Session, connected to IoT Hub: by way of DPS if no identity on flash works, or to renew its certificate.

        payload: custom JSON for DPS; what came back with the last registration is in self.payload. Raises AzureError.
        """
        forget("faults", "renew", "chain")  # of the session before
        try:
            if self.session:
                self.session.close()
            self._connect(payload, renew)
        except MemoryError:
            raise AzureError("memory", "device")
        self._trusted = True
        self._ask = None
        if self.outbox:
            _module("outbox").flush(self)
        return self.session

    def send(self, body, properties=None):
        """Telemetry as by Session.send(), kept while there is no connection -> whether the Hub has it, and all before.

        A bytearray must not change afterwards. When more are kept than "outbox" in device.json says, the oldest goes,
        and self.dropped counts. AzureError "message" for one that the Hub will never take.
        """
        return _module("outbox").send(self, body, properties)

    def _connect(self, payload, renew):
        trusted, self._trusted = self._trusted, False
        identity = self.identity
        log = identity.log
        records = _module("store").load(identity.root)
        # After any failure, and before a certificate is given up for its dates, the clock is set anew.
        if not (trusted and clock.is_set() and all(map(_valid, records))):
            try:
                host = clock.sync(identity.ntp)
                log("clock", "%s from %s" % (clock.iso(clock.now()), host))
            except AzureError:
                if not clock.is_set():
                    raise
        if renew:
            try:
                self._provision(payload, True)
                records = _module("store").load(identity.root)
            except AzureError as e:
                log("error", str(e))
        for record in filter(_valid, records):
            try:
                return self._open(record)
            except AzureError as e:
                # What is refused, or cannot be loaded, only DPS can replace; the rest is waited out by the caller.
                if e.code in ("connack-4", "connack-5", "tls-alert", "config"):
                    log("error", str(e))
                    try:
                        if not record.active:
                            _module("store").refuse(record)
                    except AzureError as full:  # no room to say so is no reason not to try the old one
                        log("error", str(full))
                elif not self._lost():
                    raise
            forget("faults")
        forget("hub", "store")
        if records:  # the whole fleet may be on its way
            seconds = urandom(1)[0] * identity.spread // 255
            log("wait", "%d s, then DPS" % seconds)
            pause(seconds)
        self._provision(payload)
        forget()
        # Not what _provision() had: that lies above the certificate's answer, which is gone now.
        self._open(_module("store").load(identity.root)[0])

    def _lost(self):
        # The Hub is out of reach: is it time to ask DPS where it is now? Some time after the first failure, then ever
        # more rarely; every board draws by lot when exactly.
        ask = self._ask
        if not ask:
            self._patience = self.identity.patience
        elif left(ask) > 0:
            return False
        self._ask = due(self._patience * (1000 + urandom(1)[0] * 4)) or 1
        self._patience = min(self._patience * 2, 43200)
        return ask

    def _open(self, record):
        forget("store")  # TLS will want the certificate in one piece
        session = self.session
        if not session:
            session = _module("hub").Session(self)
        session.open(record)
        self.session = session
        forget("store")

    def _provision(self, payload, renew=False):
        # Register; what came back is on flash then, and the Hub has yet to accept it.
        identity = self.identity
        assignment = _module("dps").register(identity, payload)
        forget("dps", "dps2021", "chain")
        self.renewal = None
        self.payload = assignment.payload
        hub, device_id = assignment.assigned_hub, assignment.device_id
        chain = assignment.issued_certificate_chain
        assignment = None
        csr = identity.csr()
        if csr and chain:
            return self.keep(hub, device_id, chain, csr)
        if csr:
            e = AzureError("no-certificate", "certificate")
            if renew:
                raise e
            identity.log("error", str(e))  # the Hub may still take the onboarding credential
        _module("store").save(identity.root, hub, device_id)

    def keep(self, hub, device_id, chain, csr):
        """An issued chain (list of base64 DER) onto flash, pending; AzureError if it is not ours."""
        identity = self.identity
        subject, issuer, start, end, chain = _module("x509").pick(chain, csr, identity.registration_id)
        forget("x509")
        identity.log("certificate", "%s by %s until %s" % (subject, issuer, clock.iso(end)))
        _module("store").save(identity.root, hub, device_id, start, end, chain)


def _module(name):
    # Not by an import statement: what that binds would keep a module that is to be forgotten.
    return getattr(__import__("aziot." + name), name)


def _valid(record):
    return not record.not_after or record.not_before - 300 <= clock.now() < record.not_after
