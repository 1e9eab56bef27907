# A board's life with Azure: the cached identity if it works, else DPS; a new certificate counts once the Hub took it.
import gc
import sys

from . import clock, store
from .errors import AzureError
from .identity import Identity


def forget(*names):
    # The modules of a stage that is over. Their bytecode lies in the heap, and no stage needs another's.
    package = sys.modules["aziot"]
    for name in names:
        if sys.modules.pop("aziot." + name, None):
            delattr(package, name)
    gc.collect()


class Device:
    """Device.load("/").connect() -> Session."""

    def __init__(self, identity):
        self.identity = identity

    @staticmethod
    def load(root="/", log=None):
        """The device whose files lie below root (str ending in "/"); AzureError "config" if they don't fit.

        log(step, text) hears of each step.
        """
        identity = Identity(root, log)
        identity.log(
            "identity", "%s, %s%s" % (identity.registration_id, identity.auth, ", CSR" if identity.csr() else "")
        )
        return Device(identity)

    def connect(self, payload=None):
        """A Session at IoT Hub, by way of DPS if there is no usable identity on flash. Raises AzureError.

        payload: custom JSON for DPS; what came back is in self.payload after a registration, else None.
        """
        try:
            return self._connect(payload)
        except MemoryError:
            raise AzureError("memory", "device")

    def _connect(self, payload):
        forget("faults")  # of the failure before
        identity = self.identity
        if not clock.is_set():
            host = clock.sync(identity.ntp)
            identity.log("clock", "%s from %s" % (clock.iso(clock.now()), host))
        self.payload = None
        for record in store.load(identity.root):
            if 0 < record.not_after <= clock.now():
                continue
            try:
                return self._open(record)
            except AzureError as e:
                # Unreachable is waited out by the caller; what is refused, or cannot be loaded, only DPS can replace.
                if e.code not in ("connack-4", "connack-5", "tls-alert", "config"):
                    raise
                identity.log("error", str(e))
                if not record.active:
                    store.refuse(record)
        record = None
        forget("hub", "faults")
        return self._open(self._provision(payload))

    def _open(self, record):
        from .hub import Session

        identity = self.identity
        session = Session(identity, record.hub, record.device_id, record)
        if not record.active:
            store.activate(record)
        identity.log("hub.ready", "%s on %s" % (record.device_id, record.hub))
        return session

    def _provision(self, payload):
        identity = self.identity
        assignment = _register(identity, payload)
        forget("dps", "dps2021", "sas", "keys")
        self.payload = assignment.payload
        hub, device_id = assignment.assigned_hub, assignment.device_id
        csr = identity.csr()
        chain = csr and assignment.issued_certificate_chain
        if not chain:
            if csr:
                # The Hub may still take the onboarding credential.
                identity.log(
                    "error", "certificate no-certificate the enrollment has no credential policy, or ignored the CSR"
                )
            return store.save(identity.root, hub, device_id)
        assignment = None
        subject, issuer, start, end, chain = _pick(chain, csr, identity.registration_id)
        forget("x509")
        identity.log("certificate", "%s by %s until %s" % (subject, issuer, clock.iso(end)))
        return store.save(identity.root, hub, device_id, start, end, chain)


def _register(identity, payload):
    from .dps import register

    return register(identity, payload)


def _pick(chain, csr, name):
    from .x509 import pick

    return pick(chain, csr, name)
