# HMAC-SHA256 and the keys made with it. Keys never appear in an error.
from binascii import a2b_base64, b2a_base64

from .errors import AzureError
from .runtime import sha256


def hmac_sha256(key, message):
    """RFC 2104 over SHA-256: bytes, bytes -> 32 bytes."""
    if len(key) > 64:
        key = sha256(key).digest()
    inner = _pad(key, 0x36)
    inner.update(message)
    outer = _pad(key, 0x5C)
    outer.update(inner.digest())
    return outer.digest()


def _pad(key, byte):
    return sha256(bytes([k ^ byte for k in key + bytes(64 - len(key))]))


def decode_key(key_b64):
    """base64 str -> bytes; AzureError "key" if it is anything else."""
    # MicroPython's decoder skips what it does not know, so look both ways.
    try:
        key = a2b_base64(key_b64)
        if key and b2a_base64(key).strip() == key_b64.encode():
            return key
    except (ValueError, TypeError, AttributeError):
        pass
    raise AzureError("key", "identity")


def sign(key_b64, text):
    """base64 of HMAC-SHA256 over text with a base64 key."""
    return b2a_base64(hmac_sha256(decode_key(key_b64), text.encode())).strip().decode()


def derive_device_key(group_key, registration_id):
    """The device's key in a symmetric-key enrollment group, base64: HMAC-SHA256(group key, registration id)."""
    return sign(group_key, registration_id)
