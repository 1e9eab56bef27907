# The issued identity on flash: two files, of which the one in use is never the one being written.
#
# A file is  STATE SHA256 SEQUENCE JSON \n PEM...  with STATE one character: P(ending) until the Hub has accepted the
# certificate, then A(ctive). Only that character is ever overwritten in place; the digest covers all after it.
import json
from binascii import hexlify
from hashlib import sha256

from .errors import AzureError

_SLOTS = ("identity.a", "identity.b")


class Record:
    """One stored identity: hub, device_id (str), not_after (Unix time; 0 without a certificate), path of the PEM."""

    def __init__(self, path, active, sequence, fields):
        self.path = path
        self.active = active
        self.sequence = sequence
        self.hub = fields["hub"] + ""
        self.device_id = fields["device_id"] + ""
        self.not_after = fields["not_after"] + 0


def _load(path):
    # The Record in path, or None if it is not there, half written or damaged.
    try:
        with open(path, "rb") as f:
            head = f.readline(512)
            state, digest, sequence, fields = head.decode().split(" ", 3)
            seen = sha256(head[len(state) + len(digest) + 2 :])
            buf = bytearray(256)
            while True:
                size = f.readinto(buf)
                if not size:
                    break
                seen.update(memoryview(buf)[:size])
        if hexlify(seen.digest()).decode() != digest:
            return None
        return Record(path, state == "A", int(sequence), json.loads(fields))
    except (OSError, ValueError, KeyError, TypeError):  # UnicodeError is a ValueError
        return None


def load(root):
    """The newest Record that the Hub has accepted, else the newest that waits for it, else None."""
    best = None
    for name in _SLOTS:
        record = _load(root + name)
        if record and (not best or (record.active, record.sequence) > (best.active, best.sequence)):
            best = record
    return best


def save(root, hub, device_id, not_before=0, not_after=0, chain=()):
    """Write a pending Record beside the one in use; chain: base64 DER certificates, leaf first."""
    current = load(root)
    path = root + _SLOTS[0]
    sequence = 1
    if current:
        sequence = current.sequence + 1
        if current.path == path:
            path = root + _SLOTS[1]
    head = "%d %s\n" % (
        sequence,
        json.dumps({"hub": hub, "device_id": device_id, "not_before": not_before, "not_after": not_after}),
    )
    digest = sha256(head.encode())
    for line in _pem(chain):
        digest.update(line)
    try:
        with open(path, "wb") as f:
            f.write(("P %s %s" % (hexlify(digest.digest()).decode(), head)).encode())
            for line in _pem(chain):
                f.write(line)
    except OSError as e:
        raise AzureError("store", "certificate", str(e))
    record = _load(path)
    if not record:
        raise AzureError("store", "certificate", "written, but not read back")
    return record


def _pem(chain):
    for text in chain:
        yield b"-----BEGIN CERTIFICATE-----\n"
        for i in range(0, len(text), 64):
            line = text[i : i + 64]
            yield line.encode() if isinstance(line, str) else line
            yield b"\n"
        yield b"-----END CERTIFICATE-----\n"


def activate(record):
    """The Hub has accepted this one."""
    with open(record.path, "r+b") as f:
        f.write(b"A")
    record.active = True
