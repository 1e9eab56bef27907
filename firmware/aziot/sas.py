# Shared access signatures for DPS and IoT Hub. A token is made for one connection and never printed.
from . import clock
from .errors import AzureError


def quote(text):
    """Percent-encode all but RFC 3986 unreserved characters; str -> str."""
    # By bytes: a text of one letter, once made, stays in the heap among the names.
    out = b""
    for c in text.encode():
        letter = bytes([c])
        out += letter if letter.isalpha() or letter in b"0123456789-._~" else b"%%%02X" % c
    return out.decode()


def _token(path, key_b64, expires):
    from .keys import sign

    path = quote(path)
    signature = quote(sign(key_b64, "%s\n%d" % (path, expires)))
    return "SharedAccessSignature sr=%s&sig=%s&se=%d" % (path, signature, expires)


def dps_token(id_scope, registration_id, key_b64, expires):
    """SAS token for DPS; expires is Unix time in seconds."""
    return _token("%s/registrations/%s" % (id_scope, registration_id), key_b64, expires) + "&skn=registration"


def hub_token(hub, device_id, key_b64, expires):
    """SAS token for a device at IoT Hub; expires is Unix time in seconds."""
    return _token("%s/devices/%s" % (hub, device_id), key_b64, expires)


def password(identity, *hub):
    """A token with the key of an Identity, for DPS or for (hub, device id): a symmetric-key enrollment's device key is
    the Hub's too. AzureError "config", "key", or "clock": nothing is signed by a clock that is not set.

    It is valid for an hour longer than "token_life" says, because the board's clock may be an hour behind.
    """
    from .keys import derive_device_key  # before there is garbage: the table of modules may grow, and stays there

    if not clock.is_set():
        raise AzureError("clock", "clock")
    name = identity.registration_id
    secrets = identity.json("secrets.json")
    key = identity.secondary and secrets.get("secondary_device_key") or secrets.get("device_key")
    if not key:
        if not secrets.get("group_key"):
            raise AzureError("config", "identity", "device_key")
        identity.log("warning", "group key: development only")
        key = derive_device_key(secrets["group_key"], name)
    expires = clock.now() + identity.token_life + 3600
    return hub_token(*hub, key, expires) if hub else dps_token(identity.id_scope, name, key, expires)
