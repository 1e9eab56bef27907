# The issued identity on flash: two files of fixed size, of which the one in use is never the one being written.
#
# A file is one line  STATE SHA256 SEQUENCE NOT_BEFORE NOT_AFTER HUB DEVICE_ID  and the chain as PEM; empty lines fill
# the rest. STATE is P(ending) until the Hub has accepted the identity, then A(ctive), or X when the Hub has refused it;
# only this character ever changes by itself. The digest covers what follows it, up to the first empty line.
# Files are overwritten in place, never renamed or cut off: FAT has no atomic replace, and a file that keeps its place
# and its size cannot lose its directory entry.
from .errors import AzureError
from .runtime import sha256


class Record:
    """One stored identity.

    path; size: bytes of the file that are the record, the rest is padding; leaf: bytes up to the end of the first
    certificate; active: the Hub has accepted it; sequence: the higher, the newer; hub, device_id: str; not_before,
    not_after: Unix time, 0 without a certificate;
    spread: 0 to 255, random, but the same as long as this record lives.
    """

    # It has no methods, for by one of those it would keep this module in the heap.
    leaf = 0


def _record(path):
    record = Record()
    record.path = path
    with open(path, "rb") as f:
        line = f.readline(512)
        state, digest, *numbers, record.hub, record.device_id = line.decode().split()
        record.sequence, record.not_before, record.not_after = map(int, numbers)
        line = line[67:]  # what the digest covers
        seen = sha256()
        while line > b"\n":
            seen.update(line)
            record.size = f.tell()
            if not record.leaf and line[:8] == b"-----END":
                record.leaf = record.size
            line = f.readline(99)
    seen = seen.digest()
    if seen.hex() != digest or state == "X":
        raise ValueError
    record.active = state == "A"
    record.spread = seen[0]
    return record


def load(root):
    """The Records below root in the order in which to try them, two at most: the newest down to the newest active."""
    found = []
    newest = 0
    for path in (root + "identity.a", root + "identity.b"):
        try:
            record = _record(path)
            found.insert(1 if record.sequence < newest else 0, record)
            newest = record.sequence
        except (OSError, ValueError):  # not there, half written, damaged, refused
            pass
    return found[:1] if found and found[0].active else found


def save(root, hub, device_id, not_before=0, not_after=0, chain=(), over=False):
    """Write a pending Record beside the active one, or else beside the newest one.

    chain: base64 DER certificates (str or bytes-like), leaf first; over: where that file cannot be written, the other
    one may be, since what is in it is of no use now. AzureError "store" with the filesystem's words, or "size" if the
    chain is too big for a slot, or "digest" if what was written cannot be read back.
    """
    paths = ["identity.a", "identity.b"]
    sequence = 1
    found = load(root)
    if found:
        sequence += found[0].sequence
        if found[-found[-1].active].path == root + paths[0]:  # the active one is the last
            paths.reverse()
    head = "%d %d %d %s %s\n" % (sequence, not_before, not_after, hub, device_id)
    digest = sha256(head.encode())
    # The size of a file has room for four certificates of RSA-4096, and takes just three blocks of LittleFS.
    size = 12000 - 67 - len(head)
    for line in _pem(chain):
        digest.update(line)
        size -= len(line)
    head = "P %s %s" % (digest.digest().hex(), head)
    for path in paths if over or not found else paths[:1]:
        try:
            _write(root + path, head, chain, size)
            error = AzureError("store", "certificate", "digest")
        except AzureError as e:
            error = e
        for record in load(root):
            if record.sequence == sequence:
                return record
    raise error


def _pem(chain):
    end = b" CERTIFICATE-----\n"
    for text in chain:
        yield b"-----BEGIN" + end
        for i in range(0, len(text), 64):
            line = text[i : i + 64]
            yield line.encode() if isinstance(line, str) else line
            yield b"\n"
        yield b"-----END" + end


def activate(record):
    """The Hub has accepted this one. AzureError "store" if that cannot be written."""
    _write(record.path, "A")
    record.active = True


def refuse(record):
    """The Hub has refused this one: it is never loaded again. AzureError "store" if that cannot be written."""
    _write(record.path, "X")


def _write(path, head, chain=(), size=0):
    # At the beginning of a file, which stays where it is; size: of the padding.
    try:
        if size < 0:
            raise OSError("size")
        open(path, "ab").close()  # makes it, if it is not there
        with open(path, "r+b") as f:
            f.write(head.encode())
            for line in _pem(chain):
                f.write(line)
            for _ in range(size):
                f.write(b"\n")
    except OSError as e:
        raise AzureError("store", "certificate", str(e))
