# A board's life with Azure: the cached identity if it works, else DPS; a new certificate counts once the Hub took it.
import gc

from . import clock, store
from .errors import AzureError
from .identity import Identity


class Device:
    """Device.load("/").connect() -> Session."""

    def __init__(self, identity, log=None):
        self.identity = identity
        self.log = log or (lambda step, text: None)

    @staticmethod
    def load(root="/", log=None):
        """The device whose files lie below root; log(step, text) hears of each step. AzureError "config" if they don't fit."""
        device = Device(Identity(root), log)
        identity = device.identity
        device.log("identity", "%s, %s%s" % (identity.registration_id, identity.auth, ", CSR" if identity.csr() else ""))
        return device

    def connect(self):
        """A Session at IoT Hub, by way of DPS if there is no usable identity on flash. Raises AzureError."""
        if not clock.is_set():
            self.log("clock", "%s from %s" % (clock.iso(clock.now()), clock.sync(self.identity.ntp)))
        record = store.load(self.identity.root)
        if record and not 0 < record.not_after <= clock.now():
            try:
                return self._open(record)
            except AzureError as e:
                # Unreachable is waited out by the caller; refused means that only DPS can help.
                if e.retriable or e.code not in ("connack-4", "connack-5", "tls-alert"):
                    raise
                self.log("error", str(e))
        return self._open(self._provision())

    def _open(self, record):
        from .hub import Session

        gc.collect()
        session = Session(
            self.identity, record.hub, record.device_id, record.path if record.not_after else None, self.log
        )
        if not record.active:
            store.activate(record)
        self.log("hub.ready", "%s on %s" % (record.device_id, record.hub))
        return session

    def _provision(self):
        from .dps import register

        gc.collect()
        identity = self.identity
        assignment = register(identity, log=self.log)
        hub, device_id = assignment.assigned_hub, assignment.device_id
        csr = identity.csr()
        chain = assignment.issued_certificate_chain
        if not csr:
            return store.save(identity.root, hub, device_id)
        if not chain:
            raise AzureError("no-certificate", "certificate", "the enrollment issued none for this CSR")
        del assignment
        gc.collect()
        leaf, chain = _check(chain, csr, identity.registration_id)
        self.log("certificate", "%s by %s until %s" % (leaf.subject, leaf.issuer, clock.iso(leaf.not_after)))
        return store.save(identity.root, hub, device_id, leaf.not_before, leaf.not_after, chain)


def _check(chain, csr, name):
    # The leaf is the certificate with our key, wherever it stands. Roots are never sent, so they are not kept.
    from binascii import a2b_base64

    from .x509 import Certificate, check, csr_key

    key = csr_key(csr)
    leaf = None
    kept = []
    for text in chain:
        try:
            certificate = Certificate(a2b_base64(text))
        except (ValueError, TypeError):
            raise AzureError("cert-form", "certificate", "not base64")
        if certificate.key == key:
            leaf = certificate
            kept.insert(0, text)
        elif not certificate.is_root:
            kept.append(text)
    if not leaf:
        raise AzureError("cert-key", "certificate", "issued for another key")
    check(leaf, name, clock.require())
    return leaf, kept
