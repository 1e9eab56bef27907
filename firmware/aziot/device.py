# A board's life with Azure: by the identity on flash as long as it works, else through DPS. A new certificate counts
# once the Hub has taken it.
from os import urandom

from . import clock, forget
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
    trouble = None  # what recover.py has to remember until the next good connection
    renew_from = 0  # Unix time before which a renewal is of no use
    floor = None  # (until when, as in clock.due(), code) DPS wants to be left alone
    _trusted = True  # the clock, if it is set at all

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
        forget("faults", "renew", "chain", "recover")  # of the session before
        try:
            if self.session:
                self.session.close()
            self._connect(payload, renew)
            if self.trouble or "refused" in self.identity.notes:
                _module("recover").well(self)
                forget("recover", "notes", "faults")
        except MemoryError:
            raise AzureError("memory", "device")
        self._trusted = True
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
        records = _module("store").load(identity.root)
        # After any failure, and before a certificate is given up for its dates, the clock is set again.
        if not (trusted and clock.is_set() and all(map(_valid, records))):
            self.set_clock(not clock.is_set())
        if renew:
            try:
                self._provision(payload, self.session.record if self.session else None)
                records = _module("store").load(identity.root)
            except AzureError as e:
                identity.log("error", str(e))
        valid = list(filter(_valid, records))
        for record in valid:
            try:
                return self.open(record)
            except AzureError as e:
                # This raises what is to be waited out.
                if _module("recover").hub(self, record, e, valid):
                    return
        keep = self.trouble and self.trouble.get("keep")
        forget("hub", "store", "faults", "recover")
        if records:  # the whole fleet may be on its way
            seconds = urandom(1)[0] * identity.spread // 255
            identity.log("wait", "%d s, then DPS" % seconds)
            pause(seconds)
        self._provision(payload, keep=keep)
        forget()
        # Not what _provision() had: that lies above the certificate's answer, which is gone now.
        self.open(_module("store").load(identity.root)[0])

    def set_clock(self, needed=True):
        """By the time servers of the settings; AzureError if none answers and that is needed."""
        try:
            host = clock.sync(self.identity.ntp)
            self.identity.log("clock", "%s from %s" % (clock.iso(clock.now()), host))
        except AzureError:
            if needed:
                raise
        forget("ntp")

    def open(self, record):
        """Connect as a Record of the store says."""
        forget("store")  # TLS will want the certificate in one piece
        session = self.session
        if not session:
            session = _module("hub").Session(self)
        session.open(record)
        self.session = session
        forget("store")

    def _provision(self, payload, old=None, keep=None):
        # One registration at DPS. Afterwards what came back is on flash, and the Hub has yet to accept it.
        # old: the Record to renew, or None; keep: a Record that may still be good: DPS is only asked where the Hub is.
        identity = self.identity
        if self.floor:
            _module("recover").rest(self)
        args = identity, payload, identity.timeout if old else 120, not keep
        try:
            assignment = _module("dps").register(*args)
        except AzureError as e:
            assignment = _module("recover").dps(self, e, args)
        forget("dps", "dps2021", "chain", "recover", "faults", "notes")
        self.renewal = None
        self.payload = assignment.payload
        hub, device_id = assignment.assigned_hub, assignment.device_id
        chain = assignment.issued_certificate_chain
        assignment = None
        _module("settings").assigned(hub, device_id)
        forget("settings")
        if keep:
            if (hub, device_id) != (keep.hub, keep.device_id):
                self._provision(payload)
            return
        csr = identity.csr()
        if csr and chain:
            return self.keep(hub, device_id, chain, csr, old)
        if csr:
            e = AzureError("no-certificate", "certificate")
            if old:
                raise e
            identity.log("error", str(e))  # the Hub may still take the onboarding credential
        _module("store").save(identity.root, hub, device_id)

    def keep(self, hub, device_id, chain, csr, old=None):
        """An issued chain (list of base64 DER) onto flash, pending; AzureError if it is not ours, or no better than the
        Record old."""
        identity = self.identity
        least = max(clock.now() + identity.timeout, old.not_after if old else 0)
        args = csr, identity.registration_id, least
        try:
            found = _module("x509").pick(chain, *args)
        except AzureError as e:
            found = _module("recover").certificate(self, e, chain, args)
        subject, issuer, start, end, chain = found
        forget("x509", "recover")
        identity.log("certificate", "%s by %s until %s" % (subject, issuer, clock.iso(end)))
        _module("store").save(identity.root, hub, device_id, start, end, chain, not old)


def _module(name):
    # Not by an import statement: what that binds would keep a module that is to be forgotten.
    return getattr(__import__("aziot." + name), name)


def _valid(record):
    return not record.not_after or record.not_before - 300 <= clock.now() < record.not_after
