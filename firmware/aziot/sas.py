# Shared access signatures for DPS and IoT Hub. A token is made for one connection and never printed.
from .keys import sign

_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"


def quote(text):
    """Percent-encode all but RFC 3986 unreserved characters; str -> str."""
    return "".join(chr(c) if c in _PLAIN else "%%%02X" % c for c in text.encode())


def _token(resource, key_b64, expires):
    resource = quote(resource)
    return "SharedAccessSignature sr=%s&sig=%s&se=%d" % (
        resource,
        quote(sign(key_b64, "%s\n%d" % (resource, expires))),
        expires,
    )


def dps_token(id_scope, registration_id, key_b64, expires):
    """SAS token for DPS; expires is Unix time in seconds."""
    return _token("%s/registrations/%s" % (id_scope, registration_id), key_b64, expires) + "&skn=registration"


def hub_token(hub, device_id, key_b64, expires):
    """SAS token for a device at IoT Hub; expires is Unix time in seconds."""
    return _token("%s/devices/%s" % (hub, device_id), key_b64, expires)
